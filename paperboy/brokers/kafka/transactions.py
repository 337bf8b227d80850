"""Transactions on Kafka."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.transaction import EndTxnRequest, TxnOffsetCommitRequest
from aiokafka.structs import OffsetAndMetadata

from paperboy.brokers.kafka.errors import translating
from paperboy.brokers.kafka.producer import BATCH_BYTES, Batch, Filling, hear_drains, send_batches, submit
from paperboy.brokers.protocol import Ack, Batches, Outgoing, TopicPartition
from paperboy.errors import BrokerError

MARK = "paperboy transaction "
"""What the metadata of an offset begins with that a transaction has committed; its transactional id follows."""

_ANSWER_SEC = 30.0
"""How long a commit may take. Its outcome is not known then, until the producer has begun anew."""
_CLOSE_SEC = 1.0


class KafkaTransactionalProducer:
    """See `TransactionalProducer`. Every start makes a new one of aiokafka's: after an error, the old is of no use.

    Which id has committed an offset stands in the offset's metadata: whoever takes over a partition fences that one,
    even where it would use another id itself.
    """

    def __init__(
        self, bootstrap_servers: str, transactional_id: str, timeout_sec: float, options: Mapping[str, object]
    ) -> None:
        self.transactional_id = transactional_id
        self._name = bootstrap_servers
        self._options = {
            "max_batch_size": BATCH_BYTES,
            **options,
            "transactional_id": transactional_id,
            "transaction_timeout_ms": round(timeout_sec * 1000),
        }
        self._producer: AIOKafkaProducer | None = None
        self._is_open = False

    async def start(self) -> None:
        await self.stop()
        producer = AIOKafkaProducer(bootstrap_servers=self._name, linger_ms=0, **self._options)
        _say_once(producer.client)
        hear_drains(producer)
        try:
            with _translating(f"Beginning transactions of {self.transactional_id!r} on {self._name}"):
                async with asyncio.timeout(_ANSWER_SEC):
                    await producer.start()
        except BaseException:
            await _close(producer)
            raise
        self._producer = producer

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        self._is_open = False
        if producer is not None:
            await _close(producer)

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        producer = self._started
        with _translating(f"Sending to {partition} on {self._name}"):
            await self._begin(producer)
            return await send_batches(producer, partition, records, self._name)

    def batches(self, partition: TopicPartition) -> Batches:
        return _KafkaBatches(self, self._started, partition)

    async def submit(self, partition: TopicPartition, batches: Iterable[Batch]) -> list["asyncio.Future[Ack]"]:
        """As `send`, of batches that are made."""
        producer = self._started
        with _translating(f"Sending to {partition} on {self._name}"):
            await self._begin(producer)
            return [await submit(producer, batch, partition, self._name) for batch in batches]

    async def commit(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        producer = self._started
        theirs = {
            KafkaTopicPartition(*partition): OffsetAndMetadata(offset, MARK + self.transactional_id)
            for partition, offset in offsets.items()
        }
        with _translating(f"Committing a transaction of {self.transactional_id!r} on {self._name}"):
            async with asyncio.timeout(_ANSWER_SEC):
                await self._begin(producer)
                if theirs:
                    await producer.send_offsets_to_transaction(theirs, group_id)
                await producer.commit_transaction()
                self._is_open = False

    async def abort(self) -> None:
        if self._is_open and self._producer is not None:
            self._is_open = False
            with _translating(f"Aborting a transaction of {self.transactional_id!r} on {self._name}"):
                async with asyncio.timeout(_ANSWER_SEC):
                    await self._producer.abort_transaction()

    async def _begin(self, producer: AIOKafkaProducer) -> None:
        if not self._is_open:
            await producer.begin_transaction()
            self._is_open = True

    @property
    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise BrokerError(f"The producer {self.transactional_id!r} to {self._name} is not open.")
        return self._producer


class _KafkaBatches:
    """See `Batches`."""

    def __init__(
        self, transactions: KafkaTransactionalProducer, producer: AIOKafkaProducer, partition: TopicPartition
    ) -> None:
        self._transactions = transactions
        self._partition = partition
        self._filling = Filling(producer)
        self._filled: list[Batch] = []

    def extend(self, records: Iterable[Outgoing]) -> None:
        self._filled.extend(self._filling.filled(records))

    async def send(self) -> list["asyncio.Future[Ack]"]:
        return await self._transactions.submit(self._partition, [*self._filled, *self._filling.rest()])


class _Unanswered(kafka_errors.IncompatibleBrokerVersion):  # type: ignore[misc]
    """What may not be said again was said, and not answered. aiokafka says everything again but after this error."""


def _say_once(client: AIOKafkaClient) -> None:
    """Let a transaction fail where its offsets, or its end, were sent and not answered.

    What is only late would be taken for the same of the next transaction, which has the same epoch: an end would
    commit the half of it. After a failure the producer begins anew, and the new epoch fences what is late. (Kafka's
    own clients have an epoch for each transaction, by KIP-890.)
    """
    send = client.send

    async def send_once(node_id: int, request: object, **group: object) -> object:
        try:
            return await send(node_id, request, **group)
        except kafka_errors.NodeNotReadyError:  # it was not sent
            raise
        except kafka_errors.KafkaError as error:
            if isinstance(request, EndTxnRequest | TxnOffsetCommitRequest):
                raise _Unanswered(f"{type(request).__name__} was not answered: {error!r}") from error
            raise

    client.send = send_once


@contextlib.contextmanager
def _translating(doing: str) -> Iterator[None]:
    """As `translating`; aiokafka asserts, or complains otherwise, that a transaction cannot do what is asked."""
    with translating(doing):
        try:
            yield
        except (AssertionError, kafka_errors.IllegalOperation) as error:
            raise BrokerError(f"{doing} failed: an earlier failure has ended the transaction.") from error


async def _close(producer: AIOKafkaProducer) -> None:
    """Disconnect, and wait for nothing that a broker would have to answer: batches are not delivered any more."""
    if producer._closed:
        return
    producer._closed = True
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SEC):
                await asyncio.wait([sender])
    ended = producer._txn_manager.wait_for_transaction_end()
    if ended is not None and ended.done() and not ended.cancelled():
        ended.exception()  # it was told otherwise already
    producer._message_accumulator.fail_all(kafka_errors.ProducerClosed())
    await producer.client.close()
