"""A line that says how far things are, while they run."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paperboy import Engine

CLEAR_LINE = "\r\x1b[K"
LOOK_SEC = 0.1
WINDOW = 20
"""Over how many looks a rate is taken."""


class Line:
    """Rewrites one line of a terminal; where output goes elsewhere, prints a new one every two seconds at most."""

    def __init__(self) -> None:
        self._rewrites = sys.stdout.isatty()
        self._pause_sec = LOOK_SEC if self._rewrites else 2.0
        self._clock = asyncio.get_running_loop().time
        self._shown_at = self._clock()

    def show(self, text: str) -> None:
        """Show it, unless something was shown just now."""
        if self._clock() >= self._shown_at + self._pause_sec:
            self._shown_at = self._clock()
            print(*((CLEAR_LINE, text) if self._rewrites else (text, "\n")), sep="", end="", flush=True)

    def end(self, text: str) -> None:
        """Show it in any case, and leave it there."""
        print(CLEAR_LINE if self._rewrites else "", text, sep="", flush=True)


@asynccontextmanager
async def shown(engine: Engine) -> AsyncIterator[None]:
    """While the block runs, shows how many records its engine has handled, how many a second, in which mode, and how
    many are waiting."""
    line = Line()
    started_at = asyncio.get_running_loop().time()
    showing = asyncio.create_task(_show(engine, line), name="progress")
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait([showing])
        handled, seconds = engine.status().handled, asyncio.get_running_loop().time() - started_at
        line.end(f"Handled {handled:,} records in {seconds:.1f} s, {handled / seconds:,.0f}/s.")


async def _show(engine: Engine, line: Line) -> None:
    clock = asyncio.get_running_loop().time
    looks: deque[tuple[float, int]] = deque(maxlen=WINDOW)
    while True:
        status = engine.status()
        looks.append((clock(), status.handled))
        (since, before), (now, handled) = looks[0], looks[-1]
        rate = (handled - before) / (now - since) if now > since else 0.0
        mode = status.mode if status.step is None else f"{status.mode} {status.step}"
        lag = "?" if status.lag is None else f"{status.lag:,}"
        line.show(f"{mode:<7} {handled:>9,} records {rate:>9,.0f}/s   lag {lag:>9}")
        await asyncio.sleep(LOOK_SEC)
