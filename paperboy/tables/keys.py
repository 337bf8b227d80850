"""Table keys as bytes whose order is the keys' own order. docs/formats.md has the layout byte by byte.

A key's bytes are its identity: what is equal here is one key, and ``1``, ``1.0`` and ``True`` are three. Only exact
types are taken, because whatever is taken comes back equal and of the same type.

The key itself stands unterminated, so that the bytes of a str, bytes or tuple are a prefix of the bytes of everything
that begins with it. Inside a tuple, each element tells where it ends.
"""

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

from paperboy.errors import DeserializationError, SerializationError

__all__ = ["MAX_KEY_DEPTH", "Key", "decode_key", "encode_key", "encode_prefix"]

Key: TypeAlias = bool | int | float | str | bytes | date | datetime | UUID | tuple["Key", ...] | None
"""What a table takes as a key."""

MAX_KEY_DEPTH: Final = 32
"""How deep tuples may stand in tuples."""

_FORMAT: Final = b"\x01"

# One byte for each type, in the order of the types among each other, with room between them for more.
_END: Final = b"\x00"
_NONE: Final = b"\x10"
_FALSE: Final = b"\x20"
_TRUE: Final = b"\x21"
_ZERO: Final = 0x38  # 0x30 to 0x40: an int of -8 to +8 bytes; 0x2f and 0x41: a longer one
_FLOAT: Final = b"\x48"
_STR: Final = b"\x50"
_BYTES: Final = b"\x58"
_DATE: Final = b"\x60"
_DATETIME: Final = b"\x62"
_DATETIME_UTC: Final = b"\x64"
_UUID: Final = b"\x68"
_TUPLE: Final = b"\x70"

_INT_TAGS: Final = tuple(bytes((_ZERO + length,)) for length in range(-9, 10))
_LENGTH_BYTES: Final = 4

_STR_HEAD: Final = _FORMAT + _STR
BYTES_HEAD: Final = _FORMAT + _BYTES
"""What stands before a key of bytes."""
_TUPLE_HEAD: Final = _FORMAT + _TUPLE

_DOUBLE: Final = struct.Struct(">d")
_SIGN: Final = 1 << 63
_ALL: Final = (1 << 64) - 1
_DAY: Final = struct.Struct(">HBB")
_MOMENT: Final = struct.Struct(">HBBBBBI")

_ALLOWED: Final = "None, bool, int, float, str, bytes, date, datetime (naive or UTC), UUID or a tuple of them"


def encode_key(key: Key) -> bytes:
    """The bytes of a key, in the order of keys: ``a < b`` exactly when ``encode_key(a) < encode_key(b)``.

    Types among each other: None < bool < int < float < str < bytes < date < datetime < datetime in UTC < UUID < tuple.

    Raises:
        SerializationError: the key would not come back equal and of its type, or has no place in the order.

    Example:
        >>> encode_key("anna").hex(" ")
        '01 50 61 6e 6e 61'
        >>> encode_key(("anna", 7)).hex(" ")
        '01 70 50 61 6e 6e 61 00 39 07'
    """
    kind = type(key)
    try:
        if kind is str:
            return _STR_HEAD + key.encode()  # type: ignore[union-attr]
        if kind is bytes:
            return BYTES_HEAD + key  # type: ignore[operator]
        if kind is tuple:
            return _TUPLE_HEAD + _elements(key, 1)  # type: ignore[arg-type]
        return _FORMAT + _ENCODERS[kind](key)
    except KeyError:
        raise _refusal(key) from None
    except UnicodeEncodeError as cause:
        raise SerializationError(f"The key {key!r} holds half a surrogate pair, which UTF-8 cannot express.") from cause


def encode_prefix(prefix: str | bytes | tuple[Key, ...]) -> bytes:
    """What the bytes of every key that begins with `prefix` begin with, and no other key's.

    A str or bytes key begins with its first characters; a tuple key with its first whole elements.

    Raises:
        SerializationError: the prefix is of another type, or could not stand in a key.

    Example:
        >>> encode_key(("anna", 7)).startswith(encode_prefix(("anna",)))
        True
        >>> encode_key(("anna", 7)).startswith(encode_prefix(("an",)))
        False
    """
    if type(prefix) not in (str, bytes, tuple):
        raise SerializationError(f"A prefix is a str, bytes or a tuple of whole elements, not a {_name(prefix)}.")
    return encode_key(prefix)


