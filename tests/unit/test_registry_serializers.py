"""Avro, JsonSchema and Protobuf: what they take, give back and refuse. What other programs make of it: see contract."""

import base64
import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from google.protobuf import struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paperboy.errors import (
    ConfigurationError,
    DeserializationError,
    IncompatibleSchema,
    RegistryError,
    SerializationError,
)
from paperboy.serializers import Avro, JsonSchema, Protobuf, SchemaRegistry, Serializer
from paperboy.serializers.avro_shape import holds_endless_arrays, holds_itself
from paperboy.serializers.framed import Framed
from paperboy.serializers.protocol import SchemaNotFetched
from paperboy.serializers.registry_memory import MemoryRegistry
from paperboy.serializers.schema import Schema
from paperboy.tables import Table


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": logical("string", "uuid")},
        {"name": "amount", "type": logical("bytes", "decimal", precision=12, scale=2)},
        {"name": "at", "type": logical("long", "timestamp-micros")},
        {"name": "day", "type": logical("int", "date")},
        {"name": "clock", "type": logical("long", "time-micros")},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
        {"name": "sum", "type": {"type": "fixed", "name": "Sum", "size": 2}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "weight", "type": ["null", "double"]},
        {"name": "gift", "type": "boolean"},
    ],
}
ORDERS = st.fixed_dictionaries(
    {
        "id": st.uuids(),
        "amount": st.decimals(-(10**9), 10**9, places=2),
        "at": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
        "day": st.dates(),
        "clock": st.times(),
        "state": st.sampled_from(["NEW", "PAID"]),
        "sum": st.binary(min_size=2, max_size=2),
        "tags": st.lists(st.text()),
        "counts": st.dictionaries(st.text(), st.none() | st.integers(-(2**63), 2**63 - 1)),
        "weight": st.none() | st.floats(allow_nan=False),
        "gift": st.booleans(),
    }
)
NODE: dict[str, Any] = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "value", "type": "int"}, {"name": "next", "type": ["null", "Node"]}],
}
PERSON = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


async def opened(framed: Framed, topic: str = "orders") -> Serializer:
    serializer = framed.for_topic(topic)
    await serializer.open()
    return serializer


def opened_now(framed: Framed) -> Serializer:
    """In a registry of this process, which waits for nothing."""
    opening = opened(framed)
    try:
        opening.send(None)
    except StopIteration as end:
        serializer: Serializer = end.value
        return serializer
    raise AssertionError("It waited for something.")


AVRO = Avro("memory://", ORDER)
FRAMED_AVRO = opened_now(AVRO)
FRAMED_NODES = opened_now(Avro("memory://", NODE))
FRAMED_JSON = opened_now(JsonSchema("memory://", {"title": "Anything"}))
FRAMED_PROTOBUF = opened_now(Protobuf(struct_pb2.Struct, "memory://"))
TIMESTAMPS = Protobuf(timestamp_pb2.Timestamp)


@settings(deadline=None)
@given(ORDERS)
def test_avro_brings_back_what_it_was_given(order: dict[str, Any]) -> None:
    assert FRAMED_AVRO.deserialize(FRAMED_AVRO.serialize(order)) == order
    assert Avro(None, ORDER).deserialize(Avro(None, ORDER).serialize(order)) == order


@settings(deadline=None)
@given(JSON)
def test_json_schema_brings_back_what_it_was_given(value: Any) -> None:
    assert FRAMED_JSON.deserialize(FRAMED_JSON.serialize(value)) == value


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.floats(allow_nan=False), max_size=5))
def test_protobuf_brings_back_what_it_was_given(content: dict[str, Any]) -> None:
    message = struct_pb2.Struct()
    message.update(content)
    assert FRAMED_PROTOBUF.deserialize(FRAMED_PROTOBUF.serialize(message)) == message


@settings(deadline=None)
@given(st.integers(-(2**53), 2**53), st.integers(0, 10**9 - 1))
def test_protobuf_brings_back_plain_messages(seconds: int, nanos: int) -> None:
    message = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)
    assert TIMESTAMPS.serialize(message) == message.SerializeToString()
    assert TIMESTAMPS.deserialize(message.SerializeToString()) == message


# Damaged bytes.

