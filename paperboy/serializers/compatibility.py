"""Whether what was written in one schema can be read in another."""

import json

from paperboy.serializers.avro_resolution import unresolvable
from paperboy.serializers.schema import Schema


def unreadable(reader: Schema, writer: Schema) -> str | None:
    """Why `reader` cannot read what `writer` wrote; None where it can, as far as can be told from the schemas.

    Schemas that refer to others are not looked into.
    """
    if reader.kind != writer.kind:
        return f"one is {reader.kind}, the other {writer.kind}"
    if reader.references or writer.references:
        return None
    if reader.kind == "AVRO":
        return unresolvable(json.loads(reader.text), json.loads(writer.text))
    return None