def decode_key(data: bytes) -> Key:
    """The key that `encode_key` made these bytes of.

    Raises:
        DeserializationError: no key has these bytes, or a later version of paperboy wrote them.

    Example:
        >>> decode_key(bytes.fromhex("01 50 61 6e 6e 61"))
        'anna'
    """
    try:
        head = data[:2]
        if head == _STR_HEAD:
            return data[2:].decode()
        if head == BYTES_HEAD:
            return data[2:]
        if data[:1] != _FORMAT:
            raise _unknown_format(data)
        if head == _TUPLE_HEAD:
            key: Key = _decode_elements(data + _END, 2, 1)[0]
        else:
            key = _decode_element(data, 1, 0)[0]
    except (ValueError, LookupError, OverflowError, struct.error) as cause:
        raise DeserializationError(
            f"{_excerpt(data)} are not a key: they are damaged, or a later version wrote them."
        ) from cause
    # Two spellings of one key would be two entries in a store: only our own is read.
    if encode_key(key) != data:
        raise DeserializationError(f"{_excerpt(data)} are not a key: {key!r} is written otherwise.")
    return key


# --- Encoding ------------------------------------------------------------


def _elements(key: tuple[Key, ...], depth: int) -> bytes:
    if depth > MAX_KEY_DEPTH:
        raise SerializationError(f"A key holds tuples more than {MAX_KEY_DEPTH} deep: flatten it.")
    return b"".join([_element(element, depth) for element in key])


def _element(key: Key, depth: int) -> bytes:
    """A key inside a tuple: it tells where it ends."""
    kind = type(key)
    if kind is str:
        return _STR + _escape(key.encode()) + _END  # type: ignore[union-attr]
    if kind is bytes:
        return _BYTES + _escape(key) + _END  # type: ignore[arg-type]
    if kind is tuple:
        return _TUPLE + _elements(key, depth + 1) + _END  # type: ignore[arg-type]
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        raise _refusal(key)
    return encoder(key)


def _escape(data: bytes) -> bytes:
    """Without any 0x00, which ends it, and in the same order: 0x00 and 0x01 become 0x01 0x01 and 0x01 0x02."""
    return data.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")


def _encode_int(key: int) -> bytes:
    length = (key.bit_length() + 7) >> 3
    if length > 8:
        return _encode_long_int(key, length)
    if key >= 0:
        return _INT_TAGS[9 + length] + key.to_bytes(length, "big")
    # The ones' complement of the magnitude: the larger it is, the smaller the bytes.
    return _INT_TAGS[9 - length] + (key + (1 << 8 * length) - 1).to_bytes(length, "big")


def _encode_long_int(key: int, length: int) -> bytes:
    if length >> 8 * _LENGTH_BYTES:
        raise SerializationError("An int of more than 4 GiB cannot be a key.")
    if key >= 0:
        return _INT_TAGS[-1] + length.to_bytes(_LENGTH_BYTES, "big") + key.to_bytes(length, "big")
    size = (1 << 8 * _LENGTH_BYTES) - 1 - length
    return _INT_TAGS[0] + size.to_bytes(_LENGTH_BYTES, "big") + (key + (1 << 8 * length) - 1).to_bytes(length, "big")


def _encode_float(key: float) -> bytes:
    if key != key:
        raise SerializationError("NaN cannot be a key: it is not equal to itself, so nobody would ever find it.")
    bits = int.from_bytes(_DOUBLE.pack(key + 0.0), "big")  # -0.0 + 0.0 is 0.0
    return _FLOAT + (bits ^ (_ALL if bits & _SIGN else _SIGN)).to_bytes(8, "big")


def _encode_date(key: date) -> bytes:
    return _DATE + _DAY.pack(key.year, key.month, key.day)


def _encode_datetime(key: datetime) -> bytes:
    if key.fold:
        raise SerializationError(f"The key {key!r} equals the one with fold=0 and would not come back: drop the fold.")
    if key.tzinfo is None:
        tag = _DATETIME
    elif key.tzinfo is UTC:
        tag = _DATETIME_UTC
    else:
        raise SerializationError(
            f"The key {key!r} equals the same instant in any other zone, so it would not come back:"
            " use .astimezone(timezone.utc)."
        )
    return tag + _MOMENT.pack(key.year, key.month, key.day, key.hour, key.minute, key.second, key.microsecond)


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    int: _encode_int,
    float: _encode_float,
    bool: lambda key: _TRUE if key else _FALSE,
    type(None): lambda key: _NONE,
    UUID: lambda key: _UUID + key.bytes,
    date: _encode_date,
    datetime: _encode_datetime,
}


