"""Table values as bytes: plain Python data that comes back equal, in value and in type. docs/formats.md has the layout.

The bytes are msgpack behind a format byte. What msgpack lacks stands in extension types, and msgpack packs a few
things as what they are not (bytearray as bytes, a tuple as a list): so every container is looked through first, and
msgpack only ever sees what it gives back as it was.
"""

import struct
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, InvalidOperation
from types import NoneType
from typing import Any, Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgpack import ExtType, Packer, unpackb

from paperboy.errors import DeserializationError, SerializationError, chained

__all__ = ["IMMUTABLE", "MAX_VALUE_DEPTH", "decode_value", "encode_value", "needs_encoding_now"]

MAX_VALUE_DEPTH: Final = 100
"""How deep containers may stand in containers."""

IMMUTABLE: Final = frozenset({str, bytes, int, float, bool, NoneType, Decimal, UUID, date, timedelta})
"""The exact types whose objects can be kept in place of their bytes, because nobody can change them."""

_FORMAT: Final = b"\x01"

_SMALL: Final = 1024

# The codes of the extension types. -1 is msgpack's own and never written.
_INT, _TUPLE, _SET, _FROZENSET, _DECIMAL, _UUID, _DATE, _TIME, _DATETIME, _TIMEDELTA = range(1, 11)
_OFFSET, _NAMED_OFFSET, _ZONE = b"\x01", b"\x02", b"\x03"

_SCALARS: Final[frozenset[type]] = frozenset({str, bytes, float, bool, NoneType})
"""What msgpack gives back as it was."""
_SCALARS_AND_INT: Final[frozenset[type]] = _SCALARS | {int}
"""The same, if no int needs more than 64 bits."""

_DAY: Final = struct.Struct(">HBB")
_CLOCK: Final = struct.Struct(">BBBIB")
_SPAN: Final = struct.Struct(">iII")
_MICROSECOND: Final = timedelta(microseconds=1)

# Never calls back into Python, so that threads can share it. Not strict: a tuple is to become an array.
_pack: Final[Callable[[object], bytes]] = Packer().pack


def encode_value(value: object) -> bytes:
    """The bytes of a value, from which `decode_value` makes an equal one, of the same types throughout.

    Takes None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time, timedelta,
    Decimal and UUID, in each other up to `MAX_VALUE_DEPTH` deep, but nothing derived from them. NaN keeps its bits,
    a dict its order, a datetime its fold and its timezone or ZoneInfo.

    Raises:
        SerializationError: something in the value would not come back as it is; the message says what and where.

    Example:
        >>> encode_value({"clicks": 7}).hex(" ")
        '01 81 a6 63 6c 69 63 6b 73 07'
    """
    try:
        try:
            return _FORMAT + _pack(value if type(value) in _SCALARS_AND_INT else _wire(value, _SCALARS_AND_INT, 0))
        except OverflowError:  # some int needs more than 64 bits: look at each
            return _FORMAT + _pack(_wire(value, _SCALARS, 0))
    except _Refusal as refusal:
        message = f"The value{refusal.path and ' at '}{refusal.path} {refusal.reason}."
        raise chained(SerializationError(message), None)
    except UnicodeEncodeError as cause:
        message = f"The value holds the str {cause.object!r}, and UTF-8 cannot express half a surrogate pair."
        raise chained(SerializationError(message), cause)
    except ValueError as cause:
        raise chained(SerializationError(f"The value holds a part of more than 4 GiB: {cause}."), cause)


def decode_value(data: bytes | memoryview) -> object:
    """The value that `encode_value` made these bytes of.

    Raises:
        DeserializationError: the bytes are damaged, or a later version of paperboy wrote them.

    Example:
        >>> decode_value(bytes.fromhex("01 81 a6 63 6c 69 63 6b 73 07"))
        {'clicks': 7}
    """
    if type(data) is not bytes:
        data = bytes(data)
    if data[:1] != _FORMAT:
        raise DeserializationError(
            f"{_excerpt(data)} are not a value in format 1, the only one this version of paperboy reads: if a later"
            " version wrote them, upgrade; if something else did, it is no table of paperboy's."
        )
    try:
        if data[1] in _CONTAINER_HEADS and data.find(_ANY_MARK) > 0:
            return _MarkedDecoding().unpack(data[1:])
        return unpackb(data[1:], ext_hook=_decode_extension, strict_map_key=False, timestamp=3)
    except ZoneInfoNotFoundError as cause:
        message = (
            f"{_excerpt(data)} hold a time in a zone that this machine does not know ({cause.args[0]}):"
            " install the tzdata package."
        )
        raise chained(DeserializationError(message), cause)
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError, struct.error) as cause:
        message = f"{_excerpt(data)} are not a value: they are damaged, or a later version of paperboy wrote them."
        raise chained(DeserializationError(message), cause)


