"""Avro, by fastavro, with or without a schema registry."""

import importlib
import json
from datetime import date, time, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any, Final, TypeAlias
from uuid import UUID

from msgpack import Packer

from paperboy.errors import ConfigurationError, DeserializationError, SerializationError
from paperboy.serializers.avro_schema import avro_schema_of
from paperboy.serializers.avro_shape import holds_endless_arrays, holds_itself
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.extras import extra
from paperboy.serializers.framed import Framed, Read, SubjectStrategy
from paperboy.serializers.models import Typed
from paperboy.serializers.registry import SchemaRegistry
from paperboy.serializers.schema import Schema

AvroSchema: TypeAlias = dict[str, Any] | list[Any] | str
"""A schema as JSON's objects, or as its text."""

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_SURELY_SHALLOW_BYTES: Final = 500
"""A nesting takes a byte at least. Some thousands in each other crash fastavro's C code, and the process with it."""


class Avro(Framed):
    """Avro in the framing of schema registries, or plain.

    Objects are what fastavro takes and gives: a dict for a record, and for logical types datetime, date, time, Decimal
    and UUID. What is read comes as the program's own schema says, whatever version of it wrote it, by Avro's rules of
    resolution; where no schema is given, as it was written.

        orders = Avro("http://localhost:8081", {"type": "record", "name": "Order", "fields": [...]})

        class Orders(Handler):
            topic = "orders"
            value_serializer = orders

            @classmethod
            async def on_message(cls, msg, ctx):
                await ctx.send("large-orders", msg.value, serializer=orders)

    Args:
        registry: or its address; None: no registry and no head, only the bytes of Avro, all in `schema`.
        schema: what is written, and into which is read. Needed for writing.
        reader_schema: into which is read, where that is another one.
        subject_strategy: the subject that `schema` is registered under: ``"topic"``: ``{topic}-value``; ``"record"``:
            its full name; ``"topic_record"``: ``{topic}-`` and that.
        register: whether a schema that is not registered is; if not, that is an error at the start.

    Raises:
        ConfigurationError: a schema is none, or fastavro is not installed.
    """

    def __init__(
        self,
        registry: SchemaRegistry | str | None = None,
        schema: AvroSchema | None = None,
        *,
        reader_schema: AvroSchema | None = None,
        subject_strategy: SubjectStrategy = "topic",
        register: bool = True,
    ) -> None:
        fastavro = extra("fastavro", "avro", for_="Avro")
        # The same in Python, which raises where C would crash: for schemas that hold themselves.
        self._slow_reader = importlib.import_module("fastavro._read_py").schemaless_reader
        self._read, self._write = fastavro.schemaless_reader, fastavro.schemaless_writer
        self._parse = fastavro.parse_schema
        own = None if schema is None else _loaded(schema)
        into = own if reader_schema is None else _loaded(reader_schema)
        self._own = None if own is None else self._parsed(own)
        self._into = None if into is None else self._parsed(into)
        self._own_is_deep = self._own is not None and holds_itself(self._own)
        super().__init__(
            "Avro",
            registry,
            None if own is None else Schema(json.dumps(own, separators=(",", ":"), ensure_ascii=False)),
            self._own.get("name") if isinstance(self._own, dict) else None,
            subject_strategy,
            register,
        )

    def typed(self, kind: Any) -> Typed:
        """The same for objects of a type: in the schema of that type, where none was given."""
        if self.schema is not None:
            return Typed(self, kind)
        of_kind = Avro(self.registry, avro_schema_of(kind), subject_strategy=self._strategy, register=self.register)
        return Typed(of_kind, kind)

    def write(self, head: bytes, value: Any) -> bytes:
        stream = BytesIO()
        stream.write(head)
        try:
            if self._own_is_deep:
                _pack(value)  # it refuses what is nested deeper than 511
            self._write(stream, self._own, value, strict_allow_default=True)
        except Exception as error:
            raise SerializationError(f"{excerpt(value)} does not go with the Avro schema: {error!r}") from error
        return stream.getvalue()

    def _reader(self, schema: Schema, skip: int) -> Read:
        if schema.kind != "AVRO":
            raise DeserializationError(f"it was written in a schema of {schema.kind}, and not of Avro.")
        named: dict[str, Any] = {}
        for _, other in () if self.registry is None else self.registry.referenced(schema):
            self._parsed_into(other, named)
        written = self._parsed_into(schema, named)
        into = None if self._into == written else self._into
        fast, slow = self._read, self._slow_reader
        is_deep = holds_itself(written)

        def read(data: bytes) -> Any:
            stream = BytesIO(data)
            stream.seek(skip)
            return fast(stream, written, into)

        def read_deep(data: bytes) -> Any:
            stream = BytesIO(data)
            stream.seek(skip)
            return (fast if len(data) <= _SURELY_SHALLOW_BYTES else slow)(stream, written, into)

        return read_deep if is_deep else read

    def _parsed(self, schema: Any) -> Any:
        try:
            parsed = self._parse(schema)
        except Exception as error:
            raise ConfigurationError(f"{excerpt(schema)} is no Avro schema: {error!r}") from error
        if holds_endless_arrays(parsed):
            raise ConfigurationError(
                f"{excerpt(schema)} has an array of items that take no bytes: a damaged record could claim any number"
                " of them, and take all memory. Use an array of something, or a count."
            )
        return parsed

    def _parsed_into(self, schema: Schema, named: dict[str, Any]) -> Any:
        try:
            parsed = self._parse(json.loads(schema.text), named_schemas=named)
        except Exception as error:
            raise DeserializationError(f"its schema {excerpt(schema.text)} is no Avro schema: {error!r}.") from error
        if holds_endless_arrays(parsed):
            raise DeserializationError(f"its schema {excerpt(schema.text)} has an array of items that take no bytes.")
        return parsed


def _loaded(schema: AvroSchema) -> Any:
    if not isinstance(schema, str) or schema in _PRIMITIVES:
        return schema
    try:
        return json.loads(schema)
    except ValueError as error:
        raise ConfigurationError(f"{excerpt(schema)} is no Avro schema: it is not JSON ({error}).") from error


def _leaf(value: Any) -> None:
    """What msgpack does not know, and holds nothing."""
    if not isinstance(value, date | time | timedelta | Decimal | UUID):
        raise TypeError(f"a schema that holds itself takes dicts and lists, and not the {type(value).__name__}")


_pack: Final = Packer(default=_leaf).pack
