"""Values as bytes: back again equal, in value and in type, or refused."""

import math
import pickle
import struct
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, InvalidOperation, localcontext
from enum import Enum, IntEnum
from io import BytesIO
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paperboy.errors import DeserializationError, SerializationError
from paperboy.serializers.values import IMMUTABLE, MAX_VALUE_DEPTH, decode_value, encode_value, needs_encoding_now
from tests.shown import shown
from tests.unit.formats.anatomy import anatomy


def double(bits: int) -> float:
    return float(struct.unpack(">d", bits.to_bytes(8, "big"))[0])


offsets = st.timedeltas(timedelta(hours=-24, microseconds=1), timedelta(hours=24, microseconds=-1))
zones = st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("UTC")]) | st.builds(
    timezone, offsets
)
named_zones = st.builds(timezone, offsets, st.text(max_size=5))
folds = st.integers(0, 1)
moments = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.datetimes(),
    st.none() | zones | named_zones,
    folds,
)
times = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.times(), st.none() | zones, folds
)
exact = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | times
    | moments
    | st.timedeltas()
)
scalars = exact | st.integers(0, 2**64 - 1).map(double) | st.decimals()
hashables = st.recursive(
    exact | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values: st.SearchStrategy[object] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
        | st.frozensets(hashables, max_size=4)
    ),
    max_leaves=12,
)


# --- Back again ----------------------------------------------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(values)
def test_a_value_comes_back_equal_and_of_its_types(value: object) -> None:
    encoded = encode_value(value)
    assert anatomy(decode_value(encoded)) == anatomy(value)
    assert anatomy(decode_value(memoryview(encoded))) == anatomy(value)


@pytest.mark.parametrize(
    "value",
    [
        *(2**bits + step for bits in (7, 8, 16, 32, 63, 64, 71, 72, 9000) for step in (-1, 0, 1)),
        *(-(2**bits) + step for bits in (5, 7, 8, 16, 32, 63, 64, 71, 72, 9000) for step in (-1, 0, 1)),
        *(double(bits) for bits in (0x7FF8000000000001, 0xFFF8DEAD0000BEEF, 0x7FF0000000000001, 1 << 63)),
        {1: "int", 2.0: "float", "1": "str", b"1": "bytes", None: "none", (1, 2): "tuple", frozenset({1}): "frozenset"},
        {True: "bool", 0.0: "float"},
        {"b": 1, "a": 2, "c": 3},
        [1, True, 1.0, Decimal(1)],
        [2**70, [2**64, -(2**63) - 1], {2**65: 2**66, (2**67,): {2**68}}, ({2**69},)],
        ([],),
        [()],
        [set(), frozenset(), (), [], {}],
        {frozenset({(1, 2.0), frozenset()}): {("a", ("b",))}},
        *map(Decimal, ("1.0", "1.00", "-0", "0E-7", "1E+999999", "Infinity", "-Infinity", "NaN", "-NaN12", "sNaN5")),
        {math.nan, math.inf},
        [datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold) for fold in (0, 1)],
        [datetime.min, datetime.max, date.min, date.max, time.min, time.max, timedelta.min, timedelta.max],
        time(1, 2, 3, 4, tzinfo=ZoneInfo("Asia/Tokyo"), fold=1),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "Zulu")),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "")),
        "\x00",
        "\U0010ffff",
        "x" * 70_000,
        b"\xc7\x00\x02" * 30_000,
        [b"\xc7\x00\x02", "a"],
        list(range(70_000)),
        {number: str(number) for number in range(70_000)},
        tuple(range(70_000)),
    ],
    ids=lambda value: shown(value)[:40],
)
def test_these_come_back_too(value: object) -> None:
    assert anatomy(decode_value(encode_value(value))) == anatomy(value)


def test_a_timezone_comes_back_as_the_object_it_was() -> None:
    for zone in (UTC, ZoneInfo("Europe/Berlin")):
        back = decode_value(encode_value(datetime(2024, 1, 1, tzinfo=zone)))
        assert isinstance(back, datetime)
        assert back.tzinfo is zone


def test_two_nans_in_a_set_stay_two() -> None:
    back = decode_value(encode_value({double(0x7FF8 << 48), double(0x7FF8 << 48)}))
    assert isinstance(back, set)
    assert len(back) == 2


