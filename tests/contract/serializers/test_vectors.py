"""What other implementations write, we read, and the other way round: confluent-kafka's serializers on one registry."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import BytesIO
from types import ModuleType
from typing import Any
from uuid import UUID

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from schema_registry.client import SchemaRegistryClient as ReferenceClient
from schema_registry.client.schema import AvroSchema
from schema_registry.serializers.message_serializer import AvroMessageSerializer

from paperboy.serializers import Avro, JsonSchema, Protobuf, SchemaRegistry

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "exactly", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
        {"name": "sum", "type": {"type": "fixed", "name": "Sum", "size": 4}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": "long"}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "weight", "type": "double"},
        {"name": "gift", "type": "boolean"},
    ],
}
AN_ORDER = {
    "id": UUID(int=7),
    "amount": Decimal("-12.50"),
    "at": datetime(2026, 2, 3, 4, 5, 6, 789000, UTC),
    "exactly": datetime(1969, 2, 3, 4, 5, 6, 789123, UTC),
    "day": date(2026, 2, 28),
    "clock": time(1, 2, 3, 4000),
    "state": "PAID",
    "sum": b"\x00\x01\xff\x7f",
    "tags": ["a", "ä"],
    "counts": {"x": 1, "y": -(2**40)},
    "note": None,
    "weight": 0.1,
    "gift": True,
}
JSON_ORDER = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Order",
    "type": "object",
    "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
    "required": ["id"],
}


@pytest.fixture
def confluent(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry_url}) as client:
        yield client


@pytest.fixture
def ours(registry_url: str) -> SchemaRegistry:
    return SchemaRegistry(registry_url)


def of_value(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


async def written(serializer: Any, topic: str, value: Any) -> bytes:
    writing = serializer.for_topic(topic)
    await writing.open()
    data: bytes = writing.serialize(value)
    return data


async def read(serializer: Any, topic: str, data: bytes) -> Any:
    await serializer.fetch_for([data])
    return serializer.deserialize(data)


async def test_avro_as_confluents(confluent: SchemaRegistryClient, ours: SchemaRegistry, topic: str) -> None:
    theirs = AvroSerializer(confluent, json.dumps(ORDER))(AN_ORDER, of_value(topic))
    mine = await written(Avro(ours, ORDER), topic, AN_ORDER)
    assert theirs is not None
    assert mine[5:] == theirs[5:]
    assert await read(Avro(ours), topic, theirs) == AN_ORDER
    assert AvroDeserializer(confluent)(mine, of_value(topic)) == AN_ORDER


async def test_avro_as_fastavros_without_a_registry() -> None:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(ORDER), AN_ORDER)
    assert Avro(None, ORDER).serialize(AN_ORDER) == stream.getvalue()
    assert Avro(None, ORDER).deserialize(stream.getvalue()) == AN_ORDER


async def test_avro_by_the_bytes_of_the_specification() -> None:
    """The examples of Avro's own specification."""
    schema = {
        "type": "record",
        "name": "test",
        "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}],
    }
    assert Avro(None, schema).serialize({"a": 27, "b": "foo"}) == bytes.fromhex("3606666f6f")
    numbers = Avro(None, "long")
    encoded = {0: "00", -1: "01", 1: "02", -2: "03", 2: "04", -64: "7f", 64: "8001"}
    assert {number: numbers.serialize(number).hex() for number in encoded} == encoded
    assert Avro(None, {"type": "array", "items": "long"}).deserialize(bytes.fromhex("04063600")) == [3, 27]
    assert Avro(None, ["null", "string"]).serialize("a").hex() == "020261"


async def test_avro_as_python_schema_registry_clients(registry_url: str, ours: SchemaRegistry, topic: str) -> None:
    """The client whose serializers the reference's snippets use, both ways."""
    theirs = AvroMessageSerializer(ReferenceClient(url=registry_url))
    plain = {"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}]}
    data = theirs.encode_record_with_schema(f"{topic}-value", AvroSchema(plain), {"name": "anna"})
    assert await read(Avro(ours), topic, data) == {"name": "anna"}
    assert theirs.decode_message(await written(Avro(ours, plain), topic, {"name": "bert"})) == {"name": "bert"}


async def test_json_schema_as_confluents(confluent: SchemaRegistryClient, ours: SchemaRegistry, topic: str) -> None:
    value = {"id": 1, "name": "änna"}
    theirs = JSONSerializer(json.dumps(JSON_ORDER), confluent)(value, of_value(topic))
    mine = await written(JsonSchema(ours, JSON_ORDER), topic, value)
    assert theirs is not None
    assert json.loads(mine[5:]) == json.loads(theirs[5:])
    assert await read(JsonSchema(ours), topic, theirs) == value
    assert JSONDeserializer(None, schema_registry_client=confluent)(mine, of_value(topic)) == value


def order_of(shop: ModuleType) -> Any:
    order = shop.Order(id="7", notes={"b": "2"}, state="PAID")
    order.total.cents = 1250
    order.at.FromDatetime(datetime(2026, 2, 3, tzinfo=UTC))
    order.lines.add(sku="x", count=3)
    return order


@pytest.mark.parametrize("name", ["Order", "Order.Line", "Payment", "Payment.Card", "Payment.Card.Number"])
async def test_protobuf_as_confluents(
    confluent: SchemaRegistryClient, ours: SchemaRegistry, topic: str, shop: ModuleType, name: str
) -> None:
    kind: Any = shop
    for part in name.split("."):
        kind = getattr(kind, part)
    message = order_of(shop) if name == "Order" else kind()
    settings = {"use.deprecated.format": False}
    theirs = ProtobufSerializer(kind, confluent, settings)(message, of_value(topic))
    mine = await written(Protobuf(kind, ours), topic, message)
    assert theirs is not None
    assert mine == theirs
    assert await read(Protobuf(kind, ours), topic, theirs) == message
    assert ProtobufDeserializer(kind, settings, confluent)(mine, of_value(topic)) == message
