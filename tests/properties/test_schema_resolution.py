"""Avro schemas that are said to be readable are, and each reads itself."""

import json
from io import BytesIO
from typing import Any

import fastavro
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from paperboy.serializers.avro_resolution import unresolvable

PRIMITIVES = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
DEFAULTS = {
    "null": None,
    "boolean": True,
    "int": 1,
    "long": 1,
    "float": 1.5,
    "double": 1.5,
    "bytes": "x",
    "string": "x",
}


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2, name: str = "R") -> Any:
    kind = draw(st.sampled_from(["primitive"] * 3 + (["record", "array", "map", "union", "enum"] if depth else [])))
    if kind == "record":
        fields = []
        for each in sorted(draw(st.sets(st.sampled_from("abc"), min_size=1))):
            inner = draw(schemas(depth - 1, f"{name}{each}"))
            more = {}
            if isinstance(inner, str) and draw(st.booleans()):
                more = {"default": DEFAULTS[inner]}
            fields.append(field(each, inner, **more))
        return record(*fields, name=name)
    if kind == "array":
        return {"type": "array", "items": draw(schemas(depth - 1, f"{name}i").filter(lambda inner: inner != "null"))}
    if kind == "map":
        return {"type": "map", "values": draw(schemas(depth - 1, f"{name}v"))}
    if kind == "union":
        return sorted(draw(st.sets(PRIMITIVES, min_size=1, max_size=3)))
    if kind == "enum":
        symbols = sorted(draw(st.sets(st.sampled_from("ABC"), min_size=1)))
        default = {"default": symbols[0]} if draw(st.booleans()) else {}
        return {"type": "enum", "name": f"{name}E", "symbols": symbols, **default}
    return draw(PRIMITIVES)


@st.composite
def values(draw: st.DrawFn, schema: Any) -> Any:
    if isinstance(schema, list):
        return draw(values(draw(st.sampled_from(schema))))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {each["name"]: draw(values(each["type"])) for each in schema["fields"]}
    if kind == "array":
        return draw(st.lists(values(schema["items"]), max_size=2))
    if kind == "map":
        return draw(st.dictionaries(st.text(max_size=2), values(schema["values"]), max_size=2))
    if kind == "enum":
        return draw(st.sampled_from(schema["symbols"]))
    simple: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "float": st.floats(width=32, allow_nan=False),
        "double": st.floats(allow_nan=False),
        "bytes": st.binary(max_size=3).map(lambda data: bytes(byte & 0x7F for byte in data)),
        "string": st.text("abc", max_size=3),
    }
    return draw(simple[kind])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_said_to_be_readable_is_read(data: st.DataObject) -> None:
    writer = data.draw(schemas(), label="writer")
    reader = data.draw(st.one_of(st.just(writer), schemas()), label="reader")
    readable = unresolvable(reader, writer) is None
    event(f"readable: {readable}")
    assume(readable)
    value = data.draw(values(writer), label="value")
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), value)
    stream.seek(0)
    fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), fastavro.parse_schema(reader))


@settings(max_examples=100, deadline=None)
@given(schemas())
def test_every_schema_reads_itself(schema: Any) -> None:
    assert unresolvable(schema, schema) is None
    assert unresolvable(json.loads(json.dumps(schema)), schema) is None
