"""What may become of a message that failed, other than stopping the engine."""

import asyncio
from dataclasses import dataclass
from enum import Enum

from paperboy.brokers.protocol import Record


@dataclass(slots=True)
class Failing:
    """A message (or bulk) that has failed, and will be handled again."""

    offset: int
    """Where it stands in its partition; of a bulk, the first one's."""
    message_offset: int
    """As its handler sees it: another one, for a message that comes out of a retry topic."""
    record: Record
    attempts: int
    """How many times it was handled by now."""
    first_ms: int
    """When it failed first, in milliseconds since 1970."""
    error: Exception
    """Why it failed last."""
    delay_sec: float = 0.0
    due: float = 0.0
    """When it is handled again, in loop time: `delay_sec` after it failed."""
    is_paused: bool = False
    """The circuit breaker holds it: this failure does not count as an attempt."""

    def waits(self, delay_sec: float) -> "Failing":
        """It is handled again after so long."""
        self.delay_sec = delay_sec
        self.due = asyncio.get_running_loop().time() + delay_sec
        return self


class Culprit(Exception):
    """Inside a bulk that failed: which message is to blame, and the error."""

    def __init__(self, record: Record, error: Exception) -> None:
        super().__init__()
        self.record = record
        self.error = error


class Fate(Enum):
    """Where messages go that are given up."""

    SKIPPED = "passed over"
    DEAD_LETTER = "dead letter"
    RETRY_TOPIC = "retry topic"


@dataclass(frozen=True, slots=True)
class GivenUp:
    """One message, or a bulk, that the partition no longer waits for."""

    fate: Fate
    error: Exception
    record: Record
    """The message; of a bulk, the first one."""
    records: int = 1
    attempts: int = 1
    topic: str | None = None
    """Where it was put; None where it was passed over."""


def noted(error: Exception, first: Record, last: Record | None = None) -> Exception:
    """The error that stops the engine, with a note of where it happened."""
    offsets = f"offset {first.offset}" if last is None or last is first else f"offsets {first.offset} to {last.offset}"
    error.add_note(f"While handling {first.topic}[{first.partition}] {offsets}.")
    return error
