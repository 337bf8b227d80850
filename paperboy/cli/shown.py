"""What a person or another program reads: keys and values in JSON, and counts."""

import json
import math
from ast import literal_eval
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from paperboy.errors import PaperboyError, SerializationError
from paperboy.serializers import UUID, Bytes, Double, Integer, Json, Long, MessagePack, String
from paperboy.serializers.models import conversion, is_model
from paperboy.serializers.protocol import Serializer
from paperboy.tables.codec import OWN_FORMAT, Codec, codec, name_of

JSON_FORMS = """\
Keys and values are shown in JSON. What JSON has no word for is an object with one member, named after the type:
{"bytes": "a\\\\xff"}, {"tuple": [1, 2]}, {"set": [1]}, {"Decimal": "1.50"}, {"datetime": "2013-01-31T12:30:00"}, and
{"dict": [[1, "one"]]} for a dict whose keys are not all strings. An object of a type of yours is shown as its fields.
{"raw": "a\\\\xff"} are bytes that nobody here can
read, because the table has serializers of its own: --engine brings them."""

_BUILTINS: dict[str, Serializer] = {
    name_of(kind()): kind() for kind in (Bytes, String, Json, MessagePack, Integer, Long, Double, UUID)
}


@dataclass(frozen=True, slots=True)
class Reading:
    """How a table's bytes are read; where they cannot be, they are shown as they are."""

    keys: Codec | None
    values: Codec | None

    def key(self, data: bytes) -> Any:
        return _shown(data, None if self.keys is None else self.keys.decode_key)

    def value(self, data: bytes) -> Any:
        return _shown(data, None if self.values is None else self.values.decode_value)

    def keys_called(self, text: str) -> list[bytes]:
        """The bytes of every key that somebody may mean who writes `text`: the str, the bytes, or a literal of
        Python's."""
        meant: list[Any] = [text, text.encode()]
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            meant.append(literal_eval(text))
        if self.keys is None:
            return [text.encode()]
        found: dict[bytes, None] = {}
        for key in meant:
            try:
                found[self.keys.encode_key(key)] = None
            except SerializationError:
                continue
        return list(found)


OWN = Reading(codec(None, None), codec(None, None))
"""Our own formats: what is tried where nobody says how a table was written."""


def reading_of(definition: str) -> Reading:
    """What a store says about how it was written (see `Table.definition`)."""
    written_by = dict(part.split(": ", 1) for part in definition.split("; ") if ": " in part)
    return Reading(_by_name(written_by.get("keys", "")), _by_name(written_by.get("values", "")))


def as_json(thing: object) -> Any:
    """The same in what JSON has words for (see `JSON_FORMS`)."""
    if thing is None or type(thing) in (bool, int, str):
        return thing
    if type(thing) is float:
        return thing if math.isfinite(thing) else {"float": str(thing)}
    if type(thing) is list:
        return [as_json(item) for item in thing]
    if type(thing) is dict:
        if all(type(key) is str for key in thing):
            return {key: as_json(value) for key, value in thing.items()}
        return {"dict": [[as_json(key), as_json(value)] for key, value in thing.items()]}
    if is_model(type(thing)):
        return as_json(conversion(type(thing)).to_plain(thing))
    if isinstance(thing, bytes):
        return {"bytes": escaped(thing)}
    if isinstance(thing, tuple):
        return {"tuple": [as_json(item) for item in thing]}
    if isinstance(thing, set | frozenset):
        return {type(thing).__name__: sorted((as_json(item) for item in thing), key=json.dumps)}
    to_text: Callable[[], str] = getattr(thing, "isoformat", thing.__str__)
    return {type(thing).__name__: to_text()}


def line(form: Any) -> str:
    """One line of JSON."""
    return json.dumps(form, ensure_ascii=False)


def counted(count: int, noun: str) -> str:
    """As in "1 key", "2 keys"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def print_columns(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Aligned: the first column and the last to the left, numbers to the right."""
    texts = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(text[column]) for text in texts) for column in range(len(head))]
    for text in texts:
        first, *middle, last = (
            cell.ljust(width) if column in (0, len(head) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(text, widths, strict=True))
        )
        print("  ".join([first, *middle, last]).rstrip())


def escaped(data: bytes) -> str:
    """Bytes as Python writes them: ASCII, and escapes for the rest."""
    return repr(data)[2:-1]


def _shown(data: bytes, decode: Callable[[bytes], Any] | None) -> Any:
    if decode is None:
        return {"raw": escaped(data)}
    try:
        return as_json(decode(data))
    except PaperboyError:
        return {"raw": escaped(data)}


def _by_name(name: str) -> Codec | None:
    serializer: Serializer | None = _BUILTINS.get(name)
    if serializer is None and name != OWN_FORMAT:
        return None
    return codec(serializer, serializer)
