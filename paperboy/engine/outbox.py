"""Records on their way out of a task."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import (
    Ack,
    Batches,
    Broker,
    GivenHeaders,
    Headers,
    Outgoing,
    Producer,
    TopicDescription,
    TopicPartition,
    TransactionalProducer,
)
from paperboy.clock import Clock
from paperboy.errors import BrokerError, RecordTooLarge, SerializationError, TopicNotFound
from paperboy.tables.partition import RECORD_OVERHEAD_BYTES

FLUSH_BYTES = 256 * 1024
"""An outbox that holds this much is flushed."""

Send = tuple[str, Any, bytes | None, bytes | None, Headers, Any]
"""What a message sends: topic, partition, key, value, headers, timestamp in ms. Partition and timestamp are as
given until `check_sendable` has seen them."""

_OVERHEAD_BYTES = 64  # of a record that waits, beside its key, value and headers
_ATTEMPTS = 6
_BACKOFF_SEC = 0.1
_LATEST_AHEAD_MS = 3_600_000  # Kafka's message.timestamp.after.max.ms


class Topics:
    """The topics that records are sent to, as the broker described them: asked once, until they are forgotten."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: dict[str, TopicDescription] = {}
        self._described: dict[str, TopicDescription] = {}
        """The same, and what was forgotten."""
        self.get = self._known.get
        """The topic, if it was asked for before; else None."""

    def __getitem__(self, name: str) -> TopicDescription:
        """The topic, which was asked for before, even if it was forgotten since: what was checked goes out."""
        return self._described[name]

    def forget(self, names: Iterable[str] | None = None) -> None:
        """They may have changed: ask again before the next send to one of them. None: all that are known."""
        for name in list(self._known) if names is None else names:
            self._known.pop(name, None)

    async def learn(self, names: Collection[str]) -> None:
        """Ask for those not known yet.

        Raises:
            TopicNotFound: one does not exist.
        """
        unknown = [name for name in names if self.get(name) is None]
        if not unknown:
            return
        described = await self._ask_for(unknown)
        self._known.update(described)
        self._described.update(described)
        for name in unknown:
            if name not in described:
                raise TopicNotFound(
                    f"Topic {name!r}, to which a record was sent, does not exist on {self._broker.name}:"
                    " create it first."
                )

    async def _ask_for(self, names: Collection[str]) -> dict[str, TopicDescription]:
        """A broker that is away for a moment is no fault of the message that wants to know: it is asked again."""
        for attempt in range(_ATTEMPTS - 1):
            try:
                return await self._broker.describe_topics(names)
            except BrokerError:
                await asyncio.sleep(_BACKOFF_SEC * 2**attempt)
        return await self._broker.describe_topics(names)


def check_sendable(send: Send, topic: TopicDescription, now_ms: int) -> None:
    """Raise what the broker would refuse later, when the record could not be told from its batch any more.

    Raises:
        RecordTooLarge: it is larger than the topic takes.
        BrokerError: the partition does not exist, the key is missing, or the timestamp is one the topic does not take.
    """
    name, partition, key, value, headers, timestamp_ms = send
    if partition is not None and not 0 <= partition < topic.partitions:
        raise BrokerError(f"Topic {name!r} has no partition {partition}: it has {topic.partitions}.")
    if key is None and "compact" in topic.config.get("cleanup.policy", ""):
        raise BrokerError(f"A record for topic {name!r} has no key, and the topic is compacted: give it one.")
    size = _size(key, value, headers)
    limit = topic.max_message_bytes - RECORD_OVERHEAD_BYTES
    if size > limit:
        raise RecordTooLarge(
            f"A record of {size} bytes for topic {name!r} is larger than the {limit} it takes:"
            " send less, or raise the topic's max.message.bytes."
        )
    if timestamp_ms is not None:
        latest = now_ms + int(topic.config.get("message.timestamp.after.max.ms", _LATEST_AHEAD_MS))
        earliest = max(0, now_ms - int(topic.config.get("message.timestamp.before.max.ms", now_ms)))
        if type(timestamp_ms) is not int or not earliest <= timestamp_ms <= latest:
            raise BrokerError(
                f"A record for topic {name!r} has timestamp {timestamp_ms!r}: it must be a whole number of"
                f" milliseconds, and the topic takes {earliest} to {latest} now."
            )


def check_bytes(topic: str, key: object, value: object) -> None:
    """Only bytes go out.

    Raises:
        SerializationError: the key or the value is something else.
    """
    if type(value) is bytes and (key is None or type(key) is bytes):
        return
    for part, data, remedy in (("key", key, "key_serializer"), ("value", value, "serializer")):
        if data is not None and type(data) is not bytes:
            raise SerializationError(
                f"The {part} sent to topic {topic!r} is {type(data).__name__}, not bytes or None: encode it, or give"
                f" {remedy}=…"
            )


