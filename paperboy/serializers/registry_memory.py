"""A schema registry inside this process: for tests, and beside the memory broker."""

import json
import re
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

from paperboy.errors import ConfigurationError, IncompatibleSchema, RegistryError
from paperboy.serializers.compatibility import unreadable
from paperboy.serializers.registry import Level
from paperboy.serializers.schema import Kind, RegisteredSchema, Schema


def memory_registry(urls: Sequence[str]) -> "MemoryRegistry":
    """The registry that an address names: ``memory://`` is a new one, ``memory://name`` the one of this name.

    Raises:
        ConfigurationError: there are several addresses, or it is none.
    """
    if len(urls) > 1:
        raise ConfigurationError(f"{list(urls)} are several embedded registries: name one.")
    found = re.fullmatch(r"memory://([\w.-]*)", urls[0])
    if found is None:
        raise ConfigurationError(
            f"{urls[0]!r} is no address of an embedded registry: write memory:// or memory://name."
        )
    if not found[1]:
        return MemoryRegistry(urls[0])
    return _named.setdefault(found[1], MemoryRegistry(urls[0]))


class MemoryRegistry:
    """Subjects, their schemas and levels. One text has one id, whatever subjects it stands under.

    A subject whose level nobody has set is BACKWARD, as in Confluent's registry.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._schemas: list[Schema] = []
        self._subjects: dict[str, list[int]] = {}
        self._levels: dict[str, Level] = {}

    async def schema(self, schema_id: int) -> Schema | None:
        return self._schemas[schema_id - 1] if 0 < schema_id <= len(self._schemas) else None

    async def lookup(self, subject: str, schema: Schema) -> int | None:
        same = _canonical(schema)
        for schema_id in self._subjects.get(subject, ()):
            if _canonical(self._schemas[schema_id - 1]) == same:
                return schema_id
        return None

    async def register(self, subject: str, schema: Schema) -> int:
        known = await self.lookup(subject, schema)
        if known is not None:
            return known
        problem = _problem(schema)
        if problem is not None:
            raise RegistryError(f"The registry {self.name} refuses the schema for subject {subject!r}: {problem}.")
        self._check(subject, schema)
        schema_id = self._id_of(schema)
        self._subjects.setdefault(subject, []).append(schema_id)
        return schema_id

    async def subjects(self) -> list[str]:
        return sorted(self._subjects)

    async def versions(self, subject: str) -> list[int]:
        return [version for version, _ in enumerate(self._subjects.get(subject, ()), 1)]

    async def version(self, subject: str, version: int) -> RegisteredSchema | None:
        ids = self._subjects.get(subject, ())
        if not 0 < version <= len(ids):
            return None
        return RegisteredSchema(subject, version, ids[version - 1], self._schemas[ids[version - 1] - 1])

    async def compatibility(self, subject: str) -> Level | None:
        return self._levels.get(subject)

    async def set_compatibility(self, subject: str, level: Level) -> None:
        if level not in _CHECKS:
            raise RegistryError(f"{level!r} is no level of compatibility: choose one of {', '.join(_CHECKS)}.")
        self._levels[subject] = level

    def _id_of(self, schema: Schema) -> int:
        same = _canonical(schema)
        for schema_id, known in enumerate(self._schemas, 1):
            if _canonical(known) == same:
                return schema_id
        self._schemas.append(schema)
        return len(self._schemas)

    def _check(self, subject: str, schema: Schema) -> None:
        level = self._levels.get(subject, "BACKWARD")
        earlier = [self._schemas[schema_id - 1] for schema_id in self._subjects.get(subject, ())]
        for old in earlier if level.endswith("_TRANSITIVE") else earlier[-1:]:
            for check in _CHECKS[level]:
                problem = check(schema, old)
                if problem is not None:
                    raise IncompatibleSchema(
                        f"The registry {self.name} refuses the schema for subject {subject!r}, because it does not go"
                        f" with the earlier ones ({level}: {problem}): change it so that it does, or the compatibility"
                        " level of the subject."
                    )


def _backward(new: Schema, old: Schema) -> str | None:
    problem = unreadable(new, old)
    return None if problem is None else f"it cannot read what an earlier one wrote: {problem}"


def _forward(new: Schema, old: Schema) -> str | None:
    problem = unreadable(old, new)
    return None if problem is None else f"an earlier one cannot read what it writes: {problem}"


_Checks = tuple[Callable[[Schema, Schema], str | None], ...]

_CHECKS: Final[MappingProxyType[Level, _Checks]] = MappingProxyType(
    {
        "NONE": (),
        "BACKWARD": (_backward,),
        "BACKWARD_TRANSITIVE": (_backward,),
        "FORWARD": (_forward,),
        "FORWARD_TRANSITIVE": (_forward,),
        "FULL": (_backward, _forward),
        "FULL_TRANSITIVE": (_backward, _forward),
    }
)


def _canonical(schema: Schema) -> tuple[Kind, str, object]:
    """Spaces make no other schema."""
    if schema.kind == "PROTOBUF":
        return schema.kind, schema.text, schema.references
    try:
        return schema.kind, json.dumps(json.loads(schema.text), separators=(",", ":")), schema.references
    except ValueError:
        return schema.kind, schema.text, schema.references


def _problem(schema: Schema) -> str | None:
    if schema.kind == "PROTOBUF":
        return None
    try:
        json.loads(schema.text)
    except ValueError as error:
        return f"it is not JSON ({error})"
    return None


_named: dict[str, MemoryRegistry] = {}
"""Like clusters of the memory broker, they outlive engines."""
