"""How long hooks may take."""

import asyncio
import math
from collections.abc import Iterable
from typing import Protocol

from paperboy.brokers.protocol import Record
from paperboy.errors import HandlerTimeout
from paperboy.log import get_logger

_log = get_logger("paperboy.task")

_LOOKS = 10
"""How often is looked within the limit."""
_LEAST_SEC = 0.05
"""How often is looked at most."""


class Holder(Protocol):
    """Who has messages in hand."""

    message: object | None
    """The context of the message in hand, or what stands for it in a bulk; None between messages."""


_FINISHED = "it has finished all the same"


class TimeLimit:
    """Cancels what has been in hand for too long: a message, or a bulk of a handler that gets lists.

    Nothing is done per record. A timer of the unit's looks which record is in hand, ten times in a limit; one that it
    sees for the whole limit is cancelled. So it may run for a tenth longer (or 50 ms). What follows the failure, an
    error hook, has as long again.
    """

    def __init__(self, holder: Holder) -> None:
        self.sec = math.inf
        """How long what is in hand next may take, in seconds."""
        self._holder = holder
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_sec = 0.0
        self._seen: Record | None = None
        self._since = 0.0
        self._limit_sec = math.inf
        self._cancelled = False
        """What is seen was cancelled, and has not ended of it yet."""
        self._said = False

    def watch(self, limits_sec: Iterable[float]) -> None:
        """Look after what is in hand for as long as the running asyncio task lives: that is the one to be cancelled.

        Args:
            limits_sec: all that `sec` may be; without a finite one there is nothing to do.
        """
        lowest = min(limits_sec, default=math.inf)
        if math.isinf(lowest):
            return
        self._task = asyncio.current_task()
        assert self._task is not None
        self._look_sec = max(lowest / _LOOKS, min(lowest, _LEAST_SEC))
        self._wait()
        self._task.add_done_callback(self._end)

    def overrun(self, record: Record) -> HandlerTimeout | None:
        """For a message that has failed: the error, where it was cancelled by its limit. Its time begins anew."""
        if self._task is None:
            return None
        limit_sec, cancelled, in_hand = self._limit_sec, self._seen, self._in_hand()
        was_ours = self._take_back()
        self._begin(in_hand)
        if was_ours and cancelled is not in_hand:
            self._say(cancelled, limit_sec, _FINISHED)
            return None
        if not was_ours or self._task.cancelling():  # the task itself was cancelled as well
            return None
        return HandlerTimeout(
            f"{record.topic}[{record.partition}] offset {record.offset} took longer than {limit_sec:g} s"
            " (handler_timeout_sec) and was cancelled: let its hooks wait for less, or raise the limit.",
            record.topic,
            record.partition,
            record.offset,
        )

    def _wait(self) -> None:
        assert self._task is not None
        self._timer = self._task.get_loop().call_later(self._look_sec, self._look)

    def _end(self, _: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._wait()
        assert self._task is not None
        record, now = self._in_hand(), self._task.get_loop().time()
        if record is not self._seen or record is None:
            if self._take_back():
                self._say(self._seen, self._limit_sec, _FINISHED)
            self._begin(record)
        elif now - self._since >= self._limit_sec:
            if not self._cancelled:
                self._cancelled = True
                self._since = now
                self._task.cancel()
            elif not self._said:
                self._said = True
                self._say(record, self._limit_sec, "it is waited for")

    def _begin(self, record: Record | None) -> None:
        """Its time begins."""
        assert self._task is not None
        self._seen, self._since, self._said = record, self._task.get_loop().time(), False
        self._limit_sec = self.sec

    def _take_back(self) -> bool:
        """Whether a cancellation of ours was under way; it no longer counts as one of the task."""
        was_ours, self._cancelled = self._cancelled, False
        if was_ours and self._task is not None:
            self._task.uncancel()
        return was_ours

    def _in_hand(self) -> Record | None:
        return getattr(self._holder.message, "record", None)

    def _say(self, record: Record | None, limit_sec: float, meaning: str) -> None:
        if record is not None:
            _log.warning(
                "handler ignores its cancellation",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                limit_sec=limit_sec,
                meaning=meaning,
            )
