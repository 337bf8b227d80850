"""Time, and everything else that would make two runs of one input differ.

Durations come from the running event loop (``loop.time``, ``asyncio.timeout``); timestamps come from
the broker's `Clock`. Whatever reads the wall clock, draws at random or starts a thread stands in this
file and nowhere else in the package (``tests/unit/test_house_rules.py`` looks), so that an event loop
with virtual time turns everything.
"""

import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Where timestamps come from."""

    def time_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's own clock: what a real Kafka's clients use."""

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000


def random_id() -> str:
    """A name nobody else has, 32 hexadecimal digits."""
    return uuid.uuid4().hex
