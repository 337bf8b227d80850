"""A record's bytes made into objects, by the serializers, callables and types that its handler gives."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, ForwardRef

from paperboy.brokers.protocol import Record
from paperboy.errors import ConfigurationError, DeserializationError, PaperboyError, RegistryError
from paperboy.handlers.handler import Handler
from paperboy.handlers.hooks import declared_type, inputs_of, name_of
from paperboy.serializers.framed import Framed
from paperboy.serializers.models import Typed, conversion, holds_model, type_name
from paperboy.serializers.of_types import serializer_of
from paperboy.serializers.protocol import Deserializer, SchemaNotFetched, Serializer
from paperboy.serializers.schema import Part
from paperboy.topic import Topic, name_of_topic

Decode = Callable[[bytes], Any]

_PARTS: Final[tuple[Part, Part]] = ("key", "value")


class Decoding:
    """How one handler's records are decoded, in place; tombstones and missing keys stay None.

    Raises:
        ConfigurationError: a decoder has two names, is none, or a type is none that messages can have.
    """

    def __init__(self, handler: Handler[Any] | type[Handler[Any]]) -> None:
        self._handler = handler
        topics = inputs_of(handler)
        self._by_topic = {name_of_topic(topic): _decoders(handler, topic) for topic in topics}
        self._elsewhere = self._by_topic[name_of_topic(topics[0])]
        """For a record that says it comes from none of them."""
        self.serializers: dict[tuple[str, Part], Serializer] = {}
        """Of each topic's keys and values, those that are more than a callable."""
        for topic in topics:
            for part, given in zip(_PARTS, _given_for(handler, topic), strict=True):
                if isinstance(given, Serializer):
                    self.serializers[name_of_topic(topic), part] = given

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to decode."""
        return any(decoder is not None for decoders in self._by_topic.values() for decoder in decoders)

    def decode(self, record: Record) -> Awaitable[None] | None:
        """Returns None when that is done; else what does it, because a schema has to be fetched first.

        Raises DeserializationError, which names topic, partition and offset.
        """
        decode_key, decode_value = self._by_topic.get(record.topic, self._elsewhere)
        part, raw_key = "key", record.key
        try:
            if decode_key is not None and raw_key is not None:
                record.key = decode_key(raw_key)
            part = "value"
            if decode_value is not None and record.value is not None:
                record.value = decode_value(record.value)
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
            f" {self._named(part)}: {said}"
        )

    def _named(self, part: str) -> str:
        """What decodes keys or values, for a person."""
        name = name_of(self._handler)
        if _given(self._handler, part) is not None:
            return f"{name}.{part}_serializer"
        return f"{name}.{part}_type" if _has_type(self._handler, part) else f"the {part}=… of its Topic"


def _decoders(handler: Handler[Any] | type[Handler[Any]], topic: str | Topic) -> tuple[Decode | None, Decode | None]:
    """What decodes the keys and the values of a topic: as the handler says, or else the topic."""
    key, value = _given_for(handler, topic)
    return (
        _decoder(handler, "key", handler.key_type, key),
        _decoder(handler, "value", _value_type(handler, value), value),
    )


def _given_for(handler: Handler[Any] | type[Handler[Any]], topic: str | Topic) -> tuple[Any, Any]:
    """The serializers or callables for the keys and the values of a topic: the handler's, or else the topic's."""
    key, value = _given(handler, "key"), _given(handler, "value")
    if isinstance(topic, Topic):
        key, value = topic.key if key is None else key, topic.value if value is None else value
    return key, value


def _decoder(handler: Handler[Any] | type[Handler[Any]], part: str, kind: Any, given: Any) -> Decode | None:
    """What makes objects of a handler's keys or its values; None leaves them as they are.

    Args:
        given: the serializer or callable that is to do it, by the handler's word or its topic's.
    """
    try:
        if kind is None:
            return given.deserialize if isinstance(given, Deserializer) else given
        if isinstance(given, Framed):  # what is read comes as it was written
            return Typed(given, kind).deserialize
        if given is None or isinstance(given, Serializer):
            return serializer_of(kind, given).deserialize
        of_plain = conversion(kind).of_plain
    except ConfigurationError as error:
        raise ConfigurationError(f"{name_of(handler)}.{part}_type: {error}") from error
    decode = given.deserialize if isinstance(given, Deserializer) else given
    return lambda data: of_plain(decode(data))


def _has_type(handler: Handler[Any] | type[Handler[Any]], part: str) -> bool:
    """Whether it says what its keys or its values are."""
    if part == "key":
        return handler.key_type is not None
    declared = declared_type(handler if isinstance(handler, type) else type(handler))
    return handler.value_type is not None or holds_model(declared)


def _value_type(handler: Handler[Any] | type[Handler[Any]], given: Any) -> Any:
    """What its values are made into: `value_type`, or the model of a ``Handler[Order]`` that says nothing else."""
    declared = declared_type(handler if isinstance(handler, type) else type(handler))
    if handler.value_type is None:
        if given is not None:
            _check_declared(handler, declared, getattr(given, "kind", Any))
            return None
        if isinstance(declared, ForwardRef):
            raise ConfigurationError(
                f"{name_of(handler)} is a Handler[{declared.__forward_arg__!r}]: name the class itself, or set"
                " value_type."
            )
        return declared if holds_model(declared) else None
    _check_declared(handler, declared, handler.value_type)
    return handler.value_type


def _check_declared(handler: Handler[Any] | type[Handler[Any]], declared: Any, kind: Any) -> None:
    """What a class says to type checkers is to be what it gets."""
    if kind is not Any and declared not in (None, Any, kind) and not isinstance(declared, ForwardRef):
        raise ConfigurationError(
            f"{name_of(handler)} is a Handler[{type_name(declared)}], but its values are made into {type_name(kind)}:"
            " let both be the same."
        )


def _given(handler: Handler[Any] | type[Handler[Any]], part: str) -> Any:
    """The handler's serializer or callable for its keys or its values, under either of its names."""
    given = {
        name: found
        for name in (f"{part}_serializer", f"{part}_deserializer")
        if (found := _unbound(handler, name)) is not None
    }
    if len(given) > 1:
        raise ConfigurationError(f"{name_of(handler)} sets both {' and '.join(given)}: they are one setting, keep one.")
    for name, found in given.items():
        where = f"{name_of(handler)}.{name}"
        if isinstance(found, type) and issubclass(found, Deserializer):
            raise ConfigurationError(f"{where} is the class {found.__name__}: give an instance, {found.__name__}().")
        if isinstance(found, Deserializer):
            return found
        if not callable(found):
            raise ConfigurationError(f"{where} is {found!r}: it must be a serializer, or a callable that takes bytes.")
        if inspect.iscoroutinefunction(found):
            raise ConfigurationError(f"{where} is a coroutine function: decoding does not wait.")
        return found
    return None


def _unbound(handler: Handler[Any] | type[Handler[Any]], name: str) -> Any:
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
