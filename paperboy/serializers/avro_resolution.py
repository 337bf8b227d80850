"""Avro's schema resolution: whether values written in one schema can be read in another."""

from typing import Any, Final

_PROMOTIONS: Final = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
}
"""What a primitive type can be read as."""

_NAMED: Final = ("record", "error", "enum", "fixed")
_Names = dict[str, tuple[Any, str]]
"""By full name: the definition, and the namespace around it."""


def unresolvable(reader: Any, writer: Any) -> str | None:
    """Why a reader's schema cannot read what was written in a writer's; None where it can read all of it.

    Args:
        reader: as JSON gives it.
        writer: the same.

    Example:
        >>> unresolvable("long", "int"), unresolvable("int", "long")
        (None, 'long at the top cannot be read as int')
    """
    return _Resolution(reader, writer).problem(reader, "", writer, "", "the top")


class _Resolution:
    """Two schemas that are compared, with all that they give names to."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._readers: _Names = {}
        self._writers: _Names = {}
        _define(reader, self._readers, "")
        _define(writer, self._writers, "")
        self._assumed: set[tuple[str, str]] = set()
        """Records that contain themselves are taken to go together until something else says no."""

    def problem(self, reader: Any, reader_space: str, writer: Any, writer_space: str, path: str) -> str | None:
        """Of two schemas, each in its namespace, at a place that is called `path`."""
        reader, reader_space = _resolved(reader, self._readers, reader_space)
        writer, writer_space = _resolved(writer, self._writers, writer_space)
        if isinstance(writer, list):
            problems = [self.problem(reader, reader_space, branch, writer_space, path) for branch in writer]
            return next((problem for problem in problems if problem is not None), None)
        if isinstance(reader, list):
            problems = [self.problem(branch, reader_space, writer, writer_space, path) for branch in reader]
            if any(problem is None for problem in problems):
                return None
            return f"{_name(writer)} at {path} is none of {', '.join(map(_name, reader))}"
        wrote, read = _type(writer), _type(reader)
        if _scale(writer) != _scale(reader):
            return f"the decimal at {path} has scale {_scale(writer)}, and would be read with {_scale(reader)}"
        cannot = f"{_name(writer)} at {path} cannot be read as {_name(reader)}"
        if wrote != read or wrote not in (*_NAMED, "array", "map"):
            return None if read in _PROMOTIONS.get(wrote, {wrote}) else cannot
        if wrote == "array":
            return self.problem(reader["items"], reader_space, writer["items"], writer_space, f"{path}[]")
        if wrote == "map":
            return self.problem(reader["values"], reader_space, writer["values"], writer_space, f"{path}{{}}")
        if not _same_name(reader, writer):
            return cannot
        if wrote == "fixed":
            return None if reader["size"] == writer["size"] else f"{cannot}: their sizes differ"
        if wrote == "enum":
            lacking = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
            if not lacking or "default" in reader:
                return None
            return f"{cannot}: it lacks {', '.join(lacking)}"
        return self._records(reader, reader_space, writer, writer_space, path)

    def _records(self, reader: Any, reader_space: str, writer: Any, writer_space: str, path: str) -> str | None:
        pair = _full_name(reader, reader_space), _full_name(writer, writer_space)
        if pair in self._assumed:
            return None
        self._assumed.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            names = [field["name"], *field.get("aliases", ())]
            found = next((written[name] for name in names if name in written), None)
            at = f"{'' if path == 'the top' else path + '.'}{field['name']}"
            if found is None:
                if "default" not in field:
                    self._assumed.discard(pair)
                    return f"field {at} was not written, and has no default"
                continue
            spaces = pair[0].rpartition(".")[0], pair[1].rpartition(".")[0]
            problem = self.problem(field["type"], spaces[0], found["type"], spaces[1], at)
            if problem is not None:
                self._assumed.discard(pair)
                return problem
        return None


def _resolved(schema: Any, names: _Names, namespace: str) -> tuple[Any, str]:
    """What a name stands for, and the namespace in which it speaks."""
    if isinstance(schema, str):
        return names.get(_in(namespace, schema), names.get(schema, (schema, namespace)))
    if isinstance(schema, dict) and isinstance(schema["type"], dict | list):
        return _resolved(schema["type"], names, namespace)
    if isinstance(schema, dict) and schema["type"] not in _NAMED:
        return names.get(_in(namespace, schema["type"]), (schema, namespace))
    return schema, namespace


def _define(schema: Any, names: _Names, namespace: str) -> None:
    """Note what this schema, and what stands in it, gives names to."""
    if isinstance(schema, list):
        for branch in schema:
            _define(branch, names, namespace)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if kind in _NAMED:
            name = _full_name(schema, namespace)
            if name in names:
                return
            names[name] = schema, namespace
            for field in schema.get("fields", ()):
                _define(field["type"], names, name.rpartition(".")[0])
        elif isinstance(kind, dict | list):
            _define(kind, names, namespace)
        for inner in ("items", "values"):
            if inner in schema:
                _define(schema[inner], names, namespace)


def _type(schema: Any) -> str:
    kind: str = schema["type"] if isinstance(schema, dict) else schema
    return "record" if kind == "error" else kind


def _scale(schema: Any) -> int | None:
    """Of a decimal, which would come back as another number with another scale; None for anything else."""
    is_decimal = isinstance(schema, dict) and schema.get("logicalType") == "decimal"
    return schema.get("scale", 0) if is_decimal else None


def _name(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    if isinstance(schema, dict):
        return f"{schema['type']} {schema['name']}" if "name" in schema else str(schema["type"])
    return str(schema)


def _same_name(reader: Any, writer: Any) -> bool:
    """By the last part of the name, as Avro's own implementations compare them."""
    names = {each.rpartition(".")[2] for each in (reader["name"], *reader.get("aliases", ()))}
    return writer["name"].rpartition(".")[2] in names


def _full_name(schema: Any, namespace: str) -> str:
    name: str = schema["name"]
    return name if "." in name else _in(schema.get("namespace", namespace), name)


def _in(namespace: str, name: str) -> str:
    return f"{namespace}.{name}" if namespace and "." not in name else name
