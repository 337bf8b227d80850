"""Reading named partitions of Kafka from chosen offsets, outside any group."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.consumer.fetcher import PartitionRecords

from paperboy.brokers.kafka.closing import stop_consumer
from paperboy.brokers.kafka.errors import translating
from paperboy.brokers.kafka.fetch import fetch
from paperboy.brokers.kafka.unpack import Fetched, unpack_chunks, unpacked, unpacked_changes
from paperboy.brokers.protocol import Changes, Record, TopicPartition
from paperboy.errors import BrokerError

_START_SEC: Final = 1.0
"""How long a reader that is connecting may hold up a stop."""


class KafkaReader:
    """A consumer without a group; reads committed records only."""

    def __init__(self, bootstrap_servers: str, options: Mapping[str, object]) -> None:
        self._name = bootstrap_servers
        self._options = options
        self._consumer: AIOKafkaConsumer | None = None
        self._fetched: Fetched | None = None
        self._positions: dict[TopicPartition, int] = {}

    async def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._positions = dict(offsets)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._name,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            **self._options,
        )
        with translating(f"Connecting a reader to {self._name}"):
            await _to_the_end(self._consumer.start())
            self._fetched = unpack_chunks(self._consumer)
            self._consumer.assign([KafkaTopicPartition(*partition) for partition in offsets])
            for partition, offset in offsets.items():
                self._consumer.seek(KafkaTopicPartition(*partition), offset)

    async def stop(self) -> None:
        consumer, self._consumer, self._fetched = self._consumer, None, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        return await self._fetch(unpacked, partitions, timeout_sec, max_records)

    async def fetch_changes(
        self, partitions: Collection[TopicPartition], timeout_sec: float
    ) -> dict[TopicPartition, list[Changes]]:
        chunks = await self._fetch(unpacked_changes, partitions, timeout_sec, None)
        # Of a chunk of which a fetch has taken a part, records come.
        return {at: chunk if isinstance(chunk[0], Changes) else Changes.of(chunk) for at, chunk in chunks.items()}

    def position(self, partition: TopicPartition) -> int:
        if self._consumer is None:
            raise BrokerError(f"The reader of {self._name} is not open.")
        state = self._consumer._subscription.subscription.assignment.state_value(partition)
        return int(state.position)

    async def _fetch(
        self,
        unpack: Callable[[PartitionRecords], Any],
        partitions: Collection[TopicPartition],
        timeout_sec: float,
        max_records: int | None,
    ) -> dict[TopicPartition, Any]:
        if self._consumer is None or self._fetched is None:
            raise BrokerError(f"The reader of {self._name} is not open.")
        self._fetched.unpack = unpack
        return await fetch(self._consumer, partitions, timeout_sec, max_records, self._name)


async def _to_the_end(starting: Coroutine[Any, Any, None]) -> None:
    """A client whose start is cancelled half-way leaves a connection open: it is given a moment to come through."""
    task = asyncio.create_task(starting, name="start reader")
    try:
        await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task], timeout=_START_SEC)
            task.cancel()
            await asyncio.wait([task])
