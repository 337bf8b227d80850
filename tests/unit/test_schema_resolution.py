"""Which schemas can read what others wrote. For Avro, fastavro is the judge: what is said to be readable, it reads."""

import base64
import json
from io import BytesIO
from typing import Any

import fastavro
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from paperboy.serializers import json_resolution, protobuf_resolution
from paperboy.serializers.avro_resolution import unresolvable
from paperboy.serializers.compatibility import unreadable
from paperboy.serializers.protobuf_schema import message_names
from paperboy.serializers.schema import Reference, Schema


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


NODE = record(field("value", "int"), field("next", ["null", "Node"]), name="Node")
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        ("long", "int"),
        ("double", "long"),
        ("bytes", "string"),
        (["null", "string"], "string"),
        ("string", ["string"]),
        (["long", "string"], ["int", "string"]),
        (record(), record(field("a", "int"))),
        (record(field("a", "int", default=1)), record()),
        (record(field("b", "int", aliases=["a"])), record(field("a", "int"))),
        (record(name="New", aliases=["R"]), record()),
        (record(name="other.R"), record(name="some.R")),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, {"type": "enum", "name": "E", "symbols": ["B"]}),
        (
            {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"},
            {"type": "enum", "name": "E", "symbols": ["B"]},
        ),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}),
        ({"type": "map", "values": "long"}, {"type": "map", "values": "int"}),
        (NODE, NODE),
        ({"type": "long", "logicalType": "timestamp-millis"}, "long"),
        (record(field("a", record(name="In", namespace="x")), field("b", "x.In")),) * 2,
        ({"type": "string"}, "string"),
        (DECIMAL, {**DECIMAL, "precision": 5}),
    ],
)
def test_avro_reads(reader: Any, writer: Any) -> None:
    assert unresolvable(reader, writer) is None


@pytest.mark.parametrize(
    ("reader", "writer", "why"),
    [
        ("int", "long", "long at the top cannot be read as int"),
        ("string", "int", "int at the top cannot be read as string"),
        ("string", ["null", "string"], "null at the top cannot be read as string"),
        (["null", "int"], "string", "string at the top is none of null, int"),
        (record(field("a", "int")), record(), "field a was not written, and has no default"),
        (record(name="A"), record(name="B"), "record B at the top cannot be read as record A"),
        (
            record(field("a", record(field("b", "int"), name="In"))),
            record(field("a", record(field("b", "string"), name="In"))),
            "string at a.b cannot be read as int",
        ),
        (
            {"type": "enum", "name": "E", "symbols": ["A"]},
            {"type": "enum", "name": "E", "symbols": ["A", "B"]},
            "enum E at the top cannot be read as enum E: it lacks B",
        ),
        (
            {"type": "fixed", "name": "F", "size": 4},
            {"type": "fixed", "name": "F", "size": 8},
            "fixed F at the top cannot be read as fixed F: their sizes differ",
        ),
        (
            {"type": "array", "items": "int"},
            {"type": "array", "items": "string"},
            "string at the top[] cannot be read as int",
        ),
        ({"type": "map", "values": "int"}, {"type": "array", "items": "int"}, "array at the top cannot be read as map"),
        (DECIMAL, {**DECIMAL, "scale": 3}, "the decimal at the top has scale 3, and would be read with 2"),
        (
            record(field("value", "string"), field("next", ["null", "Node"]), name="Node"),
            NODE,
            "int at value cannot be read as string",
        ),
    ],
)
def test_avro_does_not_read(reader: Any, writer: Any, why: str) -> None:
    assert unresolvable(reader, writer) == why


PRIMITIVES = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
DEFAULTS = {
    "null": None,
    "boolean": True,
    "int": 1,
    "long": 1,
    "float": 1.5,
    "double": 1.5,
    "bytes": "x",
    "string": "x",
}


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2, name: str = "R") -> Any:
    kind = draw(st.sampled_from(["primitive"] * 3 + (["record", "array", "map", "union", "enum"] if depth else [])))
    if kind == "record":
        fields = []
        for each in sorted(draw(st.sets(st.sampled_from("abc"), min_size=1))):
            inner = draw(schemas(depth - 1, f"{name}{each}"))
            more = {}
            if isinstance(inner, str) and draw(st.booleans()):
                more = {"default": DEFAULTS[inner]}
            fields.append(field(each, inner, **more))
        return record(*fields, name=name)
    if kind == "array":
        return {"type": "array", "items": draw(schemas(depth - 1, f"{name}i").filter(lambda inner: inner != "null"))}
    if kind == "map":
        return {"type": "map", "values": draw(schemas(depth - 1, f"{name}v"))}
    if kind == "union":
        return sorted(draw(st.sets(PRIMITIVES, min_size=1, max_size=3)))
    if kind == "enum":
        symbols = sorted(draw(st.sets(st.sampled_from("ABC"), min_size=1)))
        default = {"default": symbols[0]} if draw(st.booleans()) else {}
        return {"type": "enum", "name": f"{name}E", "symbols": symbols, **default}
    return draw(PRIMITIVES)


