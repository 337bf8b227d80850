"""A record's bytes made into objects, by the callables that its handler gives."""

import inspect
from collections.abc import Callable
from typing import Any

from paperboy.brokers.protocol import Record
from paperboy.errors import ConfigurationError, DeserializationError
from paperboy.handlers.handler import Handler
from paperboy.handlers.hooks import name_of

Decode = Callable[[bytes], Any]


class Decoding:
    """How one handler's records are decoded, in place; tombstones and missing keys stay None.

    Raises:
        ConfigurationError: a decoder has two names, or is no plain callable.
    """

    def __init__(self, handler: Handler | type[Handler]) -> None:
        self._name = name_of(handler)
        self._key = _find_decoder(handler, "key")
        self._value = _find_decoder(handler, "value")

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to decode."""
        return self._key is not None or self._value is not None

    def decode(self, record: Record) -> None:
        """Raises DeserializationError, which names topic, partition and offset."""
        part = "key"
        try:
            if self._key is not None and record.key is not None:
                record.key = self._key(record.key)
            part = "value"
            if self._value is not None and record.value is not None:
                record.value = self._value(record.value)
        except Exception as error:
            raise DeserializationError(
                f"The {part} of {record.topic}[{record.partition}] offset {record.offset} could not be decoded by"
                f" {self._name}.{part}_serializer: {error!r}"
            ) from error


def _find_decoder(handler: Handler | type[Handler], part: str) -> Decode | None:
    """The handler's callable for its keys or its values, under either of its names."""
    given = {
        name: found
        for name in (f"{part}_serializer", f"{part}_deserializer")
        if (found := _unbound(handler, name)) is not None
    }
    if len(given) > 1:
        raise ConfigurationError(f"{name_of(handler)} sets both {' and '.join(given)}: they are one setting, keep one.")
    for name, found in given.items():
        if not callable(found):
            raise ConfigurationError(f"{name_of(handler)}.{name} is {found!r}: it must be a callable that takes bytes.")
        if inspect.iscoroutinefunction(found):
            raise ConfigurationError(f"{name_of(handler)}.{name} is a coroutine function: decoding does not wait.")
        return found  # type: ignore[no-any-return]
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
