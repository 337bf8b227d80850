"""What is written beside a message that failed, and read again: the headers of dead letters and of retries.

They stand behind the message's own headers, and begin with ``paperboy.failed``. docs/formats.md has the list.
"""

import traceback
from dataclasses import dataclass, replace
from typing import Any, cast

from paperboy.brokers.protocol import Headers, Record, new_record

FIRST = "paperboy.failed"
VERSION = b"1"

MOST_MESSAGE = 1_000
"""Characters of an error's message that are kept."""
MOST_STACK = 6_000
"""Characters of a stack that are kept: its end, where the error is."""

_MOST_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A message that failed: where it came from, and why and how often it failed."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """The message's own."""
    group: str
    """The consumer group in which it failed."""
    handler: str
    """The class that failed to handle it."""
    error_class: str
    error: str
    stack: str
    attempts: int
    """How many times it was handled; 0 where a dead letter is replayed, which begins anew."""
    first_ms: int
    """When it failed first, in milliseconds since 1970."""
    last_ms: int
    due_ms: int | None = None
    """Before this it is not to be handled again; None for a dead letter."""

    def without_stack(self) -> "FailedRecord":
        """Much smaller."""
        return replace(self, stack="", error=self.error[:100])

    def of(self, message: Record) -> "FailedRecord":
        """The same failure of another message."""
        return replace(
            self,
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            timestamp_ms=message.timestamp,
        )

    def anew(self) -> "FailedRecord":
        """To be handled again as if it had not failed before, its first failure apart: attempts begin at 0."""
        return replace(self.without_stack(), attempts=0, due_ms=None)

    def headers(self, original: Headers) -> Headers:
        """The message's own headers, and these behind them."""
        written = [
            ("topic", self.topic),
            ("partition", self.partition),
            ("offset", self.offset),
            ("timestamp", self.timestamp_ms),
            ("group", self.group),
            ("handler", self.handler),
            ("error.class", self.error_class),
            ("error.message", self.error),
            ("error.stack", self.stack),
            ("attempts", self.attempts),
            ("first.failure", self.first_ms),
            ("last.failure", self.last_ms),
        ]
        if self.due_ms is not None:
            written.append(("due", self.due_ms))
        ours = [(f"paperboy.{name}", str(data).encode(errors="replace")) for name, data in written]
        return [*original, (FIRST, VERSION), *ours]


def read_failed(record: Record) -> FailedRecord | None:
    """What our headers on this record say; None where there are none, or they are not whole, or make no sense."""
    start = _first_of_ours(record)
    if start is None:
        return None
    found = {name: data.decode(errors="replace") for name, data in record.headers[start:] if data is not None}
    try:
        due = found.get("paperboy.due")
        return FailedRecord(
            topic=found["paperboy.topic"],
            partition=_number(found["paperboy.partition"]),
            offset=_number(found["paperboy.offset"]),
            timestamp_ms=_number(found["paperboy.timestamp"], least=-1),
            group=found["paperboy.group"],
            handler=found["paperboy.handler"],
            error_class=found["paperboy.error.class"],
            error=found["paperboy.error.message"],
            stack=found["paperboy.error.stack"],
            attempts=_number(found["paperboy.attempts"]),
            first_ms=_number(found["paperboy.first.failure"]),
            last_ms=_number(found["paperboy.last.failure"]),
            due_ms=None if due is None else _number(due),
        )
    except (KeyError, ValueError):
        return None


def original_headers(record: Record) -> Headers:
    """Those that the message had when it failed first."""
    headers: Headers = record.headers
    return headers[: _first_of_ours(record)]


def original_of(record: Record, topic: str) -> Record:
    """The message as it was when it failed first: what a handler is given when it is handled again.

    Args:
        record: from a retry topic.
        topic: of the message. A record that does not say that it is of this topic was written by hand: it is a message
            of its own.
    """
    failed = read_failed(record)
    if failed is not None and failed.topic != topic:
        failed = None
    return new_record(
        topic,
        record.partition,
        record.offset if failed is None else failed.offset,
        record.timestamp if failed is None else failed.timestamp_ms,
        record.timestamp_type,
        record.key,
        record.value,
        record.checksum,
        record.serialized_key_size,
        record.serialized_value_size,
        cast(Any, original_headers(record)),
    )


def stack_of(error: BaseException) -> str:
    """Its traceback as text, the end of it where it is long."""
    said = traceback.TracebackException.from_exception(error, compact=True)
    _without_marks(said)
    return "".join(said.format())[-MOST_STACK:]


def class_of(error: BaseException) -> str:
    """The name of its class, with its module where that is not Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """What it says; its class where it says nothing."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - the error's own, about which there is nothing more to say
        said = ""
    return (said or type(error).__qualname__)[:MOST_MESSAGE]


def shown(error: BaseException) -> str:
    """As ``repr`` shows it, for the log; its class where it cannot be shown."""
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - as above
        return class_of(error)


def _without_marks(said: traceback.TracebackException) -> None:
    """Python compiles each line anew to mark the place in it: that is half of what a dead letter costs."""
    for frame in said.stack:
        frame.colno = frame.end_colno = None
    for other in (said.__cause__, said.__context__, *(said.exceptions or ())):
        if other is not None:
            _without_marks(other)


def _number(text: str, least: int = 0) -> int:
    """A whole number that a header can hold.

    Raises:
        ValueError: it is none.
    """
    number = int(text)
    if not least <= number <= _MOST_NUMBER:
        raise ValueError(text)
    return number


def _first_of_ours(record: Record) -> int | None:
    """Where our headers begin: the last time, where they stand there twice."""
    if not record.headers:
        return None
    names = [name for name, _ in record.headers]
    return len(names) - 1 - names[::-1].index(FIRST) if FIRST in names else None
