"""The memory broker, as one engine is connected to it."""

import re
import weakref
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

from paperboy.brokers.memory.cluster import MemoryCluster, memory_cluster
from paperboy.brokers.memory.consumer import MemoryConsumer
from paperboy.brokers.memory.faults import Operation
from paperboy.brokers.memory.producer import MemoryProducer, MemoryTransactionalProducer
from paperboy.brokers.memory.reader import MemoryReader
from paperboy.brokers.memory.transactions import check_timeout
from paperboy.brokers.protocol import Assignor, MembershipOptions, TopicDescription, TopicPartition, TopicSpec
from paperboy.clock import Clock
from paperboy.errors import BrokerError, ConfigurationError

_Client = MemoryConsumer | MemoryProducer | MemoryTransactionalProducer


def open_memory_broker(url: str) -> "MemoryBroker":
    """A connection to the cluster that `url` names.

    ``memory://`` is a new cluster of its own, ``memory://flights`` the one of that name in this process, and
    ``?partitions=4`` says how many partitions input topics get that do not exist.

    Raises:
        ConfigurationError: the address is none of these.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.path or parts.fragment or not re.fullmatch(r"[\w.-]*", parts.netloc):
        raise ConfigurationError(
            f"{url!r} is no address of a memory broker: write memory:// or memory://name, with ?partitions=4 if wanted."
        )
    partitions = None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "partitions":
            raise ConfigurationError(f"{url!r} has the option {name!r}, which a memory broker does not know.")
        if not re.fullmatch(r"0*[1-9][0-9]{0,5}", value):
            raise ConfigurationError(f"{url!r} asks for {value!r} partitions: it takes a whole number from 1 on.")
        partitions = int(value)
    cluster = memory_cluster(parts.netloc, partitions or 1) if parts.netloc else MemoryCluster()
    return MemoryBroker(cluster, name=url, new_topic_partitions=partitions)


class MemoryBroker:
    """A `Broker` in this process: one client's connection to a `MemoryCluster`.

    Args:
        name: the address, for messages; None makes it of the cluster's name.
        new_topic_partitions: how many partitions input topics get that do not exist; None is the cluster's number.
    """

    def __init__(
        self, cluster: MemoryCluster, *, name: str | None = None, new_topic_partitions: int | None = None
    ) -> None:
        self.cluster = cluster
        self.name = str(cluster) if name is None else name
        self.clock: Clock = cluster.clock
        self.new_topic_partitions: int | None = new_topic_partitions or cluster.partitions
        self._open = False
        self._clients: weakref.WeakValueDictionary[int, _Client]
        self._clients = weakref.WeakValueDictionary()
        self._client_count = 0

    async def start(self) -> None:
        await self.cluster.faults.meet("start")
        self._open = True

    async def stop(self) -> None:
        self._open = False

    def crash(self) -> None:
        """For tests: be gone, with every consumer and producer, as if the process had been killed."""
        self._open = False
        for client in list(self._clients.values()):
            client.crash()

    async def describe_topics(self, names: Collection[str]) -> dict[str, TopicDescription]:
        await self._meet("describe")
        existing = [self.cluster.topics[name] for name in dict.fromkeys(names) if name in self.cluster.topics]
        return {
            topic.name: TopicDescription(
                topic.name, len(topic.logs), dict(topic.config), topic.id, topic.spec.replication_factor or 1
            )
            for topic in existing
        }

    async def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        await self._meet("create")
        self.cluster.create_topics(topics)

    async def topic_names(self) -> list[str]:
        """Every topic there is, sorted."""
        await self._meet("describe")
        return sorted(self.cluster.topics)

    async def topic_specs(self, names: Collection[str]) -> dict[str, TopicSpec]:
        """Those of these topics that exist, as they would be created again: with the settings that are their own, and
        without those that are the cluster's."""
        await self._meet("describe")
        existing = [self.cluster.topics[name] for name in dict.fromkeys(names) if name in self.cluster.topics]
        return {
            topic.name: TopicSpec(
                topic.name, len(topic.logs), topic.spec.replication_factor or 1, dict(topic.spec.config)
            )
            for topic in existing
        }

    async def delete_topics(self, names: Collection[str]) -> None:
        await self._meet("delete")
        self.cluster.delete_topics(names)

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        await self._meet("offsets")
        return {partition: self.cluster.log(partition).start_offset for partition in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        await self._meet("offsets")
        return {partition: self.cluster.log(partition).stable_offset for partition in partitions}

    async def offsets_since(self, partitions: Collection[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        """Of each partition, the offset of the first record of this time (ms since 1970, UTC) or later; its end where
        there is none."""
        await self._meet("offsets")
        return {partition: self.cluster.log(partition).offset_since(time_ms) for partition in partitions}

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below an offset of each partition, and return when they are gone.

        Raises:
            TopicNotFound: one of them does not exist.
            BrokerError: an offset lies beyond the end, or a topic is compacted and nothing else.
        """
        await self._meet("delete")
        for partition, offset in before.items():
            policy = self.cluster.topic(partition.topic).config["cleanup.policy"]
            end = self.cluster.log(partition).end_offset
            if "delete" not in policy.split(","):
                raise BrokerError(f"Records of {partition} cannot be deleted: its cleanup.policy is {policy}.")
            if not 0 <= offset <= end:
                raise BrokerError(f"Records of {partition} below {offset} cannot be deleted: it ends at {end}.")
        for partition, offset in before.items():
            self.cluster.delete_records(partition, offset)

    async def committed(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        await self._meet("committed")
        return self.cluster.committed(group_id, partitions)

    async def committed_by(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, str | None]:
        await self._meet("committed")
        return self.cluster.committed_by(group_id, partitions)

    async def reset_committed(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        await self._meet("commit")
        self.cluster.reset_committed(group_id, offsets)
        await self._meet("commit_ack")

    def consumer(
        self, group_id: str, topics: Collection[str], assignor: Assignor, options: MembershipOptions
    ) -> MemoryConsumer:
        consumer = MemoryConsumer(self.cluster, group_id, topics, assignor, options)
        self._keep(consumer)
        return consumer

    def reader(self) -> MemoryReader:
        return MemoryReader(self.cluster)

    def producer(self) -> MemoryProducer:
        producer = MemoryProducer(self.cluster)
        self._keep(producer)
        return producer

    async def check_transactions(self, transactional_ids: Collection[str], timeout_sec: float) -> None:
        check_timeout(timeout_sec)

    def transactional_producer(self, transactional_id: str, timeout_sec: float) -> MemoryTransactionalProducer:
        producer = MemoryTransactionalProducer(self.cluster, transactional_id, timeout_sec)
        self._keep(producer)
        return producer

    def _keep(self, client: _Client) -> None:
        self._client_count += 1
        self._clients[self._client_count] = client

    async def _meet(self, operation: Operation) -> None:
        if not self._open:
            raise BrokerError(f"The connection to {self.name} is not open.")
        await self.cluster.faults.meet(operation)
