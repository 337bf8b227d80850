"""What a task may handle next."""

import math
from collections.abc import Iterator, Mapping, Sequence

from paperboy.brokers.protocol import TopicPartition
from paperboy.engine.modes import Mode
from paperboy.engine.source import Source
from paperboy.handlers.failed_record import read_failed


class Inputs:
    """A task's input partitions, and the choice among them: the buffered record with the lowest timestamp goes first.

    Args:
        bulk_records: the size of a full bulk.
        bulk_timeout_sec: how long a bulk that is not full is waited for.
        room_bytes: how much each partition may have waiting.
    """

    def __init__(
        self, sources: Sequence[Source], *, bulk_records: int, bulk_timeout_sec: float, room_bytes: int
    ) -> None:
        self._sources = {source.partition: source for source in sources}
        self._bulk_records = bulk_records
        self._bulk_timeout_sec = bulk_timeout_sec
        self._room_bytes = room_bytes

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources.values())

    def __getitem__(self, partition: TopicPartition) -> Source:
        return self._sources[partition]

    def __contains__(self, partition: object) -> bool:
        return partition in self._sources

    @property
    def partitions(self) -> list[TopicPartition]:
        return list(self._sources)

    def lag(self) -> int | None:
        """Records not handled yet; None where the end of a partition is not known."""
        lags = [source.lag() for source in self]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    def backlog(self) -> int | None:
        """As `lag`, without the records of retry topics: those wait by intention."""
        lags = [source.lag() for source in self if not source.is_delayed]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    def hold(self, now: float, now_ms: int) -> None:
        """Look which partitions have to wait at this moment, and until when.

        Args:
            now: loop time.
            now_ms: the broker's.
        """
        for source in self:
            source.held_until = _held_until(source, now, now_ms)
            if source.isolated is not None and source.position >= source.isolated[1]:
                source.isolated = None

    def held_until(self) -> float | None:
        """When the first partition that waits goes on, in loop time."""
        return min((source.held_until for source in self if source.held_until is not None), default=None)

    def uncommitted(self) -> dict[TopicPartition, int]:
        """The positions that have moved since they were committed."""
        return {source.partition: source.position for source in self if source.position != source.committed}

    def keep(self, positions: Mapping[TopicPartition, int]) -> None:
        """Everything below these positions is durable."""
        for partition, position in positions.items():
            self._sources[partition].durable = position

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """These positions are committed."""
        for partition, position in positions.items():
            self._sources[partition].committed = position

    def wanted(self) -> list[TopicPartition]:
        """The partitions to fetch: those with room, and not held back."""
        return [
            source.partition
            for source in self
            if source.buffered_bytes < self._room_bytes and (source.limit is None or source.fetched < source.limit)
        ]

    def next_source(self, mode: Mode, now: float) -> Source | None:
        """Of the partitions that have something to hand over, the one whose first record is the oldest.

        In bulk and step mode that is a full bulk, or one that is not waited for any longer at `now` (loop time).
        """
        oldest, oldest_timestamp = None, 0
        for source in self:
            timestamp = source.head_timestamp
            if timestamp is None or (mode is not Mode.SINGLE and not self._bulk_is_ready(source, now)):
                continue
            if oldest is None or timestamp < oldest_timestamp:
                oldest, oldest_timestamp = source, timestamp
        return oldest

    def turn_of_another(self, source: Source) -> int | None:
        """The timestamp beyond which another partition's first record goes before `source`'s; None for none."""
        others = [
            timestamp for other in self if other is not source and (timestamp := other.head_timestamp) is not None
        ]
        return min(others, default=None)

    def bulk_deadline(self) -> float | None:
        """When the next bulk that is being filled is handed over as it is, in loop time."""
        waited_for = [
            source.bulk_deadline
            for source in self
            if source.bulk_deadline is not None and source.head_timestamp is not None
        ]
        return min(waited_for, default=None)

    def _bulk_is_ready(self, source: Source, now: float) -> bool:
        if source.isolated is not None or source.is_delayed:  # not to be filled
            return True
        if source.buffered >= self._bulk_records or source.at_known_end or source.buffered_bytes >= self._room_bytes:
            return True
        if source.bulk_deadline is None:
            source.bulk_deadline = now + self._bulk_timeout_sec
        return now >= source.bulk_deadline


def _held_until(source: Source, now: float, now_ms: int) -> float | None:
    """Until when a partition's first record waits: to be tried again, to be due, or for the circuit breaker."""
    head = source.head
    if head is None:
        return None
    if source.failing is not None and source.failing.offset == head.offset and source.failing.due > now:
        return source.failing.due
    if source.is_delayed:
        failed = read_failed(head)
        if failed is not None and failed.due_ms is not None and failed.due_ms > now_ms:
            return now + (failed.due_ms - now_ms) / 1000
    breaker = source.dispatch.breaker
    if source.is_paused and breaker is not None:
        return math.inf if breaker.opens_at is None else breaker.opens_at
    return None
