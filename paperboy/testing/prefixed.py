"""A broker on which every topic and group has a prefix that its user does not see: tests that share it never meet."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from paperboy.brokers.protocol import (
    Ack,
    Assignment,
    Assignor,
    Batches,
    Broker,
    Changes,
    Consumer,
    Member,
    MembershipOptions,
    Outgoing,
    Producer,
    Reader,
    RebalanceListener,
    Record,
    TopicDescription,
    TopicPartition,
    TopicSpec,
    TransactionalProducer,
    Watermark,
)
from paperboy.errors import OffsetOutOfRange

V = TypeVar("V")


class Prefix:
    """Puts a prefix before topics' names, and takes it off. It belongs to one test.

    Args:
        prefix: letters, digits, dots, underscores and hyphens.
    """

    def __init__(self, prefix: str) -> None:
        self.created: dict[str, None] = {}
        """The topics that the test's brokers have created, without the prefix."""
        self._prefix = prefix

    def on(self, name: str) -> str:
        return self._prefix + name

    def off(self, name: str) -> str:
        return name.removeprefix(self._prefix)

    def on_partition(self, partition: TopicPartition) -> TopicPartition:
        return TopicPartition(self._prefix + partition.topic, partition.partition)

    def off_partition(self, partition: TopicPartition) -> TopicPartition:
        return TopicPartition(self.off(partition.topic), partition.partition)

    def on_keys(self, by_partition: Mapping[TopicPartition, V]) -> dict[TopicPartition, V]:
        return {self.on_partition(partition): value for partition, value in by_partition.items()}

    def off_keys(self, by_partition: Mapping[TopicPartition, V]) -> dict[TopicPartition, V]:
        return {self.off_partition(partition): value for partition, value in by_partition.items()}

    async def fetch(
        self,
        source: Consumer | Reader,
        partitions: Collection[TopicPartition],
        timeout_sec: float,
        max_records: int | None,
    ) -> dict[TopicPartition, list[Record]]:
        named = [self.on_partition(partition) for partition in partitions]
        with self._off_errors():
            chunks = await source.fetch(named, timeout_sec, max_records)
        for (topic, _), records in chunks.items():
            plain = self.off(topic)
            for record in records:
                record.topic = plain
        return self.off_keys(chunks)

    async def fetch_changes(
        self, reader: Reader, partitions: Collection[TopicPartition], timeout_sec: float
    ) -> dict[TopicPartition, list[Changes]]:
        with self._off_errors():
            chunks = await reader.fetch_changes([self.on_partition(partition) for partition in partitions], timeout_sec)
        return self.off_keys(chunks)

    @contextmanager
    def _off_errors(self) -> Iterator[None]:
        try:
            yield
        except OffsetOutOfRange as error:
            topic = self.off(error.topic)
            raise OffsetOutOfRange(str(error), topic, error.partition, error.offset) from error


