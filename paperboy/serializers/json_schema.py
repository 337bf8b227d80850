"""JSON that is checked against a JSON Schema, with or without a schema registry."""

import json
from typing import Any

from paperboy.errors import ConfigurationError, DeserializationError, SerializationError
from paperboy.serializers.builtins import Json
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.extras import extra
from paperboy.serializers.framed import Framed, Read, SubjectStrategy
from paperboy.serializers.registry import SchemaRegistry
from paperboy.serializers.schema import Schema


class JsonSchema(Framed):
    """JSON in the framing of schema registries, or plain, checked against a JSON Schema when it is written and read.

    Objects are those of `Json`. What is read has to be valid in the program's own schema; where none is given, in the
    one it was written in. What a schema refers to (``$ref``) is looked for in it, and in what the registry says that it
    refers to; nothing is fetched from anywhere else.

        orders = JsonSchema("http://localhost:8081", {"title": "Order", "type": "object", "required": ["id"]})

    Args:
        registry: or its address; None: no registry and no head, only JSON.
        schema: as JSON's objects, or as its text. Needed for writing.
        subject_strategy: as for `Avro`; the name of a JSON Schema is its ``title``.
        register: as for `Avro`.
        validate: whether values are checked, which takes the most time by far.

    Raises:
        ConfigurationError: the schema is none, or jsonschema is not installed.
    """

    def __init__(
        self,
        registry: SchemaRegistry | str | None = None,
        schema: dict[str, Any] | str | None = None,
        *,
        subject_strategy: SubjectStrategy = "topic",
        register: bool = True,
        validate: bool = True,
    ) -> None:
        self._jsonschema = extra("jsonschema", "jsonschema", for_="JsonSchema")
        self._referencing = extra("referencing", "jsonschema", for_="JsonSchema")
        self._validate = validate
        self._json = Json()
        own = _loaded(schema) if isinstance(schema, str) else schema
        self._own = None if own is None else self._validator(own, {})
        if self._own is not None:
            try:
                self._own.check_schema(own)
            except self._jsonschema.SchemaError as error:
                raise ConfigurationError(f"{excerpt(own)} is no JSON Schema: {error.message}.") from error
        super().__init__(
            "JsonSchema",
            registry,
            None if own is None else Schema(json.dumps(own, separators=(",", ":"), ensure_ascii=False), "JSON"),
            own.get("title") if isinstance(own, dict) else None,
            subject_strategy,
            register,
        )

    def write(self, head: bytes, value: Any) -> bytes:
        if self._validate:
            try:
                problem = _problem(self._own, value)
            except Exception as error:
                raise SerializationError(f"{excerpt(value)} cannot be checked by its JSON Schema: {error!r}") from error
            if problem is not None:
                raise SerializationError(f"{excerpt(value)} does not go with the JSON Schema: {problem}.")
        return head + self._json.serialize(value)

    def _reader(self, schema: Schema, skip: int) -> Read:
        if schema.kind != "JSON":
            raise DeserializationError(f"It was written in a schema of {schema.kind}, and not in a JSON Schema.")
        parse = self._json.deserialize
        if not self._validate:
            return lambda data: parse(data[skip:])
        validator = self._own
        if validator is None:
            assert self.registry is not None
            others = {name: json.loads(other.text) for name, other in self.registry.referenced(schema)}
            validator = self._validator(json.loads(schema.text), others)

        def read(data: bytes) -> Any:
            value = parse(data[skip:])
            problem = _problem(validator, value)
            if problem is not None:
                raise DeserializationError(f"{problem}.")
            return value

        return read

    def _validator(self, schema: Any, others: dict[str, Any]) -> Any:
        """Made once for each schema. With a registry of references, it looks for them nowhere else."""
        kind = self._jsonschema.validators.validator_for(schema, default=self._jsonschema.Draft7Validator)
        specification = self._referencing.jsonschema.DRAFT7
        known = self._referencing.Registry().with_resources(
            (name, self._referencing.Resource.from_contents(other, default_specification=specification))
            for name, other in others.items()
        )
        return kind(schema, registry=known)


def _problem(validator: Any, value: Any) -> str | None:
    """The first thing in a value that its schema does not allow."""
    error = next(validator.iter_errors(value), None)
    return None if error is None else f"{error.message[:300]} (at {error.json_path})"


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{excerpt(text)} is no JSON Schema: it is not JSON ({error}).") from error