def _refusal(key: object) -> SerializationError:
    name = _name(key)
    if isinstance(key, list | dict | set | frozenset | bytearray):
        remedy = "use a tuple of its items, in an order of your own"
    elif isinstance(key, Decimal):
        remedy = "Decimal('1.0') and Decimal('1.00') are equal but not the same, so use str(key)"
    elif isinstance(key, str | bytes | int | float | tuple | date | UUID):
        remedy = "it would come back as a plain value, so make it one first"
    else:
        remedy = "use one of those"
    return SerializationError(f"A key is {_ALLOWED}, and not a {name}: {remedy}.")


def _name(thing: object) -> str:
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# --- Decoding ------------------------------------------------------------
# Each function takes the bytes and where to begin, and gives the key and where it ended. What is no key raises
# ValueError or its like; what is a key, but not spelled as we spell it, is left to `decode_key`.


def _decode_elements(data: bytes, at: int, depth: int) -> tuple[tuple[Key, ...], int]:
    if depth > MAX_KEY_DEPTH:
        raise ValueError("tuples are nested too deep")
    elements: list[Key] = []
    while data[at]:
        element, at = _decode_element(data, at, depth)
        elements.append(element)
    return tuple(elements), at + 1


def _decode_element(data: bytes, at: int, depth: int) -> tuple[Key, int]:
    tag = data[at : at + 1]
    if tag == _TUPLE:
        return _decode_elements(data, at + 1, depth + 1)
    return _DECODERS[tag](data, at + 1)


def _decode_str(data: bytes, at: int) -> tuple[str, int]:
    text, at = _decode_bytes(data, at)
    return text.decode(), at


def _decode_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.index(_END, at)
    return data[at:end].replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01"), end + 1


def _decode_int(data: bytes, at: int) -> tuple[int, int]:
    signed_length = data[at - 1] - _ZERO
    negative, length = signed_length < 0, abs(signed_length)
    if length > 8:
        length, at = int.from_bytes(_take(data, at, _LENGTH_BYTES), "big"), at + _LENGTH_BYTES
        if negative:
            length = (1 << 8 * _LENGTH_BYTES) - 1 - length
    number = int.from_bytes(_take(data, at, length), "big")
    return number - (1 << 8 * length) + 1 if negative else number, at + length


def _decode_float(data: bytes, at: int) -> tuple[float, int]:
    bits = int.from_bytes(_take(data, at, 8), "big")
    number: float = _DOUBLE.unpack((bits ^ (_SIGN if bits & _SIGN else _ALL)).to_bytes(8, "big"))[0]
    if number != number:
        raise ValueError("NaN is not a key")
    return number, at + 8


def _decode_datetime(data: bytes, at: int) -> tuple[datetime, int]:
    zone = UTC if data[at - 1 : at] == _DATETIME_UTC else None
    year, month, day, hour, minute, second, microsecond = _MOMENT.unpack_from(data, at)
    return datetime(year, month, day, hour, minute, second, microsecond, zone), at + _MOMENT.size


_DECODERS: Final[dict[bytes, Callable[[bytes, int], tuple[Key, int]]]] = {
    **dict.fromkeys(_INT_TAGS, _decode_int),
    _STR: _decode_str,
    _BYTES: _decode_bytes,
    _NONE: lambda data, at: (None, at),
    _FALSE: lambda data, at: (False, at),
    _TRUE: lambda data, at: (True, at),
    _FLOAT: _decode_float,
    _DATE: lambda data, at: (date(*_DAY.unpack_from(data, at)), at + _DAY.size),
    _DATETIME: _decode_datetime,
    _DATETIME_UTC: _decode_datetime,
    _UUID: lambda data, at: (UUID(bytes=_take(data, at, 16)), at + 16),
}


def _take(data: bytes, at: int, length: int) -> bytes:
    taken = data[at : at + length]
    if len(taken) != length:
        raise ValueError("the bytes end too early")
    return taken


def _unknown_format(data: bytes) -> DeserializationError:
    return DeserializationError(
        f"{_excerpt(data)} are not a key in format 1, the only one this version of paperboy reads: if a later"
        " version wrote them, upgrade; if something else did, it is no table of paperboy's."
    )


def _excerpt(data: bytes) -> str:
    return f"The {len(data)} bytes {data[:32].hex(' ')}{'…' if len(data) > 32 else ''}"