GOOD: dict[str, tuple[Serializer, bytes]] = {
    "avro": (
        FRAMED_AVRO,
        FRAMED_AVRO.serialize(
            {
                "id": UUID(int=7),
                "amount": Decimal("1.50"),
                "at": datetime(2026, 1, 2, tzinfo=UTC),
                "day": date(2026, 1, 2),
                "clock": time(1, 2, 3),
                "state": "NEW",
                "sum": b"ab",
                "tags": ["a", "b"],
                "counts": {"a": 1, "b": None},
                "weight": 1.5,
                "gift": True,
            }
        ),
    ),
    "nodes": (FRAMED_NODES, FRAMED_NODES.serialize({"value": 1, "next": {"value": 2, "next": None}})),
    "json": (FRAMED_JSON, FRAMED_JSON.serialize({"name": "anna", "tags": [1, None]})),
    "protobuf": (FRAMED_PROTOBUF, FRAMED_PROTOBUF.serialize(struct_pb2.Struct(fields={"a": struct_pb2.Value()}))),
}


def only_deserialization_errors(serializer: Serializer, data: bytes) -> None:
    with suppress(DeserializationError, SchemaNotFetched):
        serializer.deserialize(data)


@pytest.mark.parametrize("name", GOOD)
@settings(deadline=None, max_examples=300)
@given(body=st.binary(max_size=200))
@example(body=b"")
@example(body=b"\xff" * 20)
@example(body=b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
def test_any_bytes_are_read_or_refused(name: str, body: bytes) -> None:
    serializer, good = GOOD[name]
    only_deserialization_errors(serializer, good[:5] + body)
    only_deserialization_errors(serializer, body)


@pytest.mark.parametrize("name", GOOD)
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    serializer, good = GOOD[name]
    at = data.draw(st.integers(5, len(good) - 1))
    damaged = good[:at] + data.draw(st.binary(max_size=9)) + good[data.draw(st.integers(at, len(good))) :]
    only_deserialization_errors(serializer, damaged)


@pytest.mark.parametrize("name", ["avro", "nodes"])
def test_avro_that_ends_too_soon_is_refused(name: str) -> None:
    serializer, good = GOOD[name]
    for end in range(5, len(good)):
        with pytest.raises(DeserializationError, match="in schema id 1"):
            serializer.deserialize(good[:end])


@pytest.mark.parametrize("name", GOOD)
def test_what_has_no_head_says_what_a_head_is(name: str) -> None:
    serializer, good = GOOD[name]
    for wrong in (b"", b"\x00\x00", b"{}", b"\x01" + good[1:]):
        with pytest.raises(DeserializationError, match="magic byte"):
            serializer.deserialize(wrong)


def test_a_list_nested_by_a_hundred_thousand_is_refused_and_not_a_crash() -> None:
    deep = b"\x00\x02" * 100_000 + b"\x00\x00"
    for serializer, head in ((Avro(None, NODE), b""), (FRAMED_NODES, GOOD["nodes"][1][:5])):
        with pytest.raises(DeserializationError, match="recursion"):
            serializer.deserialize(head + deep)


@pytest.mark.parametrize("each", [b"\x00\x02", b"\xfe\xff\xff\xff\x0f\x02"])
def test_one_of_fair_length_is_read(each: bytes) -> None:
    """In C where it is short, in Python where it is long."""
    node, depth = Avro(None, NODE).deserialize(each * 120 + b"\x00\x00"), 0
    while node is not None:
        node, depth = node["next"], depth + 1
    assert depth == 121


def test_an_object_that_holds_itself_is_refused_and_not_a_crash() -> None:
    node: dict[str, Any] = {"value": 1}
    node["next"] = node
    with pytest.raises(SerializationError, match="recursion"):
        Avro(None, NODE).serialize(node)


def test_arrays_of_nothing_are_refused_with_their_schema() -> None:
    """Nine bytes of one could ask for all memory there is."""
    empty = {"type": "record", "name": "Empty", "fields": [{"name": "a", "type": "null"}]}
    for items in ("null", empty, {"type": "fixed", "name": "F", "size": 0}):
        with pytest.raises(ConfigurationError, match="items that take no bytes"):
            Avro(None, {"type": "array", "items": items})


@pytest.mark.parametrize(
    ("schema", "itself"),
    [
        (NODE, True),
        (ORDER, False),
        ("string", False),
        ({"type": "array", "items": NODE}, True),
        (
            {
                "type": "record",
                "name": "A",
                "fields": [
                    {
                        "name": "b",
                        "type": {"type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]},
                    }
                ],
            },
            True,
        ),
    ],
)
def test_what_holds_itself_is_known(schema: Any, itself: bool) -> None:
    parsed: Any = Avro(None, schema)._own
    assert holds_itself(parsed) is itself
    assert not holds_endless_arrays(parsed)


# What is refused when it is written.


@pytest.mark.parametrize(
    ("serializer", "wrong"),
    [
        (Avro(None, "int"), "1"),
        (Avro(None, "string"), None),
        (Avro(None, NODE), {"value": 1}),
        (Avro(None, NODE), {"value": 1, "next": None, "more": 2}),
        (Avro(None, NODE), {"value": 1, "next": object()}),
        (Avro(None, NODE), {"value": 2**70, "next": None}),
        (Avro(None, logical("bytes", "decimal", precision=3, scale=2)), Decimal("1.234")),
        (JsonSchema(None, PERSON), {}),
        (JsonSchema(None, PERSON), {"name": "anna", "age": -1}),
        (JsonSchema(None, {}), {1: 2}),
        (JsonSchema(None, {}), (1, 2)),
        (JsonSchema(None, {}), float("nan")),
        (TIMESTAMPS, wrappers_pb2.StringValue(value="a")),
        (TIMESTAMPS, b"a"),
    ],
)
def test_what_does_not_go_with_the_schema_is_refused(serializer: Serializer, wrong: Any) -> None:
    with pytest.raises(SerializationError):
        serializer.serialize(wrong)


def test_what_may_be_left_out_may_be_left_out() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": 7}]}
    assert Avro(None, schema).deserialize(Avro(None, schema).serialize({})) == {"a": 7}


def test_json_is_checked_when_it_is_read() -> None:
    with pytest.raises(DeserializationError, match=r"'anna' is not of type 'object' \(at \$\)"):
        JsonSchema(None, PERSON).deserialize(b'"anna"')
    assert JsonSchema(None, PERSON, validate=False).deserialize(b'"anna"') == "anna"


def test_json_schemas_look_nowhere_else_for_what_they_refer_to() -> None:
    elsewhere = JsonSchema(None, {"$ref": "http://127.0.0.1:9/person.json"})
    with pytest.raises(SerializationError, match=r"Unresolvable|unresolvable|PointerToNowhere|WrappedReferencing"):
        elsewhere.serialize({})


async def test_json_schemas_find_what_the_registry_says_they_refer_to() -> None:
    from paperboy.serializers.schema import Reference

    registry = SchemaRegistry("memory://")
    await registry.register("person", Schema('{"type": "string"}', "JSON"))
    whole = Schema('{"$ref": "person.json"}', "JSON", (Reference("person.json", "person", 1),))
    schema_id = await registry.register("orders-value", whole)
    head = b"\x00" + schema_id.to_bytes(4, "big")
    assert JsonSchema(registry).deserialize(head + b'"anna"') == "anna"
    with pytest.raises(DeserializationError, match="is not of type 'string'"):
        JsonSchema(registry).deserialize(head + b"1")


async def test_avro_schemas_find_what_the_registry_says_they_refer_to() -> None:
    from paperboy.serializers.schema import Reference

    registry = SchemaRegistry("memory://")
    await registry.register("money", Schema('{"type": "fixed", "name": "Money", "size": 2}'))
    text = '{"type": "record", "name": "Order", "fields": [{"name": "total", "type": "Money"}]}'
    schema_id = await registry.register("orders-value", Schema(text, references=(Reference("Money", "money", 1),)))
    assert Avro(registry).deserialize(b"\x00" + schema_id.to_bytes(4, "big") + b"ab") == {"total": b"ab"}


async def test_protobuf_refuses_another_message_of_the_file() -> None:
    registry = SchemaRegistry("memory://")
    strings = await opened(Protobuf(wrappers_pb2.StringValue, registry))
    data = strings.serialize(wrappers_pb2.StringValue(value="a"))
    assert Protobuf(wrappers_pb2.StringValue, registry).deserialize(data).value == "a"
    with pytest.raises(DeserializationError, match=r"google.protobuf.StringValue, and not google.protobuf.BytesValue"):
        Protobuf(wrappers_pb2.BytesValue, registry).deserialize(data)


async def test_protobuf_reads_schemas_in_text() -> None:
    registry = SchemaRegistry("memory://")
    text = "syntax = 'proto3'; package google.protobuf; message Other {} message StringValue { string value = 1; }"
    schema_id = await registry.register("a-value", Schema(text, "PROTOBUF"))
    head = b"\x00" + schema_id.to_bytes(4, "big")
    strings = Protobuf(wrappers_pb2.StringValue, registry)
    assert strings.deserialize(head + b"\x02\x02\n\x01a").value == "a"
    with pytest.raises(DeserializationError, match=r"google\.protobuf\.Other"):
        strings.deserialize(head + b"\x00\n\x01a")
    with pytest.raises(DeserializationError, match="no such message"):
        strings.deserialize(head + b"\x02\x04\n\x01a")


# Schemas, subjects and topics.


@pytest.mark.parametrize(
    ("make", "strategy", "subject"),
    [
        (lambda registry, strategy: Avro(registry, ORDER, subject_strategy=strategy), "topic", "orders-value"),
        (lambda registry, strategy: Avro(registry, ORDER, subject_strategy=strategy), "record", "shop.Order"),
        (
            lambda registry, strategy: Avro(registry, ORDER, subject_strategy=strategy),
            "topic_record",
            "orders-shop.Order",
        ),
        (lambda registry, strategy: JsonSchema(registry, PERSON, subject_strategy=strategy), "record", "Person"),
        (
            lambda registry, strategy: Protobuf(timestamp_pb2.Timestamp, registry, subject_strategy=strategy),
            "topic_record",
            "orders-google.protobuf.Timestamp",
        ),
    ],
)
async def test_a_strategy_names_the_subject(
    make: Callable[[SchemaRegistry, Any], Framed], strategy: Any, subject: str
) -> None:
    registry = SchemaRegistry("memory://")
    await opened(make(registry, strategy))
    assert await registry.subjects() == [subject]


async def test_the_embedded_registry_refuses_a_field_that_becomes_another() -> None:
    def message(kind: "FieldDescriptorProto.Type.ValueType") -> Schema:
        file = FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
        file.message_type.add(name="Order").field.add(name="a", number=1, type=kind)
        return Schema(base64.b64encode(file.SerializeToString()).decode(), "PROTOBUF")

    registry = SchemaRegistry("memory://")
    await registry.register("orders-value", message(FieldDescriptorProto.TYPE_INT32))
    await registry.register("orders-value", message(FieldDescriptorProto.TYPE_INT64))
    with pytest.raises(IncompatibleSchema, match=r"field 1 of shop\.Order was int64, and would be read as string"):
        await registry.register("orders-value", message(FieldDescriptorProto.TYPE_STRING))


async def test_keys_have_a_subject_of_their_own() -> None:
    registry = SchemaRegistry("memory://")
    await Avro(registry, "string").for_topic("orders", "key").open()
    assert await registry.subjects() == ["orders-key"]


async def test_what_was_not_opened_can_be_finished_by_who_waits() -> None:
    registry = SchemaRegistry("memory://")
    writing = Avro(registry, "string").for_topic("orders")
    value = "anna"
    with pytest.raises(SchemaNotFetched) as missing:
        writing.serialize(value)
    data = await missing.value.finish()
    assert data == writing.serialize(value)
    other = SchemaRegistry("memory://")
    other._connection = registry._connection
    with pytest.raises(SchemaNotFetched) as missing:
        Avro(other).deserialize(data)
    assert await missing.value.finish() == "anna"


async def test_one_schema_is_registered_once_and_read_without_a_word_to_the_registry() -> None:
    asked: list[str] = []

    class Counting(MemoryRegistry):
        def __getattribute__(self, name: str) -> Any:
            if name in ("schema", "lookup", "register", "versions", "version"):
                asked.append(name)
            return super().__getattribute__(name)

    registry = SchemaRegistry("memory://")
    registry._connection = Counting("memory://")
    writing = await opened(Avro(registry, "string"))
    before = list(asked)
    for _ in range(3):
        assert Avro(registry).deserialize(writing.serialize("anna")) == "anna"
    assert asked == before


async def test_a_serializer_that_only_reads_says_so_when_it_is_to_write() -> None:
    with pytest.raises(SerializationError, match="no schema to write the value for topic 'orders'"):
        Avro("memory://").for_topic("orders")


async def test_without_a_topic_the_error_says_where_there_is_one() -> None:
    with pytest.raises(SerializationError, match="for_topic"):
        Avro("memory://", "string").serialize("anna")
    registry = SchemaRegistry("memory://")
    by_record = Avro(registry, ORDER, subject_strategy="record")
    with pytest.raises(SchemaNotFetched):
        by_record.serialize(FRAMED_AVRO.deserialize(GOOD["avro"][1]))


async def test_registering_off_is_an_error_where_nothing_is_registered() -> None:
    with pytest.raises(RegistryError, match="register=False"):
        await opened(Avro("memory://", "string", register=False))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Avro(None),
        lambda: Avro(None, {"type": "record"}),
        lambda: Avro(None, '{"type": '),
        lambda: Avro("memory://", "string", subject_strategy="record"),
        lambda: Avro("memory://", "string", subject_strategy="topics"),  # type: ignore[arg-type]
        lambda: JsonSchema(None, {"type": "strange"}),
        lambda: JsonSchema("memory://", {}, subject_strategy="record"),
        lambda: Protobuf(dict),  # type: ignore[type-var]
        lambda: Protobuf(timestamp_pb2.Timestamp()),  # type: ignore[arg-type]
        lambda: SchemaRegistry([]),
        lambda: SchemaRegistry("registry:8081"),
        lambda: SchemaRegistry(["memory://a", "memory://b"]),
        lambda: SchemaRegistry("memory://a/b"),
        lambda: SchemaRegistry("https://registry", ca_file="/nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_a_missing_extra_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, make in (
        ("fastavro", "avro", lambda: Avro(None, "string")),
        ("jsonschema", "jsonschema", lambda: JsonSchema(None, {})),
        ("google.protobuf.message", "protobuf", lambda: Protobuf(timestamp_pb2.Timestamp)),
        ("schema_registry.client", "avro", lambda: SchemaRegistry("http://localhost:8081")),
    ):
        with monkeypatch.context() as hidden:
            hidden.setitem(__import__("sys").modules, module, None)
            with pytest.raises(ConfigurationError, match=rf"pip install 'paperboy-streams\[{name}\]'"):
                make()


def test_stores_on_disk_name_the_serializer_and_not_the_schema() -> None:
    """For ever: a store of a table whose serializer has another name is thrown away, and restored."""
    names = {
        serializer: Table("orders", value_serializer=serializer).definition.split("; ")[1]
        for serializer in (Avro(None, "string"), JsonSchema(None, {}), TIMESTAMPS)
    }
    assert list(names.values()) == [
        "values: paperboy.serializers.avro.Avro",
        "values: paperboy.serializers.json_schema.JsonSchema",
        "values: paperboy.serializers.protobuf.Protobuf",
    ]


def test_the_head_is_a_zero_and_the_id() -> None:
    assert GOOD["avro"][1][:5] == struct.pack(">bI", 0, 1)


def test_the_schema_of_a_message_is_its_files_descriptor() -> None:
    schema = Protobuf(timestamp_pb2.Timestamp).schema
    assert schema is not None
    assert base64.b64decode(schema.text) == timestamp_pb2.DESCRIPTOR.serialized_pb


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"$schema":5}', '{"type":"record","name":"x","fields":3}'])
@pytest.mark.parametrize("kind", ["AVRO", "JSON", "PROTOBUF"])
def test_what_was_written_in_a_schema_that_is_none_cannot_be_read(
    kind: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SchemaRegistry("memory://")
    monkeypatch.setattr(registry, "known", lambda schema_id: Schema(text, kind))
    readers = {"AVRO": Avro(registry), "JSON": JsonSchema(registry), "PROTOBUF": Protobuf(struct_pb2.Struct, registry)}
    with pytest.raises(DeserializationError):
        readers[kind].deserialize(b"\x00\x00\x00\x00\x01\x00{}")


@pytest.mark.parametrize("kind", [Avro, JsonSchema])
def test_a_schema_in_place_of_a_registry_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is no registry: give a SchemaRegistry, its address, or None"):
        kind(ORDER)
