"""A test's own way to the broker, past the engine: what it sends, reads and asks there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from paperboy.brokers.memory import MemoryBroker, MemoryCluster, Operation
from paperboy.brokers.memory.batches import batches
from paperboy.brokers.protocol import (
    Broker,
    Outgoing,
    Producer,
    Record,
    TopicDescription,
    TopicPartition,
    TopicSpec,
)
from paperboy.errors import BrokerError, PaperboyError
from paperboy.testing.prefixed import Prefix, PrefixedBroker

_FETCH_TIMEOUT_SEC = 0.1


class Backdoor(Protocol):
    """See the module."""

    name: str
    """The broker's, for messages."""
    prefix: str
    """What stands before the names of topics and groups there, unseen."""

    def connect(self) -> Broker:
        """A connection to the same broker, for a worker."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Leave nothing of this test's behind."""
        ...

    def time_ms(self) -> int: ...

    def fail_next(self, operation: Operation, error: Exception | None) -> None:
        """Let the workers' next `operation` fail.

        Raises:
            PaperboyError: this broker does not fail on demand.
        """
        ...

    async def create_topics(self, topics: Sequence[TopicSpec]) -> None: ...

    async def topic(self, name: str) -> TopicDescription | None: ...

    async def append(self, partition: TopicPartition, record: Outgoing) -> int:
        """Write a record; returns its offset."""
        ...

    async def read(self, topic: TopicDescription) -> list[list[Record]]:
        """What is in each partition."""
        ...

    async def lags(self, group_id: str, topics: Sequence[TopicDescription]) -> dict[TopicPartition, int]:
        """How far the group's commits are behind, for each partition in which they are."""
        ...


class MemoryBackdoor:
    """To a cluster in this process: nothing takes time, and no fault that is laid for the workers is met."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.name = str(cluster)
        self.prefix = ""
        self._cluster = cluster

    def connect(self) -> Broker:
        broker = MemoryBroker(self._cluster)
        broker.new_topic_partitions = None  # as on a Kafka: what does not exist is not made by sending to it
        return broker

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def time_ms(self) -> int:
        return self._cluster.clock.time_ms()

    def fail_next(self, operation: Operation, error: Exception | None) -> None:
        fault = BrokerError(f"The test let the broker's next {operation!r} fail.") if error is None else error
        self._cluster.fail_next(operation, fault)

    async def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        self._cluster.create_topics(topics)

    async def topic(self, name: str) -> TopicDescription | None:
        topic = self._cluster.topics.get(name)
        return None if topic is None else TopicDescription(name, len(topic.logs), dict(topic.config))

    async def append(self, partition: TopicPartition, record: Outgoing) -> int:
        (batch,) = batches([record])
        return self._cluster.topic(partition.topic).append(partition.partition, batch, self.time_ms())

    async def read(self, topic: TopicDescription) -> list[list[Record]]:
        found: list[list[Record]] = []
        for log in self._cluster.topic(topic.name).logs:
            position, records = log.start_offset, list[Record]()
            while position < log.stable_offset:
                chunk, position = log.read(position)
                records += chunk
            found.append(records)
        return found

    async def lags(self, group_id: str, topics: Sequence[TopicDescription]) -> dict[TopicPartition, int]:
        partitions = _partitions(topics)
        logs = {partition: self._cluster.log(partition) for partition in partitions}
        begins = {partition: log.start_offset for partition, log in logs.items()}
        ends = {partition: log.stable_offset for partition, log in logs.items()}
        return _lags(self._cluster.committed(group_id, partitions), begins, ends)


class BrokerBackdoor:
    """To any broker, over a connection of its own. Topics and groups have a prefix, and are gone in the end.

    Args:
        open_broker: makes a connection.
        prefix: of this test alone.
    """

    def __init__(self, open_broker: Callable[[], Broker], prefix: str) -> None:
        self.prefix = prefix
        self._open_broker = open_broker
        self._prefix = Prefix(prefix)
        self._broker = self.connect()
        self._producer: Producer | None = None
        self._topics: dict[str, TopicDescription] = {}
        self.name = self._broker.name

    def connect(self) -> Broker:
        return PrefixedBroker(self._open_broker(), self._prefix)

    async def start(self) -> None:
        await self._broker.start()
        self._producer = self._broker.producer()
        await self._producer.start()

    async def stop(self) -> None:
        try:
            if self._producer is not None:
                await self._producer.stop()
                await self._broker.delete_topics(self._prefix.created)
        finally:
            await self._broker.stop()

    def time_ms(self) -> int:
        return self._broker.clock.time_ms()

    def fail_next(self, operation: Operation, error: Exception | None) -> None:
        raise PaperboyError(
            f"t.fail_next({operation!r}): {self.name} does not fail on demand; leave out bootstrap_servers, and the"
            " test runs on a broker that does."
        )

    async def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        await self._broker.create_topics(topics)

    async def topic(self, name: str) -> TopicDescription | None:
        if name not in self._topics:
            self._topics.update(await self._broker.describe_topics([name]))
        return self._topics.get(name)

    async def append(self, partition: TopicPartition, record: Outgoing) -> int:
        assert self._producer is not None
        (ack,) = await self._producer.send(partition, [record])
        return (await ack).base_offset

    async def read(self, topic: TopicDescription) -> list[list[Record]]:
        partitions = _partitions([topic])
        begins = await self._broker.beginning_offsets(partitions)
        ends = await self._broker.end_offsets(partitions)
        found: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}
        reader = self._broker.reader()
        await reader.start(begins)
        try:
            while left := [partition for partition in partitions if reader.position(partition) < ends[partition]]:
                for partition, records in (await reader.fetch(left, _FETCH_TIMEOUT_SEC)).items():
                    found[partition] += records
        finally:
            await reader.stop()
        return list(found.values())

    async def lags(self, group_id: str, topics: Sequence[TopicDescription]) -> dict[TopicPartition, int]:
        partitions = _partitions(topics)
        committed = await self._broker.committed(group_id, partitions)
        begins = await self._broker.beginning_offsets(partitions)
        return _lags(committed, begins, await self._broker.end_offsets(partitions))


def _partitions(topics: Sequence[TopicDescription]) -> list[TopicPartition]:
    return [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]


def _lags(
    committed: Mapping[TopicPartition, int | None],
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    stands = {at: begins[at] if (offset := committed[at]) is None else offset for at in ends}
    return {at: end - stands[at] for at, end in ends.items() if stands[at] < end}
