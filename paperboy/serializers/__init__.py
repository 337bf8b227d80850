"""What turns objects into bytes and back."""

from paperboy.serializers.avro import Avro
from paperboy.serializers.builtins import Bytes, Json, String
from paperboy.serializers.json_schema import JsonSchema
from paperboy.serializers.protobuf import Protobuf
from paperboy.serializers.protocol import Serializer
from paperboy.serializers.registry import SchemaRegistry

__all__ = ["Avro", "Bytes", "Json", "JsonSchema", "Protobuf", "SchemaRegistry", "Serializer", "String"]
