"""What a table holds, for a test to look at."""

import pytest

from paperboy.errors import TableError
from paperboy.tables.table import Entry
from paperboy.testing import TableView


def test_a_view_is_a_mapping() -> None:
    view = TableView("t", [Entry(0, "a", 1), Entry(1, "b", 2)])
    assert view["a"] == 1
    assert view == {"a": 1, "b": 2}
    assert view != {"a": 1}
    assert list(view) == ["a", "b"]
    assert dict(view) == {"a": 1, "b": 2}
    assert len(view) == 2
    assert "a" in view
    assert "c" not in view
    assert view.get("c") is None
    with pytest.raises(KeyError, match="c"):
        view["c"]


def test_a_view_shows_itself_where_an_assertion_fails() -> None:
    view = TableView("t", [Entry(0, "a", 1), Entry(0, "b", 2), Entry(1, "b", 3)])
    assert repr(view) == "<table t: {'a': 1, 'b': 2 in partition 0, 'b': 3 in partition 1}>"


def test_a_key_of_several_partitions_is_refused() -> None:
    view = TableView("t", [Entry(0, "a", 1), Entry(2, "a", 1)])
    with pytest.raises(
        TableError, match=r"Key 'a' of table 't' stands in partitions 0 and 2: .* t.table\('t', partition=0\)"
    ):
        view["a"]
    with pytest.raises(TableError):
        assert view == {"a": 1}
    assert list(view) == ["a"]


def test_keys_that_python_holds_to_be_equal_are_told_apart() -> None:
    view = TableView("t", [Entry(0, 1, "int"), Entry(0, 1.0, "float"), Entry(0, True, "bool")])
    assert [view[1], view[1.0], view[True]] == ["int", "float", "bool"]
    assert len(view) == 3


def test_keys_that_cannot_be_hashed_can_be_asked_for() -> None:
    view = TableView("t", [Entry(0, ["a"], 1)])
    assert view[["a"]] == 1
    assert ["b"] not in view