class PrefixedBroker:
    """See the module. What goes wrong at the broker is told by it, with the prefix."""

    def __init__(self, broker: Broker, prefix: Prefix) -> None:
        self.name = broker.name
        self.clock = broker.clock
        self.new_topic_partitions: int | None = None
        self._broker = broker
        self._prefix = prefix

    async def start(self) -> None:
        await self._broker.start()

    async def stop(self) -> None:
        await self._broker.stop()

    async def describe_topics(self, names: Collection[str]) -> dict[str, TopicDescription]:
        found = await self._broker.describe_topics([self._prefix.on(name) for name in names])
        plain = {self._prefix.off(name): topic for name, topic in found.items()}
        return {name: replace(topic, name=name) for name, topic in plain.items()}

    async def topic_names(self) -> list[str]:
        names = await self._broker.topic_names()
        return [self._prefix.off(name) for name in names if name.startswith(self._prefix.on(""))]

    async def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        self._prefix.created.update(dict.fromkeys(spec.name for spec in topics))
        await self._broker.create_topics([replace(spec, name=self._prefix.on(spec.name)) for spec in topics])

    async def delete_topics(self, names: Collection[str]) -> None:
        await self._broker.delete_topics([self._prefix.on(name) for name in names])

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return self._prefix.off_keys(await self._broker.beginning_offsets(self._on(partitions)))

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return self._prefix.off_keys(await self._broker.end_offsets(self._on(partitions)))

    async def committed(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        return self._prefix.off_keys(await self._broker.committed(self._prefix.on(group_id), self._on(partitions)))

    async def committed_by(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, str | None]:
        found = await self._broker.committed_by(self._prefix.on(group_id), self._on(partitions))
        return {
            self._prefix.off_partition(partition): None if by is None else self._prefix.off(by)
            for partition, by in found.items()
        }

    async def reset_committed(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        await self._broker.reset_committed(self._prefix.on(group_id), self._prefix.on_keys(offsets))

    async def check_transactions(self, transactional_ids: Collection[str], timeout_sec: float) -> None:
        await self._broker.check_transactions([self._prefix.on(each) for each in transactional_ids], timeout_sec)

    def consumer(
        self, group_id: str, topics: Collection[str], assignor: Assignor, options: MembershipOptions
    ) -> Consumer:
        consumer = self._broker.consumer(
            self._prefix.on(group_id),
            [self._prefix.on(topic) for topic in topics],
            _PrefixedAssignor(assignor, self._prefix),
            options,
        )
        return _PrefixedConsumer(consumer, self._prefix)

    def reader(self) -> Reader:
        return _PrefixedReader(self._broker.reader(), self._prefix)

    def producer(self) -> Producer:
        return _PrefixedProducer(self._broker.producer(), self._prefix)

    def transactional_producer(self, transactional_id: str, timeout_sec: float) -> TransactionalProducer:
        producer = self._broker.transactional_producer(self._prefix.on(transactional_id), timeout_sec)
        return _PrefixedTransactionalProducer(transactional_id, producer, self._prefix)

    def _on(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        return [self._prefix.on_partition(partition) for partition in partitions]


class _PrefixedConsumer:
    def __init__(self, consumer: Consumer, prefix: Prefix) -> None:
        self._consumer = consumer
        self._prefix = prefix

    async def start(self, listener: RebalanceListener) -> None:
        await self._consumer.start(_PrefixedListener(listener, self._prefix))

    async def stop(self) -> None:
        await self._consumer.stop()

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        return await self._prefix.fetch(self._consumer, partitions, timeout_sec, max_records)

    def wake(self) -> None:
        self._consumer.wake()

    def position(self, partition: TopicPartition) -> int | None:
        return self._consumer.position(self._prefix.on_partition(partition))

    def watermark(self, partition: TopicPartition) -> Watermark | None:
        return self._consumer.watermark(self._prefix.on_partition(partition))

    def release(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        self._consumer.release(self._prefix.on_keys(offsets), generation)

    def seek(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        self._consumer.seek(self._prefix.on_keys(offsets), generation)

    def owns(self, generation: int) -> bool:
        return self._consumer.owns(generation)

    async def confirm(self, generation: int) -> None:
        await self._consumer.confirm(generation)

    async def commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        await self._consumer.commit(self._prefix.on_keys(offsets), generation)

    def rejoin(self) -> None:
        self._consumer.rejoin()


class _PrefixedListener:
    def __init__(self, listener: RebalanceListener, prefix: Prefix) -> None:
        self._listener = listener
        self._prefix = prefix

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        await self._listener.on_revoked([self._prefix.off_partition(partition) for partition in partitions])

    def on_assigned(self, assignment: Assignment) -> None:
        plain = tuple(self._prefix.off_partition(partition) for partition in assignment.partitions)
        self._listener.on_assigned(replace(assignment, partitions=plain))


class _PrefixedAssignor:
    def __init__(self, assignor: Assignor, prefix: Prefix) -> None:
        self.name = assignor.name
        self._assignor = assignor
        self._prefix = prefix

    def user_data(self) -> bytes:
        return self._assignor.user_data()

    def assign(
        self, members: Mapping[str, Member], partition_counts: Mapping[str, int]
    ) -> dict[str, list[TopicPartition]]:
        off = self._prefix.off
        assigned = self._assignor.assign(
            {
                name: replace(member, topics=frozenset(off(topic) for topic in member.topics))
                for name, member in members.items()
            },
            {off(topic): count for topic, count in partition_counts.items()},
        )
        return {
            name: [self._prefix.on_partition(partition) for partition in partitions]
            for name, partitions in assigned.items()
        }


class _PrefixedReader:
    def __init__(self, reader: Reader, prefix: Prefix) -> None:
        self._reader = reader
        self._prefix = prefix

    async def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._reader.start(self._prefix.on_keys(offsets))

    async def stop(self) -> None:
        await self._reader.stop()

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        return await self._prefix.fetch(self._reader, partitions, timeout_sec, max_records)

    async def fetch_changes(
        self, partitions: Collection[TopicPartition], timeout_sec: float
    ) -> dict[TopicPartition, list[Changes]]:
        return await self._prefix.fetch_changes(self._reader, partitions, timeout_sec)

    def position(self, partition: TopicPartition) -> int:
        return self._reader.position(self._prefix.on_partition(partition))


class _PrefixedProducer:
    def __init__(self, producer: Producer, prefix: Prefix) -> None:
        self._producer = producer
        self._prefix = prefix

    async def start(self) -> None:
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        return await self._producer.send(self._prefix.on_partition(partition), records)


class _PrefixedTransactionalProducer(_PrefixedProducer):
    def __init__(self, transactional_id: str, producer: TransactionalProducer, prefix: Prefix) -> None:
        super().__init__(producer, prefix)
        self.transactional_id = transactional_id
        self._transactions = producer

    async def commit(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        await self._transactions.commit(self._prefix.on(group_id), self._prefix.on_keys(offsets))

    def batches(self, partition: TopicPartition) -> Batches:
        return self._transactions.batches(self._prefix.on_partition(partition))

    async def abort(self) -> None:
        await self._transactions.abort()