def checked_headers(topic: str, headers: GivenHeaders) -> Headers:
    """The headers as they go out; they may come from an iterator. A header without a value, as other clients write
    them, is one.

    Raises:
        SerializationError: one is not a pair of a str, and bytes or a str.
    """
    if headers == ():
        return ()
    pairs: tuple[Any, ...]
    try:
        pairs = tuple(headers)
    except TypeError:
        pairs = (headers,)
    for pair in pairs:
        if not _is_header(pair):
            raise SerializationError(
                f"A header sent to topic {topic!r} is {pair!r}, not a pair of a str, and bytes or a str."
            )
    return tuple((name, data.encode() if type(data) is str else data) for name, data in pairs)


def _is_header(pair: Any) -> bool:
    if type(pair) is str:  # a key of a dict, which may have two letters
        return False
    try:
        name, data = pair
        name.encode()
        if type(data) is str:
            data.encode()
    except (TypeError, ValueError, AttributeError):
        return False
    return type(name) is str and (data is None or type(data) in (bytes, str))


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    return (len(key) if key else 0) + (len(value) if value else 0) + _headers_size(headers)


def _headers_size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(data or b"") + 10 for name, data in headers)


class Outbox:
    """Collects what finished messages send, by partition; written in batches.

    Args:
        max_unacked_bytes: above this, `flush` waits for acks.
    """

    def __init__(self, producer: Producer, topics: Topics, clock: Clock, max_unacked_bytes: int) -> None:
        self._producer = producer
        self._topics = topics
        self._clock = clock
        self._max_unacked_bytes = max_unacked_bytes
        self._accepted: list[Send] = []
        """What was put here and is in no queue yet."""
        self._queues: dict[str, defaultdict[int, list[Outgoing]]] = {}
        """By topic and partition."""
        self._batches: dict[TopicPartition, Batches] = {}
        """What is packed; it goes before what is in the queues."""
        self._bytes = 0
        self._acks: list[asyncio.Future[Ack]] = []
        self._unacked_bytes = 0
        self._keyless = 0
        self._flushing = asyncio.Lock()

    @property
    def bytes(self) -> int:
        """Waiting to be flushed."""
        self._sort()
        return self._bytes

    def put(self, sends: Iterable[Send]) -> None:
        """Take what finished messages sent; its topics are known by now."""
        self._accepted.extend(sends)

    def _sort(self) -> None:
        """Into queues: all that messages have sent since the last look, which is quicker than one by one."""
        if not self._accepted:
            return
        accepted, self._accepted = self._accepted, []
        now_ms = self._clock.time_ms()
        size = _OVERHEAD_BYTES * len(accepted)
        topic, partitions = None, 0
        queues: dict[int, list[Outgoing]] = {}
        by_key: dict[bytes, list[Outgoing]] = {}
        for name, partition, key, value, headers, timestamp_ms in accepted:
            if name != topic:
                topic, partitions = name, self._topics[name].partitions
                queues = self._queues.setdefault(name, defaultdict(list))
                by_key = {}
            if partition is not None:
                queue = queues[partition]
            elif key is None:
                # They stay together until the next flush, then move on: large batches, all partitions.
                queue = queues[self._keyless % partitions]
            elif (found := by_key.get(key)) is not None:
                queue = found
            else:
                queue = by_key[key] = queues[partition_for_key(key, partitions)]
            queue.append((key, value, headers, now_ms if timestamp_ms is None else timestamp_ms))
            size += (len(key) if key else 0) + (len(value) if value else 0)
            if headers:
                size += _headers_size(headers)
        self._bytes += size

    def pack(self, producer: TransactionalProducer) -> None:
        """Make batches of what waits, and has to go on waiting: the next flush sends them."""
        self._sort()
        queues, self._queues = self._queues, {}
        for name, of_topic in queues.items():
            for number, records in of_topic.items():
                partition = TopicPartition(name, number)
                batches = self._batches.get(partition)
                if batches is None:
                    batches = self._batches[partition] = producer.batches(partition)
                batches.extend(records)

    async def flush(self) -> None:
        """Hand everything to the producer; waits for room, not for acks.

        Raises:
            BrokerError: an earlier batch failed.
        """
        async with self._flushing:
            self._sort()
            queues, size = self._queues, self._bytes
            self._queues, self._bytes = {}, 0
            self._keyless += 1
            batches, self._batches = self._batches, {}
            for name, of_topic in queues.items():
                for number, records in of_topic.items():
                    partition = TopicPartition(name, number)
                    if (before := batches.get(partition)) is None:
                        self._acks.extend(await self._producer.send(partition, records))
                    else:
                        before.extend(records)
            for of_partition in batches.values():
                self._acks.extend(await of_partition.send())
            self._unacked_bytes += size
            if self._unacked_bytes > self._max_unacked_bytes:
                await asyncio.wait(self._acks)
            for ack in self._acks:
                if ack.done():
                    ack.result()
            self._acks = [ack for ack in self._acks if not ack.done()]
            if not self._acks:
                self._unacked_bytes = 0

    def take_acks(self) -> list["asyncio.Future[Ack]"]:
        """What was flushed and is not known to be in the log: a checkpoint waits for these."""
        acks, self._acks = self._acks, []
        self._unacked_bytes = 0
        return acks

    def discard(self) -> None:
        """Forget what waits; what was flushed may be in the log."""
        self._accepted.clear()
        self._queues, self._batches, self._bytes = {}, {}, 0
        self._acks.clear()
        self._unacked_bytes = 0
