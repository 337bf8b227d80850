"""What the engine's tests do beside the engine: make topics, send to them, read them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from paperboy import Engine
from paperboy.brokers import open_broker
from paperboy.brokers.memory import memory_cluster
from paperboy.brokers.protocol import Broker, Record, TopicPartition, TopicSpec
from paperboy.serializers.values import encode_value
from paperboy.tables.keys import Key, encode_key


class Kit:
    """On the broker at `bootstrap`; topic and group names end in `unique`."""

    def __init__(self, bootstrap: str, unique: str) -> None:
        self.bootstrap = bootstrap
        self.unique = unique
        self.group = f"group-{unique}"

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[Broker]:
        broker = open_broker(self.bootstrap)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()

    async def topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """A new topic; config names have underscores for dots."""
        name = f"{name}-{self.unique}"
        settings = {setting.replace("_", "."): value for setting, value in config.items()}
        async with self.broker() as broker:
            await broker.create_topics([TopicSpec(name, partitions, None, settings)])
        return name

    async def send(
        self,
        topic: str,
        records: Sequence[tuple[bytes | None, bytes | None]],
        partition: int = 0,
        timestamps: Sequence[int] | None = None,
    ) -> None:
        """Send keys and values to one partition; returns after the acks."""
        async with self.broker() as broker:
            producer = broker.producer()
            await producer.start()
            try:
                times = timestamps or [broker.clock.time_ms()] * len(records)
                outgoing = [(key, value, (), time) for (key, value), time in zip(records, times, strict=True)]
                for ack in await producer.send(TopicPartition(topic, partition), outgoing):
                    await ack
            finally:
                await producer.stop()

    async def send_values(self, topic: str, *values: bytes, partition: int = 0) -> None:
        await self.send(topic, [(None, value) for value in values], partition)

    async def changelog(self, table: str, partitions: int, **config: str) -> str:
        """The changelog of a table of this test's group, made before its engine is."""
        name = f"{self.group}-{table}-changelog"
        settings = {setting.replace("_", "."): value for setting, value in config.items()}
        async with self.broker() as broker:
            await broker.create_topics([TopicSpec(name, partitions, None, {"cleanup.policy": "compact", **settings})])
        return name

    async def delete_records(self, partition: TopicPartition, before: int) -> None:
        """Drop a log's records below an offset."""
        if self.bootstrap.startswith("memory:"):
            memory_cluster(self.unique).delete_records(partition, before)
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            # Kafka deletes records of no topic that is compacted, and only compacted.
            for policy in ("delete", "compact"):
                config = {"cleanup.policy": policy}
                await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, partition.topic, configs=config)])
                if policy == "delete":
                    await admin.delete_records({KafkaTopicPartition(*partition): RecordsToDelete(before)})
        finally:
            await admin.close()

    async def compacted(self, topic: str, fewer_than: int) -> None:
        """Return when the log cleaner has left fewer records than that."""
        if self.bootstrap.startswith("memory:"):
            memory_cluster(self.unique).compact(topic)
        roll = b"\x01\x50roll"
        while sum(record.key != roll for record in await self.read(topic)) >= fewer_than:
            # A segment is only rolled, and then cleaned, when something is written to it.
            await self.send(topic, [(roll, None)])

    async def read(self, topic: str) -> list[Record]:
        """Everything in a topic, partition by partition."""
        async with self.broker() as broker:
            count = (await broker.describe_topics([topic]))[topic].partitions
            partitions = [TopicPartition(topic, number) for number in range(count)]
            begins, ends = await broker.beginning_offsets(partitions), await broker.end_offsets(partitions)
            found: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}
            reader = broker.reader()
            await reader.start(begins)
            try:
                left = [partition for partition in partitions if begins[partition] < ends[partition]]
                while left:
                    for partition, records in (await reader.fetch(left, 1.0)).items():
                        found[partition].extend(records)
                    left = [partition for partition in left if reader.position(partition) < ends[partition]]
            finally:
                await reader.stop()
        return [record for records in found.values() for record in records]

    async def committed(self, topic: str, partition: int = 0) -> int | None:
        where = TopicPartition(topic, partition)
        async with self.broker() as broker:
            return (await broker.committed(self.group, [where]))[where]

    def engine(self, *handlers: Any, **options: Any) -> Engine:
        """An engine of this test's group that makes no one wait."""
        given: Mapping[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "group_id": self.group,
            "commit_interval_sec": 0.2,
            "session_timeout_sec": 6,
            "heartbeat_interval_sec": 1,
            **options,
        }
        return Engine(*handlers, **given)


def entry(key: Key, value: object) -> tuple[bytes, bytes]:
    """A table's entry as it stands in its changelog."""
    return encode_key(key), encode_value(value)


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The fields of each log line of this event."""
    return [record.__dict__["paperboy"] for record in caplog.records if record.getMessage().startswith(event)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own time limit ends it where it never does."""
    while not condition():  # noqa: ASYNC110 - what the engine under test does sets no event
        await asyncio.sleep(0.005)
