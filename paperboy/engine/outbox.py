"""Records on their way out of a task."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import (
    Ack,
    Broker,
    GivenHeaders,
    Headers,
    Outgoing,
    Producer,
    TopicDescription,
    TopicPartition,
)
from paperboy.clock import Clock
from paperboy.errors import BrokerError, RecordTooLarge, SerializationError, TopicNotFound
from paperboy.tables.partition import RECORD_OVERHEAD_BYTES

FLUSH_BYTES = 256 * 1024
"""An outbox that holds this much is flushed."""

Send = tuple[str, int | None, bytes | None, bytes | None, Headers, int | None]
"""What a message sends: topic, partition, key, value, headers, timestamp in ms."""

_ATTEMPTS = 6
_BACKOFF_SEC = 0.1
_LATEST_AHEAD_MS = 3_600_000  # Kafka's message.timestamp.after.max.ms


class Topics:
    """The topics that records are sent to, as the broker described them: asked once, until they are forgotten."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: dict[str, TopicDescription] = {}
        self._forgotten: set[str] = set()
        """Those among them that are asked for again."""

    def get(self, name: str) -> TopicDescription | None:
        """The topic, if it was asked for before."""
        return None if name in self._forgotten else self._known.get(name)

    def __getitem__(self, name: str) -> TopicDescription:
        """The topic, which was asked for before, even if it was forgotten since: what was checked goes out."""
        return self._known[name]

    def forget(self, names: Iterable[str] | None = None) -> None:
        """They may have changed: ask again before the next send to one of them. None: all that are known."""
        self._forgotten.update(self._known if names is None else names)

    async def learn(self, names: Collection[str]) -> None:
        """Ask for those not known yet.

        Raises:
            TopicNotFound: one does not exist.
        """
        unknown = [name for name in names if self.get(name) is None]
        if not unknown:
            return
        described = await self._described(unknown)
        self._known.update(described)
        self._forgotten.difference_update(described)
        for name in unknown:
            if name not in described:
                raise TopicNotFound(
                    f"Topic {name!r}, to which a record was sent, does not exist on {self._broker.name}:"
                    " create it first."
                )

    async def _described(self, names: Collection[str]) -> dict[str, TopicDescription]:
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
    size = len(key or b"") + len(value or b"") + _headers_size(headers)
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


def _headers_size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(data or b"") + 10 for name, data in headers) if headers else 0


class Outbox:
    """Collects what finished messages send, by partition; written in batches.

    Args:
        max_unacked_bytes: above this, `flush` waits for acks.
    """

    def __init__(self, producer: Producer, topics: Topics, clock: Clock, max_unacked_bytes: int) -> None:
        self.bytes = 0
        """Waiting to be flushed."""
        self._producer = producer
        self._topics = topics
        self._clock = clock
        self._max_unacked_bytes = max_unacked_bytes
        self._queues: dict[tuple[str, int], list[Outgoing]] = {}
        """By topic and partition: a tuple is made, and found, quicker than a TopicPartition, which it equals."""
        self._acks: list[asyncio.Future[Ack]] = []
        self._unacked_bytes = 0
        self._keyless = 0
        self._flushing = asyncio.Lock()

    def put(self, send: Send) -> None:
        """Queue what a finished message sent; its topic is known by now."""
        name, partition, key, value, headers, timestamp_ms = send
        topic = self._topics[name]
        if partition is None:
            # Records without a key stay together until the next flush, and then move on: large batches, all partitions.
            partition = self._keyless % topic.partitions if key is None else partition_for_key(key, topic.partitions)
        if timestamp_ms is None:
            timestamp_ms = self._clock.time_ms()
        queue = self._queues.get((name, partition))
        if queue is None:
            queue = self._queues[name, partition] = []
        queue.append((key, value, headers, timestamp_ms))
        self.bytes += len(key or b"") + len(value or b"") + _headers_size(headers) + 64

    async def flush(self) -> None:
        """Hand everything to the producer; waits for room, not for acks.

        Raises:
            BrokerError: an earlier batch failed.
        """
        async with self._flushing:
            queues, size = self._queues, self.bytes
            self._queues, self.bytes = {}, 0
            self._keyless += 1
            for (name, number), records in queues.items():
                self._acks.extend(await self._producer.send(TopicPartition(name, number), records))
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
        self._queues, self.bytes = {}, 0
        self._acks.clear()
        self._unacked_bytes = 0
