"""Says what keeps the event loop from turning: a hook that never waits, a call that blocks."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from paperboy.clock import LoopWatch, has_threads
from paperboy.engine.status import Counters
from paperboy.log import get_logger

_log = get_logger("paperboy.watchdog")

_OVER = "unknown: it was over before it was seen; the whole process was stopped, or C code held the interpreter's lock"


@contextmanager
def watched(limit_sec: float, counters: Counters) -> Iterator["Watchdog"]:
    """Have the running loop watched meanwhile, by the watchdog that the engines on this loop share.

    Args:
        limit_sec: a blockage above this is reported, in seconds. Of several engines' limits the lowest counts.
        counters: where blockages above this limit are counted.
    """
    loop = asyncio.get_running_loop()
    watchdog = _watchdogs.get(loop)
    if watchdog is None:
        for closed in [other for other in _watchdogs if other.is_closed()]:  # left by engines that were killed
            del _watchdogs[closed]
        watchdog = _watchdogs[loop] = Watchdog(loop)
    engine = (limit_sec, counters)
    watchdog.join(engine)
    try:
        yield watchdog
    finally:
        if watchdog.leave(engine):
            del _watchdogs[loop]


class Watchdog:
    """One event loop's. A loop with virtual time is not watched: nothing can block it for any time of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watch: LoopWatch | None = None
        self._engines: list[tuple[float, Counters]] = []

    def join(self, engine: tuple[float, Counters]) -> None:
        """Watch for this engine, too: its limit, and where it counts."""
        self._engines = [*self._engines, engine]
        lowest = min(limit_sec for limit_sec, _ in self._engines)
        if self._watch is not None:
            self._watch.limit_sec = lowest
        elif has_threads(self._loop):
            self._watch = LoopWatch(self._loop, lowest, self._blocked, self._turned)
            self._watch.start()

    def leave(self, engine: tuple[float, Counters]) -> bool:
        """Returns whether it was the last: then nothing is watched any more."""
        left = [other for other in self._engines if other is not engine]
        if left and self._watch is not None:
            self._watch.limit_sec = min(limit_sec for limit_sec, _ in left)
        elif self._watch is not None:
            self._watch.end()
            self._watch = None
        self._engines = left
        return not left

    def blocked_sec(self) -> float:
        """How long the loop has been blocked by now, where that is above the limit; else 0. From any thread."""
        return 0.0 if self._watch is None else self._watch.blocked_sec()

    def _blocked(self, so_far_sec: float, stack: str) -> None:
        _log.warning("event loop blocked", seconds=round(so_far_sec, 3), stack=f"\n{stack}" if stack else _OVER)

    def _turned(self, blocked_sec: float) -> None:
        _log.warning("event loop turns again", seconds=round(blocked_sec, 3))
        for limit_sec, counters in self._engines:
            if blocked_sec > limit_sec:
                counters.blocked += 1


_watchdogs: dict[asyncio.AbstractEventLoop, Watchdog] = {}
