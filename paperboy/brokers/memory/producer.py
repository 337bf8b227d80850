"""Writing batches."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from paperboy.brokers.memory.batches import Batch, batches
from paperboy.brokers.memory.cluster import MemoryCluster
from paperboy.brokers.memory.waiting import refuse, settle
from paperboy.brokers.protocol import Ack, Batches, Outgoing, TopicPartition
from paperboy.errors import BrokerError

_Queued = tuple[TopicPartition, Batch, "asyncio.Future[Ack]"]

_QUEUED_BATCHES = 1024
"""How many batches may wait before `send` waits: 256 MiB of full ones."""


class MemoryProducer:
    """A `Producer` to a memory cluster. What is sent arrives some turns of the loop later; a crash may lose it."""

    def __init__(self, cluster: MemoryCluster, write: "Callable[[TopicPartition, Batch], int] | None" = None) -> None:
        self._cluster = cluster
        self._append = write or self._append_plainly
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

    async def flush(self) -> None:
        """Return when what was sent is delivered, or has failed."""
        while self._delivery is not None and not self._delivery.done():
            await asyncio.wait([self._delivery])

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
        return Ack(self._append(partition, batch), len(batch[0]))

    def _append_plainly(self, partition: TopicPartition, batch: Batch) -> int:
        topic = self._cluster.topic(partition.topic)
        return topic.append(partition.partition, batch, self._cluster.clock.time_ms())


class MemoryTransactionalProducer:
    """A `TransactionalProducer` to a memory cluster."""

    def __init__(self, cluster: MemoryCluster, transactional_id: str, timeout_sec: float) -> None:
        self.transactional_id = transactional_id
        self._cluster = cluster
        self._timeout_sec = timeout_sec
        self._epoch = 0
        self._producer: MemoryProducer | None = None
        self._is_open = False

    async def start(self) -> None:
        await self.stop()
        await self._cluster.faults.meet("fence")
        epoch = self._cluster.transactions.begin_anew(self.transactional_id, self._timeout_sec)

        def write(partition: TopicPartition, batch: Batch) -> int:
            """As of this epoch: what another has fenced does not come back to life by a later start."""
            self._cluster.transactions.add_log(self.transactional_id, epoch, self._cluster.log(partition))
            topic = self._cluster.topic(partition.topic)
            return topic.append(partition.partition, batch, self._cluster.clock.time_ms(), self.transactional_id)

        self._epoch = epoch
        self._producer = MemoryProducer(self._cluster, write)
        await self._producer.start()

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        self._is_open = False
        if producer is not None:
            producer.crash()

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        acks = await self._started.send(partition, records)
        self._is_open = True
        return acks

    def batches(self, partition: TopicPartition) -> Batches:
        return _MemoryBatches(self, partition)

    async def commit(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        await self._started.flush()
        faults, transactions = self._cluster.faults, self._cluster.transactions
        if offsets:
            await faults.meet("commit")
            transactions.add_offsets(self.transactional_id, self._epoch, group_id, offsets)
            await faults.meet("commit_ack")
        await self._end(commits=True)

    async def abort(self) -> None:
        if self._is_open and self._producer is not None:
            await self._producer.flush()
            await self._end(commits=False)

    def crash(self) -> None:
        """Be gone as if the process had been killed: what is open stays open."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.crash()

    async def _end(self, *, commits: bool) -> None:
        await self._cluster.faults.meet("end_transaction")
        self._cluster.transactions.end(self.transactional_id, self._epoch, commits=commits)
        self._is_open = False
        await self._cluster.faults.meet("end_transaction_ack")

    @property
    def _started(self) -> MemoryProducer:
        if self._producer is None:
            raise BrokerError(f"The producer {self.transactional_id!r} to {self._cluster} is not open.")
        return self._producer


class _MemoryBatches:
    """See `Batches`."""

    def __init__(self, producer: MemoryTransactionalProducer, partition: TopicPartition) -> None:
        self._producer = producer
        self._partition = partition
        self._records: list[Outgoing] = []

    def extend(self, records: Iterable[Outgoing]) -> None:
        self._records.extend(records)

    async def send(self) -> list["asyncio.Future[Ack]"]:
        return await self._producer.send(self._partition, self._records)
