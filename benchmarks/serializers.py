"""What a serializer costs beside the bare library: ``python -m benchmarks.serializers [seconds]``.

Each pair is measured in turns, in slices of a hundredth of the time, so that what else the machine does falls on both.
Of each the least of all slices counts. Needs nothing but Python: the registry is embedded.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from struct import Struct
from typing import Any, NamedTuple

import fastavro
import jsonschema
import msgspec
import pydantic
from google.protobuf import struct_pb2

from paperboy.serializers import (
    UUID,
    Avro,
    Double,
    Integer,
    Json,
    JsonSchema,
    Long,
    MessagePack,
    Protobuf,
    SchemaRegistry,
    String,
)
from paperboy.serializers.framed import Framed, TopicSerializer
from paperboy.serializers.models import Typed
from paperboy.serializers.protocol import Serializer

SLICES = 100
HEAD = b"\x00\x00\x00\x00\x01"

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "note", "type": ["null", "string"]},
    ],
}
ORDER: dict[str, Any] = {
    "id": 1_234_567,
    "customer": "anna",
    "amount": 19.99,
    "at": datetime(2026, 1, 2, tzinfo=UTC),
    "tags": ["new", "gift"],
    "note": None,
}
JSON_SCHEMA: dict[str, Any] = {
    "title": "Order",
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "customer": {"type": "string"},
        "amount": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["id", "customer"],
}
JSON_ORDER: dict[str, Any] = {"id": 1_234_567, "customer": "anna", "amount": 19.99, "tags": ["new", "gift"]}


class OrderStruct(msgspec.Struct):
    id: int
    customer: str
    amount: float
    tags: list[str]


class OrderModel(pydantic.BaseModel):
    id: int
    customer: str
    amount: float
    tags: list[str]


class DatedOrder(msgspec.Struct):
    """What `SCHEMA` describes."""

    id: int
    customer: str
    amount: float
    at: datetime
    tags: list[str]
    note: str | None


class Pair(NamedTuple):
    """The same, done by the library alone and by us."""

    what: str
    bare: Callable[[], object]
    ours: Callable[[], object]


def pairs() -> list[Pair]:
    registry = SchemaRegistry("memory://")
    avro, framed_json = Avro(registry, SCHEMA), JsonSchema(registry, JSON_SCHEMA)
    return [
        *_avro(avro, opened(avro, "orders")),
        *_json(framed_json, opened(framed_json, "json")),
        *_protobuf(registry),
        *_typed_avro(registry),
        *_both_ways("JSON", msgspec.json.encode, msgspec.json.decode, Json(), JSON_ORDER),
        *_of_struct(),
        *_of_model(),
        *_both_ways("MessagePack", msgspec.msgpack.encode, msgspec.msgpack.decode, MessagePack(), JSON_ORDER),
        *_both_ways("String", str.encode, bytes.decode, String(), "anna"),
        *_both_ways("Integer", *_struct(">i"), Integer(), 1_234_567),
        *_both_ways("Long", *_struct(">q"), Long(), 1_234_567),
        *_both_ways("Double", *_struct(">d"), Double(), 19.99),
        *_both_ways("UUID", _text, _uuid, UUID(), uuid.UUID(int=2**100)),
    ]


def opened(serializer: Framed, topic: str) -> TopicSerializer:
    writing = serializer.for_topic(topic)
    asyncio.run(writing.open())
    return writing


def _avro(reading: Avro, writing: TopicSerializer) -> list[Pair]:
    schema, data = fastavro.parse_schema(SCHEMA), writing.serialize(ORDER)

    def write() -> bytes:
        stream = BytesIO()
        stream.write(HEAD)
        fastavro.schemaless_writer(stream, schema, ORDER)
        return stream.getvalue()

    def read() -> object:
        stream = BytesIO(data)
        stream.seek(5)
        return fastavro.schemaless_reader(stream, schema, None)

    return [
        Pair("Avro, write", write, lambda: writing.serialize(ORDER)),
        Pair("Avro, read", read, lambda: reading.deserialize(data)),
    ]


def _json(reading: JsonSchema, writing: TopicSerializer) -> list[Pair]:
    validator, data = jsonschema.Draft7Validator(JSON_SCHEMA), writing.serialize(JSON_ORDER)

    def write() -> bytes:
        validator.validate(JSON_ORDER)
        return HEAD + json.dumps(JSON_ORDER).encode()

    def read() -> object:
        value = json.loads(data[5:])
        validator.validate(value)
        return value

    return [
        Pair("JSON Schema, write", write, lambda: writing.serialize(JSON_ORDER)),
        Pair("JSON Schema, read", read, lambda: reading.deserialize(data)),
    ]


def _protobuf(registry: SchemaRegistry) -> list[Pair]:
    message = struct_pb2.Value(string_value="anna")
    reading = Protobuf(struct_pb2.Value, registry)
    writing = opened(reading, "protobuf")
    data = writing.serialize(message)
    begin = len(data) - message.ByteSize()
    head = data[:begin]
    return [
        Pair("Protobuf, write", lambda: head + message.SerializeToString(), lambda: writing.serialize(message)),
        Pair("Protobuf, read", lambda: struct_pb2.Value.FromString(data[begin:]), lambda: reading.deserialize(data)),
    ]


def _typed_avro(registry: SchemaRegistry) -> list[Pair]:
    reading = Avro(registry, SCHEMA).typed(DatedOrder)
    writing = Typed(opened(Avro(registry, SCHEMA), "typed"), DatedOrder)
    order, schema = DatedOrder(**ORDER), fastavro.parse_schema(SCHEMA)
    data = writing.serialize(order)

    def write() -> bytes:
        stream = BytesIO()
        stream.write(HEAD)
        fastavro.schemaless_writer(stream, schema, msgspec.to_builtins(order, builtin_types=(datetime,)))
        return stream.getvalue()

    def read() -> object:
        stream = BytesIO(data)
        stream.seek(5)
        return msgspec.convert(fastavro.schemaless_reader(stream, schema, None), DatedOrder)

    return [
        Pair("Avro of a Struct, write", write, lambda: writing.serialize(order)),
        Pair("Avro of a Struct, read", read, lambda: reading.deserialize(data)),
    ]


def _of_struct() -> list[Pair]:
    decode = msgspec.json.Decoder(OrderStruct).decode
    return _both_ways("JSON of a Struct", msgspec.json.encode, decode, Json(OrderStruct), OrderStruct(**JSON_ORDER))


def _of_model() -> list[Pair]:
    adapter = pydantic.TypeAdapter(OrderModel)
    order = OrderModel(**JSON_ORDER)
    return _both_ways("JSON of a model", adapter.dump_json, adapter.validate_json, Json(OrderModel), order)


def _text(value: uuid.UUID) -> bytes:
    return str(value).encode()


def _uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(data.decode())


def _struct(layout: str) -> tuple[Callable[[Any], bytes], Callable[[bytes], object]]:
    """What Python's own struct takes for a number."""
    struct = Struct(layout)
    return struct.pack, lambda data: struct.unpack(data)[0]


def _both_ways(
    what: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], object], ours: Serializer, value: object
) -> list[Pair]:
    data = ours.serialize(value)
    return [
        Pair(f"{what}, write", lambda: encode(value), lambda: ours.serialize(value)),
        Pair(f"{what}, read", lambda: decode(data), lambda: ours.deserialize(data)),
    ]


def least_us(pair: Pair, seconds: float) -> tuple[float, float]:
    """Of the library alone and of ours, in microseconds a record."""
    calls = max(1, int(seconds / SLICES / 2 / max(_slice(pair.ours, 50), 1e-7)))
    bare = ours = float("inf")
    for _ in range(SLICES):
        bare, ours = min(bare, _slice(pair.bare, calls)), min(ours, _slice(pair.ours, calls))
    return bare * 1e6, ours * 1e6


def _slice(call: Callable[[], object], calls: int) -> float:
    """Seconds a call."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def main(seconds: float) -> None:
    print(f"{'':26} {'library':>10} {'ours':>10} {'more':>10}   us a record")
    for pair in pairs():
        bare, ours = least_us(pair, seconds)
        print(f"{pair.what:26} {bare:10.2f} {ours:10.2f} {ours - bare:10.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
