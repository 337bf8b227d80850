"""Keys as bytes: in order, each key once, and back again."""

import math
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paperboy.errors import DeserializationError, SerializationError
from paperboy.tables.keys import MAX_KEY_DEPTH, Key, decode_key, encode_key, encode_prefix
from tests.unit.formats.anatomy import anatomy

TYPES_IN_ORDER = ["none", bool, int, float, str, bytes, date, datetime, "utc", UUID, tuple]

# Few different characters, so that keys often share a beginning, and those that an encoding trips over.
texts = st.text(st.sampled_from("ab\x00\x01\x02\x7f\xff\u0100\ud7ff\ue000\uffff\U00010000\U0010ffff")) | st.text()
byte_strings = st.lists(st.sampled_from([0, 1, 2, 97, 254, 255])).map(bytes) | st.binary()
powers = st.integers(0, 2200).flatmap(
    lambda bits: st.sampled_from([sign * 2**bits + step for sign in (1, -1) for step in (-1, 0, 1)])
)
integers = st.integers(-300, 300) | st.integers() | powers
floats = st.floats(allow_nan=False).map(lambda number: number + 0.0)  # -0.0 has a test of its own
moments = st.datetimes().map(lambda moment: moment.replace(fold=0))
scalars = (
    st.none()
    | st.booleans()
    | integers
    | floats
    | texts
    | byte_strings
    | st.dates()
    | moments
    | moments.map(lambda moment: moment.replace(tzinfo=UTC))
    | st.uuids()
)
tuples = st.recursive(st.tuples(), lambda inner: st.lists(scalars | inner, max_size=4).map(tuple), max_leaves=12)
keys: st.SearchStrategy[Any] = scalars | tuples

alike = st.sampled_from([integers, floats, texts, byte_strings, st.dates(), moments, st.uuids(), tuples]).flatmap(
    lambda strategy: st.tuples(strategy, strategy)
)
"""Pairs of keys of one type."""


def place(key: Any) -> Any:
    """A key's place in the order of all keys, told by Python's own comparisons."""
    if key is None:
        return TYPES_IN_ORDER.index("none"), 0
    if isinstance(key, datetime) and key.tzinfo is not None:
        return TYPES_IN_ORDER.index("utc"), key
    return TYPES_IN_ORDER.index(type(key)), tuple(map(place, key)) if isinstance(key, tuple) else key


# --- Back again ----------------------------------------------------------------


@given(keys)
@example(("", b"", (), ((),), None))
@example("\x00\x01")
@example(("\x00\x01\x01\x02", b"\x01\x00\x02\x01"))
def test_a_key_comes_back_equal_and_of_its_type(key: Key) -> None:
    assert anatomy(decode_key(encode_key(key))) == anatomy(key)


def test_minus_zero_is_the_same_key_as_zero() -> None:
    assert encode_key(-0.0) == encode_key(0.0)
    assert encode_key((-0.0,)) == encode_key((0.0,))
    assert anatomy(decode_key(encode_key(-0.0))) == anatomy(0.0)


# --- Order ---------------------------------------------------------------------


@given(keys, keys)
def test_bytes_are_in_the_order_of_keys_and_equal_only_for_one_key(one: Key, other: Key) -> None:
    assert (encode_key(one) < encode_key(other)) == (place(one) < place(other))
    assert (encode_key(one) == encode_key(other)) == (place(one) == place(other))


@settings(max_examples=300)
@given(alike)
@example((("a",), ("a", 0)))
@example((("a\x00",), ("a",)))
@example((("a",), ("a\x01",)))
@example((("a", 9), ("a\x00", 1)))
@example(((("a",), "b"), (("a", "b"),)))
def test_bytes_are_in_the_order_of_keys_of_one_type(pair: tuple[Key, Key]) -> None:
    one, other = pair
    assert (encode_key(one) < encode_key(other)) == (place(one) < place(other))
    assert (encode_key((one, 1)) < encode_key((other, 0))) == (place((one, 1)) < place((other, 0)))


def test_ints_are_in_order_where_their_length_changes() -> None:
    bounds = [2**bits + step for bits in (0, 7, 8, 15, 16, 63, 64, 71, 72, 2048, 70_000) for step in (-1, 0, 1)]
    in_order = sorted({*bounds, *(-bound for bound in bounds)})
    assert sorted(in_order, key=encode_key) == in_order


def test_types_stand_in_a_fixed_order() -> None:
    in_order: list[Key] = [
        None,
        False,
        True,
        -(10**400),
        10**400,
        -math.inf,
        math.inf,
        "",
        "\U0010ffff",
        b"",
        b"\xff" * 20,
        date.min,
        date.max,
        datetime.min,
        datetime.max,
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        UUID(int=0),
        UUID(int=2**128 - 1),
        (),
        (None,),
        ("z", "z"),
        ((),),
    ]
    encoded = [encode_key(key) for key in in_order]
    assert all(one < other for one, other in pairwise(encoded))


def test_one_and_one_point_zero_and_true_are_three_keys() -> None:
    assert len({encode_key(1), encode_key(1.0), encode_key(True)}) == 3
    assert len({encode_key((1,)), encode_key((1.0,)), encode_key((True,))}) == 3


def test_text_and_bytes_are_not_one_key() -> None:
    assert encode_key("a") != encode_key(b"a")


# --- Prefixes ------------------------------------------------------------------


@given(texts, texts)
def test_a_text_is_a_prefix_of_what_begins_with_it(prefix: str, key: str) -> None:
    assert encode_key(key).startswith(encode_prefix(prefix)) == key.startswith(prefix)
    assert encode_key(prefix + key).startswith(encode_prefix(prefix))


