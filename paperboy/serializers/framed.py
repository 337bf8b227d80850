"""What serializers have in common that put the id of a registry's schema before their bytes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

from paperboy.errors import (
    ConfigurationError,
    DeserializationError,
    IncompatibleSchema,
    PaperboyError,
    RegistryError,
    SerializationError,
)
from paperboy.serializers.compatibility import unreadable
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.models import Typed
from paperboy.serializers.protocol import SchemaNotFetched, Serializer
from paperboy.serializers.registry import SchemaRegistry
from paperboy.serializers.schema import Part, RegisteredSchema, Schema

SubjectStrategy: TypeAlias = Literal["topic", "record", "topic_record"]
"""What a schema is registered under: ``{topic}-value`` (``-key``), the record's full name, or both with a dash."""

HEAD_BYTES: Final = 5
"""The magic byte 0, and the schema's id in four bytes, the highest first."""

_NO_HEAD: Final = bytes(HEAD_BYTES)
_LARGEST_ID: Final = 2**31 - 1
_AHEAD: Final = 100
"""How many versions of a subject are fetched before a topic is read; older ones are when they are met."""

Read: TypeAlias = Callable[[bytes], Any]
"""Makes an object of framed bytes."""


class Framed(ABC):
    """Base class: a head of five bytes, then the body.

    Without a registry there is no head: plain bytes, and one schema for all of them.

    Args:
        name: what its messages call it.
        schema: what is written, and what is read is brought into where that can be.
        record_name: the full name of the record that `schema` describes, for subjects.
    """

    def __init__(
        self,
        name: str,
        registry: SchemaRegistry | str | None,
        schema: Schema | None,
        record_name: str | None,
        subject_strategy: SubjectStrategy,
        register: bool,
    ) -> None:
        if subject_strategy not in ("topic", "record", "topic_record"):
            raise ConfigurationError(
                f"{name}: subject_strategy is {subject_strategy!r}: it must be 'topic', 'record' or 'topic_record'."
            )
        if subject_strategy != "topic" and schema is not None and record_name is None:
            raise ConfigurationError(
                f"{name}: subject_strategy={subject_strategy!r} needs a schema with a name: give it one."
            )
        if not isinstance(registry, SchemaRegistry | str | None):
            raise ConfigurationError(
                f"{name}: {excerpt(registry)} is no registry: give a SchemaRegistry, its address, or None, and the"
                " schema behind it."
            )
        if registry is None and schema is None:
            raise ConfigurationError(f"{name} needs a registry, a schema, or both.")
        self.name = name
        self.registry = SchemaRegistry(registry) if isinstance(registry, str) else registry
        self.schema = schema
        self.register = register
        self._record_name = record_name
        self._strategy: SubjectStrategy = subject_strategy
        self._readers: dict[bytes, Read] = {}
        """By head: one look finds whether the magic byte is there, and what reads this schema."""
        self._plain = self._reader(schema, 0) if registry is None and schema is not None else None
        self._for_topics: dict[tuple[str, Part], TopicSerializer] = {}

    def for_topic(self, topic: str, part: Part = "value") -> "TopicSerializer":
        """The serializer of the keys or the values of one topic: the same object each time.

        Raises:
            SerializationError: there is nothing to write with: no schema.
        """
        found = self._for_topics.get((topic, part))
        if found is None:
            found = self._for_topics[topic, part] = TopicSerializer(self, topic, part)
        return found

    def serialize(self, value: Any, /) -> bytes:
        """The bytes of `value`, where they do not depend on a topic: without a registry, or with
        ``subject_strategy="record"``. Tables and ``ctx.send`` know their topics, and tell.

        Raises:
            SerializationError: `value` does not go with the schema, or it needs to be known for which topic.
        """
        if self.registry is None:
            return self.write(b"", value)
        if self._strategy != "record":
            raise SerializationError(
                f"{self.name} with subject_strategy={self._strategy!r} writes for a topic:"
                " use for_topic(topic).serialize(value), or hand it to ctx.send or to a table, which know theirs."
            )
        return self.for_topic("", "value").serialize(value)

    def deserialize(self, data: bytes, /) -> Any:
        """Raises DeserializationError for what was not written in a schema of the registry, or is damaged."""
        read = self._readers.get(data[:HEAD_BYTES], self._plain)
        if read is None:
            read = self._reader_of(data)
        try:
            return read(data)
        except Exception as error:
            written = "" if self.registry is None else f" in schema id {int.from_bytes(data[1:HEAD_BYTES], 'big')}"
            raise DeserializationError(
                f"{excerpt(data)}, written{written}, cannot be read by {self.name}: {_reason(error)}"
            ) from error

    async def fetch_ahead(self, topic: str, part: Part = "value") -> None:
        """Fetch what `topic` is probably written in, so that reading it waits for nothing.

        Raises:
            RegistryError: the registry does not answer, or refuses to.
        """
        if self.registry is None:
            return
        subject = self._subject(topic, part)
        if subject is None:
            await self.registry.subjects()  # it has to be there
        else:
            await self.registry.versions(subject, latest=_AHEAD)

    async def fetch_for(self, data: Iterable[bytes]) -> None:
        """Fetch the schemas that these were written in. What no registry has is found out by whoever reads it.

        Raises:
            RegistryError: the registry does not answer, or refuses to.
        """
        if self.registry is None:
            return
        for head in {each[:HEAD_BYTES] for each in data}.difference(self._readers):
            schema_id = int.from_bytes(head[1:], "big")
            if len(head) == HEAD_BYTES and head[0] == 0 and schema_id <= _LARGEST_ID:
                with suppress(DeserializationError):
                    await self.registry.schema(schema_id)

    async def complete_schema(self) -> Schema | None:
        """The schema as it is registered: with all that it refers to.

        Raises:
            RegistryError: what it refers to cannot be registered, or is not and registering is off.
        """
        return self.schema

    @abstractmethod
    def write(self, head: bytes, value: Any) -> bytes:
        """`head`, and behind it the body of `value`.

        Raises:
            SerializationError: it does not go with the schema.
        """

    @abstractmethod
    def _reader(self, schema: Schema, skip: int) -> Read:
        """What reads bytes that were written in `schema`, whose first `skip` bytes are the head.

        Raises:
            DeserializationError: nothing written in this schema can be read.
        """

    def _subject(self, topic: str, part: Part) -> str | None:
        """None where it goes by a record's name, and there is no schema to give one."""
        if self._strategy == "topic":
            return f"{topic}-{part}"
        if self._record_name is None:
            return None
        return self._record_name if self._strategy == "record" else f"{topic}-{self._record_name}"

    def _reader_of(self, data: bytes) -> Read:
        head = data[:HEAD_BYTES]
        if len(head) < HEAD_BYTES or head[0] != 0:
            raise DeserializationError(
                f"{excerpt(data)} was not written by a serializer of a schema registry: that begins with the magic byte"
                " 0 and four bytes of a schema id."
            )
        schema_id = int.from_bytes(head[1:], "big")
        if schema_id > _LARGEST_ID:  # a registry that is asked for it does not say that there is none, but fails
            raise DeserializationError(
                f"{excerpt(data)} names the schema id {schema_id}, which is larger than ids are."
            )
        assert self.registry is not None
        schema = self.registry.known(schema_id)
        if schema is None:
            raise SchemaNotFetched(
                f"The schema with id {schema_id} was not fetched from {self.registry.name} yet.",
                lambda: self._finish_reading(schema_id, data),
            )
        try:
            read = self._reader(schema, HEAD_BYTES)
        except PaperboyError:
            raise
        except Exception as error:  # a registry keeps what it is given
            raise DeserializationError(
                f"{excerpt(data)} was written in schema id {schema_id}, {excerpt(schema.text)}, of which {self.name}"
                f" makes nothing: {error!r}"
            ) from error
        self._readers[head] = read
        return read

    async def _finish_reading(self, schema_id: int, data: bytes) -> Any:
        assert self.registry is not None
        await self.registry.schema(schema_id)
        return self.deserialize(data)


