"""Protobuf, with or without a schema registry."""

import base64
from typing import TYPE_CHECKING, Any, TypeVar

from paperboy.errors import ConfigurationError, DeserializationError, RegistryError, SerializationError
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.extras import extra
from paperboy.serializers.framed import Framed, Read, SubjectStrategy
from paperboy.serializers.protobuf_schema import message_names
from paperboy.serializers.registry import SchemaRegistry
from paperboy.serializers.schema import Reference, Schema

if TYPE_CHECKING:
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")

_KNOWN = ("google/protobuf/", "confluent/", "google/type/")
"""Files that every registry has by itself."""
_MOST_INDEXES = 64


class Protobuf(Framed):
    """Messages of one of protoc's classes, in the framing of schema registries, or plain.

    In front of the message stands which one of its file it is (its index, and those of the messages that it stands in).
    A record that holds another message of its file is refused when it is read.

        orders = Protobuf(order_pb2.Order, "http://localhost:8081")

    The schema is registered as confluent-kafka for Python does it: the file's descriptor in base64; files that it
    imports under subjects of their names.

    Args:
        message: the class.
        registry: or its address; None: no registry and no head, only the message.
        subject_strategy: as for `Avro`.
        register: as for `Avro`.

    Raises:
        ConfigurationError: it is no such class, or protobuf is not installed.
    """

    def __init__(
        self,
        message: type[M],
        registry: SchemaRegistry | str | None = None,
        *,
        subject_strategy: SubjectStrategy = "topic",
        register: bool = True,
    ) -> None:
        library = extra("google.protobuf.message", "protobuf", for_="Protobuf")
        given: object = message
        if not (isinstance(given, type) and issubclass(given, library.Message)):
            raise ConfigurationError(f"Protobuf takes a class that protoc has made, and not {excerpt(message)}.")
        self._message = message
        self._full_name: str = message.DESCRIPTOR.full_name
        self._file: Any = message.DESCRIPTOR.file
        text = _text(self._file)
        (path,) = (path for path, name in message_names(text).items() if name == self._full_name)
        self._indexes = b"\x00" if path == (0,) else _written(path)
        super().__init__(
            "Protobuf",
            registry,
            Schema(text, "PROTOBUF"),
            self._full_name,
            subject_strategy,
            register,
        )

    async def complete_schema(self) -> Schema | None:
        return await self._schema_of(self._file)

    def write(self, head: bytes, value: Any) -> bytes:
        if type(value) is not self._message:
            raise SerializationError(
                f"Protobuf writes messages of {self._full_name}, and not the {type(value).__name__} {excerpt(value)}."
            )
        try:
            body: bytes = value.SerializeToString(deterministic=True)
        except Exception as error:
            raise SerializationError(f"{excerpt(value)} cannot be written: {error!r}") from error
        return head + self._indexes + body if head else body

    def _reader(self, schema: Schema, skip: int) -> Read:
        if schema.kind != "PROTOBUF":
            raise DeserializationError(f"It was written in a schema of {schema.kind}, and not of Protobuf.")
        parse = self._message.FromString
        if not skip:
            return parse
        names = message_names(schema.text)

        def read(data: bytes) -> Any:
            path, body = _read_path(data, skip)
            name = names.get(path)
            if name != self._full_name:
                raise DeserializationError(
                    f"it is message {list(path)} of its schema, {name or 'which has no such message'}, and not"
                    f" {self._full_name}."
                )
            return parse(data[body:])

        return read

    async def _schema_of(self, file: Any) -> Schema:
        """With what it imports registered, or looked up."""
        assert self.registry is not None
        references = []
        for other in file.dependencies:
            if other.name.startswith(_KNOWN):
                continue
            schema = await self._schema_of(other)
            if self.register:
                await self.registry.register(other.name, schema)
            version = await self._version_of(other.name, schema)
            references.append(Reference(other.name, other.name, version))
        return Schema(_text(file), "PROTOBUF", tuple(references))

    async def _version_of(self, subject: str, schema: Schema) -> int:
        assert self.registry is not None
        schema_id = await self.registry.lookup(subject, schema)
        for version in await self.registry.versions(subject):
            if version.id == schema_id:
                return version.version
        raise RegistryError(
            f"{subject}, which {self._file.name} imports, is not registered under that subject at {self.registry.name},"
            " and register=False: register it there, or let register be True."
        )


def _text(file: Any) -> str:
    return base64.b64encode(file.serialized_pb).decode()


def _written(path: tuple[int, ...]) -> bytes:
    """The count, then each index, as varints of zigzag numbers. The first message of a file is a single 0."""
    data = bytearray()
    for number in (len(path), *path):
        rest = number << 1
        while rest > 0x7F:
            data.append(rest & 0x7F | 0x80)
            rest >>= 7
        data.append(rest)
    return bytes(data)


def _read_path(data: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """The path, and where the message begins."""
    count, at = _varint(data, start)
    if count == 0:
        return (0,), at
    if not 0 < count <= _MOST_INDEXES:
        raise DeserializationError(f"it claims to stand in {count} messages.")
    path = []
    for _ in range(count):
        index, at = _varint(data, at)
        path.append(index)
    return tuple(path), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag number, and where it ends."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise DeserializationError("it ends before the message begins.")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
