"""Types that bytes are made into: dataclasses, msgspec.Structs, pydantic models, and Python's own.

msgspec has the first two, and pydantic checks its own models: so each keeps the rules that its users know.
"""

import copy
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID

import msgspec

from paperboy.errors import ConfigurationError, DeserializationError, SerializationError
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.protocol import Serializer

__all__ = [
    "Coding",
    "Typed",
    "conversion",
    "holds_model",
    "is_model",
    "json_coding",
    "message_pack_coding",
    "type_name",
]

_KEPT: Final = (bytes, bytearray, datetime, date, time, UUID, Decimal)
"""What plain objects may hold beside what JSON has: Avro's logical types, and whatever takes these as they are."""


class Coding(NamedTuple):
    """Both ways between objects of a type and bytes. Either raises what it likes."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class Conversion(NamedTuple):
    """Both ways between objects of a type and plain ones: dicts, lists, scalars, dates. Either raises what it likes."""

    to_plain: Callable[[Any], Any]
    of_plain: Callable[[Any], Any]


class Typed:
    """Another serializer's plain objects, made into a type of yours, and checked.

    Args:
        serializer: makes dicts, lists and scalars of bytes, and bytes of them.
        kind: a dataclass, msgspec.Struct or pydantic model, or a union or list of them.

    Raises:
        ConfigurationError: `kind` is no such type.

    Example:
        >>> Typed(MessagePack(), Order).deserialize(data)
        Order(id='o-1', amount=3)
    """

    def __init__(self, serializer: Serializer, kind: Any) -> None:
        self.serializer = serializer
        self.kind = kind
        self._conversion = conversion(kind)

    def over(self, serializer: Serializer) -> "Typed":
        """The same over another serializer."""
        other = copy.copy(self)
        other.serializer = serializer
        return other

    def to_plain(self, value: Any) -> Any:
        """What the serializer is given. Raises SerializationError for what has no plain form."""
        try:
            return self._conversion.to_plain(value)
        except Exception as cause:
            raise SerializationError(
                f"{excerpt(value)} cannot be written as {type_name(self.kind)}: {cause}"
            ) from cause

    def serialize(self, value: Any, /) -> bytes:
        """Raises SerializationError for what has no plain form, and what the serializer refuses."""
        return self.serializer.serialize(self.to_plain(value))

    def deserialize(self, data: bytes, /) -> Any:
        """Raises DeserializationError for what is not of the type."""
        plain = self.serializer.deserialize(data)
        try:
            return self._conversion.of_plain(plain)
        except Exception as cause:
            raise DeserializationError(f"{excerpt(plain)} is no {type_name(self.kind)}: {cause}") from cause


def type_name(kind: Any) -> str:
    """What a type is called, for a person.

    Example:
        >>> type_name(int), type_name(int | None)
        ('int', 'int | None')
    """
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def is_model(kind: Any) -> bool:
    """Whether it is a class that describes its fields: a dataclass, a msgspec.Struct or a pydantic model."""
    return isinstance(kind, type) and (
        hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__pydantic_validator__")
    )


def holds_model(kind: Any) -> bool:
    """Whether it is, or is made of, a class that describes its fields: a dataclass, msgspec.Struct or pydantic model.

    Example:
        >>> holds_model(Order), holds_model(list[Order] | None), holds_model(dict[str, int])
        (True, True, False)
    """
    return is_model(kind) or any(map(holds_model, get_args(kind)))


def json_coding(kind: Any, *, sort_keys: bool) -> Coding:
    """Objects of `kind` as JSON.

    Raises:
        ConfigurationError: `kind` is, or holds, a type that nobody here knows.
    """
    if _is_pydantic(kind):
        adapter = _pydantic_adapter(kind)
        dump, in_order = adapter.dump_json, msgspec.json.Encoder(order="deterministic").encode

        def encode(value: Any) -> bytes:
            data: bytes = dump(value, by_alias=True, warnings="error")
            return in_order(msgspec.json.decode(data)) if sort_keys else data

        return Coding(encode, adapter.validate_json)
    _check(kind)
    return Coding(
        msgspec.json.Encoder(order="deterministic" if sort_keys else None).encode, msgspec.json.Decoder(kind).decode
    )


def message_pack_coding(kind: Any, *, sort_keys: bool) -> Coding:
    """As `json_coding`, in MessagePack."""
    encode = msgspec.msgpack.Encoder(order="deterministic" if sort_keys else None).encode
    if _is_pydantic(kind):
        adapter = _pydantic_adapter(kind)
        # By way of JSON, because a model that is strict takes a date for a str there, and nowhere else.
        return Coding(
            lambda value: encode(adapter.dump_python(value, mode="json", by_alias=True, warnings="error")),
            lambda data: adapter.validate_json(msgspec.json.encode(msgspec.msgpack.decode(data))),
        )
    _check(kind)
    return Coding(encode, msgspec.msgpack.Decoder(kind).decode)


def conversion(kind: Any) -> Conversion:
    """Objects of `kind` as plain ones.

    Raises:
        ConfigurationError: as `json_coding`.
    """
    if _is_pydantic(kind):
        adapter = _pydantic_adapter(kind)
        return Conversion(
            lambda value: msgspec.to_builtins(
                adapter.dump_python(value, by_alias=True, warnings="error"), builtin_types=_KEPT
            ),
            adapter.validate_python,
        )
    _check(kind)
    return Conversion(
        lambda value: msgspec.to_builtins(value, builtin_types=_KEPT), lambda plain: msgspec.convert(plain, kind)
    )


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_validator__") or any(map(_is_pydantic, get_args(kind)))


def _pydantic_adapter(kind: Any) -> Any:
    try:
        from pydantic import TypeAdapter
    except ImportError as cause:
        raise ConfigurationError(
            f"{type_name(kind)} needs pydantic: pip install 'paperboy-streams[pydantic]'."
        ) from cause
    return TypeAdapter(kind)


def _check(kind: Any) -> None:
    try:
        unknown = next(_unknown_types(msgspec.inspect.type_info(kind), set()), None)
    except (TypeError, NameError, AttributeError) as cause:
        raise ConfigurationError(f"{kind!r} is no type that messages can have: {cause}.") from cause
    if unknown is not None:
        inside = "" if unknown is kind else f" in {type_name(kind)}"
        raise ConfigurationError(
            f"{type_name(unknown)}{inside} is no type that messages can have: make it a dataclass, a msgspec.Struct, or"
            " a model of pydantic 2 (a pydantic model holds dataclasses, but not the other way round)."
        )


def _unknown_types(node: Any, seen: set[int]) -> Iterator[Any]:
    """The classes that msgspec would leave to its users, anywhere in a type that it has looked into."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, msgspec.inspect.CustomType):
        yield node.cls
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in node.__struct_fields__:
            yield from _unknown_types(getattr(node, name), seen)
    elif isinstance(node, tuple):
        for item in node:
            yield from _unknown_types(item, seen)
