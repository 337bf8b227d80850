"""One input partition of a task: what was fetched and not handled yet, and how far it has come."""

from collections import deque
from operator import attrgetter

from paperboy.brokers.protocol import Record, TopicPartition
from paperboy.handlers.dispatch import Dispatch

RECORD_BYTES = 300
"""What a record costs in memory beside its value, about."""

_value_size = attrgetter("serialized_value_size")


class Source:
    """See the module. Offsets are of the next record: to be fetched, handled, committed."""

    def __init__(self, partition: TopicPartition, dispatch: Dispatch) -> None:
        self.partition = partition
        self.dispatch = dispatch
        self.position = 0
        """Everything below is finished."""
        self.committed = 0
        self.fetched = 0
        """Everything below has been fetched (or was never there)."""
        self.end_offset: int | None = None
        """The partition's end as last heard of; None before the first time."""
        self.limit: int | None = None
        """Records from here on are held back; None holds back none. 0 holds back all."""
        self.buffered = 0
        """Records waiting."""
        self.buffered_bytes = 0
        self.bulk_deadline: float | None = None
        """When a bulk that is being filled is handed over as it is, in loop time."""
        self._chunks: deque[list[Record]] = deque()
        self._sizes: deque[int] = deque()

    def start_at(self, offset: int) -> None:
        """Forget what was fetched, and go on from `offset`, which is committed."""
        self._chunks.clear()
        self._sizes.clear()
        self.buffered = self.buffered_bytes = 0
        self.bulk_deadline = None
        self.position = self.committed = self.fetched = offset

    def put(self, records: list[Record]) -> None:
        """Append a chunk that was fetched."""
        size = sum(map(_value_size, records)) + RECORD_BYTES * len(records)
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
        first = self._chunks[0][0].offset if self._chunks else self.fetched
        if first > self.position:
            self.position = first

    def lag(self) -> int | None:
        """Records between position and end; None where the end is not known."""
        return None if self.end_offset is None else max(0, self.end_offset - self.position)

    @property
    def head_timestamp(self) -> int | None:
        """The timestamp of the first record that waits and is not held back; None where there is none."""
        if not self._chunks:
            return None
        head = self._chunks[0][0]
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
        self.bulk_deadline = None
        chunk = self._chunks.popleft()
        size = self._sizes.popleft()
        cut = self._cut(chunk)
        if until is not None:
            cut = next((index for index in range(1, cut) if chunk[index].timestamp > until), cut)
        if cut < len(chunk):
            rest = chunk[cut:]
            chunk = chunk[:cut]
            rest_size = size * len(rest) // (len(rest) + cut)
            self._chunks.appendleft(rest)
            self._sizes.appendleft(rest_size)
            size -= rest_size
        self.buffered -= len(chunk)
        self.buffered_bytes -= size
        return chunk

    def take_bulk(self, most: int) -> list[Record]:
        """Up to `most` records, up to the limit."""
        bulk = self.take_chunk(None)
        while len(bulk) < most and self.head_timestamp is not None:
            bulk.extend(self.take_chunk(None))
        if len(bulk) > most:
            self.give_back(bulk[most:])
            bulk = bulk[:most]
        return bulk

    def give_back(self, records: list[Record]) -> None:
        """Put back, in front, what was taken and not handled."""
        size = sum(map(_value_size, records)) + RECORD_BYTES * len(records)
        self._chunks.appendleft(records)
        self._sizes.appendleft(size)
        self.buffered += len(records)
        self.buffered_bytes += size

    def _cut(self, chunk: list[Record]) -> int:
        limit = self.limit
        if limit is None or chunk[-1].offset < limit:
            return len(chunk)
        return next(index for index, record in enumerate(chunk) if record.offset >= limit)
