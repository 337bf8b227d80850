"""What a test sends to topics, and reads from them."""

import itertools
from collections.abc import Collection
from heapq import merge

from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Headers, Record, TopicDescription, TopicPartition
from paperboy.engine.outbox import check_sendable
from paperboy.errors import TopicNotFound
from paperboy.testing.backdoor import Backdoor


class Records:
    """The records of one test.

    Args:
        topics: the topics that the test has made, for messages.
    """

    def __init__(self, backdoor: Backdoor, topics: Collection[str]) -> None:
        self._backdoor = backdoor
        self._topics = topics
        self._keyless = itertools.count()

    async def topic(self, name: str) -> TopicDescription:
        """The topic of this name.

        Raises:
            TopicNotFound: there is none.
        """
        found = await self._backdoor.topic(name)
        if found is None:
            existing = ", ".join(map(repr, sorted(self._topics)))
            raise TopicNotFound(
                f"Topic {name!r} does not exist in this test, which has {existing}: correct the name, or make it with"
                f" EngineTest(engine, topics={{{name!r}: 1}})."
            )
        return found

    async def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int | None,
    ) -> tuple[int, int]:
        """Write a record; returns its partition and offset.

        Raises:
            TopicNotFound: there is no such topic.
            BrokerError: the topic does not take it.
        """
        described = await self.topic(topic)
        now_ms = self._backdoor.time_ms()
        check_sendable((topic, partition, key, value, headers, timestamp_ms), described, now_ms)
        if partition is None:
            count = described.partitions
            partition = next(self._keyless) % count if key is None else partition_for_key(key, count)
        record = (key, value, headers, now_ms if timestamp_ms is None else timestamp_ms)
        return partition, await self._backdoor.append(TopicPartition(topic, partition), record)

    async def read(self, topic: str) -> list[Record]:
        """All records of a topic, each partition's in order, those of several by their timestamps.

        Raises:
            TopicNotFound: there is no such topic.
        """
        partitions = await self._backdoor.read(await self.topic(topic))
        return list(merge(*partitions, key=lambda record: record.timestamp))
