"""Schemas as a registry keeps them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["AVRO", "JSON", "PROTOBUF"]
"""What language a schema is written in, by the registry's names."""

Part: TypeAlias = Literal["key", "value"]
"""Of a record."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Another schema that a schema speaks of."""

    name: str
    """What it is called in the schema that speaks of it."""
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class Schema:
    """The text of a schema.

    Two schemas are the same if their texts are: a registry may know better.
    """

    text: str
    kind: Kind = "AVRO"
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema under its subject."""

    subject: str
    version: int
    id: int
    """What stands before the bytes that were written with it."""
    schema: Schema
