"""What turns objects into bytes and back."""

from paperboy.serializers.avro import Avro
from paperboy.serializers.avro_schema import DecimalDigits, avro_schema_of
from paperboy.serializers.builtins import Bytes, Json, String
from paperboy.serializers.java import UUID, Double, Integer, Long
from paperboy.serializers.json_schema import JsonSchema
from paperboy.serializers.message_pack import MessagePack
from paperboy.serializers.models import Typed
from paperboy.serializers.protobuf import Protobuf
from paperboy.serializers.protocol import Serializer
from paperboy.serializers.registry import SchemaRegistry

__all__ = [
    "UUID",
    "Avro",
    "Bytes",
    "DecimalDigits",
    "Double",
    "Integer",
    "Json",
    "JsonSchema",
    "Long",
    "MessagePack",
    "Protobuf",
    "SchemaRegistry",
    "Serializer",
    "String",
    "Typed",
    "avro_schema_of",
]
