"""Avro schemas derived from types: what they are, and that fastavro writes and reads objects by them."""

import enum
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional

import fastavro
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.errors import ConfigurationError
from paperboy.serializers.avro_schema import DecimalDigits, avro_schema_of
from paperboy.serializers.models import conversion

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LONG = st.integers(-(2**63), 2**63 - 1)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


CustomerId = NewType("CustomerId", str)


@dataclass
class Line:
    article: str
    pieces: int


@dataclass
class Order:
    id: uuid.UUID
    customer: CustomerId
    amount: float
    price: Annotated[Decimal, DecimalDigits(12, 2)]
    at: datetime
    day: date
    noon: time
    colour: Colour
    raw: bytes
    first: Line
    lines: Sequence[Line] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    by_name: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None
    rush: bool = False
    other: Optional[Colour] = Colour.RED  # noqa: UP045 - as older code has it
    level: Level = Level.LOW
    way: Literal["air", "sea"] = "air"
    parts: tuple[int, ...] = ()


class Click(msgspec.Struct, rename="camel"):
    page_name: str
    on: datetime | None = None
    nested: "Click | None" = None


class Paid(msgspec.Struct, tag="paid"):
    order: str


class Refunded(msgspec.Struct, tag="refunded"):
    order: str
    why: str = ""


class Events(msgspec.Struct):
    all: list[Paid | Refunded]
    last: Paid | Refunded | None = None


class Visit(pydantic.BaseModel):
    user: uuid.UUID = pydantic.Field(alias="userId")
    count: int
    price: Decimal = pydantic.Field(max_digits=8, decimal_places=3)
    colour: Colour = Colour.BLUE
    at: datetime | None = None
    pages: list[str] = []


def test_the_schema_of_a_dataclass() -> None:
    line = {
        "type": "record",
        "name": "Line",
        "fields": [{"name": "article", "type": "string"}, {"name": "pieces", "type": "long"}],
    }
    assert avro_schema_of(Order, namespace="shop") == {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "fields": [
            {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "customer", "type": "string"},
            {"name": "amount", "type": "double"},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "noon", "type": {"type": "long", "logicalType": "time-micros"}},
            {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]}},
            {"name": "raw", "type": "bytes"},
            {"name": "first", "type": line},
            {"name": "lines", "type": {"type": "array", "items": "Line"}, "default": []},
            {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
            {"name": "by_name", "type": {"type": "map", "values": "long"}, "default": {}},
            {"name": "note", "type": ["null", "string"], "default": None},
            {"name": "rush", "type": "boolean", "default": False},
            {"name": "other", "type": ["Colour", "null"], "default": "red"},
            {"name": "level", "type": "long", "default": 1},
            {"name": "way", "type": "string", "default": "air"},
            {"name": "parts", "type": {"type": "array", "items": "long"}, "default": []},
        ],
    }


def test_a_struct_is_described_as_it_is_written() -> None:
    assert avro_schema_of(Click)["fields"] == [
        {"name": "pageName", "type": "string"},
        {"name": "on", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
        {"name": "nested", "type": ["null", "Click"], "default": None},
    ]


def test_a_pydantic_model_is_described_as_it_is_written() -> None:
    assert avro_schema_of(Visit)["fields"] == [
        {"name": "userId", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "count", "type": "long"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 3}},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]}, "default": "blue"},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
        {"name": "pages", "type": {"type": "array", "items": "string"}, "default": []},
    ]


MODELS: dict[type, st.SearchStrategy[Any]] = {}


def moments() -> st.SearchStrategy[datetime]:
    return st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC))


