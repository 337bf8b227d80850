"""A dead letter as a person reads it."""

import json
from collections.abc import Iterator

from paperboy.cli.dead_letters import Letter
from paperboy.cli.moments import shown
from paperboy.cli.shown import line

_MOST_CHARACTERS = 2000
"""Of a value that are shown."""
_MOST_BYTES = 64
"""Of bytes that are no text."""
_WHITESPACE = str.maketrans("\t\n\r", "   ")
"""Of characters that do not print, those that are found in text."""


def letter_shown(letter: Letter, *, replayed: bool, stack: bool) -> Iterator[str]:
    """Its lines: where it stands, then what there is to say of it.

    Args:
        replayed: whether it was.
        stack: whether the traceback is shown.
    """
    failed = letter.failed
    yield f"{letter.at} offset {letter.offset}"
    if failed is None:
        yield "  failed    no header says where or why"
    else:
        yield f"  message   {failed.topic}[{failed.partition}] offset {failed.offset}, of {shown(letter.timestamp_ms)}"
        if failed.group:
            yield f"  failed    in {plain(failed.handler)} of group {plain(failed.group)}"
            tried = "once" if failed.attempts == 1 else f"{failed.attempts} times"
            yield f"  attempts  {tried}, from {shown(failed.first_ms)} to {shown(failed.last_ms)}"
        else:
            yield "  failed    in Kafka Streams"
        yield f"  error     {plain(failed.error_class)}: {plain(failed.error)}"
    yield f"  replayed  {'yes' if replayed else 'no'}"
    yield f"  key       {bytes_shown(letter.key)}"
    yield f"  value     {bytes_shown(letter.value)}"
    for name, data in letter.headers:
        yield f"  header    {plain(name)}: {bytes_shown(data)}"
    if stack and failed is not None and failed.stack:
        yield "  stack"
        yield from (f"    {plain(each)}" for each in failed.stack.splitlines())


def bytes_shown(data: bytes | None) -> str:
    """JSON of one line as it is, other text in quotation marks, and the beginning of anything else in hexadecimal."""
    if data is None:
        return "null"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _as_hex(data)
    if not text.translate(_WHITESPACE).isprintable():
        return _as_hex(data)
    written = text if text.isprintable() and _is_json(text) else line(text)
    left = len(written) - _MOST_CHARACTERS
    return written if left <= 0 else f"{written[:_MOST_CHARACTERS]}… and {left} characters more"


def plain(text: str) -> str:
    """In one line, and without what a terminal would take for an order."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _as_hex(data: bytes) -> str:
    left = len(data) - _MOST_BYTES
    return data[:_MOST_BYTES].hex(" ") + ("" if left <= 0 else f" … and {left} bytes more")
