"""The log of one partition."""

from bisect import bisect_left, bisect_right
from itertools import accumulate, count
from operator import itemgetter
from typing import Any, cast

from paperboy.brokers.memory.batches import Batch
from paperboy.brokers.memory.waiting import Signal
from paperboy.brokers.protocol import Record, TopicPartition, new_record

FETCH_BYTES = 1024 * 1024
"""What one fetch hands out of a partition, about, as Kafka's max.partition.fetch.bytes."""

Entry = tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...], int]
"""Offset, timestamp, key, value, headers, and the bytes of the log up to and with this entry."""

_offset = itemgetter(0)
_bytes = itemgetter(5)


class PartitionLog:
    """Records in offset order. Offsets without a record are markers of transactions, or were compacted away."""

    def __init__(self, partition: TopicPartition, timestamp_type: int = 0) -> None:
        self.partition = partition
        self.appended = Signal()
        self.start_offset = 0
        self.end_offset = 0
        """The high watermark: the offset the next entry gets."""
        self._timestamp_type = timestamp_type
        self._entries: list[Entry] = []
        self._dropped_bytes = 0
        self._horizons: dict[int, int] = {}
        """When a tombstone may go, by its offset."""
        self._open: dict[str, list[range]] = {}
        """The offsets of each transaction that is open, by the id of its producer."""

    @property
    def stable_offset(self) -> int:
        """Where a reader of committed records stops: the first offset of an open transaction, or the end."""
        return min([ranges[0].start for ranges in self._open.values()], default=self.end_offset)

    def append(self, batch: Batch, append_time_ms: int | None = None, transactional_id: str | None = None) -> int:
        """Append a batch as a whole, in the open transaction of `transactional_id` where given; its records get
        `append_time_ms` where given. Returns the first one's offset."""
        records, sizes = batch
        base = self.end_offset
        ends = accumulate(sizes, initial=self._bytes_before(len(self._entries)))
        next(ends)
        self._entries.extend(
            [
                (offset, timestamp if append_time_ms is None else append_time_ms, key, value, tuple(headers), end)
                for offset, (key, value, headers, timestamp), end in zip(count(base), records, ends, strict=False)
            ]
        )
        self.end_offset = base + len(records)
        if transactional_id is not None:
            self._open.setdefault(transactional_id, []).append(range(base, self.end_offset))
        self.appended.notify()
        return base

    def end_transaction(self, transactional_id: str, *, commits: bool) -> None:
        """Append the marker that ends a transaction, even one of which nothing was taken.

        What was aborted is never handed out.
        """
        ranges = self._open.pop(transactional_id, [])
        if not commits:
            aborted = {offset for offsets in ranges for offset in offsets}
            self._entries = [entry for entry in self._entries if entry[0] not in aborted]
        self.append_marker()

    def append_marker(self) -> int:
        """Append what ends a transaction: an offset that readers pass over. Returns it."""
        self.end_offset += 1
        self.appended.notify()
        return self.end_offset - 1

    def read(self, position: int, max_records: int | None = None) -> tuple[list[Record], int]:
        """Records from `position` on, each a new object, and the position behind them, markers and gaps passed.

        Whoever asks has seen to it that `position` is in the log.
        """
        entries = self._entries
        first = self._index(position)
        last = len(entries) if self.stable_offset == self.end_offset else self._index(self.stable_offset)
        if first >= last:
            return [], max(position, self.stable_offset)
        until = self._bytes_before(first) + FETCH_BYTES
        stop = last if entries[last - 1][5] <= until else bisect_right(entries, until, first, last, key=_bytes)
        stop = max(stop, first + 1)
        if max_records is not None:
            stop = min(stop, first + max_records)
        topic, partition = self.partition
        kind = self._timestamp_type
        records: list[Record] = [
            new_record(
                topic,
                partition,
                offset,
                timestamp,
                kind,
                key,
                value,
                None,
                -1 if key is None else len(key),
                -1 if value is None else len(value),
                cast(Any, headers),
            )
            for offset, timestamp, key, value, headers, _ in entries[first:stop]
        ]
        return records, self.stable_offset if stop == last else entries[stop - 1][0] + 1

    def offset_since(self, time_ms: int) -> int:
        """Of the first record with this timestamp or a later one; the end where there is none."""
        return next((entry[0] for entry in self._entries if entry[1] >= time_ms), self.stable_offset)

    def delete_before(self, offset: int) -> None:
        """Drop what lies below `offset`, as retention or a deletion of records does."""
        self.start_offset = max(self.start_offset, min(offset, self.end_offset))
        first = self._index(self.start_offset)
        self._dropped_bytes = self._bytes_before(first)
        del self._entries[:first]

    def compact(self, now_ms: int, delete_retention_ms: int, before: int | None = None) -> None:
        """Keep the last record of each key, of those below `before` (None: of all), and of no open transaction, which
        may yet be aborted. Offsets stay.

        A tombstone goes `delete_retention_ms` after the first compaction that met it, not earlier: who reads on from
        before it has this long to hear of the deletion.
        """
        limit = min(self.stable_offset, self.end_offset if before is None else before)
        last = {entry[2]: entry[0] for entry in self._entries if entry[0] < limit}
        kept: list[Entry] = []
        start = total = self._dropped_bytes
        for offset, timestamp, key, value, headers, end in self._entries:
            size, start = end - start, end
            if offset < limit:
                if last[key] != offset:
                    continue
                if value is None and now_ms >= self._horizons.setdefault(offset, now_ms + delete_retention_ms):
                    continue
            total += size
            kept.append((offset, timestamp, key, value, headers, total))
        self._entries = kept
        self._horizons = {entry[0]: self._horizons[entry[0]] for entry in kept if entry[0] in self._horizons}

    def _bytes_before(self, index: int) -> int:
        return self._entries[index - 1][5] if index else self._dropped_bytes

    def _index(self, offset: int) -> int:
        """Where the first entry at or behind `offset` stands."""
        entries = self._entries
        if not entries or offset <= entries[0][0]:
            return 0
        if offset > entries[-1][0]:
            return len(entries)
        guess = offset - entries[0][0]
        if guess < len(entries) and entries[guess][0] == offset:
            return guess
        return bisect_left(entries, offset, key=_offset)
