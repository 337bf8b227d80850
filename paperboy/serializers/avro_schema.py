"""The Avro schema of a type: a pure function of the type alone, the same in every process."""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence, Set
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from paperboy.errors import ConfigurationError
from paperboy.serializers.models import type_name

__all__ = ["DecimalDigits", "avro_schema_of"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNSET: Final = object()

_SIMPLE: Final[Mapping[Any, Any]] = {
    NoneType: "null",
    None: "null",
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "bytes",
    datetime: {"type": "long", "logicalType": "timestamp-micros"},
    date: {"type": "int", "logicalType": "date"},
    time: {"type": "long", "logicalType": "time-micros"},
    UUID: {"type": "string", "logicalType": "uuid"},
}
_ARRAYS: Final = (list, set, frozenset, Sequence, MutableSequence, Set)


@dataclass(frozen=True, slots=True)
class DecimalDigits:
    """How many digits a Decimal has in Avro, as in ``price: Annotated[Decimal, DecimalDigits(12, 2)]``.

    pydantic's own ``Field(max_digits=12, decimal_places=2)`` says the same.
    """

    precision: int
    """Digits in all."""
    scale: int = 0
    """Digits after the point."""


def avro_schema_of(kind: Any, *, namespace: str | None = None) -> dict[str, Any]:
    """The Avro schema of a dataclass, msgspec.Struct or pydantic model: a record with its fields, in their order.

    bool, int (long), float (double), str, bytes, datetime (timestamp-micros), date, time, UUID, Decimal (with
    `DecimalDigits`), enums, lists, sets, dicts with str keys, unions and other models are what Avro has for them. A
    field with a default has it in the schema as well, so that messages without the field are read. Structs with a tag
    have it as a field, by which unions of them are told apart.

    Args:
        namespace: of the record.

    Raises:
        ConfigurationError: it has a field for which Avro has nothing; the sentence names it.

    Example:
        >>> avro_schema_of(Order)
        {'type': 'record', 'name': 'Order', 'fields': [{'name': 'id', 'type': 'string'}]}
    """
    fields_of = _fields_of(kind)
    if fields_of is None:
        raise ConfigurationError(
            f"{type_name(kind)} has no Avro schema of its own: give a dataclass, msgspec.Struct or pydantic model."
        )
    schema: dict[str, Any] = _Schemas().of(kind, type_name(kind))
    return schema if namespace is None else {**schema, "namespace": namespace}


class _Field(NamedTuple):
    name: str
    """As it is written."""
    kind: Any
    default: Any
    """`_UNSET` where it has none, or one that is made anew each time."""


class _Schemas:
    """The schemas of one derivation: what is named is described once, and referred to by its name from then on."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        """The type behind each name."""

    def of(self, kind: Any, where: str) -> Any:
        """
        Args:
            where: the field it is the type of, for messages.
        """
        metadata: list[Any] = []
        while True:
            if get_origin(kind) is Annotated:
                kind, *more = get_args(kind)
                metadata += more
            elif hasattr(kind, "__supertype__"):  # a NewType
                kind = kind.__supertype__
            elif hasattr(kind, "__value__"):  # a type statement
                kind = kind.__value__
            else:
                break
        try:
            if kind in _SIMPLE:
                return _SIMPLE[kind]
        except TypeError:  # what has no hash is none of them
            pass
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return self._union([self.of(each, where) for each in arguments], where)
        if origin is Literal:
            return _of_values(arguments, where)
        if origin in _ARRAYS or (origin is tuple and arguments[1:] == (...,)):
            return {"type": "array", "items": self.of(arguments[0], where)}
        if isinstance(origin, type) and issubclass(origin, Mapping):
            if self.of(arguments[0], where) != "string":
                raise _unsupported(where, kind, "the keys of its maps are strings")
            return {"type": "map", "values": self.of(arguments[1], where)}
        if kind is Decimal:
            return _decimal(metadata, where)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return self._enum(kind, where)
        fields_of = _fields_of(kind)
        if fields_of is None:
            raise _unsupported(where, kind, "it has no such type")
        return self._record(kind, fields_of, where)

    def _record(self, kind: Any, fields_of: Iterable[_Field], where: str) -> Any:
        if self._is_known(kind.__name__, kind, where):
            return kind.__name__
        described = []
        for name, its_kind, default in [*_tag(kind), *fields_of]:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(f"{type_name(kind)} has a field {name!r}, which cannot be a name in Avro.")
            schema = self.of(its_kind, f"{type_name(kind)}.{name}")
            described.append({"name": name, **_with_default(schema, default)})
        return {"type": "record", "name": kind.__name__, "fields": described}

    def _enum(self, kind: type[enum.Enum], where: str) -> Any:
        values = [member.value for member in kind]
        if not values or not all(isinstance(value, str) and _NAME.fullmatch(value) for value in values):
            return _of_values(values, where)
        if self._is_known(kind.__name__, kind, where):
            return kind.__name__
        return {"type": "enum", "name": kind.__name__, "symbols": values}

    def _is_known(self, name: str, kind: Any, where: str) -> bool:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{where}: {name!r} cannot be a name in Avro: give the class another one.")
        is_known = name in self._named
        if self._named.setdefault(name, kind) is not kind:
            raise ConfigurationError(f"{where}: two types are called {name!r}, and Avro tells them by their names.")
        return is_known

    def _union(self, branches: Sequence[Any], where: str) -> list[Any]:
        kinds = [_kind_of(branch) for branch in branches]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ConfigurationError(
                    f"{where} is a union of two types that are both {kind} in Avro: which it is cannot be told."
                )
        return list(branches)


def _fields_of(kind: Any) -> list[_Field] | None:
    """The fields of a model; None for whatever is none."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, msgspec.Struct):
        if kind.__struct_config__.array_like:
            raise ConfigurationError(f"{type_name(kind)} is array_like, and has no Avro schema: a record has names.")
        return [
            _Field(
                field.encode_name,
                field.type,
                _empty(field.default_factory) if field.default is msgspec.NODEFAULT else field.default,
            )
            for field in msgspec.structs.fields(kind)
        ]
    if is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        return [
            _Field(
                field.name,
                hints[field.name],
                _empty(field.default_factory) if field.default is MISSING else field.default,
            )
            for field in fields(kind)
        ]
    pydantic_fields: Mapping[str, Any] | None = getattr(kind, "__pydantic_fields__", None)
    if pydantic_fields is None:
        return None
    return [
        _Field(
            field.serialization_alias or field.alias or name,
            Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation,
            _UNSET
            if field.is_required()
            else _empty(field.default_factory)
            if field.default_factory
            else field.default,
        )
        for name, field in pydantic_fields.items()
    ]


def _tag(kind: Any) -> Iterator[_Field]:
    config = getattr(kind, "__struct_config__", None)
    if config is not None and config.tag is not None:
        yield _Field(config.tag_field, Literal[config.tag], _UNSET)


def _empty(factory: Any) -> Any:
    """What a factory makes, if that is sure to be the same each time."""
    return factory() if factory in (list, set, frozenset, tuple, dict) else _UNSET


def _of_values(values: Sequence[Any], where: str) -> Any:
    kinds = {type(value) for value in values}
    if len(kinds) != 1 or (kind := kinds.pop()) not in (str, int, bool, float):
        raise _unsupported(where, values, "it has no type for values of several types")
    return _SIMPLE[kind]


def _decimal(metadata: Iterable[Any], where: str) -> dict[str, Any]:
    for each in metadata:
        if isinstance(each, DecimalDigits):
            return _of_digits(each.precision, each.scale)
    for each in metadata:
        if getattr(each, "max_digits", None) is not None:  # pydantic's
            return _of_digits(each.max_digits, getattr(each, "decimal_places", None) or 0)
    raise ConfigurationError(
        f"{where} is a Decimal, of which Avro wants to know how many digits it has: say"
        " Annotated[Decimal, DecimalDigits(precision, scale)]."
    )


def _of_digits(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def _with_default(schema: Any, default: Any) -> dict[str, Any]:
    """A field's type, and its default where Avro can say it: in a union the default is of the first type."""
    if default is _UNSET:
        return {"type": schema}
    written = _as_json(default)
    if written is _UNSET:
        return {"type": schema}
    if not isinstance(schema, list):
        return {"type": schema, "default": written} if _fits(schema, default) else {"type": schema}
    first = [branch for branch in schema if _fits(branch, default)][:1]
    if not first:
        return {"type": schema}
    return {"type": [*first, *(branch for branch in schema if branch is not first[0])], "default": written}


def _as_json(default: Any) -> Any:
    if isinstance(default, enum.Enum):
        return default.value
    if default is None or type(default) in (bool, int, float, str):
        return default
    if isinstance(default, list | set | frozenset | tuple | dict) and not default:
        return {} if isinstance(default, dict) else []
    return _UNSET


def _fits(schema: Any, default: Any) -> bool:
    """Whether a default is of this type, as far as `_as_json` says any."""
    kind = schema.get("logicalType", schema["type"]) if isinstance(schema, dict) else schema
    if isinstance(default, enum.Enum):
        return kind == "enum" or kind == type(default).__name__ or _fits(schema, default.value)
    if isinstance(default, dict):
        return kind == "map"
    if isinstance(default, list | set | frozenset | tuple):
        return kind == "array"
    if type(default) is int and kind == "double":
        return True
    return kind == _SIMPLE.get(type(default))


def _kind_of(schema: Any) -> str:
    """By what Avro tells the types of a union from each other."""
    if isinstance(schema, str):
        return schema
    if isinstance(schema, list):
        raise ConfigurationError("A union in a union has no Avro schema.")
    kind: str = schema["name"] if "name" in schema else schema["type"]
    return kind


def _unsupported(where: str, kind: Any, why: str) -> ConfigurationError:
    return ConfigurationError(f"{where} is {type_name(kind)}, which Avro cannot express: {why}.")
