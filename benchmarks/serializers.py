"""What a serializer costs beside the bare library: ``python -m benchmarks.serializers [seconds]``.

Each pair is measured in turns, in slices of a hundredth of the time, so that what else the machine does falls on both.
Of each the least of all slices counts. Needs nothing but Python: the registry is embedded.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, NamedTuple

import fastavro
import jsonschema
from google.protobuf import struct_pb2

from paperboy.serializers import Avro, JsonSchema, Protobuf, SchemaRegistry
from paperboy.serializers.framed import Framed, TopicSerializer

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
ORDER = {
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
JSON_ORDER = {"id": 1_234_567, "customer": "anna", "amount": 19.99, "tags": ["new", "gift"]}


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
    print(f"{'':20} {'library':>10} {'ours':>10} {'more':>10}   us a record")
    for pair in pairs():
        bare, ours = least_us(pair, seconds)
        print(f"{pair.what:20} {bare:10.2f} {ours:10.2f} {ours - bare:10.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
