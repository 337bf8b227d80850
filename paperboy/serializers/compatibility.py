"""Whether what was written in one schema can be read in another."""

import json

from paperboy.serializers import avro_resolution, json_resolution, protobuf_resolution
from paperboy.serializers.schema import Schema


def unreadable(reader: Schema, writer: Schema) -> str | None:
    """Why `reader` cannot read what `writer` wrote; None where it can, as far as can be told from the schemas.

    Schemas of Avro and JSON that refer to others are not looked into.
    """
    if reader.kind != writer.kind:
        return f"one is {reader.kind}, the other {writer.kind}"
    if reader.kind == "PROTOBUF":
        return protobuf_resolution.unresolvable(reader.text, writer.text)
    if reader.references or writer.references:
        return None
    unresolvable = avro_resolution.unresolvable if reader.kind == "AVRO" else json_resolution.unresolvable
    return unresolvable(json.loads(reader.text), json.loads(writer.text))
