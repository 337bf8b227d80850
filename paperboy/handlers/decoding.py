"""A record's bytes made into objects, by the serializers or callables that its handler gives."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from paperboy.brokers.protocol import Record
from paperboy.errors import ConfigurationError, DeserializationError, PaperboyError, RegistryError
from paperboy.handlers.handler import Handler
from paperboy.handlers.hooks import name_of
from paperboy.serializers.protocol import SchemaNotFetched, Serializer
from paperboy.serializers.schema import Part

Decode = Callable[[bytes], Any]


class Decoding:
    """How one handler's records are decoded, in place; tombstones and missing keys stay None.

    Raises:
        ConfigurationError: a decoder has two names, or is neither a serializer nor a plain callable.
    """

    def __init__(self, handler: Handler | type[Handler]) -> None:
        self._name = name_of(handler)
        given: dict[Part, Any] = {part: _given(handler, part) for part in _PARTS}
        self.serializers: dict[Part, Serializer] = {}
        """Those that are more than a callable."""
        for part, found in given.items():
            if isinstance(found, Serializer):
                self.serializers[part] = found
        self._key, self._value = (_decoder(given[part]) for part in _PARTS)

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to decode."""
        return self._key is not None or self._value is not None

    def decode(self, record: Record) -> Awaitable[None] | None:
        """Returns None when that is done; else what does it, because a schema has to be fetched first.

        Raises DeserializationError, which names topic, partition and offset.
        """
        part, raw_key = "key", record.key
        try:
            if self._key is not None and raw_key is not None:
                record.key = self._key(raw_key)
            part = "value"
            if self._value is not None and record.value is not None:
                record.value = self._value(record.value)
        except SchemaNotFetched as missing:
            record.key = raw_key
            return self._decode_later(record, part, missing)
        except Exception as error:
            raise self._failed(record, part, error) from error
        return None

    async def _decode_later(self, record: Record, part: str, missing: SchemaNotFetched) -> None:
        try:
            await missing.finish()
        except RegistryError:  # the record is not to blame
            raise
        except Exception as error:
            raise self._failed(record, part, error) from error
        later = self.decode(record)
        if later is not None:  # the value is in another schema than the key
            await later

    def _failed(self, record: Record, part: str, error: Exception) -> DeserializationError:
        said = str(error) if isinstance(error, PaperboyError) else repr(error)
        return DeserializationError(
            f"The {part} of {record.topic}[{record.partition}] offset {record.offset} could not be decoded by"
            f" {self._name}.{part}_serializer: {said}"
        )


_PARTS: Final[tuple[Part, Part]] = ("key", "value")


def _decoder(given: Any) -> Decode | None:
    return given.deserialize if isinstance(given, Serializer) else given


def _given(handler: Handler | type[Handler], part: Part) -> Any:
    """The handler's serializer for its keys or its values, or its callable, under either of its names."""
    given = {
        name: found
        for name in (f"{part}_serializer", f"{part}_deserializer")
        if (found := _unbound(handler, name)) is not None
    }
    if len(given) > 1:
        raise ConfigurationError(f"{name_of(handler)} sets both {' and '.join(given)}: they are one setting, keep one.")
    for name, found in given.items():
        if isinstance(found, Serializer):
            if isinstance(found, type):
                raise ConfigurationError(
                    f"{name_of(handler)}.{name} is the class {found.__name__}: give an instance of it."
                )
            return found
        if not callable(found):
            raise ConfigurationError(
                f"{name_of(handler)}.{name} is {found!r}: it must be a serializer, or a callable that takes bytes."
            )
        if inspect.iscoroutinefunction(found):
            raise ConfigurationError(f"{name_of(handler)}.{name} is a coroutine function: decoding does not wait.")
        return found
    return None


def _unbound(handler: Handler | type[Handler], name: str) -> Any:
    """A callable that stands on a class is given the bytes, not the instance: Python would make a method of it."""
    found = inspect.getattr_static(handler, name)
    if isinstance(found, staticmethod | classmethod | property) or (
        inspect.isfunction(found) and not _takes_one(found)
    ):
        return getattr(handler, name)
    return found


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether it can be called with the bytes alone; a method wants its instance as well."""
    try:
        inspect.signature(function).bind(b"")
    except TypeError:
        return False
    return True
