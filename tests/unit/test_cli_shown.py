"""Keys and values as a person or another program reads them."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from paperboy.cli.shown import OWN, Reading, as_json, line, reading_of
from paperboy.serializers import Bytes, Json, String
from paperboy.tables.codec import codec
from paperboy.tables.keys import encode_key
from paperboy.tables.table import Table


class Utf16:
    """A serializer that nobody here knows."""

    def serialize(self, value: str, /) -> bytes:
        return value.encode("utf-16")

    def deserialize(self, data: bytes, /) -> str:
        return data.decode("utf-16")


@pytest.mark.parametrize("plain", [None, True, 7, 2**70, 1.5, "é\n", [1, [None]], {"a": {"b": []}}, {}])
def test_what_json_has_words_for_stays_as_it_is(plain: object) -> None:
    assert as_json(plain) == plain
    assert json.loads(line(as_json(plain))) == plain


@pytest.mark.parametrize(
    ("thing", "form"),
    [
        (b"home", {"bytes": "home"}),
        (b"\x00\xff\\\"'", {"bytes": "\\x00\\xff\\\\\"\\'"}),
        ((1, b"a"), {"tuple": [1, {"bytes": "a"}]}),
        ({3, 1, 2}, {"set": [1, 2, 3]}),
        (frozenset(), {"frozenset": []}),
        (Decimal("1.50"), {"Decimal": "1.50"}),
        (UUID(int=1), {"UUID": "00000000-0000-0000-0000-000000000001"}),
        (date(2013, 1, 31), {"date": "2013-01-31"}),
        (datetime(2013, 1, 31, 12, 30, tzinfo=UTC), {"datetime": "2013-01-31T12:30:00+00:00"}),
        (time(12, 30), {"time": "12:30:00"}),
        (timedelta(days=1, seconds=5), {"timedelta": "1 day, 0:00:05"}),
        (float("nan"), {"float": "nan"}),
        (float("-inf"), {"float": "-inf"}),
        ({1: "one", "a": (2,)}, {"dict": [[1, "one"], ["a", {"tuple": [2]}]]}),
        ([{"when": date(2013, 1, 31)}], [{"when": {"date": "2013-01-31"}}]),
    ],
)
def test_what_json_has_no_word_for_is_named_after_its_type(thing: object, form: object) -> None:
    assert as_json(thing) == form
    assert json.loads(line(as_json(thing))) == form


def test_bytes_in_our_own_format_are_read() -> None:
    assert OWN.key(encode_key(("a", 7))) == {"tuple": ["a", 7]}
    assert OWN.value(b"\x01\x93\x01\xc3\xc0") == [1, True, None]


@pytest.mark.parametrize("data", [b"", b"anna", b"\x02\x07", b"\x01\xc1"])
def test_bytes_that_are_not_in_our_own_format_are_shown_as_they_are(data: bytes) -> None:
    assert OWN.key(data) == OWN.value(data) == {"raw": repr(data)[2:-1]}


@dataclass
class Order:
    id: str
    at: date


def test_objects_of_a_type_are_shown_as_their_fields() -> None:
    table = Table("orders", key_type=str, value_type=Order)
    data = table.codec.encode_value(Order("o-1", date(2026, 11, 21)))
    assert Reading(table.codec, table.codec).value(data) == {"id": "o-1", "at": {"date": "2026-11-21"}}
    # Without the engine it is the JSON that it is.
    assert reading_of(table.definition).value(data) == {"id": "o-1", "at": "2026-11-21"}
    assert reading_of(table.definition).key(b"anna") == "anna"


def test_a_store_says_how_it_was_written() -> None:
    own = reading_of(Table("t").definition)
    assert (own.key(encode_key("a")), own.value(b"\x01\x07")) == ("a", 7)
    ours = reading_of(Table("t", key_serializer=String(), value_serializer=Json()).definition)
    assert (ours.key(b"anna"), ours.value(b'{"clicks":7}')) == ("anna", {"clicks": 7})
    theirs = reading_of(Table("t", key_serializer=Bytes(), value_serializer=Utf16()).definition)
    assert (theirs.key(b"anna"), theirs.value(b"\x01\x07")) == ({"bytes": "anna"}, {"raw": "\\x01\\x07"})
    assert reading_of("something of a later version").key(b"anna") == {"raw": "anna"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("home", ["home", b"home"]),
        ("7", ["7", b"7", 7]),
        ("b'home'", ["b'home'", b"b'home'", b"home"]),
        ("('a', 7)", ["('a', 7)", b"('a', 7)", ("a", 7)]),
        ("None", ["None", b"None", None]),
        ("[1]", ["[1]", b"[1]"]),
        ("é", ["é", "é".encode()]),
    ],
)
def test_a_key_on_the_command_line_may_mean_several(text: str, meant: list[object]) -> None:
    assert OWN.keys_called(text) == [encode_key(key) for key in meant]  # type: ignore[arg-type]


def test_a_key_is_looked_for_as_its_tables_serializer_writes_it() -> None:
    strings = codec(String(), None)
    assert Reading(strings, strings).keys_called("7") == [b"7"]
    assert Reading(None, None).keys_called("7") == [b"7"]