def framed_in(serializer: Serializer | None) -> Framed | None:
    """The one that is framed: itself, or what makes the plain objects of a type."""
    inner = serializer.serializer if isinstance(serializer, Typed) else serializer
    return inner if isinstance(inner, Framed) else None


def of_topic(serializer: Serializer | None, topic: str, part: Part) -> Serializer | None:
    """What reads and writes the keys or values of one topic.

    Raises:
        SerializationError: as `Framed.for_topic`.
    """
    framed = framed_in(serializer)
    if framed is None:
        return serializer
    bound = framed.for_topic(topic, part)
    return serializer.over(bound) if isinstance(serializer, Typed) else bound


class TopicSerializer:
    """A `Framed` serializer for the keys or the values of one topic."""

    def __init__(self, framed: Framed, topic: str, part: Part) -> None:
        if framed.schema is None:
            raise SerializationError(f"{framed.name} has no schema to write the {part} for topic {topic!r} in.")
        self.framed = framed
        self.subject = framed._subject(topic, part) or ""
        self.deserialize = framed.deserialize
        self._write = framed.write
        self._head: bytes | None = b"" if framed.registry is None else None

    def serialize(self, value: Any, /) -> bytes:
        """The bytes of `value`.

        Raises:
            SerializationError: it does not go with the schema.
            SchemaNotFetched: it was not opened before.
        """
        head = self._head
        if head is not None:
            return self._write(head, value)
        data = self._write(_NO_HEAD, value)
        raise SchemaNotFetched(
            f"The schema was not registered under subject {self.subject!r} yet.", lambda: self._finish_writing(data)
        )

    async def open(self) -> None:
        """Have the schema's id: register it under its subject, or look it up where registering is off.

        Raises:
            IncompatibleSchema: the registry does not allow it beside the earlier ones.
            RegistryError: it is not registered, and registering is off; or the registry does not answer.
        """
        registry = self.framed.registry
        if registry is None or self._head is not None:
            return
        if self.framed.register:
            schema = await self.framed.complete_schema()
            assert schema is not None
            self._head = _head(await registry.register(self.subject, schema))
        elif await self.look_up() is None:
            raise RegistryError(
                f"The schema of {self.framed.name} is not registered under subject {self.subject!r} at {registry.name},"
                " and register=False: register it there, or let register be True."
            )

    async def look_up(self) -> int | None:
        """The schema's id, where it is registered under its subject; it can then be written in."""
        registry = self.framed.registry
        if registry is None:
            return None
        schema = await self.framed.complete_schema()
        assert schema is not None
        schema_id = await registry.lookup(self.subject, schema)
        if schema_id is not None:
            self._head = _head(schema_id)
        return schema_id

    async def versions(self) -> list[RegisteredSchema]:
        """All that is registered under the subject; from now on it can be read without waiting."""
        return [] if self.framed.registry is None else await self.framed.registry.versions(self.subject)

    def check_reads(self, earlier: RegisteredSchema) -> None:
        """Raises IncompatibleSchema where our schema cannot read what was written in an earlier one."""
        assert self.framed.schema is not None
        problem = unreadable(self.framed.schema, earlier.schema)
        if problem is not None:
            raise IncompatibleSchema(
                f"The schema of {self.framed.name} cannot read what was written in version {earlier.version} (id"
                f" {earlier.id}) of subject {self.subject!r}: {problem}."
            )

    async def _finish_writing(self, data: bytes) -> bytes:
        await self.open()
        assert self._head is not None
        return self._head + data[HEAD_BYTES:]


def _head(schema_id: int) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PaperboyError) else repr(error)
