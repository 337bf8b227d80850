"""Both brokers behind one fixture, and what the broker contract needs to speak of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from paperboy.brokers.kafka import KafkaBroker
from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.protocol import (
    Ack,
    Assignment,
    Broker,
    Consumer,
    Member,
    MembershipOptions,
    Outgoing,
    Producer,
    Reader,
    Record,
    TopicPartition,
    TopicSpec,
)
from paperboy.clock import random_id

OpenBroker = Callable[[], Broker]
"""Makes one more connection, not started yet, to the broker under test."""

PATIENCE_SEC = 30.0
"""How long a test waits for what has to happen."""

OPTIONS = MembershipOptions(session_timeout_sec=6.0, heartbeat_interval_sec=0.1, rebalance_timeout_sec=20.0)


@pytest.fixture(params=["memory", "kafka"])
def broker(request: pytest.FixtureRequest) -> OpenBroker:
    if request.param == "memory":
        cluster = MemoryCluster()
        return lambda: MemoryBroker(cluster)
    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    return lambda: KafkaBroker(bootstrap)


@asynccontextmanager
async def connected(open_broker: OpenBroker) -> AsyncIterator[Broker]:
    connection = open_broker()
    await connection.start()
    try:
        yield connection
    finally:
        await connection.stop()


def unique(what: str) -> str:
    """A name that no other test uses, on a broker that many share."""
    return f"{what}-{random_id()[:12]}"


async def new_topic(connection: Broker, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
    name = unique("topic")
    await connection.create_topics([TopicSpec(name, partitions, config=config or {})])
    return name


async def new_partition(connection: Broker, config: Mapping[str, str] | None = None) -> TopicPartition:
    """The only partition of a new topic."""
    return TopicPartition(await new_topic(connection, config=config), 0)


async def truncate(connection: Broker, partition: TopicPartition, before: int) -> None:
    """Delete the records below an offset, as retention would."""
    if isinstance(connection, MemoryBroker):
        connection.cluster.delete_records(partition, before)
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.name)
    await admin.start()
    try:
        await admin.delete_records({KafkaTopicPartition(*partition): RecordsToDelete(before)})
    finally:
        await admin.close()


@asynccontextmanager
async def producing(connection: Broker) -> AsyncIterator[Producer]:
    producer = connection.producer()
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def write(connection: Broker, partition: TopicPartition, *values: bytes) -> None:
    """Append records with these values, and be sure of it."""
    now = connection.clock.time_ms()
    await write_records(connection, partition, [(None, value, (), now) for value in values])


async def write_records(connection: Broker, partition: TopicPartition, records: Sequence[Outgoing]) -> list[Ack]:
    async with producing(connection) as producer:
        return list(await asyncio.gather(*await producer.send(partition, records)))


@asynccontextmanager
async def reading(connection: Broker, offsets: Mapping[TopicPartition, int]) -> AsyncIterator[Reader]:
    reader = connection.reader()
    await reader.start(offsets)
    try:
        yield reader
    finally:
        await reader.stop()


async def read(source: Reader | Consumer, partition: TopicPartition, count: int) -> list[Record]:
    """The next `count` records, or more where they come in one chunk."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_SEC):
        while len(records) < count:
            chunks = await source.fetch([partition], 1.0)
            records += chunks.get(partition, [])
    return records


async def read_all(connection: Broker, partition: TopicPartition) -> list[Record]:
    """Everything that is in the partition now."""
    begin = (await connection.beginning_offsets([partition]))[partition]
    end = (await connection.end_offsets([partition]))[partition]
    async with reading(connection, {partition: begin}) as reader:
        return await read(reader, partition, end - begin)


class InTurn:
    """An assignor that deals partitions out like cards, members sorted by what they say of themselves."""

    name = "in-turn"

    def __init__(self, user_data: bytes = b"") -> None:
        self.seen: list[dict[str, Member]] = []
        """The members of every assignment that this one made."""
        self.about_me = user_data

    def user_data(self) -> bytes:
        return self.about_me

    def assign(
        self, members: Mapping[str, Member], partition_counts: Mapping[str, int]
    ) -> dict[str, list[TopicPartition]]:
        self.seen.append(dict(members))
        order = sorted(members, key=lambda member_id: (members[member_id].user_data, member_id))
        assigned: dict[str, list[TopicPartition]] = {member_id: [] for member_id in order}
        cards = [TopicPartition(topic, n) for topic, count in sorted(partition_counts.items()) for n in range(count)]
        for turn, card in enumerate(cards):
            assigned[order[turn % len(order)]].append(card)
        return assigned


class GroupMember:
    """A consumer and its listener, which writes down what it is told."""

    patience_sec = PATIENCE_SEC

    def __init__(self, consumer: Consumer, assignor: InTurn) -> None:
        self.consumer = consumer
        self.assignor = assignor
        self.told: list[str] = []
        """"revoked" and "assigned", in the order they came."""
        self.revoked: list[tuple[TopicPartition, ...]] = []
        self.assignments: list[Assignment] = []
        self.while_revoked: Callable[[], Awaitable[object]] | None = None
        """Awaited in `on_revoked`."""
        self._news = asyncio.Event()

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append("revoked")
        self.revoked.append(tuple(partitions))
        self._news.set()
        if self.while_revoked is not None:
            await self.while_revoked()

    def on_assigned(self, assignment: Assignment) -> None:
        self.told.append("assigned")
        self.assignments.append(assignment)
        self._news.set()

    @property
    def generation(self) -> int:
        return self.assignments[-1].generation

    @property
    def partitions(self) -> tuple[TopicPartition, ...]:
        """What it was assigned last."""
        return self.assignments[-1].partitions if self.assignments else ()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that it is told."""
        async with asyncio.timeout(self.patience_sec):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_assigned(self, count: int) -> None:
        """Wait until it has as many partitions."""
        await self.until(lambda: bool(self.assignments) and len(self.partitions) == count)

    def release(self, offset: int = 0) -> None:
        self.consumer.release(dict.fromkeys(self.partitions, offset), self.generation)


@asynccontextmanager
async def member(
    connection: Broker,
    group_id: str,
    *topics: str,
    user_data: bytes = b"",
    options: MembershipOptions = OPTIONS,
) -> AsyncIterator[GroupMember]:
    assignor = InTurn(user_data)
    joined = GroupMember(connection.consumer(group_id, topics, assignor, options), assignor)
    await joined.consumer.start(joined)
    try:
        yield joined
    finally:
        await joined.consumer.stop()
