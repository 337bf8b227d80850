"""Serializers that need no registry: Java's, MessagePack, and typed JSON and MessagePack."""

import contextlib
import enum
import json
import math
import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.errors import ConfigurationError, DeserializationError, SerializationError
from paperboy.serializers import UUID, Bytes, Double, Integer, Json, Long, MessagePack, Serializer, String, Typed
from paperboy.serializers.equality import same
from tests.shown import shown

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VECTORS: list[dict[str, str]] = json.loads((Path(__file__).parent / "formats" / "java.json").read_text())


# --- As Java ---------------------------------------------------------------------------


JAVA: dict[str, tuple[Serializer, Callable[[str], Any]]] = {
    "Integer": (Integer(), int),
    "Long": (Long(), int),
    "Double": (Double(), lambda text: struct.unpack(">d", bytes.fromhex(text.rjust(16, "0")))[0]),
    "UUID": (UUID(), uuid.UUID),
    "String": (String(), lambda text: bytes.fromhex(text).decode()),
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['serializer']} {vector['text'][:40]}")
def test_java_s_bytes_are_ours(vector: dict[str, str]) -> None:
    serializer, parsed = JAVA[vector["serializer"]]
    value, data = parsed(vector["text"]), bytes.fromhex(vector["bytes"])
    assert serializer.serialize(value) == data
    assert same(serializer.deserialize(data), value)


@given(
    integer=st.integers(-(2**31), 2**31 - 1),
    long=st.integers(-(2**63), 2**63 - 1),
    double=st.floats(),
    number=st.integers(0, 2**128 - 1),
)
def test_numbers_and_uuids_come_back(integer: int, long: int, double: float, number: int) -> None:
    given: list[tuple[Serializer, Any]] = [
        (Integer(), integer), (Long(), long), (Double(), double), (UUID(), uuid.UUID(int=number)),
    ]  # fmt: skip
    for serializer, value in given:
        assert same(serializer.deserialize(serializer.serialize(value)), value)


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        (Integer(), 2**31), (Integer(), -(2**31) - 1), (Integer(), 1.0), (Integer(), True), (Integer(), Level.LOW),
        (Long(), 2**63), (Long(), -(2**63) - 1), (Long(), "1"), (Long(), True), (Long(), None),
        (Double(), 1), (Double(), Decimal(1)), (Double(), "1.0"), (Double(), True),
        (UUID(), "00000000-0000-0000-0000-000000000001"), (UUID(), 1), (UUID(), b"\0" * 16),
    ],
    ids=lambda thing: type(thing).__name__,
)  # fmt: skip
def test_another_value_is_refused(serializer: Serializer, value: Any) -> None:
    with pytest.raises(SerializationError, match=type(serializer).__name__):
        serializer.serialize(value)


@pytest.mark.parametrize(
    ("serializer", "data"),
    [
        (Integer(), b""), (Integer(), b"\0" * 8), (Long(), b"\0" * 4), (Double(), b"\0" * 7), (UUID(), b"\0" * 16),
        (UUID(), b"{00000000-0000-0000-0000-000000000001}"), (UUID(), b"00000000000000000000000000000001"),
    ],
    ids=shown,
)  # fmt: skip
def test_other_bytes_are_refused(serializer: Serializer, data: bytes) -> None:
    with pytest.raises(DeserializationError, match=f"no {type(serializer).__name__}.*something else"):
        serializer.deserialize(data)


# --- MessagePack -----------------------------------------------------------------------


MESSAGE_PACK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@given(MESSAGE_PACK)
def test_message_pack_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    for serializer in (MessagePack(), MessagePack(sort_keys=True)):
        assert same(serializer.deserialize(serializer.serialize(value)), value)


def test_message_pack_is_read_and_written_by_others() -> None:
    import msgpack

    value = {"clicks": 7, "tags": ["a", b"b", None, 1.5, True], "at": datetime(2026, 11, 21, 8, 30, tzinfo=UTC)}
    assert msgpack.unpackb(MessagePack().serialize(value), timestamp=3) == value
    assert MessagePack().deserialize(msgpack.packb(value, datetime=True)) == value


