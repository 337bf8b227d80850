"""Where a client stands in partitions, and the records from there on."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from paperboy.brokers.memory.cluster import MemoryCluster
from paperboy.brokers.memory.waiting import Signal, any_of
from paperboy.brokers.protocol import Record, TopicPartition, Watermark
from paperboy.errors import OffsetOutOfRange


class Fetcher:
    """What a reader and a consumer have in common. Partitions that stand nowhere are not fetched."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, tuple[int, float]] = {}
        self._news = Signal()
        """For a fetch: it stands elsewhere, or is to return."""
        self._held = False
        self._returns = False
        """Whether the fetch under way waits for nothing more."""
        self._turn = 0

    def stand_at(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Go on at these offsets."""
        self._positions.update(offsets)
        self._news.notify()

    def wake(self) -> None:
        """Let a fetch that waits return."""
        self._returns = True
        self._news.notify()

    def hold(self) -> None:
        """Fetch nothing, until `forget_all` and a new stand."""
        self._held = True

    def forget_all(self) -> None:
        """Stand nowhere."""
        self._positions = {}
        self._ends = {}
        self._held = False

    def position(self, partition: TopicPartition) -> int | None:
        return self._positions.get(partition)

    def watermark(self, partition: TopicPartition) -> Watermark | None:
        if partition not in self._ends:
            return None
        end_offset, heard_at = self._ends[partition]
        return Watermark(end_offset, self._cluster.clock.elapsed() - heard_at)

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None
    ) -> dict[TopicPartition, list[Record]]:
        """See `Reader.fetch`."""
        self._returns = timeout_sec <= 0
        named = list(dict.fromkeys(partitions))
        await self._cluster.faults.meet("fetch")
        chunks = self._take(named, max_records)
        if chunks or self._returns:
            return chunks
        try:
            async with asyncio.timeout(timeout_sec):
                while not (chunks or self._returns):
                    logs = [self._cluster.log(partition) for partition in self._standing(named)]
                    await any_of([self._news, *(log.appended for log in logs)])
                    chunks = self._take(named, max_records)
        except TimeoutError:
            chunks = self._take(named, max_records)
        return chunks

    def _take(self, named: Sequence[TopicPartition], max_records: int | None) -> dict[TopicPartition, list[Record]]:
        standing = [] if self._held else self._standing(named)
        for partition in standing:
            self._check(partition)
        if max_records is not None and standing:
            self._turn += 1  # or the first partition could take all the room, every time
            first = self._turn % len(standing)
            standing = standing[first:] + standing[:first]
        chunks: dict[TopicPartition, list[Record]] = {}
        now = self._cluster.clock.elapsed()
        for partition in standing:
            log = self._cluster.log(partition)
            self._ends[partition] = (log.stable_offset, now)
            if max_records == 0:
                continue
            position = self._positions[partition]
            records, self._positions[partition] = log.read(position, max_records)
            if not records:
                self._returns = self._returns or self._positions[partition] != position
            else:
                chunks[partition] = records
                if max_records is not None:
                    max_records -= len(records)
        return chunks

    def _standing(self, named: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Those that stand somewhere, in a topic that was not deleted meanwhile."""
        return [at for at in named if at in self._positions and self._cluster.has(at)]

    def _check(self, partition: TopicPartition) -> None:
        log = self._cluster.log(partition)
        position = self._positions[partition]
        if not log.start_offset <= position <= log.end_offset:
            raise OffsetOutOfRange(
                f"Offset {position} of {partition} on {self._cluster} is not in the log, which goes from"
                f" {log.start_offset} to {log.end_offset}.",
                *partition,
                position,
            )
