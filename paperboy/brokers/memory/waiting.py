"""Waiting for something in a cluster that outlives event loops: nobody who is gone is ever woken."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from paperboy.brokers.memory.clock import running_loop

T = TypeVar("T")


class Signal:
    """Something that happens now and then, and that tasks of the running loop wait for."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    def notify(self) -> None:
        """It has happened: wake all who wait."""
        if self._waiters:
            waiters, self._waiters = self._waiters, {}
            for waiter in waiters:
                settle(waiter, None)

    def add(self, waiter: "asyncio.Future[None]") -> None:
        self._waiters[waiter] = None

    def discard(self, waiter: "asyncio.Future[None]") -> None:
        self._waiters.pop(waiter, None)


async def any_of(signals: Sequence[Signal]) -> None:
    """Return when the first of these happens."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for signal in signals:
        signal.add(waiter)
    try:
        await waiter
    finally:
        for signal in signals:
            signal.discard(waiter)


def settle(future: "asyncio.Future[T]", result: T) -> None:
    """Give a future its result, unless nobody can be waiting for it any more."""
    if _is_awaited(future):
        future.set_result(result)


def refuse(future: "asyncio.Future[T]", error: Exception) -> None:
    """Let a future fail, unless nobody can be waiting for it any more."""
    if _is_awaited(future):
        future.set_exception(error)
        future.exception()  # whoever dropped the future has dropped the error with it


def _is_awaited(future: "asyncio.Future[T]") -> bool:
    return not future.done() and future.get_loop() is running_loop()
