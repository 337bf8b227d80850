"""What turns objects into bytes and back."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

from paperboy.errors import PaperboyError


@runtime_checkable
class Deserializer(Protocol):
    """One way, for what is only read: the messages of a handler."""

    def deserialize(self, data: bytes, /) -> Any:
        """The object of these bytes. Whatever it raises becomes a `DeserializationError`."""
        ...


@runtime_checkable
class Serializer(Deserializer, Protocol):
    """Both ways between an object and its bytes, for what is written and read again: the keys and values of tables.

    Equal objects are to become equal bytes: for a key, its bytes are what it is found by.

    A serializer that would bring back something else than it was given is found out where the object is set: each
    one is read back and compared. A serializer whose every result is sure to be equal, and of the same type, may say
    so with an attribute ``lossless = True``, and saves that.

    One that can make objects of a type itself has a method ``typed(kind)``, which returns the serializer for it. The
    plain objects of any other are converted.

        class Text:
            def serialize(self, value: str) -> bytes:
                return value.encode()

            def deserialize(self, data: bytes) -> str:
                return data.decode()
    """

    def serialize(self, value: Any, /) -> bytes:
        """The bytes of `value`. Whatever it raises becomes a `SerializationError`, and nothing is written."""
        ...

    def deserialize(self, data: bytes, /) -> Any:
        """What `serialize` made these bytes of. Whatever it raises becomes a `DeserializationError`."""
        ...


class SchemaNotFetched(PaperboyError):
    """A call of a serializer needs a schema that has to be fetched first, which a call that does not wait cannot do.

    Whoever can wait awaits `finish`, which gives what the call would have given. That happens once for each schema.
    """

    def __init__(self, message: str, finish: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(message)
        self.finish = finish
