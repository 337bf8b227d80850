"""Writing batches to Kafka."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from paperboy.brokers.kafka.errors import translated, translating
from paperboy.brokers.protocol import Ack, Outgoing, TopicPartition
from paperboy.errors import BrokerError

BATCH_BYTES = 256 * 1024

Batch = tuple[Any, int]
"""One of aiokafka's, and how many records it holds."""

_NO_HEADERS: list[tuple[str, bytes | None]] = []  # aiokafka's batch takes a list and nothing else


class KafkaProducer:
    """An idempotent producer (acks=all) of ready-made batches.

    aiokafka's own batches carry sequence numbers: once one has failed for good, the numbers behind it are void
    and its sender may be dead. So after a failure everything under way is let finish, and the next send begins
    with a new producer.
    """

    def __init__(self, bootstrap_servers: str, options: Mapping[str, object]) -> None:
        self._name = bootstrap_servers
        self._options = {"max_batch_size": BATCH_BYTES, **options}
        self._producer: AIOKafkaProducer | None = None
        self._failed = False
        self._under_way: set[asyncio.Future[Ack]] = set()
        self._renewal = asyncio.Lock()
        self._turns: defaultdict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Of those who send to a partition. All at once they would wake each other with each batch that goes out, and
        aiokafka takes all the time since the first of their waits from the time they have with each of them."""

    async def start(self) -> None:
        with translating(f"Connecting a producer to {self._name}"):
            self._producer = await self._new()

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with translating(f"Closing the producer to {self._name}"):
                await producer.stop()

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        async with self._turns[partition]:
            producer = self._producer
            if self._failed:
                producer = await self._renewed()
            if producer is None:
                raise BrokerError(f"The producer to {self._name} is not open.")
            acks = await send_batches(producer, partition, records, self._name)
        for ack in acks:
            self._under_way.add(ack)
            ack.add_done_callback(self._settled)
        return acks

    def _settled(self, ack: "asyncio.Future[Ack]") -> None:
        self._under_way.discard(ack)
        if not ack.cancelled() and ack.exception() is not None:
            self._failed = True

    async def _renewed(self) -> AIOKafkaProducer | None:
        async with self._renewal:
            if self._failed and self._producer is not None:
                with translating(f"Renewing the producer to {self._name}"):
                    if self._under_way:
                        await asyncio.wait(list(self._under_way))
                    await self._producer.stop()
                    self._producer = await self._new()
                self._failed = False
        return self._producer

    async def _new(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._name, acks="all", enable_idempotence=True, linger_ms=0, **self._options
        )
        hear_drains(producer)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer


def hear_drains(producer: AIOKafkaProducer) -> None:
    """Hear that no batch will go out any more. A sender that dies tells all who might wait for room behind a batch, and
    where nobody does, asyncio would complain that nobody has heard it."""
    accumulator = producer._message_accumulator
    append = accumulator._append_batch

    def append_heard(*arguments: object) -> Any:
        batch = append(*arguments)
        batch._drain_waiter.add_done_callback(_hear)
        return batch

    accumulator._append_batch = append_heard


def _hear(waiter: "asyncio.Future[object]") -> None:
    if not waiter.cancelled():
        waiter.exception()


class Filling:
    """Makes batches of records, each as full as it can be."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._batch: Any = None
        self._count = 0

    def filled(self, records: Iterable[Outgoing]) -> Iterator[Batch]:
        """Add records, and hand out what they have filled. To be read to its end."""
        if self._batch is None:
            self._batch = self._producer.create_batch()
        append, count = self._batch._builder.append, self._count  # what batch.append comes to, two calls further down
        for key, value, headers, timestamp_ms in records:
            listed = list(headers) if headers else _NO_HEADERS
            if append(count, timestamp_ms, key, value, listed) is None:
                yield self._batch, count
                self._batch = self._producer.create_batch()
                append, count = self._batch._builder.append, 0
                append(0, timestamp_ms, key, value, listed)
            count += 1
        self._count = count

    def rest(self) -> Iterator[Batch]:
        """The last one, which is not full, if there is one."""
        if self._count:
            yield self._batch, self._count


async def send_batches(
    producer: AIOKafkaProducer, partition: TopicPartition, records: Iterable[Outgoing], name: str
) -> list["asyncio.Future[Ack]"]:
    """Queue records as ready-made batches: see `Producer.send`.

    Args:
        name: the broker's, for messages.
    """
    filling = Filling(producer)
    batches = itertools.chain(filling.filled(records), filling.rest())
    return [await submit(producer, batch, partition, name) for batch in batches]


async def submit(
    producer: AIOKafkaProducer, of_records: Batch, partition: TopicPartition, name: str
) -> "asyncio.Future[Ack]":
    """Queue a batch."""
    batch, count = of_records
    batch._relative_offset = count
    batch.close()
    ack: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
    with translating(f"Sending to {partition} on {name}"):
        delivery = await producer.send_batch(batch, partition.topic, partition=partition.partition)

    def settle(delivery: "asyncio.Future[object]") -> None:
        if ack.done():
            return
        error = asyncio.CancelledError() if delivery.cancelled() else delivery.exception()
        if error is None:
            base_offset = getattr(delivery.result(), "offset", None)
            ack.set_result(Ack(-1 if base_offset is None else base_offset, count))
        else:
            ack.set_exception(translated(error, f"Sending {count} records to {partition} on {name}"))
            ack.exception()  # whoever dropped the future has dropped the error with it

    delivery.add_done_callback(settle)
    return ack
