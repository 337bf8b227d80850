"""Time, and everything else that would make two runs of one input differ.

Durations come from the running event loop (``loop.time``, ``asyncio.timeout``); timestamps come from
the broker's `Clock`. Whatever reads the wall clock, draws at random or starts a thread stands in this
file and nowhere else in the package (``tests/unit/test_house_rules.py`` looks), so that an event loop
with virtual time turns everything.
"""

import asyncio
import random
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random as Chance
from typing import Protocol, TypeVar

__all__ = ["Chance", "Clock", "LoopWatch", "SystemClock", "has_threads", "in_thread", "random_id"]

T = TypeVar("T")


class Clock(Protocol):
    """Where timestamps come from."""

    def time_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's own clock: what a real Kafka's clients use."""

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000


# `Chance(seed)` draws what it drew the last time: for simulations, and nothing else.


def random_id() -> str:
    """A name nobody else has, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def chance() -> float:
    """A number from 0 to 1 that cannot be told; a loop that is to run twice alike has a ``chance`` of its own."""
    own: Callable[[], float] | None = getattr(asyncio.get_running_loop(), "chance", None)
    return random.random() if own is None else own()


async def in_thread(work: Callable[[], T]) -> T:
    """Do what blocks in a thread of the running loop's. Who is cancelled waits for its end nevertheless: a disk cannot
    be interrupted, and nobody else may touch what is being worked on."""
    doing = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not doing.done():
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    if cancelled is not None:
        doing.exception()
        raise cancelled
    return doing.result()


def has_threads(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop runs in the world's time. One with virtual time says of itself that it has no threads."""
    return getattr(loop, "has_threads", True)


@dataclass(slots=True)
class _Question:
    """That the loop answers as soon as it turns."""

    asked_at: float
    answered_at: float | None = None

    def answer(self) -> None:
        self.answered_at = time.monotonic()


class LoopWatch:
    """A thread that asks an event loop ten times in each `limit_sec` whether it turns, and tells when it does not.

    A blockage longer than the limit by a tenth is told for certain, one that is shorter never. A loop that nobody
    runs is not blocked; one that was closed ends the thread.

    Args:
        loop: that of the calling thread, where it will go on running.
        limit_sec: how long the loop may stand still, in seconds; may be changed while it is watched.
        on_blocked: called in the watching thread, once for each blockage: with its length so far, in seconds, and
            with what the loop's thread is doing, as a traceback; that is empty where it was over before it was seen.
        on_turned: called in the watching thread when it has ended, with its length in seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit_sec: float,
        on_blocked: Callable[[float, str], object],
        on_turned: Callable[[float], object],
    ) -> None:
        self.limit_sec = limit_sec
        self._loop = loop
        self._watched = threading.get_ident()
        self._on_blocked = on_blocked
        self._on_turned = on_turned
        self._question: _Question | None = None
        self._told = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paperboy watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """For the loop itself: what it has told of, it ends. Returns when the thread has ended."""
        if self._question is not None:
            self._question.answer()
        self._ended.set()
        self._thread.join(_JOIN_SEC)

    def blocked_sec(self) -> float:
        """How long the loop has been standing still, where that is over the limit; else 0. From any thread."""
        question = self._question
        if question is None or question.answered_at is not None or not self._loop.is_running():
            return 0.0
        waited = time.monotonic() - question.asked_at
        return waited if waited > self.limit_sec else 0.0

    def _run(self) -> None:
        while not self._ended.is_set():
            question = self._question = _Question(time.monotonic())
            try:
                self._loop.call_soon_threadsafe(question.answer)
            except RuntimeError:  # it was closed
                return
            self._told = False
            while not self._look(question):
                if self._loop.is_closed() or (self._ended.is_set() and not self._told):
                    return

    def _look(self, question: _Question) -> bool:
        """A while later: whether the loop has answered."""
        pause = self.limit_sec / 10
        before = time.monotonic()
        self._ended.wait(pause)
        now = time.monotonic()
        answered_at = question.answered_at
        if not self._loop.is_running():
            question.asked_at = now
        # Who has overslept was kept from running as well: the whole process was, or C code held the interpreter's lock.
        blocked_sec = max((answered_at or now) - question.asked_at, now - before - pause)
        if blocked_sec > self.limit_sec and not self._told:
            self._told = True
            self._on_blocked(blocked_sec, self._stack() if answered_at is None else "")
        if answered_at is not None and self._told:
            self._on_turned(blocked_sec)
        return answered_at is not None

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame))


_JOIN_SEC = 1.0
"""A thread that is at work in somebody's log handler is not waited for any longer."""
