"""MessagePack, for programs in any language."""

from typing import Any

from paperboy.errors import DeserializationError, SerializationError
from paperboy.serializers.equality import same
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.models import message_pack_coding, type_name

__all__ = ["MessagePack"]


class MessagePack:
    """MessagePack: None, bool, int (of 64 bits), float, str, bytes, datetime in UTC, and lists and dicts of them.

    With a type, objects of that type: as maps with the names of its fields.

    What would come back as something else is refused: tuples, subclasses, dates in other zones.

    Args:
        kind: a dataclass, msgspec.Struct or pydantic model, or whatever type hints can say of them: ``list[Order]``.
        sort_keys: write the keys of dicts in order, and members of sets: for dicts as keys of a table, so that equal
            ones are one key.

    Raises:
        ConfigurationError: `kind` is no type that messages can have.

    Example:
        >>> MessagePack().serialize({"clicks": 7}).hex(" ")
        '81 a6 63 6c 69 63 6b 73 07'
    """

    lossless = True

    def __init__(self, kind: Any = Any, /, *, sort_keys: bool = False) -> None:
        self.kind = kind
        self.sort_keys = sort_keys
        self._encode, self._decode = message_pack_coding(kind, sort_keys=sort_keys)

    def typed(self, kind: Any) -> "MessagePack":
        """The same for a type."""
        return MessagePack(kind, sort_keys=self.sort_keys)

    def serialize(self, value: Any, /) -> bytes:
        """Raises SerializationError for what would not come back equal, and of the same types."""
        try:
            data = self._encode(value)
            returned = self._decode(data)
            comes_back = same(value, returned)
        except Exception as cause:
            raise SerializationError(
                f"{excerpt(value)} cannot be written as {self._what} in MessagePack: {cause}."
            ) from cause
        if not comes_back:
            raise SerializationError(f"{excerpt(value)} would come back from MessagePack as {excerpt(returned)}.")
        return data

    def deserialize(self, data: bytes, /) -> Any:
        """Raises DeserializationError for what is not MessagePack, or not of the type."""
        try:
            return self._decode(data)
        except Exception as cause:
            raise DeserializationError(f"{excerpt(data)} is no {self._what} in MessagePack: {cause}.") from cause

    @property
    def _what(self) -> str:
        return "value" if self.kind is Any else type_name(self.kind)
