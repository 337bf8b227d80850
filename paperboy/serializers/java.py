"""What Java's own serializers (``org.apache.kafka.common.serialization``) write and read, byte for byte."""

import math
import re
import struct
import uuid
from typing import Final

from paperboy.errors import DeserializationError, SerializationError
from paperboy.serializers.excerpt import excerpt

__all__ = ["UUID", "Double", "Integer", "Long"]

_DOUBLE: Final = struct.Struct(">d")
_NAN: Final = bytes.fromhex("7ff8000000000000")
"""The one NaN that Java writes, whatever the bits of the one it is given."""
_UUID: Final = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Integer:
    """An int from -2³¹ to 2³¹ - 1, in 4 bytes.

    Example:
        >>> Integer().serialize(7).hex()
        '00000007'
    """

    lossless = True

    def serialize(self, value: int, /) -> bytes:
        """Raises SerializationError for anything but an int, and one that 4 bytes do not hold."""
        return _int_bytes("Integer", value, 4)

    def deserialize(self, data: bytes, /) -> int:
        """Raises DeserializationError for other than 4 bytes."""
        return int.from_bytes(_sized("Integer", data, 4), "big", signed=True)


class Long:
    """An int from -2⁶³ to 2⁶³ - 1, in 8 bytes.

    Example:
        >>> Long().serialize(-1).hex()
        'ffffffffffffffff'
    """

    lossless = True

    def serialize(self, value: int, /) -> bytes:
        """Raises SerializationError for anything but an int, and one that 8 bytes do not hold."""
        return _int_bytes("Long", value, 8)

    def deserialize(self, data: bytes, /) -> int:
        """Raises DeserializationError for other than 8 bytes."""
        return int.from_bytes(_sized("Long", data, 8), "big", signed=True)


class Double:
    """A float, in the 8 bytes of IEEE 754. Of NaN there is one, as in Java.

    Example:
        >>> Double().serialize(1.5).hex()
        '3ff8000000000000'
    """

    lossless = True

    def serialize(self, value: float, /) -> bytes:
        """Raises SerializationError for anything but a float."""
        if type(value) is not float:
            raise SerializationError(f"Double takes a float, and not the {type(value).__name__} {excerpt(value)}.")
        return _NAN if math.isnan(value) else _DOUBLE.pack(value)

    def deserialize(self, data: bytes, /) -> float:
        """Raises DeserializationError for other than 8 bytes."""
        value: float
        (value,) = _DOUBLE.unpack(_sized("Double", data, 8))
        return value


class UUID:
    """A ``uuid.UUID`` as text, 36 characters of ASCII.

    Example:
        >>> UUID().serialize(uuid.UUID(int=1))
        b'00000000-0000-0000-0000-000000000001'
    """

    lossless = True

    def serialize(self, value: uuid.UUID, /) -> bytes:
        """Raises SerializationError for anything but a ``uuid.UUID``."""
        if type(value) is not uuid.UUID:
            raise SerializationError(f"UUID takes a uuid.UUID, and not the {type(value).__name__} {excerpt(value)}.")
        return str(value).encode()

    def deserialize(self, data: bytes, /) -> uuid.UUID:
        """Raises DeserializationError for other text."""
        if not _UUID.fullmatch(data):
            raise DeserializationError(f"{excerpt(data)} is no UUID as text: something else than UUID wrote it.")
        return uuid.UUID(data.decode())


def _int_bytes(name: str, value: int, size: int) -> bytes:
    if type(value) is not int:
        raise SerializationError(f"{name} takes an int, and not the {type(value).__name__} {excerpt(value)}.")
    try:
        return value.to_bytes(size, "big", signed=True)
    except OverflowError as cause:
        raise SerializationError(f"{excerpt(value)} does not fit into the {size} bytes of {name}.") from cause


def _sized(name: str, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise DeserializationError(
            f"The {len(data)} bytes {excerpt(data)} are no {name}, which has {size}: something else wrote it."
        )
    return data
