"""What of an Avro schema makes its bytes dangerous to read, if they are damaged."""

from collections.abc import Iterator
from typing import Any, Final

_NAMED: Final = ("record", "error", "enum", "fixed")


def holds_itself(schema: Any) -> bool:
    """Whether a record stands somewhere in itself, so that its values may be nested without end.

    Args:
        schema: as fastavro has parsed it: names in full.
    """
    names = _names(schema)
    return any(_reaches(inner, names, name, set()) for name, record in names.items() for inner in _inner(record))


def holds_endless_arrays(schema: Any) -> bool:
    """Whether there is an array of items that take no bytes: a few bytes may then claim any number of them."""
    names = _names(schema)
    return any(each["type"] == "array" and _takes_nothing(each["items"], names, frozenset()) for each in _all(schema))


def _takes_nothing(schema: Any, names: dict[str, Any], within: frozenset[str]) -> bool:
    if isinstance(schema, str):
        return schema == "null" or (schema in names and _takes_nothing(names[schema], names, within))
    if isinstance(schema, list):
        return False
    kind = schema["type"]
    if kind in ("record", "error"):
        if schema["name"] in within:
            return True
        deeper = within | {schema["name"]}
        return all(_takes_nothing(field["type"], names, deeper) for field in schema["fields"])
    if kind == "fixed":
        return bool(schema["size"] == 0)
    return bool(kind == "null")


def _reaches(schema: Any, names: dict[str, Any], goal: str, seen: set[str]) -> bool:
    if isinstance(schema, str):
        if schema == goal:
            return True
        if schema in seen or schema not in names:
            return False
        seen.add(schema)
        schema = names[schema]
    elif isinstance(schema, dict) and schema.get("name") == goal and schema["type"] in _NAMED:
        return True
    return any(_reaches(inner, names, goal, seen) for inner in _inner(schema))


def _inner(schema: Any) -> Iterator[Any]:
    """The schemas that stand in this one."""
    if isinstance(schema, list):
        yield from schema
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "error"):
            for field in schema["fields"]:
                yield field["type"]
        elif schema["type"] == "array":
            yield schema["items"]
        elif schema["type"] == "map":
            yield schema["values"]
        elif not isinstance(schema["type"], str) or schema["type"] not in _NAMED:
            yield schema["type"]


def _all(schema: Any) -> Iterator[dict[str, Any]]:
    """This schema and all in it, but for names."""
    if isinstance(schema, dict):
        yield schema
    for inner in _inner(schema):
        yield from _all(inner)


def _names(schema: Any) -> dict[str, Any]:
    return {each["name"]: each for each in _all(schema) if each["type"] in ("record", "error", "fixed")}
