"""Reading outside any group."""

from collections.abc import Collection, Mapping

from paperboy.brokers.memory.cluster import MemoryCluster
from paperboy.brokers.memory.fetcher import Fetcher
from paperboy.brokers.protocol import Changes, Record, TopicPartition
from paperboy.errors import BrokerError


class MemoryReader:
    """A `Reader` of a memory cluster."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._fetcher: Fetcher | None = None

    async def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._fetcher = Fetcher(self._cluster)
        self._fetcher.stand_at(offsets)

    async def stop(self) -> None:
        self._fetcher = None

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        return await self._open.fetch(partitions, timeout_sec, max_records)

    async def fetch_changes(
        self, partitions: Collection[TopicPartition], timeout_sec: float
    ) -> dict[TopicPartition, list[Changes]]:
        chunks = await self.fetch(partitions, timeout_sec)
        return {partition: Changes.of(records) for partition, records in chunks.items()}

    def position(self, partition: TopicPartition) -> int:
        position = self._open.position(partition)
        if position is None:
            raise BrokerError(f"The reader of {self._cluster} was not started with {partition}.")
        return position

    @property
    def _open(self) -> Fetcher:
        if self._fetcher is None:
            raise BrokerError(f"The reader of {self._cluster} is not open.")
        return self._fetcher
