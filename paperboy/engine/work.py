"""What the message in hand has written and sent, until it has finished or failed."""

from collections.abc import Callable, Mapping
from typing import Any

from paperboy.brokers.protocol import Headers, Record
from paperboy.clock import Clock
from paperboy.engine.outbox import Outbox, Send, Topics, check_bytes, check_sendable, checked_headers
from paperboy.engine.status import Counters
from paperboy.handlers.time_limit import TimeLimit
from paperboy.log import get_logger
from paperboy.tables.partition import TablePartition, Undo, roll_back
from paperboy.tables.unit import message_of_call

_log = get_logger("paperboy.task")


class Work:
    """The unit in which messages run one after another: the `Unit` of dispatch, and that of tables.

    Args:
        name: the task's.
        undo: the list in which `tables` note their writes.
    """

    def __init__(
        self,
        name: str,
        tables: Mapping[str, TablePartition],
        undo: Undo,
        outbox: Outbox,
        topics: Topics,
        clock: Clock,
        counters: Counters,
        has_to_stop: Callable[[], bool],
        turn_sec: float,
    ) -> None:
        self.name = name
        self.tables = dict(tables)
        self.undo = undo
        self.pending: list[Send] = []
        self.message: object | None = None
        self.enter: Callable[[Any], object] | None = message_of_call.set if tables else None
        self.turn_ends = 0.0
        self.unfinished = 0
        self.time_limit = TimeLimit(self)
        self.has_to_stop = has_to_stop
        self.turn_sec = turn_sec
        self._outbox = outbox
        self._topics = topics
        self._clock = clock
        self._counters = counters

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> None:
        check_bytes(topic, key, value)
        send = (topic, partition, key, value, checked_headers(topic, headers), timestamp_ms)
        known = self._topics.get(topic)
        if known is not None:
            check_sendable(send, known, self._clock.time_ms())
        self.pending.append(send)

    def mark(self) -> tuple[int, int]:
        return len(self.undo), len(self.pending)

    def roll_back(self, mark: tuple[int, int]) -> None:
        roll_back(self.undo, mark[0])
        del self.pending[mark[1] :]

    async def settle(self, start: int) -> None:
        unchecked = [send for send in self.pending[start:] if self._topics.get(send[0]) is None]
        if not unchecked:
            return
        await self._topics.learn(sorted({send[0] for send in unchecked}))
        now_ms = self._clock.time_ms()
        for send in unchecked:
            check_sendable(send, self._topics[send[0]], now_ms)

    def accept(self) -> None:
        self.undo.clear()
        if self.pending:
            for send in self.pending:
                self._outbox.put(send)
            self.pending.clear()

    def abandon(self) -> None:
        """The message in hand never happened."""
        self.roll_back((0, 0))
        self.message = None

    def passed_over(self, error: Exception, count: int, record: Record) -> None:
        self._counters.passed_over += count
        _log.error(
            "passed over",
            task=self.name,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            records=count,
            error=repr(error),
            exc_info=error,
        )
