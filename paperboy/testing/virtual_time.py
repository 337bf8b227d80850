"""An event loop whose time costs nothing."""

import asyncio
import math
import selectors
from collections.abc import Callable
from typing import Any, TypeVar

from paperboy.errors import PaperboyError
from paperboy.testing.loop import ProcessLoop

T = TypeVar("T")

_MOST_TURNS = 100_000
"""How often the loop may turn at one moment of its time: beyond this, that moment is held to be endless."""
_NOTHING_REAL = (
    "A socket, pipe or subprocess was opened in virtual time, where nothing real is waited for: use a stand-in, or run"
    " this test in real time: EngineTest(engine, bootstrap_servers='memory://')."
)


class Stuck(PaperboyError):
    """The loop turns for ever without letting time pass, or nothing is left that could turn it."""


class VirtualLoop(ProcessLoop):
    """Time begins at 0 and moves when nothing is ready: to the next timer, at once.

    What would go to a thread is done in place, so that two runs of one input do not differ. Nothing real is waited
    for: opening a socket, a pipe or a subprocess raises PaperboyError. What would never end raises `Stuck`.
    """

    has_threads = False

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self._jump.is_sealed = True
        self._jump.next_timer = self._next_timer

    def time(self) -> float:
        return self._jump.now

    async def quiet(self) -> None:
        """Return when nothing is ready any more at this moment, before time moves."""
        waiter = self.create_future()
        self._jump.waiters.append(waiter)
        await waiter

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as it holds: it is looked at in every turn, and costs as often."""
        if not condition():
            waiter = self.create_future()
            self._jump.conditions[waiter] = condition
            try:
                await waiter
            finally:
                self._jump.conditions.pop(waiter, None)

    @property
    def _clock_resolution(self) -> float:
        """How much too early a timer may ring: not at all. asyncio's own is finer than the floats of a time beyond 97
        days, and what is due then would never be."""
        return math.ulp(self._jump.now)

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        """What the machine's clock has is nothing to us."""

    def _next_timer(self) -> float:
        """When the next timer is due; there is one."""
        when: float = self._scheduled[0]._when  # type: ignore[attr-defined]
        return when

    async def _refuse(self, *_: Any, **__: Any) -> Any:
        raise PaperboyError(_NOTHING_REAL)

    # Each opens something before a selector hears of it.
    create_connection = create_server = create_datagram_endpoint = _refuse
    create_unix_connection = create_unix_server = subprocess_exec = subprocess_shell = _refuse

    # No executor is used, whichever it is.
    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        done: asyncio.Future[T] = self.create_future()
        seconds = self.seconds_of_work()
        if seconds:
            self.call_later(seconds, _do, done, func, args)
        else:
            self.call_soon(_do, done, func, args)
        return done

    def seconds_of_work(self) -> float:
        """How long what would go to a thread takes before it is done."""
        return 0.0


class _Jump(selectors.DefaultSelector):
    """Instead of waiting, moves time to where the wait would have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.is_sealed = False
        """Whether no further files may be waited for: the loop has its own."""
        self.waiters: list[asyncio.Future[None]] = []
        """To be woken when nothing is ready."""
        self.conditions: dict[asyncio.Future[None], Callable[[], bool]] = {}
        """To be woken when these hold."""
        self.next_timer: Callable[[], float] = lambda: self.now
        """When the next timer is due."""
        self._turns = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.is_sealed:
            raise PaperboyError(_NOTHING_REAL)
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        for waiter, condition in list(self.conditions.items()):
            if not waiter.done() and condition():
                waiter.set_result(None)
                timeout = 0
        if timeout is not None and timeout <= 0:
            self._turns += 1
            if self._turns > _MOST_TURNS:
                self._turns = 0
                raise Stuck(
                    f"The loop has turned {_MOST_TURNS} times without letting time pass: a handler goes on for ever, or"
                    " sends to its own input."
                )
            return []
        self._turns = 0
        events = super().select(0)  # a signal, or a thread of somebody's
        if events:
            return events
        if self.waiters:
            waiters, self.waiters = self.waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        elif timeout is None:
            raise Stuck("Nothing is left that could ever happen, and something waits for it.")
        else:
            # 59 s and then one more are a minute, whatever floats add up to; but no timer rings before its time: two
            # that were rung a rounding error early, and set the alarm again in turns, would keep time from moving.
            moved, due = round(self.now + timeout, 6), self.next_timer()
            self.now = due if moved < due < moved + 1e-6 else moved
        return []


def _do(done: "asyncio.Future[T]", func: Callable[..., T], args: tuple[Any, ...]) -> None:
    if done.cancelled():
        return
    try:
        result = func(*args)
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        done.set_exception(error)
    else:
        done.set_result(result)
