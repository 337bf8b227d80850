"""What a global table shows of the stores underneath it, one for each partition of its topic."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy import ConfigurationError, DeserializationError, GlobalTable, SerializationError, TableError
from paperboy.brokers.partitioner import partition_for_key
from paperboy.serializers import Json, String
from paperboy.tables.stores.memory import MemoryStore
from tests.contract.engine.kit import entry


def over(*partitions: Mapping[Any, Any], **options: Any) -> GlobalTable:
    """A table in our own format that is complete, with these entries in its partitions."""
    table = GlobalTable("texts", "texts-topic", **options)
    stores = [MemoryStore("texts") for _ in partitions]
    for store, entries in zip(stores, partitions, strict=True):
        store.write(dict(entry(key, value) for key, value in entries.items()), 1, 0)
    table.attach(lambda: stores)
    return table


def own_partition(key: Any, partitions: int) -> int:
    return partition_for_key(entry(key, None)[0], partitions)


# --- Single keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partition", [0, 1, 2])
def test_a_key_is_found_in_whichever_partition_it_stands(partition: int) -> None:
    entries: list[dict[Any, Any]] = [{}, {}, {}]
    entries[partition]["anna"] = 7
    table = over(*entries)
    assert table.get("anna") == table["anna"] == 7
    assert "anna" in table
    assert table.get_many(["anna", "bert"]) == [7, None]
    assert (table.get("bert"), table.get("bert", 0), "bert" in table) == (None, 0, False)


def test_of_a_key_in_several_partitions_the_one_in_its_own_counts() -> None:
    names = ["anna", "bert", "carl", "dora"]
    table = over(*(dict.fromkeys(names, partition) for partition in range(5)))
    expected = [own_partition(name, 5) for name in names]
    assert len(set(expected)) > 2, "else this would show nothing"
    assert [table[name] for name in names] == table.get_many(names) == expected


def test_of_a_key_in_several_partitions_none_of_them_its_own_the_first_counts() -> None:
    own = own_partition("anna", 5)
    table = over(*({} if partition == own else {"anna": partition} for partition in range(5)))
    first = min({0, 1} - {own})
    assert table["anna"] == table.get_many(["anna"])[0] == first


@given(
    st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers()), min_size=1, max_size=4),
    st.lists(st.sampled_from("abcdefgh"), max_size=12),
)
def test_get_many_is_as_many_gets(partitions: list[dict[str, int]], keys: list[str]) -> None:
    table = over(*partitions)
    assert table.get_many(keys, "gone") == [table.get(key, "gone") for key in keys]
    assert [key in table for key in keys] == [any(key in entries for entries in partitions) for key in keys]


def test_without_a_default_a_missing_key_is_a_key_error() -> None:
    table = over({"anna": None})
    assert table["anna"] is None
    with pytest.raises(KeyError, match="bert"):
        table["bert"]


def test_a_default_is_read_where_nothing_is_and_a_factory_makes_a_new_one_each_time() -> None:
    table = over({}, default=list)
    table["anna"].append(1)
    assert (table["anna"], table.get("anna"), table.get_many(["anna"]), table.get("anna", 0)) == ([], [], [[]], 0)
    assert "anna" not in table
    with pytest.raises(ConfigurationError, match="give a factory"):
        over({}, default=[])


def test_a_value_that_is_changed_after_it_was_read_does_not_change_the_table() -> None:
    table = over({"anna": [1]})
    table["anna"].append(2)
    assert table["anna"] == [1]


def test_what_cannot_be_a_key_is_refused_with_the_tables_name() -> None:
    table = over({})
    for ask in (lambda: table.get([1]), lambda: [1] in table, lambda: table.get_many([[1]])):
        with pytest.raises(SerializationError, match=r"Global table 'texts', key \[1\]: A key is"):
            ask()


# --- Scans -----------------------------------------------------------------------------------------------------------


def test_a_scan_gives_all_partitions_in_the_order_of_keys() -> None:
    table = over({"a": 1, "c": 3, 7: "int"}, {"b": 2, "d": 4}, {})
    assert list(table.items()) == [(7, "int"), ("a", 1), ("b", 2), ("c", 3), ("d", 4)]
    assert list(table.keys()) == [7, "a", "b", "c", "d"]
    assert list(table.values()) == ["int", 1, 2, 3, 4]
    assert list(table.keys(reverse=True)) == ["d", "c", "b", "a", 7]
    assert list(table.keys(limit=2)) == [7, "a"]
    assert list(table.keys(limit=2, reverse=True)) == ["d", "c"]
    assert list(table.keys(limit=0)) == []
    assert list(table.keys(start="b", stop="d")) == ["b", "c"]
    assert list(table.keys(start="b", stop="d", reverse=True, limit=1)) == ["c"]
    assert table.len_estimate() == 5


def test_a_prefix_is_of_str_bytes_and_tuples() -> None:
    table = over({"no": 1, "norway": 2, ("no", 1): 3}, {"o": 4, b"no": 5, ("no", 2): 6, ("nor", 1): 7})
    assert list(table.keys(prefix="no")) == ["no", "norway"]
    assert list(table.keys(prefix=b"no")) == [b"no"]
    assert list(table.keys(prefix=("no",))) == [("no", 1), ("no", 2)]


def test_with_a_key_serializer_a_prefix_is_bytes() -> None:
    table = GlobalTable("texts", "texts-topic", key_serializer=String(), value_serializer=Json())
    store = MemoryStore("texts")
    store.write({b"no": b"1", b"norway": b"[2]"}, 1, 0)
    table.attach(lambda: [store])
    assert list(table.items(prefix=b"nor")) == [("norway", [2])]
    with pytest.raises(SerializationError, match="Global table 'texts', prefix 'nor': a prefix is bytes"):
        table.items(prefix="nor")


def test_a_key_in_several_partitions_comes_once_for_each_in_their_order() -> None:
    table = over({"a": 0, "b": 0}, {"b": 1}, {"a": 2, "b": 2})
    assert list(table.items()) == [("a", 0), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_shows_the_table_as_it_was_when_it_was_asked_for(reverse: bool) -> None:
    stores = [MemoryStore("texts"), MemoryStore("texts")]
    stores[0].write(dict([entry("a", 1), entry("c", 1)]), 1, 0)
    stores[1].write(dict([entry("b", 1)]), 1, 0)
    table = GlobalTable("texts", "texts-topic")
    table.attach(lambda: stores)
    not_begun, begun = table.items(reverse=reverse), table.items(reverse=reverse)
    next(begun)
    stores[0].write({**dict([entry("a", 2), entry("d", 2)]), entry("c", 1)[0]: None}, 2, 0)
    stores[1].write(dict([entry("b", 2)]), 2, 0)
    expected = [("a", 1), ("b", 1), ("c", 1)][:: -1 if reverse else 1]
    assert list(not_begun) == expected
    assert list(begun) == expected[1:]
    assert list(table.items()) == [("a", 2), ("b", 2), ("d", 2)]


def test_arguments_of_a_scan_that_do_not_go_together_are_refused() -> None:
    table = over({})
    with pytest.raises(TableError, match="'texts': a scan takes a prefix, or a start and a stop"):
        table.items(prefix="a", start="b")
    with pytest.raises(TableError, match="'texts': a scan cannot be limited to -1"):
        table.keys(limit=-1)


def test_a_scan_ends_with_the_store() -> None:
    store = MemoryStore("texts")
    store.write(dict([entry("a", 1), entry("b", 1)]), 1, 0)
    table = GlobalTable("texts", "texts-topic")
    table.attach(lambda: [store])
    scan = table.items()
    next(scan)
    store.close()
    with pytest.raises(TableError, match="closed"):
        next(scan)


def test_it_is_not_iterated_by_accident() -> None:
    with pytest.raises(TypeError):
        iter(over({0: "a"}))


# --- What cannot be read ---------------------------------------------------------------------------------------------


def unreadable() -> GlobalTable:
    stores = [MemoryStore("texts"), MemoryStore("texts")]
    stores[1].write({**dict([entry("a", 1), entry("z", 1)]), entry("b", 1)[0]: b"{}", b"foreign": b"\x01\x07"}, 1, 0)
    table = GlobalTable("texts", "texts-topic")
    table.attach(lambda: stores)
    return table


def test_a_value_that_cannot_be_read_names_table_topic_partition_key_and_the_way_out() -> None:
    table = unreadable()
    sentence = (
        r"^Global table 'texts', texts-topic\[1\], the value of key 'b': .* Give the table the value_serializer=… that"
        r" its topic is written with, or write this key to the topic again\.$"
    )
    for ask in (lambda: table.get("b"), lambda: table["b"], lambda: table.get_many(["a", "b"])):
        with pytest.raises(DeserializationError, match=sentence):
            ask()
    assert "b" in table
    assert table.get_many(["a", "z"]) == [1, 1]


@pytest.mark.parametrize(
    ("scan", "expected"),
    [
        (GlobalTable.items, [("a", 1), "value of key 'b'", ("z", 1), "key b'foreign'"]),
        (GlobalTable.keys, ["a", "b", "z", "key b'foreign'"]),
        (GlobalTable.values, [1, "value of key 'b'", 1, 7]),
    ],
)
def test_a_scan_goes_on_behind_what_cannot_be_read(scan: Callable[[GlobalTable], Any], expected: list[Any]) -> None:
    """With the one behind it, where it is asked for that."""
    entries = scan(unreadable())
    found: list[Any] = []
    while True:
        try:
            found.append(next(entries))
        except DeserializationError as error:
            found.append(str(error).split("the ", 1)[1].split(":")[0])
        except StopIteration:
            break
    assert found == expected


def test_the_value_under_a_key_that_cannot_be_read_either_is_named_by_its_bytes() -> None:
    store = MemoryStore("texts")
    store.write({b"foreign": b"{}"}, 1, 0)
    table = GlobalTable("texts", "texts-topic")
    table.attach(lambda: [store])
    with pytest.raises(DeserializationError, match=r"the value of key b'foreign': "):
        next(table.values())


# --- What it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda table: table.set("a", 1),
        lambda table: table.delete("a"),
        lambda table: table.update("a", lambda value: value, default=0),
        lambda table: table.set_many({"a": 1}),
        lambda table: table.delete_many(["a"]),
        lambda table: table.__setitem__("a", 1),
        lambda table: table.__delitem__("a"),
    ],
    ids=["set", "delete", "update", "set_many", "delete_many", "[]=", "del"],
)
def test_writing_is_refused(write: Callable[[GlobalTable], object]) -> None:
    table = over({"a": 0})
    with pytest.raises(
        TableError, match=r"'texts' is read-only: write to its topic, as in ctx.send\('texts-topic', val"
    ):
        write(table)
    assert table["a"] == 0


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("", "topic"), {}, "needs a name"),
        (("texts", ""), {}, "'texts' needs the name of a topic"),
        (("texts", None), {}, "'texts' needs the name of a topic"),
        (("texts", "topic", "disk://"), {}, "'disk://' is not known"),
        (("texts", "topic"), {"key_serializer": String}, "give an instance"),
    ],
)
def test_options_that_are_none_are_refused(arguments: tuple[Any, ...], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        GlobalTable(*arguments, **options)


def test_before_it_is_complete_and_without_an_engine_every_read_says_so() -> None:
    table = GlobalTable("texts", "texts-topic")
    reads: list[Callable[[], object]] = [
        lambda: table.get("a"), lambda: table["a"], lambda: "a" in table, lambda: table.get_many(["a"]), table.items,
        table.keys, table.values, table.len_estimate,
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(TableError, match="'texts' cannot be read: no engine that it is registered with is running"):
            read()
    table.attach(lambda: None)
    for read in reads:
        with pytest.raises(TableError, match="'texts' is being restored from topic 'texts-topic'"):
            read()


def test_it_is_attached_to_one_running_engine() -> None:
    table = over({"a": 1})
    with pytest.raises(ConfigurationError, match="'texts' is in use by another running engine"):
        table.attach(list)
    assert table["a"] == 1
    table.attach(None)
    table.attach(lambda: None)
