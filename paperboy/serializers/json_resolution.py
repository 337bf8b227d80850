"""Whether values that one JSON Schema allows are allowed by another: what can be told for certain."""

from typing import Any, Final

_TYPES: Final = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})


def unresolvable(reader: Any, writer: Any, path: str = "the top") -> str | None:
    """What a writer's schema allows and a reader's refuses; None where nothing of that kind is found.

    Looked at are types, properties that are required, those that are not allowed, enums, and items of arrays. Of
    ``$ref``, ``allOf``, ``anyOf``, ``oneOf``, patterns and limits nothing is said.

    Example:
        >>> unresolvable({"required": ["id"]}, {"properties": {"id": {"type": "string"}}})
        "property 'id' at the top is required, and was not"
    """
    if reader is True or writer is False or not isinstance(reader, dict) or not isinstance(writer, dict):
        return f"nothing is allowed at {path}" if reader is False and writer is not False else None
    refused = _types(writer) - _allowed(reader)
    if refused:
        return f"{', '.join(sorted(refused))} at {path} is not allowed any more"
    if "enum" in reader and "enum" in writer:
        gone = [value for value in writer["enum"] if value not in reader["enum"]]
        if gone:
            return f"{gone[0]!r} at {path} is not allowed any more"
    for name in reader.get("required", ()):
        if name not in writer.get("required", ()):
            return f"property {name!r} at {path} is required, and was not"
    return _of_properties(reader, writer, path) or _of_items(reader, writer, path)


def _of_properties(reader: dict[str, Any], writer: dict[str, Any], path: str) -> str | None:
    wrote, reads = writer.get("properties", {}), reader.get("properties", {})
    for name, schema in wrote.items():
        at = name if path == "the top" else f"{path}.{name}"
        if name in reads:
            problem = unresolvable(reads[name], schema, at)
            if problem is not None:
                return problem
        elif reader.get("additionalProperties") is False and "patternProperties" not in reader and schema is not False:
            return f"property {at} is not allowed any more"
    if reader.get("additionalProperties") is False and writer.get("additionalProperties") is not False and reads:
        return f"properties that are not named are not allowed any more at {path}"
    return None


def _of_items(reader: dict[str, Any], writer: dict[str, Any], path: str) -> str | None:
    if isinstance(reader.get("items"), dict | bool) and isinstance(writer.get("items"), dict | bool):
        return unresolvable(reader["items"], writer["items"], f"{path}[]")
    return None


def _types(schema: dict[str, Any]) -> frozenset[str]:
    """What it says that values are; nothing where it does not say so."""
    given = schema.get("type", ())
    return frozenset([given] if isinstance(given, str) else given)


def _allowed(schema: dict[str, Any]) -> frozenset[str]:
    types = _types(schema) or _TYPES
    return types | {"integer"} if "number" in types else types