def test_equal_sets_are_equal_bytes() -> None:
    assert encode_value({"a", "b", 1, 2.5, (3,)}) == encode_value({(3,), 2.5, 1, "b", "a"})


def test_a_decimal_is_the_same_bytes_in_every_decimal_context() -> None:
    expected = encode_value(Decimal("1E+30"))
    with localcontext(Context(prec=2, capitals=0)) as context:
        context.traps[InvalidOperation] = False
        assert encode_value(Decimal("1E+30")) == expected
        assert decode_value(encode_value(Decimal("1.2345"))) == Decimal("1.2345")
        with pytest.raises(DeserializationError):
            decode_value(b"\x01" + msgpack.packb(msgpack.ExtType(5, b"nonsense")))


# --- Refusals ------------------------------------------------------------------


class Colour(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


class Name(str):
    __slots__ = ()


class Moment(datetime):
    pass


class Zone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    dst = utcoffset

    def tzname(self, moment: datetime | None) -> str:
        return "Zone"


@dataclass
class Visit:
    page: str


Point = namedtuple("Point", "x y")


def from_file(key: str | None) -> ZoneInfo:
    """A zone of somebody's own making: UTC, whatever it is called."""
    counts, utc = struct.pack(">6I", 0, 0, 0, 0, 1, 4), struct.pack(">iBB", 0, 0, 0)
    return ZoneInfo.from_file(BytesIO(b"TZif" + bytes(16) + counts + utc + b"UTC\0"), key=key)


REFUSED: list[tuple[object, str]] = [
    (Colour.RED, "Colour, which is not plain data: store what it is made of"),
    (Number.ONE, "Number, which would come back as a plain int"),
    (Name("a"), "Name, which would come back as a plain str: make it one"),
    (Point(1, 2), "Point, which would come back as a plain tuple"),
    (OrderedDict(a=1), "collections.OrderedDict, which would come back as a plain dict"),
    (defaultdict(int), "collections.defaultdict, which would come back as a plain dict"),
    (Counter(), "collections.Counter, which would come back as a plain dict"),
    (Moment(2024, 1, 1), "Moment, which would come back as a plain datetime"),
    (deque(), "collections.deque, which is not plain data"),
    (Visit("/"), "Visit, which is not plain data"),
    (bytearray(b"a"), "bytearray, which is not plain data"),
    (memoryview(b"a"), "memoryview, which is not plain data"),
    (msgpack.ExtType(5, b"1.0"), "msgpack.ext.ExtType, which would come back as a plain tuple"),
    (msgpack.Timestamp(1, 2), "Timestamp, which is not plain data"),
    (1j, "complex, which is not plain data"),
    (range(3), "range, which is not plain data"),
    (int, "type, which is not plain data"),
    (datetime(2024, 1, 1, tzinfo=Zone()), "only a datetime.timezone or zoneinfo.ZoneInfo"),
    (time(1, tzinfo=Zone()), "only a datetime.timezone or zoneinfo.ZoneInfo"),
    (datetime(2024, 1, 1, tzinfo=from_file(None)), r"not the one that ZoneInfo\(None\) gives"),
    (datetime(2024, 1, 1, tzinfo=from_file("Nowhere")), r"not the one that ZoneInfo\('Nowhere'\) gives"),
    (datetime(2024, 1, 1, tzinfo=from_file("Europe/Berlin")), r"not the one that ZoneInfo\('Europe/Berlin'\) gives"),
    ("a\ud800", "half a surrogate pair"),
    (datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "\udfff")), "half a surrogate pair"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=lambda value: shown(value)[:40])
def test_what_would_not_come_back_is_refused_wherever_it_stands(value: object, message: str) -> None:
    for place in (value, [value], (1, value), {"a": value}, {"a": [{"b": (1, value)}]}, [2**70, value]):
        with pytest.raises(SerializationError, match=message):
            encode_value(place)
    if type(value).__hash__ is not None:
        for place in ({value}, frozenset({value}), {value: 1}, {(1, value): 1}, {1: {(value,)}}):
            with pytest.raises(SerializationError, match=message):
                encode_value(place)


def test_the_message_says_where() -> None:
    with pytest.raises(SerializationError, match=r"^The value at \['a'\]\[2\]\[1\] is a complex"):
        encode_value({"a": [1, 2, (3, 1j)]})
    with pytest.raises(SerializationError, match=r"^The value at \[0\].keys\(\)\[1\] is a complex"):
        encode_value([{(1, 1j): 1}])