@given(byte_strings, byte_strings)
def test_bytes_are_a_prefix_of_what_begins_with_them(prefix: bytes, key: bytes) -> None:
    assert encode_key(key).startswith(encode_prefix(prefix)) == key.startswith(prefix)
    assert encode_key(prefix + key).startswith(encode_prefix(prefix))


@given(tuples, tuples)
@example(("a",), ("ab",))
@example((1,), (True,))
def test_a_tuple_is_a_prefix_of_what_begins_with_its_elements(prefix: tuple[Key, ...], key: tuple[Key, ...]) -> None:
    begins = place(key[: len(prefix)]) == place(prefix)
    assert encode_key(key).startswith(encode_prefix(prefix)) == begins
    assert encode_key(prefix + key).startswith(encode_prefix(prefix))


@given(texts | byte_strings | tuples, keys)
def test_a_prefix_is_never_that_of_another_type(prefix: Any, key: Key) -> None:
    if type(prefix) is not type(key):
        assert not encode_key(key).startswith(encode_prefix(prefix))


@pytest.mark.parametrize("prefix", [1, None, 1.5, ["a"]])
def test_only_texts_bytes_and_tuples_are_prefixes(prefix: Any) -> None:
    with pytest.raises(SerializationError, match=r"^A prefix is a str, bytes or a tuple of whole elements, not a "):
        encode_prefix(prefix)


# --- Refusals ------------------------------------------------------------------


class Colour(IntEnum):
    RED = 1


class Fruit(StrEnum):
    FIG = "fig"


class Name(str):
    __slots__ = ()


Point = namedtuple("Point", "x y")

REFUSED: list[tuple[object, str]] = [
    (["a"], "not a list: use a tuple"),
    ({"a": 1}, "not a dict: use a tuple"),
    ({1}, "not a set: use a tuple"),
    (frozenset({1}), "not a frozenset: use a tuple"),
    (bytearray(b"a"), "not a bytearray: use a tuple"),
    (OrderedDict(), "not a collections.OrderedDict"),
    (Decimal("1.0"), r"not a decimal.Decimal: .*use str\(key\)"),
    (Colour.RED, "Colour: it would come back as a plain value"),
    (Fruit.FIG, "Fruit: it would come back as a plain value"),
    (Name("a"), "Name: it would come back as a plain value"),
    (Point(1, 2), "Point: it would come back as a plain value"),
    (1j, "not a complex: .*use one of those"),
    (timedelta(1), "not a datetime.timedelta: .*use one of those"),
    (object, "not a type: .*use one of those"),
    (math.nan, "NaN cannot be a key"),
    ("\ud800", "half a surrogate pair"),
    (datetime(2024, 1, 1, fold=1), "drop the fold"),
    (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))), r"use .astimezone\(timezone.utc\)"),
    (datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "Z")), r"use .astimezone\(timezone.utc\)"),
    (datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC")), r"use .astimezone\(timezone.utc\)"),
]


@pytest.mark.parametrize(("key", "message"), REFUSED, ids=lambda value: repr(value))
def test_what_would_not_come_back_is_refused_by_itself_and_in_tuples(key: Any, message: str) -> None:
    for refused in (key, (key,), ("a", (1, key), "b")):
        with pytest.raises(SerializationError, match=message):
            encode_key(refused)


def test_tuples_may_be_nested_so_deep_and_no_deeper() -> None:
    key: Key = ()
    for _ in range(MAX_KEY_DEPTH - 1):
        key = (key,)
    assert decode_key(encode_key(key)) == key
    with pytest.raises(SerializationError, match="flatten it"):
        encode_key((key,))
    with pytest.raises(DeserializationError):
        decode_key(b"\x01" + b"\x70" * 100_000)


# --- Damage --------------------------------------------------------------------


def read(data: bytes) -> None:
    """Reading gives a key that is written just so, or a DeserializationError."""
    try:
        key = decode_key(data)
    except DeserializationError:
        return
    assert encode_key(key) == data


@settings(max_examples=300)
@given(st.binary() | st.binary().map(b"\x01".__add__) | st.binary().map(b"\x01\x70".__add__))
@example(b"")
@example(b"\x01")
@example(b"\x01\x39\x00")  # 0 in one byte
@example(b"\x01\x48" + b"\x7f" + b"\xff" * 7)  # -0.0
@example(b"\x01\x48" + b"\xff" * 8)  # NaN
@example(b"\x01\x50\xed\xa0\x80")  # half a surrogate pair
@example(b"\x01\x70\x50\x01\x03\x00")  # an unknown escape
@example(b"\x01\x70\x00")
@example(b"\x01\x41\xff\xff\xff\xff\x00")
@example(b"\x01\x2f\x00\x00\x00\x00\x00")
@example(b"\x01\x60\x00\x00\x00\x00")
def test_whatever_the_bytes_reading_gives_a_key_or_one_kind_of_error(data: bytes) -> None:
    read(data)


@settings(max_examples=300)
@given(st.data())
def test_damaged_keys_raise_one_kind_of_error(data: st.DataObject) -> None:
    encoded = bytearray(encode_key(data.draw(keys)))
    at = data.draw(st.integers(0, len(encoded) - 1))
    read(bytes(encoded[:at]))
    encoded[at] = data.draw(st.integers(0, 255))
    read(bytes(encoded))
    read(bytes(encoded) + b"\x00")


def test_an_unknown_format_says_what_to_do() -> None:
    with pytest.raises(DeserializationError, match=r"02 50 61 are not a key in format 1.*upgrade.*no table"):
        decode_key(b"\x02\x50\x61")
