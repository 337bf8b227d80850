"""What can go wrong at a broker, on demand: for tests of whatever uses one."""

import asyncio
from collections import deque
from typing import Literal

from paperboy.brokers.memory.waiting import Signal, any_of

Operation = Literal[
    "start",
    "describe",
    "create",
    "delete",
    "offsets",
    "committed",
    "fetch",
    "produce",
    "produce_ack",
    "commit",
    "commit_ack",
    "fence",
    "end_transaction",
    "end_transaction_ack",
    "confirm",
]
"""What a client asks of a broker. The acks are the answers: where one fails, the request was carried out."""


class Faults:
    """Makes operations fail, or wait. One that fails is one client's; others go on."""

    def __init__(self) -> None:
        self._failures: dict[Operation, deque[Exception]] = {}
        self._held: dict[Operation, Signal] = {}

    def fail_next(self, operation: Operation, error: Exception) -> None:
        """The next `operation` raises `error`; called n times, the next n do, in this order."""
        self._failures.setdefault(operation, deque()).append(error)

    def hold(self, operation: Operation) -> None:
        """Let every `operation` wait, from now on."""
        self._held.setdefault(operation, Signal())

    def release(self, operation: Operation) -> None:
        """Let those that wait go on."""
        held = self._held.pop(operation, None)
        if held is not None:
            held.notify()

    async def meet(self, operation: Operation) -> None:
        """Wait where `operation` is held, fail where it is to fail. Takes one turn of the loop, as a request does."""
        await asyncio.sleep(0)
        while operation in self._held:
            await any_of([self._held[operation]])
        failures = self._failures.get(operation)
        if failures:
            raise failures.popleft()
