"""One input partition of a task: what was fetched and not handled yet, and how far it has come."""

from bisect import bisect_left
from collections import deque
from operator import attrgetter

from paperboy.brokers.protocol import Record, TopicPartition
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.failures import failed_before
from paperboy.handlers.outcome import Failing

RECORD_BYTES = 300
"""What a record costs in memory beside its key and value, about."""

_offset = attrgetter("offset")


class Source:
    """See the module. Offsets are of the next record: to be fetched, handled, committed."""

    def __init__(self, partition: TopicPartition, dispatch: Dispatch) -> None:
        self.partition = partition
        self.dispatch = dispatch
        self.position = 0
        """Everything below is finished."""
        self.committed = 0
        self.durable = 0
        """Everything below is in the stores and in the log, committed or not."""
        self.fetched = 0
        """Everything below has been fetched (or was never there)."""
        self.end_offset: int | None = None
        """The partition's end as last heard of; None before the first time."""
        self.limit: int | None = None
        """Records from here on are held back; None holds back none. 0 holds back all."""
        self.buffered = 0
        """Records waiting."""
        self.buffered_bytes = 0
        self.failing: Failing | None = None
        """The message at `position` that has failed and waits to be handled again, or one that did earlier."""
        self.held_until: float | None = None
        """Until when the first record waits though it was fetched, in loop time; None where it does not."""
        self.waiting = 0
        """Messages taken by lanes that wait to be handled again."""
        self.isolated: tuple[int, int] | None = None
        """Offsets, from and up to, that are handled one by one in every mode: one of them made a bulk fail."""
        self.bulk_deadline: float | None = None
        """When a bulk that is being filled is handed over as it is, in loop time."""
        self._chunks: deque[list[Record]] = deque()
        self._sizes: deque[int] = deque()
        self._taken = 0
        """How many records of the first chunk have been taken: cheaper than to cut them off each time."""

    def start_at(self, offset: int, committed: int | None = None) -> None:
        """Forget what was fetched, and go on from `offset`. Where that is more than what is committed, it was durable
        before: a commit is all that it lacks."""
        self._chunks.clear()
        self._sizes.clear()
        self.buffered = self.buffered_bytes = self._taken = 0
        self.bulk_deadline = self.failing = self.held_until = self.isolated = None
        self.position = self.fetched = self.durable = offset
        self.committed = offset if committed is None else committed

    def put(self, records: list[Record]) -> None:
        """Append a chunk that was fetched."""
        size = _size(records)
        self._chunks.append(records)
        self._sizes.append(size)
        self.buffered += len(records)
        self.buffered_bytes += size
        self.fetched = records[-1].offset + 1

    def advance(self, position: int | None) -> bool:
        """The consumer stands at `position`: what lies between it and the last record is markers or compacted gaps.

        Returns:
            Whether that was news.
        """
        if position is None or position <= self.fetched:
            return False
        self.fetched = position
        return True

    def skip_gaps(self) -> None:
        """For the task, when it has no record in hand: all below the first record that waits is finished."""
        first = self._chunks[0][self._taken].offset if self._chunks else self.fetched
        if first > self.position:
            self.position = first

    def lag(self) -> int | None:
        """Records between position and end; None where the end is not known."""
        return None if self.end_offset is None else max(0, self.end_offset - self.position)

    @property
    def is_delayed(self) -> bool:
        """Whether it is a retry topic, whose records say themselves when they are due."""
        return self.dispatch.present is not None

    @property
    def is_isolated(self) -> bool:
        """Whether the first record that was fetched is to be handled by itself."""
        head, isolated = self.head, self.isolated
        return head is not None and isolated is not None and isolated[0] <= head.offset < isolated[1]

    @property
    def is_paused(self) -> bool:
        """Whether its handler's circuit breaker lets nothing begin."""
        breaker = self.dispatch.breaker
        return breaker is not None and not breaker.may_begin()

    @property
    def head(self) -> Record | None:
        """The first record that was fetched and not taken, held back or not."""
        return self._chunks[0][self._taken] if self._chunks else None

    def failing_at(self, record: Record) -> Failing | None:
        """What is known of earlier attempts at this record, the next one to be handled."""
        if self.failing is not None and self.failing.offset == record.offset:
            return self.failing
        return failed_before(record) if self.is_delayed else None

    def fails(self, failing: Failing) -> None:
        """The first record has failed, and is to be handled again."""
        self.failing = failing
        self.held_until = failing.due

    @property
    def head_timestamp(self) -> int | None:
        """The timestamp of the first record that waits and is not held back; None where there is none."""
        if not self._chunks or self.held_until is not None:
            return None
        head = self._chunks[0][self._taken]
        if self.limit is not None and head.offset >= self.limit:
            return None
        timestamp: int = head.timestamp
        return timestamp

    @property
    def at_known_end(self) -> bool:
        """Nothing more is to come now, as far as is known: of the log, or of what the step lets through."""
        end = self.end_offset if self.limit is None else self.limit
        return end is not None and self.fetched >= end

    def take_chunk(self, until: int | None) -> list[Record]:
        """The first chunk: up to the limit, and to the last record with a timestamp of `until` at most."""
        cut = self._taken + 1 if self.is_delayed else self._cut()
        if until is not None:
            chunk = self._chunks[0]
            cut = next((index for index in range(self._taken + 1, cut) if chunk[index].timestamp > until), cut)
        return self._take(cut)

    def take_bulk(self, most: int) -> list[Record]:
        """Up to `most` records, up to the limit."""
        bulk: list[Record] = []
        apart = self.is_isolated
        while len(bulk) < most and self.head_timestamp is not None and self.is_isolated is apart:
            bulk.extend(self._take(min(self._cut(), self._taken + most - len(bulk))))
        return bulk

    def give_back(self, records: list[Record]) -> None:
        """Put back, in front, what was taken and not handled."""
        if self._taken:
            self._chunks[0] = self._chunks[0][self._taken :]
            self._taken = 0
        size = _size(records)
        self._chunks.appendleft(records)
        self._sizes.appendleft(size)
        self.buffered += len(records)
        self.buffered_bytes += size

    def _cut(self) -> int:
        """Where in the first chunk the limit is, or its end; or where those begin, or end, that go by themselves."""
        chunk, limit = self._chunks[0], self.limit
        if self.isolated is not None:
            begin, end = self.isolated
            boundary = end if chunk[self._taken].offset >= begin else begin
            if chunk[self._taken].offset < boundary:
                limit = boundary if limit is None else min(limit, boundary)
        if limit is None or chunk[-1].offset < limit:
            return len(chunk)
        return bisect_left(chunk, limit, key=_offset)

    def _take(self, cut: int) -> list[Record]:
        """The first chunk's records before this index."""
        self.bulk_deadline = None
        chunk, start = self._chunks[0], self._taken
        if cut < len(chunk):
            records = chunk[start:cut]
            size = self._sizes[0] * len(records) // (len(chunk) - start)
            self._sizes[0] -= size
            self._taken = cut
        else:
            records = chunk[start:] if start else chunk
            size = self._sizes.popleft()
            self._chunks.popleft()
            self._taken = 0
        self.buffered -= len(records)
        self.buffered_bytes -= size
        return records


def _size(records: list[Record]) -> int:
    size: int = sum([record.serialized_key_size + record.serialized_value_size for record in records])
    return size + RECORD_BYTES * len(records)
