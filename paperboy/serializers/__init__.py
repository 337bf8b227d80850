"""What turns objects into bytes and back."""

from paperboy.serializers.avro import Avro
from paperboy.serializers.builtins import Bytes, Json, String
from paperboy.serializers.protocol import Serializer
from paperboy.serializers.registry import SchemaRegistry

__all__ = ["Avro", "Bytes", "Json", "SchemaRegistry", "Serializer", "String"]
