"""What turns objects into bytes and back."""

from paperboy.serializers.builtins import Bytes, Json, String
from paperboy.serializers.protocol import Serializer

__all__ = ["Bytes", "Json", "Serializer", "String"]