@pytest.mark.parametrize(
    "value",
    [
        (1, 2), {1, 2}, 2**64, -(2**63) - 1, "\ud800", Level.LOW, object(), Decimal(1), bytearray(b"x"), date.today(),
        datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_message_pack_refuses_what_would_not_come_back(value: object) -> None:
    with pytest.raises(SerializationError, match="MessagePack"):
        MessagePack().serialize(value)


def test_equal_dicts_and_sets_can_be_equal_bytes() -> None:
    for kind in (Json, MessagePack):
        one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
        assert kind().serialize(one) != kind().serialize(other)
        assert kind(sort_keys=True).serialize(one) == kind(sort_keys=True).serialize(other)
        written = {kind(set[str], sort_keys=True).serialize(set(order)) for order in ("abcdefgh", "hgfedcba")}
        assert len(written) == 1


# --- Floats in JSON --------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | TEXT)
def test_the_bytes_of_json_are_those_of_python_s_json(value: Any) -> None:
    """Keys of tables were written by it, and are found by their bytes."""
    expected = json.dumps([value], ensure_ascii=False, separators=(",", ":")).encode()
    assert Json().serialize([value]) == expected


@pytest.mark.parametrize("value", [1e16, -1e22, 1e-5, 1.5e300, 0.0001, 5e-324, 123456789012345678.0], ids=shown)
def test_large_and_small_floats_keep_the_form_they_had(value: float) -> None:
    assert Json().serialize(value) == repr(value).encode()


# --- Types -----------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Line:
    article: str
    pieces: int


@dataclass
class Order:
    """A dataclass with all that a message may hold."""

    id: uuid.UUID
    amount: float
    price: Decimal
    at: datetime
    day: date
    colour: Colour
    raw: bytes
    lines: list[Line] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    by_name: dict[str, int] = field(default_factory=dict)
    note: str | None = None


class Click(msgspec.Struct):
    page: str
    seconds: float
    on: datetime | None = None


class Visit(pydantic.BaseModel):
    user: uuid.UUID
    count: int
    at: datetime
    colour: Colour = Colour.RED
    price: Decimal = Decimal("1.50")
    pages: list[str] = []


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    at: datetime
    user: uuid.UUID


class Paid(msgspec.Struct, tag=True):
    order: str


class Refunded(msgspec.Struct, tag=True):
    order: str


LINES = st.builds(Line, TEXT, st.integers(-(2**63), 2**63 - 1))
MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))
MODELS: dict[Any, st.SearchStrategy[Any]] = {
    Order: st.builds(
        Order,
        st.uuids(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.decimals(allow_nan=False, allow_infinity=False),
        MOMENTS,
        st.dates(),
        st.sampled_from(Colour),
        st.binary(),
        st.lists(LINES, max_size=3),
        st.sets(TEXT, max_size=3),
        st.dictionaries(TEXT, st.integers(-(2**63), 2**63 - 1), max_size=3),
        st.none() | TEXT,
    ),
    Click: st.builds(Click, TEXT, st.floats(allow_nan=False, allow_infinity=False), st.none() | MOMENTS),
    Visit: st.builds(
        Visit,
        user=st.uuids(),
        count=st.integers(-(2**63), 2**63 - 1),
        at=MOMENTS,
        colour=st.sampled_from(Colour),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        pages=st.lists(TEXT, max_size=3),
    ),
    Strict: st.builds(Strict, at=MOMENTS, user=st.uuids()),
    Paid | Refunded: st.builds(Paid, TEXT) | st.builds(Refunded, TEXT),
    list[Click]: st.lists(st.builds(Click, TEXT, st.just(1.0)), max_size=3),
    list[Visit]: st.lists(st.builds(Visit, user=st.uuids(), count=st.just(1), at=MOMENTS), max_size=3),
    int: st.integers(-(2**63), 2**63 - 1),
}


def typed_serializers(kind: Any) -> list[Serializer]:
    return [Json(kind), Json(kind, sort_keys=True), MessagePack(kind), Typed(Passing(), kind)]


class Passing:
    """A serializer that keeps plain objects as they are, as Avro with its logical types nearly does."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def serialize(self, value: Any, /) -> bytes:
        self.kept.append(value)
        return str(len(self.kept) - 1).encode()

    def deserialize(self, data: bytes, /) -> Any:
        return self.kept[int(data)]


@pytest.mark.parametrize("kind", MODELS, ids=str)
@given(data=st.data())
def test_objects_of_a_type_come_back(kind: Any, data: st.DataObject) -> None:
    value = data.draw(MODELS[kind])
    for serializer in typed_serializers(kind):
        returned = serializer.deserialize(serializer.serialize(value))
        assert same(returned, value)
        assert type(returned) is type(value)


ALL: list[Serializer] = [
    Json(), MessagePack(), String(), Integer(), Long(), Double(), UUID(),
    *(serializer for kind in MODELS for serializer in (Json(kind), MessagePack(kind), Typed(Json(), kind))),
]  # fmt: skip


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["id", "amount", "at", "page", "seconds", "user", "count", "type", "order"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.binary() | PLAIN.map(msgspec.json.encode) | PLAIN.map(msgspec.msgpack.encode))
def test_whatever_the_bytes_are_reading_them_gives_an_object_or_a_deserialization_error(data: bytes) -> None:
    for serializer in ALL:
        try:
            serializer.deserialize(data)
        except DeserializationError:
            continue


@pytest.mark.parametrize(
    "head", [b"[", b'{"a":', b"\x91", b"\xdd\xff\xff\xff\xff", b"\x81\xa1a", b"\xc6\xff\xff\xff\xff"]
)
def test_neither_depth_nor_lengths_that_lie_are_a_danger(head: bytes) -> None:
    for serializer in ALL:
        for data in (head, head * 100_000):
            with contextlib.suppress(DeserializationError):  # a few of these are a text, or a number
                serializer.deserialize(data)


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (Line, b'{"article":"a","pieces":"many"}', r"no|not.*Line.*int.*pieces"),
        (Line, b'{"article":"a"}', "pieces"),
        (Click, b'{"page":"p","seconds":true}', "seconds"),
        (Visit, b'{"user":"x","count":1,"at":"2026-01-01T00:00:00Z"}', "user"),
        (Paid | Refunded, b'{"type":"Lost","order":"1"}', "Lost"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_message_is_said(kind: Any, data: bytes, said: str) -> None:
    plain = json.loads(data)
    for serializer, written in (
        (Json(kind), data),
        (MessagePack(kind), MessagePack().serialize(plain)),
        (Typed(Json(), kind), data),
    ):
        with pytest.raises(DeserializationError, match=re.compile(said, re.DOTALL)):
            serializer.deserialize(written)


class Moody(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise LookupError("no such number")


def test_whatever_a_model_raises_is_a_deserialization_error() -> None:
    for serializer in (Json(Moody), MessagePack(Moody), Typed(Json(), Moody)):
        data = b'{"number":-1}' if serializer.__class__ is not MessagePack else MessagePack().serialize({"number": -1})
        with pytest.raises(DeserializationError, match="no such number"):
            serializer.deserialize(data)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Line, Line("a", 1.5)),  # type: ignore[arg-type]
        (Line, Line("a", True)),
        (Line, {"article": "a", "pieces": 1}),
        (Click, Click("p", 1)),
        (Click, Click("p", math.nan)),
        (Click, Click("p", 1.0, datetime(2026, 1, 1, tzinfo=UTC).isoformat())),  # type: ignore[arg-type]
        (Visit, Visit.model_construct(user="anna", count=1, at=None)),
        (list[Click], (Click("p", 1.0),)),
        (Paid | Refunded, Line("a", 1)),
    ],
    ids=str,
)
def test_what_would_come_back_otherwise_is_refused_where_it_is_written(kind: Any, value: Any) -> None:
    """A message that nobody can read would be found out by its readers only."""
    with pytest.raises(SerializationError):
        Json(kind).serialize(value)


def test_a_moment_keeps_its_zone_s_offset_or_is_refused() -> None:
    noon = Click("p", 1.0, datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")))
    assert Json(Click).deserialize(Json(Click).serialize(noon)) == noon
    with pytest.raises(SerializationError, match="come back"):
        MessagePack(Click).serialize(noon)


class Renamed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    user: str = pydantic.Field(alias="userName")


def test_a_pydantic_model_is_written_by_its_aliases_and_keeps_what_is_extra() -> None:
    visit = Renamed.model_validate({"userName": "anna", "more": 1})
    assert json.loads(Json(Renamed).serialize(visit)) == {"userName": "anna", "more": 1}
    for serializer in typed_serializers(Renamed):
        assert serializer.deserialize(serializer.serialize(visit)) == visit


def test_a_value_that_is_no_model_s_gives_no_warning() -> None:
    """Warnings are errors in these tests: pydantic's own would be one."""
    with pytest.raises(SerializationError, match="Visit"):
        MessagePack(Visit).serialize({"user": 1})


class Stranger:
    pass


@dataclass
class Host:
    guest: Stranger


@dataclass
class HostOfModel:
    guest: Visit


@pytest.mark.parametrize("make", [Json, MessagePack, lambda kind: Typed(Json(), kind)])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Stranger, "^Stranger is no type"),
        (Host, "Stranger in Host is no type"),
        (list[Stranger], "Stranger in list"),
        (HostOfModel, "Visit in HostOfModel .*not the other way round"),
        (Click | Line, "no type that messages can have"),
    ],
    ids=str,
)
def test_a_type_that_nobody_knows_is_refused_at_once(make: Any, kind: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make(kind)


def test_without_pydantic_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydantic", None)
    with pytest.raises(ConfigurationError, match=r"Visit needs pydantic: pip install 'paperboy-streams\[pydantic\]'"):
        Json(Visit)


# --- What is the same ------------------------------------------------------------------


class Point(NamedTuple):
    x: float
    y: float


@dataclass
class Cached:
    number: int
    seen: list[int] = field(default_factory=list, compare=False)


def test_fields_are_compared_with_their_types() -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    alike: list[tuple[Any, Any]] = [
        (Line("a", 1), Line("a", 1)), (Click("p", math.nan), Click("p", math.nan)), (Cached(1), Cached(1, [2])),
        (Point(1.0, 2.0), Point(1.0, 2.0)), (noon, noon.astimezone(timezone(timedelta(0)))),
        (time(1), time(1)), (Strict(at=noon, user=uuid.UUID(int=1)), Strict(at=noon, user=uuid.UUID(int=1))),
    ]  # fmt: skip
    different: list[tuple[Any, Any]] = [
        (Line("a", 1), Line("a", True)), (Line("a", 1), Line("b", 1)), (Click("p", 1), Click("p", 1.0)),
        (Cached(1), Cached(True)), (Point(1.0, 2.0), Point(1, 2)), (noon, noon.astimezone(ZoneInfo("Europe/Berlin"))),
        (Renamed.model_validate({"userName": "a", "x": 1}), Renamed.model_validate({"userName": "a", "x": True})),
        (Visit.model_construct(count=1), Visit.model_construct(count=True)),
    ]  # fmt: skip
    assert [same(*pair) for pair in alike] == [True] * len(alike)
    assert [same(*pair) for pair in different] == [False] * len(different)


@pytest.mark.parametrize("serializer", [*ALL, Bytes()], ids=lambda serializer: type(serializer).__name__)
def test_each_is_a_serializer(serializer: object) -> None:
    assert isinstance(serializer, Serializer)
