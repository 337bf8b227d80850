"""Writing batches."""

import asyncio
from collections import deque
from collections.abc import Sequence

from paperboy.brokers.memory.batches import Batch, batches
from paperboy.brokers.memory.cluster import MemoryCluster
from paperboy.brokers.memory.waiting import refuse, settle
from paperboy.brokers.protocol import Ack, Outgoing, TopicPartition
from paperboy.errors import BrokerError

_Queued = tuple[TopicPartition, Batch, "asyncio.Future[Ack]"]

_QUEUED_BATCHES = 1024
"""How many batches may wait before `send` waits: 256 MiB of full ones."""


class MemoryProducer:
    """A `Producer` to a memory cluster. What is sent arrives some turns of the loop later; a crash may lose it."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._open = False
        self._queue: deque[_Queued] = deque()
        self._under_way: dict[asyncio.Future[Ack], None] = {}
        self._delivery: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._open = True

    async def stop(self) -> None:
        self._open = False
        if self._delivery is not None:
            await asyncio.wait([self._delivery])

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        self._cluster.log(partition)  # a topic that does not exist is found out before anything is queued
        loop = asyncio.get_running_loop()
        acks: list[asyncio.Future[Ack]] = []
        for batch in batches(records):
            if not self._open:
                raise BrokerError(f"The producer to {self._cluster} is not open.")
            ack: asyncio.Future[Ack] = loop.create_future()
            self._queue.append((partition, batch, ack))
            self._under_way[ack] = None
            acks.append(ack)
            if self._delivery is None or self._delivery.done():
                self._delivery = loop.create_task(self._deliver(), name=f"delivery to {self._cluster}")
            while len(self._queue) > _QUEUED_BATCHES:
                await asyncio.wait([self._queue[0][2]])
        return acks

    def crash(self) -> None:
        """Be gone as if the process had been killed: what was not delivered is lost."""
        self._open = False
        if self._delivery is not None:
            self._delivery.cancel()
        for ack in self._under_way:
            ack.cancel()
        self._under_way.clear()
        self._queue.clear()

    async def _deliver(self) -> None:
        faults = self._cluster.faults
        while self._queue:
            written: list[tuple[asyncio.Future[Ack], Ack | Exception]] = []
            while self._queue:
                partition, batch, ack = self._queue[0]
                answer: Ack | Exception
                try:
                    await faults.meet("produce")
                    answer = self._write(partition, batch)
                except Exception as error:  # noqa: BLE001 - whatever it is, the future tells
                    answer = error
                self._queue.popleft()
                written.append((ack, answer))
            for ack, answer in written:
                try:
                    await faults.meet("produce_ack")
                except Exception as error:  # noqa: BLE001 - as above
                    answer = error
                if isinstance(answer, Ack):
                    settle(ack, answer)
                else:
                    refuse(ack, answer)
                del self._under_way[ack]

    def _write(self, partition: TopicPartition, batch: Batch) -> Ack:
        topic = self._cluster.topic(partition.topic)
        return Ack(topic.append(partition.partition, batch, self._cluster.clock.time_ms()), len(batch[0]))