def needs_encoding_now(value: object) -> bool:
    """Whether a value must become bytes when it is set. If not, the object itself may be kept until it is written out.

    False promises that nobody can change the object, that `encode_value` will take it, and that it will make less than
    4 KiB of it. True for what is not `IMMUTABLE`, what is large, and a str beyond ASCII (it may hold half a
    surrogate pair, and encoding it is the way to find out).

    Example:
        >>> needs_encoding_now(7), needs_encoding_now([7])
        (False, True)
    """
    kind = type(value)
    if kind is int or kind is float:
        return value.__sizeof__() > _SMALL
    if kind is str and not value.isascii():  # type: ignore[attr-defined]
        return True
    return kind not in IMMUTABLE or value.__sizeof__() > _SMALL


# --- Encoding ------------------------------------------------------------------


class _Refusal(Exception):
    """Why something is refused, and the way to it, which grows as the containers around it are left."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path = ""


def _wire(value: object, plain: frozenset[type], depth: int) -> object:
    """What msgpack is to pack for a value.

    Args:
        plain: the types that go as they are; a list or dict of nothing else does, too.
        depth: how many containers it stands in.
    """
    kind = type(value)
    if kind in plain:
        return value
    container = _CONTAINERS.get(kind)
    if container is not None:
        if depth == MAX_VALUE_DEPTH:
            raise _Refusal(f"is nested more than {MAX_VALUE_DEPTH} deep, or holds itself")
        return container(value, plain, depth + 1)
    extension = _EXTENSIONS.get(kind)
    if extension is None:
        raise _Refusal(_not_plain(value))
    return extension(value)


def _wire_list(value: list[object], plain: frozenset[type], depth: int) -> list[object]:
    return value if plain.issuperset(map(type, value)) else _wire_items(value, plain, depth)


def _wire_items(value: Iterable[object], plain: frozenset[type], depth: int) -> list[object]:
    items: list[object] = []
    for item in value:
        try:
            items.append(_wire(item, plain, depth))
        except _Refusal as refusal:
            refusal.path = f"[{len(items)}]{refusal.path}"
            raise
    return items


def _wire_dict(value: dict[object, object], plain: frozenset[type], depth: int) -> dict[object, object]:
    if plain.issuperset(map(type, value)) and plain.issuperset(map(type, value.values())):
        return value
    wired: dict[object, object] = {}
    for key, item in value.items():
        try:
            wire_key = _wire(key, plain, depth)
        except _Refusal as refusal:
            refusal.path = f".keys(){refusal.path}"
            raise
        try:
            wired[wire_key] = _wire(item, plain, depth)
        except _Refusal as refusal:
            refusal.path = f"[{key!r}]{refusal.path}"
            raise
    if len(wired) < len(value):
        raise _Refusal("has several Decimal NaN as keys, which nothing tells apart")
    return wired


def _wire_tuple(value: tuple[object, ...], plain: frozenset[type], depth: int) -> tuple[object, ...]:
    return (_MARKS[tuple], *_wire_items(value, plain, depth))


def _wire_set(value: set[object] | frozenset[object], plain: frozenset[type], depth: int) -> tuple[object, ...]:
    # In the order of their bytes, so that equal sets are equal bytes.
    return (_MARKS[type(value)], *sorted((_wire(item, plain, depth) for item in value), key=_pack))


def _not_plain(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    for base in kind.__mro__[1:]:
        if base in _SCALARS_AND_INT or base in _CONTAINERS or base in _EXTENSIONS:
            return f"is a {name}, which would come back as a plain {base.__name__}: make it one"
    return f"is a {name}, which is not plain data: store what it is made of"


def _encode_int(value: int) -> object:
    if -(1 << 63) <= value < 1 << 64:
        return value
    return ExtType(_INT, value.to_bytes((value.bit_length() >> 3) + 1, "big", signed=True))


def _encode_date(value: date) -> bytes:
    return _DAY.pack(value.year, value.month, value.day)


def _encode_time(value: time | datetime) -> bytes:
    clock = _CLOCK.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return clock + _encode_zone(value.tzinfo)


def _encode_zone(zone: tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        micros = (offset // _MICROSECOND).to_bytes(8, "big", signed=True)
        if name == timezone(offset).tzname(None):
            return _OFFSET + micros
        return _NAMED_OFFSET + micros + name.encode()
    if type(zone) is ZoneInfo:
        return _ZONE + _zone_key(zone).encode()
    raise _Refusal(f"has the tzinfo {zone!r}, and only a datetime.timezone or zoneinfo.ZoneInfo comes back as it was")


def _zone_key(zone: ZoneInfo) -> str:
    key = cast(Any, zone).key  # it may be None
    try:
        found = ZoneInfo(key)
    except (ValueError, TypeError, LookupError, OSError):
        found = None
    if found is not zone:
        raise _Refusal(f"has the tzinfo {zone!r}, which is not the one that ZoneInfo({key!r}) gives")
    return zone.key


_MARKS: Final[dict[type, ExtType]] = {
    tuple: ExtType(_TUPLE, b""),
    set: ExtType(_SET, b""),
    frozenset: ExtType(_FROZENSET, b""),
}
"""An array whose first element is one of these is no list."""

_CONTAINERS: Final[dict[type, Callable[[Any, frozenset[type], int], object]]] = {
    list: _wire_list,
    dict: _wire_dict,
    tuple: _wire_tuple,
    set: _wire_set,
    frozenset: _wire_set,
}

_EXTENSIONS: Final[dict[type, Callable[[Any], object]]] = {
    int: _encode_int,
    # Whether an exponent's E is a capital is up to the thread's decimal context.
    Decimal: lambda value: ExtType(_DECIMAL, str(value).replace("e", "E").encode()),
    UUID: lambda value: ExtType(_UUID, value.bytes),
    date: lambda value: ExtType(_DATE, _encode_date(value)),
    time: lambda value: ExtType(_TIME, _encode_time(value)),
    datetime: lambda value: ExtType(_DATETIME, _encode_date(value) + _encode_time(value)),
    timedelta: lambda value: ExtType(_TIMEDELTA, _SPAN.pack(value.days, value.seconds, value.microseconds)),
}


# --- Decoding ------------------------------------------------------------------
# What is wrong with the bytes raises whatever it raises here; `decode_value` makes one error of it.


class _MarkedDecoding:
    """Unpacks a value that may hold marks; counts them, because one that stands anywhere else is damage."""

    def __init__(self) -> None:
        self._unused = 0

    def unpack(self, data: bytes) -> object:
        value: object = unpackb(
            data, ext_hook=self._extension, list_hook=self._array, strict_map_key=False, timestamp=3
        )
        if self._unused:
            raise ValueError("a mark stands where it marks nothing")
        return value

    def _extension(self, code: int, payload: bytes) -> object:
        if payload or code not in _MARKED:
            return _decode_extension(code, payload)
        self._unused += 1
        return _MARKED[code]

    def _array(self, items: list[Any]) -> object:
        if not items or type(items[0]) is not type:
            return items
        self._unused -= 1
        return items[0](items[1:])


def _decode_extension(code: int, payload: bytes) -> object:
    return _DECODERS[code](payload)


def _decode_date(payload: bytes) -> date:
    return date(*_DAY.unpack(payload))


def _decode_time(payload: bytes) -> time:
    hour, minute, second, microsecond, fold = _CLOCK.unpack_from(payload)
    return time(hour, minute, second, microsecond, _decode_zone(payload[_CLOCK.size :]), fold=fold)


def _decode_datetime(payload: bytes) -> datetime:
    return datetime.combine(_decode_date(payload[: _DAY.size]), _decode_time(payload[_DAY.size :]))


def _decode_zone(data: bytes) -> tzinfo | None:
    if not data:
        return None
    kind, rest = data[:1], data[1:]
    if kind == _ZONE:
        return ZoneInfo(rest.decode())
    offset = timedelta(microseconds=int.from_bytes(rest[:8], "big", signed=True))
    if kind == _OFFSET and len(rest) == 8:
        return timezone(offset)
    if kind == _NAMED_OFFSET:
        return timezone(offset, rest[8:].decode())
    raise ValueError("an unknown kind of time zone")


def _decode_timedelta(payload: bytes) -> timedelta:
    days, seconds, microseconds = _SPAN.unpack(payload)
    return timedelta(days, seconds, microseconds)


_ANY_MARK: Final = b"\xc7\x00"
"""How every mark begins in msgpack: an extension of length 0."""

_CONTAINER_HEADS: Final = frozenset((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
"""The first bytes of msgpack's arrays and maps."""

_MARKED: Final[dict[int, type]] = {mark.code: container for container, mark in _MARKS.items()}

_STRICT: Final = Context(traps=[InvalidOperation])
"""So that a damaged Decimal is an error, whatever the thread's own decimal context says."""

_DECODERS: Final[dict[int, Callable[[bytes], object]]] = {
    _INT: lambda payload: int.from_bytes(payload, "big", signed=True),
    _DECIMAL: lambda payload: Decimal(payload.decode("ascii"), _STRICT),
    _UUID: lambda payload: UUID(bytes=payload),
    _DATE: _decode_date,
    _TIME: _decode_time,
    _DATETIME: _decode_datetime,
    _TIMEDELTA: _decode_timedelta,
}


def _excerpt(data: bytes) -> str:
    return f"The {len(data)} bytes {data[:32].hex(' ')}{'…' if len(data) > 32 else ''}"