MODELS[Order] = st.builds(
    Order,
    id=st.uuids(),
    customer=TEXT.map(CustomerId),
    amount=st.floats(allow_nan=False),
    price=st.decimals(-(10**9), 10**9, places=2),
    at=moments(),
    day=st.dates(),
    noon=st.times(),
    colour=st.sampled_from(Colour),
    raw=st.binary(),
    first=st.builds(Line, TEXT, LONG),
    lines=st.lists(st.builds(Line, TEXT, LONG), max_size=2),
    tags=st.sets(TEXT, max_size=2),
    by_name=st.dictionaries(TEXT, LONG, max_size=2),
    note=st.none() | TEXT,
    rush=st.booleans(),
    other=st.none() | st.sampled_from(Colour),
    level=st.sampled_from(Level),
    way=st.sampled_from(["air", "sea"]),
    parts=st.lists(LONG, max_size=2).map(tuple),
)
MODELS[Click] = st.recursive(
    st.builds(Click, TEXT, st.none() | moments()), lambda inner: st.builds(Click, TEXT, st.none(), inner), max_leaves=3
)
EVENT = st.builds(Paid, TEXT) | st.builds(Refunded, TEXT, TEXT)
MODELS[Events] = st.builds(Events, st.lists(EVENT, max_size=3), st.none() | EVENT)
MODELS[Visit] = st.builds(
    Visit,
    userId=st.uuids(),
    count=LONG,
    price=st.decimals(-(10**4), 10**4, places=3),
    colour=st.sampled_from(Colour),
    at=st.none() | moments(),
    pages=st.lists(TEXT, max_size=2),
)


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_fastavro_writes_and_reads_objects_by_it(kind: type, data: st.DataObject) -> None:
    value = data.draw(MODELS[kind])
    schema, (to_plain, of_plain) = fastavro.parse_schema(avro_schema_of(kind)), conversion(kind)
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, to_plain(value), strict=True)
    buffer.seek(0)
    assert of_plain(fastavro.schemaless_reader(buffer, schema, None)) == value


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_it_is_plain_json_and_the_same_each_time(kind: type) -> None:
    schema = avro_schema_of(kind)
    assert json.loads(json.dumps(schema)) == schema == avro_schema_of(kind)


def test_a_field_with_a_default_reads_what_was_written_without_it() -> None:
    @dataclass
    class Before:
        id: str

    @dataclass
    class After:
        id: str
        amount: float = 1
        note: str | None = None
        tags: list[str] = field(default_factory=list)
        colour: Colour = Colour.BLUE

    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(avro_schema_of(Before)), {"id": "o-1"})
    buffer.seek(0)
    renamed = {**avro_schema_of(After), "name": "Before"}
    plain = fastavro.schemaless_reader(
        buffer, fastavro.parse_schema(avro_schema_of(Before)), fastavro.parse_schema(renamed)
    )
    assert conversion(After).of_plain(plain) == After("o-1", 1.0, None, [], Colour.BLUE)


def test_a_default_that_avro_cannot_say_is_left_out() -> None:
    @dataclass
    class Event:
        id: uuid.UUID = field(default_factory=uuid.uuid4)
        at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
        ways: list[str] = field(default_factory=lambda: ["air"])
        either: int | None = 3

    assert [field.get("default", "none") for field in avro_schema_of(Event)["fields"]] == ["none", "none", "none", 3]
    assert avro_schema_of(Event)["fields"][3]["type"] == ["long", "null"]


def described(kind: Any) -> Any:
    return avro_schema_of(dataclass(type("Event", (), {"__annotations__": {"what": kind}})))


class Points(msgspec.Struct, array_like=True):
    x: int


Twin: Any = dataclass(type("Line", (), {"__annotations__": {"other": int}}))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Any, r"Event\.what is .*Any, which Avro cannot express"),
        (object, r"Event\.what is object"),
        (timedelta, r"Event\.what is timedelta"),
        (tuple[int, str], r"Event\.what is tuple\[int, str\]"),
        (list, r"Event\.what is list"),
        (dict[int, str], r"the keys of its maps are strings"),
        (Decimal, r"Event\.what is a Decimal, .* Annotated\[Decimal, DecimalDigits\(precision, scale\)\]"),
        (str | uuid.UUID, r"Event\.what is a union of two types that are both string in Avro"),
        (list[int] | set[str], "both array"),
        (Literal["a", 1], "values of several types"),
        (list[Line | Twin], r"two types are called 'Line'"),
        (Points, "Points is array_like"),
    ],
    ids=str,
)
def test_what_avro_has_nothing_for_is_refused_with_the_field_s_name(kind: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        described(kind)


def test_what_is_no_model_has_no_schema() -> None:
    for kind in (int, list[Order], Paid | Refunded, "Order"):
        with pytest.raises(ConfigurationError, match="has no Avro schema of its own"):
            avro_schema_of(kind)


def test_names_that_avro_does_not_take_are_refused() -> None:
    class Dashed(msgspec.Struct, rename={"page": "page-name"}):
        page: str

    with pytest.raises(ConfigurationError, match="Dashed has a field 'page-name', which cannot be a name in Avro"):
        avro_schema_of(Dashed)
