"""What the message in hand has written and sent, until it has finished or failed."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mypy_extensions import mypyc_attr

from paperboy.brokers.protocol import Record
from paperboy.clock import Clock
from paperboy.engine.outbox import Outbox, Send, Topics, check_bytes, check_sendable, checked_headers
from paperboy.engine.status import Counters
from paperboy.handlers.failed_record import shown
from paperboy.handlers.outcome import Failing, Fate, GivenUp
from paperboy.handlers.time_limit import TimeLimit
from paperboy.log import get_logger
from paperboy.serializers.protocol import SchemaNotFetched
from paperboy.tables.partition import RECORD_OVERHEAD_BYTES, TablePartition, Undo, roll_back
from paperboy.tables.unit import message_of_call

_log = get_logger("paperboy.task")

_Unsettled = tuple[int, bytes | SchemaNotFetched | None, bytes | SchemaNotFetched | None]
"""What is sent, but not checked, for want of its topic or of its bytes: its number among what is pending, its key and
its value."""


@mypyc_attr(allow_interpreted_subclasses=True)
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
        group_id: str,
        is_ending: Callable[[], bool],
        has_to_stop: Callable[[], bool],
        turn_sec: float,
    ) -> None:
        self.name = name
        self.group_id = group_id
        self.tables = dict(tables)
        self.undo = undo
        self.pending: list[Send] = []
        self.unsettled: list[_Unsettled] = []
        self.message: object | None = None
        self.enter: Callable[[Any], object] | None = message_of_call.set if tables else None
        self.turn_ends = 0.0
        self.unfinished = 0
        self.given_up = 0
        """Messages of this unit that were given up, so far."""
        self.failing: Failing | None = None
        self.isolated: tuple[int, int] | None = None
        self.time_limit = TimeLimit(self)
        self.is_ending = is_ending
        self.has_to_stop = has_to_stop
        self.turn_sec = turn_sec
        self._outbox = outbox
        self._topics = topics
        self._clock = clock
        self._counters = counters

    def send(self, topic: str, value: Any, key: Any, headers: Any, partition: Any, timestamp_ms: Any) -> None:
        """They are as a hook gave them: whatever they are, it is told what they should be."""
        known = self._topics.get(topic)
        if (
            type(value) is bytes
            and type(key) is bytes
            and headers == ()
            and partition is None
            and timestamp_ms is None
            and known is not None
            and len(key) + len(value) <= known.max_message_bytes - RECORD_OVERHEAD_BYTES
        ):  # as most are: of the checks below, none is left
            self.pending.append((topic, None, key, value, (), None))
            return
        check_bytes(topic, key, value)
        send = (topic, partition, key, value, checked_headers(topic, headers), timestamp_ms)
        if known is None:
            self.unsettled.append((len(self.pending), key, value))
        else:
            check_sendable(send, known, 0 if timestamp_ms is None else self._clock.time_ms())
        self.pending.append(send)

    def send_late(self, topic: str, value: Any, key: Any, headers: Any, partition: Any, timestamp_ms: Any) -> None:
        here = {name: part for name, part in (("key", key), ("value", value)) if not isinstance(part, SchemaNotFetched)}
        check_bytes(topic, here.get("key"), here.get("value"))
        self.unsettled.append((len(self.pending), key, value))
        self.pending.append((topic, partition, None, None, checked_headers(topic, headers), timestamp_ms))

    def now_ms(self) -> int:
        return self._clock.time_ms()

    def begin_bulk(self, failing: Failing | None) -> None:
        """A bulk is handed over next, which may have failed before."""
        self.failing, self.isolated = failing, None

    def attempt_of(self, record: Record) -> int:
        """How often this message, in hand, is being handled by now."""
        failing = self.failing
        is_it = failing is not None and record.offset in (failing.offset, failing.message_offset)
        return failing.attempts + 1 if is_it and failing is not None else 1

    def mark(self) -> tuple[int, int]:
        return len(self.undo), len(self.pending)

    def roll_back(self, mark: tuple[int, int]) -> None:
        roll_back(self.undo, mark[0])
        del self.pending[mark[1] :]
        self.unsettled[:] = [each for each in self.unsettled if each[0] < mark[1]]

    async def settle(self) -> None:
        if not self.unsettled:
            return
        for number, key, value in self.unsettled:
            topic, partition, _, _, headers, timestamp_ms = self.pending[number]
            if isinstance(key, SchemaNotFetched):
                key = await key.finish()
            if isinstance(value, SchemaNotFetched):
                value = await value.finish()
            self.pending[number] = (topic, partition, key, value, headers, timestamp_ms)
        sends = [self.pending[number] for number, _, _ in self.unsettled]
        await self._topics.learn(sorted({send[0] for send in sends}))
        now_ms = self._clock.time_ms()
        for send in sends:
            check_sendable(send, self._topics[send[0]], now_ms)
        self.unsettled.clear()

    def forget(self, topic: str) -> None:
        self._topics.forget([topic])

    def accept(self) -> None:
        self.undo.clear()
        if self.pending:
            self._outbox.put(self.pending)
            self.pending.clear()

    def abandon(self) -> None:
        """The message in hand never happened."""
        self.roll_back((0, 0))
        self.message = None

    def waits(self, failing: Failing) -> None:
        """Report that a message (or bulk) has failed and will be handled again."""
        if failing.is_paused:
            self._counters.paused += 1
        else:
            self._counters.retried += 1
        record = failing.record
        _log.warning(
            "waits for the circuit breaker" if failing.is_paused else "handled again",
            task=self.name,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            attempts=failing.attempts,
            seconds=round(failing.delay_sec, 3),
            error=shown(failing.error),
        )

    def gave_up(self, given_up: GivenUp) -> None:
        """Report that messages were given up, and what became of them."""
        self.given_up += given_up.records
        match given_up.fate:
            case Fate.SKIPPED:
                self._counters.passed_over += given_up.records
            case Fate.DEAD_LETTER:
                self._counters.dead_lettered += given_up.records
            case Fate.RETRY_TOPIC:
                self._counters.retried += given_up.records
        record = given_up.record
        _log.log(
            logging.WARNING if given_up.fate is Fate.RETRY_TOPIC else logging.ERROR,
            given_up.fate.value,
            task=self.name,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            records=given_up.records,
            attempts=given_up.attempts,
            **({} if given_up.topic is None else {"to": given_up.topic}),
            error=shown(given_up.error),
            exc_info=given_up.error,
        )
