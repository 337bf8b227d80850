"""Which schemas can read what others wrote. For Avro, fastavro is the judge: what is said to be readable, it reads."""

import base64
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

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
