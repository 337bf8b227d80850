"""The memory broker's time: that of the event loop, counted on from loop to loop."""

import asyncio
import contextvars
import math
import weakref
from collections.abc import Callable

from paperboy.clock import SystemClock


class MemoryClock:
    """Loop time plus an epoch, so that an event loop with virtual time turns it.

    It outlives loops and never goes back: a later loop whose own time begins lower goes on where the last one was.
    While no loop runs it stands still.

    Args:
        epoch_ms: the time it shows before the first loop has run; None is the machine's time now.
    """

    def __init__(self, epoch_ms: int | None = None) -> None:
        self._epoch_ms = SystemClock().time_ms() if epoch_ms is None else epoch_ms
        self._elapsed = 0.0
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._offset = 0.0

    def time_ms(self) -> int:
        return self._epoch_ms + int(self.elapsed() * 1000)

    def jump(self, seconds: float) -> None:
        """For tests: be set, forward or back, as a machine's clock is by its owner. Time-outs do not notice."""
        self._epoch_ms += int(seconds * 1000)

    def elapsed(self) -> float:
        """Seconds since the clock began: what time-outs are counted in."""
        loop = running_loop()
        if loop is not None:
            now = loop.time()
            if self._loop is None or self._loop() is not loop:
                first = self._loop is None
                self._loop = weakref.ref(loop)
                # Real loops share one time, which ran on between them; only a loop that would set us back is shifted.
                self._offset = -now if first else max(self._offset, self._elapsed - now)
            self._elapsed = max(self._elapsed, now + self._offset)
        return self._elapsed


class Alarm:
    """Calls `ring` once a moment of the clock has come, in whichever loop runs then.

    It may ring early: whoever is rung looks what is due, and sets it again. A loop's end silences it until the next
    `set`, by whichever loop comes next.
    """

    def __init__(self, clock: MemoryClock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._when = 0.0

    def set(self, when: float) -> None:
        """Ring at `when` (of `MemoryClock.elapsed`) or earlier."""
        loop = running_loop()
        if loop is None:
            return
        if self._handle is not None:
            if self._loop is not None and self._loop() is loop and self._when <= when:
                return
            self._handle.cancel()
        self._loop = weakref.ref(loop)
        self._when = when
        now, left = loop.time(), when - self._clock.elapsed()
        # What is left may be too little to count beside the loop's time; unless time moves, it would ring for ever.
        at = now if left <= 0 else max(now + left, math.nextafter(now, math.inf))
        # It belongs to the broker, and not to whoever happens to set it.
        self._handle = loop.call_at(at, self._rung, context=contextvars.Context())

    def _rung(self) -> None:
        self._handle = None
        self._ring()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop we are called in; None outside of any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