@st.composite
def values(draw: st.DrawFn, schema: Any) -> Any:
    if isinstance(schema, list):
        return draw(values(draw(st.sampled_from(schema))))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {each["name"]: draw(values(each["type"])) for each in schema["fields"]}
    if kind == "array":
        return draw(st.lists(values(schema["items"]), max_size=2))
    if kind == "map":
        return draw(st.dictionaries(st.text(max_size=2), values(schema["values"]), max_size=2))
    if kind == "enum":
        return draw(st.sampled_from(schema["symbols"]))
    simple: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "float": st.floats(width=32, allow_nan=False),
        "double": st.floats(allow_nan=False),
        "bytes": st.binary(max_size=3).map(lambda data: bytes(byte & 0x7F for byte in data)),
        "string": st.text("abc", max_size=3),
    }
    return draw(simple[kind])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_said_to_be_readable_is_read(data: st.DataObject) -> None:
    writer = data.draw(schemas(), label="writer")
    reader = data.draw(st.one_of(st.just(writer), schemas()), label="reader")
    readable = unresolvable(reader, writer) is None
    event(f"readable: {readable}")
    assume(readable)
    value = data.draw(values(writer), label="value")
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), value)
    stream.seek(0)
    fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), fastavro.parse_schema(reader))


@settings(max_examples=100, deadline=None)
@given(schemas())
def test_every_schema_reads_itself(schema: Any) -> None:
    assert unresolvable(schema, schema) is None
    assert unresolvable(json.loads(json.dumps(schema)), schema) is None


@pytest.mark.parametrize(
    ("reader", "writer", "why"),
    [
        ({}, {"type": "string"}, None),
        ({"type": "number"}, {"type": "integer"}, None),
        ({"type": ["string", "null"]}, {"type": "string"}, None),
        ({"type": "integer"}, {"type": "number"}, "number at the top is not allowed any more"),
        ({"required": ["a"]}, {"required": ["a", "b"]}, None),
        ({"required": ["a", "b"]}, {"required": ["a"]}, "property 'b' at the top is required, and was not"),
        (
            {"properties": {"a": {"type": "string"}}},
            {"properties": {"a": {"type": "integer"}}},
            "integer at a is not allowed any more",
        ),
        (
            {"properties": {"a": {}}, "additionalProperties": False},
            {"properties": {"a": {}, "b": {}}, "additionalProperties": False},
            "property b is not allowed any more",
        ),
        ({"enum": [1, 2]}, {"enum": [2, 3]}, "3 at the top is not allowed any more"),
        (
            {"items": {"type": "string"}},
            {"items": {"type": "null"}},
            "null at the top[] is not allowed any more",
        ),
        (False, {}, "nothing is allowed at the top"),
        (True, {}, None),
    ],
)
def test_json_schemas(reader: Any, writer: Any, why: str | None) -> None:
    assert json_resolution.unresolvable(reader, writer) == why


def descriptor(kind: "FieldDescriptorProto.Type.ValueType", message: str = "Order", number: int = 1) -> str:
    file = FileDescriptorProto(name="a.proto", package="shop", syntax="proto3")
    file.message_type.add(name=message).field.add(name="a", number=number, type=kind)
    return base64.b64encode(file.SerializeToString()).decode()


@pytest.mark.parametrize(
    ("reader", "writer", "why"),
    [
        (descriptor(FieldDescriptorProto.TYPE_INT64), descriptor(FieldDescriptorProto.TYPE_INT32), None),
        (descriptor(FieldDescriptorProto.TYPE_STRING, number=2), descriptor(FieldDescriptorProto.TYPE_INT32), None),
        (
            descriptor(FieldDescriptorProto.TYPE_STRING),
            descriptor(FieldDescriptorProto.TYPE_INT32),
            "field 1 of shop.Order was int32, and would be read as string",
        ),
        (
            descriptor(FieldDescriptorProto.TYPE_SINT32),
            descriptor(FieldDescriptorProto.TYPE_INT32),
            "field 1 of shop.Order was int32, and would be read as sint32",
        ),
        (
            descriptor(FieldDescriptorProto.TYPE_INT32, "Payment"),
            descriptor(FieldDescriptorProto.TYPE_INT32),
            "message shop.Order is gone",
        ),
        ("message A {}", "message B {}", None),
    ],
)
def test_protobuf_schemas(reader: str, writer: str, why: str | None) -> None:
    assert protobuf_resolution.unresolvable(reader, writer) == why


def test_schemas_of_two_kinds_never_go_together() -> None:
    assert unreadable(Schema("{}", "JSON"), Schema('"string"')) == "one is JSON, the other AVRO"


def test_what_refers_to_others_is_not_judged() -> None:
    assert unreadable(Schema('"string"', references=(Reference("a", "a", 1),)), Schema('"int"')) is None


def test_messages_of_a_proto_files_text_have_their_paths() -> None:
    text = """
        syntax = "proto3"; // message No {
        package shop.v1; /* message Neither { } */
        import "other.proto";
        option java_package = "message { in.a.string }";
        enum State { NEW = 0; }
        message Order {
          option deprecated = true;
          string message = 1;
          oneof what { string a = 2; Inner b = 3; }
          message Inner { enum E { A = 0; } message Deep {} }
          repeated group Old = 4 { optional int32 x = 5; }
        }
        service S { rpc Do(Order) returns (Order) { option (x) = { y: 1 }; } }
        message Payment {}
    """
    assert message_names(text) == {
        (0,): "shop.v1.Order",
        (0, 0): "shop.v1.Order.Inner",
        (0, 0, 0): "shop.v1.Order.Inner.Deep",
        (0, 1): "shop.v1.Order.Old",
        (1,): "shop.v1.Payment",
    }