def test_keys_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(SerializationError, match="several Decimal NaN as keys"):
        encode_value({Decimal("NaN"): 1, Decimal("NaN"): 2})


def nested(wrap: Callable[[Any], object], depth: int) -> object:
    value: object = 7
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS: list[Callable[[Any], object]] = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"a": 1, "b": inner},
    lambda inner: frozenset({inner}),
    lambda inner: [2**70, inner],
]


@pytest.mark.parametrize("wrap", WRAPS, ids=["list", "tuple", "dict", "frozenset", "beside a long int"])
def test_values_may_be_nested_so_deep_and_no_deeper(wrap: Callable[[Any], object]) -> None:
    deepest = nested(wrap, MAX_VALUE_DEPTH)
    assert decode_value(encode_value(deepest)) == deepest
    for depth in (1, 1000, 10_000):
        with pytest.raises(SerializationError, match=f"nested more than {MAX_VALUE_DEPTH} deep"):
            encode_value(nested(wrap, MAX_VALUE_DEPTH + depth))


def test_deep_values_are_read_in_a_thread_with_a_small_stack() -> None:
    value = nested(lambda inner: (inner,), MAX_VALUE_DEPTH)
    results: list[object] = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: results.append(decode_value(encode_value(value))))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert results == [value]


def test_what_holds_itself_is_refused() -> None:
    numbers: list[object] = []
    numbers.append((numbers,))
    names: dict[str, object] = {}
    names["me"] = names
    for value in (numbers, names):
        with pytest.raises(SerializationError, match="holds itself"):
            encode_value(value)


def test_a_refusal_leaves_nothing_behind() -> None:
    expected = encode_value(["a", 1])
    for refused in (["a", 1j], ["a", "\ud800"], ["a", {"b": object()}], [2**70, 1j]):
        with pytest.raises(SerializationError):
            encode_value(refused)
        assert encode_value(["a", 1]) == expected


# --- Damage --------------------------------------------------------------------


def read(data: bytes) -> None:
    """Reading gives a value of plain types, or a DeserializationError."""
    try:
        value = decode_value(data)
    except DeserializationError:
        return
    assert_plain(value)


def assert_plain(value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            assert_plain(key)
            assert_plain(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            assert_plain(item)
    else:
        encode_value(value)


@settings(max_examples=400, deadline=None)
@given(
    (st.binary() | st.lists(st.sampled_from(b"\xc7\x00\x02\x03\x04\x91\x92\x81\x07")).map(bytes)).map(b"\x01".__add__)
)
def test_whatever_the_bytes_reading_gives_a_value_or_one_kind_of_error(data: bytes) -> None:
    read(data)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(values, st.data())
def test_damaged_values_raise_one_kind_of_error(value: object, data: st.DataObject) -> None:
    encoded = bytearray(encode_value(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    read(bytes(encoded[:at]))
    encoded[at] = data.draw(st.integers(0, 255))
    read(bytes(encoded))
    read(bytes(encoded) + b"\x00")


@settings(max_examples=300, deadline=None)
@given(st.integers(-128, 127), st.binary(max_size=24))
def test_damaged_extensions_raise_one_kind_of_error(code: int, payload: bytes) -> None:
    extension = b"\xc7" + bytes((len(payload), code & 0xFF)) + payload
    read(b"\x01" + extension)
    read(b"\x01\x92" + extension + b"\x01")


@pytest.mark.parametrize(
    "damaged",
    [
        *(b"", b"\x01", b"\x01\xc1", b"\x01\x07\x07", b"\x01\xdd\xff\xff\xff\xff", b"\x01\xa1\xff"),
        b"\x01\xc7\x00\x02",  # a mark by itself
        b"\x01\x92\x01\xc7\x00\x02",  # a mark behind the first place
        b"\x01\x92\xc7\x00\x02\xc7\x00\x02",
        b"\x01\x81\xc7\x00\x02\x01",  # a mark as a key
        b"\x01\x81\x01\xc7\x00\x02",  # a mark as a dict's value
        b"\x01\x92\xc7\x01\x02\x00\xc4\x02\xc7\x00",  # a mark with something in it
        b"\x01\x92\xc7\x00\x03\x90",  # a list in a set
        b"\x01\x81\x90\x01",  # a list as a key
        b"\x01\xd4\x05x",  # a Decimal of no digits
        b"\x01\xd4\x06x",  # a UUID of one byte
        b"\x01\xd6\x07\x07\xdd\x02\x1f",  # the 31st of February
        b"\x01\xd4\x0b\x00",  # an unknown extension
    ],
    ids=lambda damaged: damaged.hex(" "),
)
def test_these_bytes_are_no_value(damaged: bytes) -> None:
    with pytest.raises(DeserializationError, match=r"damaged|not a value in format 1"):
        decode_value(damaged)


def test_not_even_foreign_msgpack_gives_what_is_not_plain_python() -> None:
    timestamp = b"\xd6\xff\x00\x00\x00\x00"
    assert decode_value(b"\x01" + timestamp) == datetime(1970, 1, 1, tzinfo=UTC)
    assert decode_value(b"\x01\x92\xc7\x00\x02" + timestamp) == (datetime(1970, 1, 1, tzinfo=UTC),)


@pytest.mark.parametrize("key", ["", ".", "..", "Europe", "../etc/passwd", "/etc/passwd", "a\x00b", "Nowhere/At_All"])
def test_a_zone_that_is_none_raises_one_kind_of_error(key: str) -> None:
    payload = encode_value(datetime(2024, 1, 1))[4:] + b"\x03" + key.encode()
    with pytest.raises(DeserializationError):
        decode_value(b"\x01\xc7" + bytes((len(payload), 9)) + payload)


def test_a_zone_that_this_machine_does_not_know_says_what_to_install() -> None:
    payload = encode_value(datetime(2024, 1, 1))[4:] + b"\x03Nowhere/At_All"
    with pytest.raises(DeserializationError, match=r"Nowhere/At_All.*install the tzdata package"):
        decode_value(b"\x01\xc7" + bytes((len(payload), 9)) + payload)


def test_bytes_nested_without_end_raise_one_kind_of_error() -> None:
    for head in (b"\x91", b"\x81\x01", b"\x92\xc7\x00\x02", b"\x92\xc7\x00\x04"):
        with pytest.raises(DeserializationError):
            decode_value(b"\x01" + head * 100_000 + b"\x01")


def test_an_unknown_format_says_what_to_do() -> None:
    with pytest.raises(DeserializationError, match=r"02 07 are not a value in format 1.*upgrade.*no table of paperboy"):
        decode_value(b"\x02\x07")


# --- Encoding later ------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(scalars | st.integers(0, 2**9000))
@example("x" * 2000)
@example(b"x" * 2000)
@example("\ud800")
@example(Decimal("1" * 2100))
@example(Decimal("1" * 5000))
@example(1 << 9000)
def test_what_may_be_encoded_later_can_be_and_is_small(value: object) -> None:
    if not needs_encoding_now(value):
        assert type(value) in IMMUTABLE
        assert len(encode_value(value)) < 4096


@pytest.mark.parametrize(
    "value", ["", "page", b"x", 0, -(2**100), 1.5, True, None, Decimal("1.5"), UUID(int=1), date.min, timedelta(1)]
)
def test_what_cannot_change_and_is_small_may_be_encoded_later(value: object) -> None:
    assert not needs_encoding_now(value)


@pytest.mark.parametrize(
    "value",
    [
        *([], {}, set(), (), ([],), frozenset()),
        *("ü", "\ud800", "x" * 2000, b"x" * 2000, 1 << 9000, Decimal("1" * 5000)),
        *(datetime.min, time.min, Name("a"), Number.ONE, Visit("/"), bytearray()),
    ],
    ids=lambda value: shown(value)[:40],
)
def test_what_can_change_or_fail_or_is_large_is_encoded_now(value: object) -> None:
    assert needs_encoding_now(value)


@pytest.mark.parametrize(
    "value", ["a", b"a", 1, 1.5, True, None, Decimal(1), UUID(int=1), date(2024, 1, 1), timedelta(1)]
)
def test_nobody_can_change_what_is_called_immutable(value: object) -> None:
    assert type(value) in IMMUTABLE
    before = pickle.dumps(value)
    for name in [*dir(value), "anything"]:
        if name == "__class__":
            continue
        with pytest.raises((AttributeError, TypeError)):
            setattr(value, name, getattr(value, name, None))
    assert pickle.dumps(value) == before
