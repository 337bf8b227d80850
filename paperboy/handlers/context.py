"""What travels with a message through its hooks."""

from typing import Any, NoReturn, Protocol

from paperboy.brokers.protocol import GivenHeaders, Record
from paperboy.done import DONE, Done
from paperboy.durations import Duration, seconds
from paperboy.errors import PaperboyError
from paperboy.handlers.verdict import DeadLetterIt, RetryItLater, SkipIt
from paperboy.serializers.outgoing import Serialize, to_bytes
from paperboy.serializers.protocol import SchemaNotFetched
from paperboy.topic import Topic, addressed


class Sender(Protocol):
    """What a context asks of the task it belongs to."""

    message: object | None
    """The context of the message (or bulk) that is being handled; None between messages."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: GivenHeaders,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> None: ...

    def send_late(
        self,
        topic: str,
        value: bytes | SchemaNotFetched | None,
        key: bytes | SchemaNotFetched | None,
        headers: GivenHeaders,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> None:
        """The same, where bytes have to be waited for: when the message has finished."""
        ...


class BulkPart:
    """Stands for one message among those of a bulk, which share a context: what it leaves running is told by it."""

    __slots__ = ("record", "unit")

    def __init__(self, unit: Any, record: Record) -> None:
        self.unit = unit
        self.record = record


class Context(dict[str, Any]):
    """A dictionary for the hooks of one message (or bulk) to share, first filled by ``define_context``.

    It also says where the message came from (`topic`, `partition`, `offset`), and sends.
    """

    __slots__ = ("part", "record", "unit")

    unit: Any
    """The task's unit that it belongs to. For the engine, as is `record`: set right after construction, which saves a
    call per message."""
    record: Record
    part: BulkPart | None
    """The message of a bulk that is in hand; None outside bulks, and for the hooks of a whole bulk."""

    @property
    def topic(self) -> str:
        topic: str = self.record.topic
        return topic

    @property
    def partition(self) -> int:
        partition: int = self.record.partition
        return partition

    @property
    def offset(self) -> int:
        """The offset of the message; in a bulk, of the one being handled, or of the first."""
        offset: int = self.record.offset
        return offset

    @property
    def attempt(self) -> int:
        """1 when the message is handled for the first time, 2 when it failed once and is handled again, and so on."""
        attempt: int = self.unit.attempt_of(self.record)
        return attempt

    def dead_letter(self, reason: str) -> NoReturn:
        """End here, take back what the message has written and sent, and put it with the dead letters.

        In hooks that get a list, it is about the whole of it: to name one message, raise `BulkError`.

        Args:
            reason: for whoever reads the dead letter.
        """
        raise DeadLetterIt(reason)

    def retry_later(self, delay: Duration, reason: str = "retry_later") -> NoReturn:
        """End here, take back what the message has written and sent, and handle it again after `delay`.

        It may be done as often as one likes: `attempt` says how often it was. Where the handler's retries go through
        topics, the message goes into one that waits at least as long; else its partition waits behind it (with
        ``concurrency``: its key).

        Args:
            delay: as in "10s", or seconds.
        """
        raise RetryItLater(seconds(delay), reason)

    def skip(self, reason: str) -> NoReturn:
        """End here, take back what the message has written and sent, and pass over it. It is logged and counted."""
        raise SkipIt(reason)

    def send(
        self,
        topic: str | Topic,
        value: Any,
        *,
        key: Any = None,
        headers: GivenHeaders = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
        serializer: Serialize | None = None,
        key_serializer: Serialize | None = None,
    ) -> Done:
        """Send a record when this message has finished; if it fails, nothing is sent.

        Accepted when called, with or without ``await``; written with the task's next flush, and acknowledged before
        the message's offset is committed.

        Args:
            topic: an existing topic: its name, or a `Topic`, which brings its serializers.
            value: bytes, or None for a tombstone; anything else needs `serializer`.
            key: bytes or None, or anything with `key_serializer`. Without `partition` it chooses the partition, as
                Java's default partitioner does.
            headers: pairs of name, and bytes or str (which goes out in UTF-8); order and duplicates are kept.
            partition: which partition, instead of the key's.
            timestamp_ms: milliseconds since 1970; now, if not given.
            serializer: makes bytes of the value: an object as `Avro` or `Json`, or a callable, as in
                ``serializer=str.encode``.
            key_serializer: makes bytes of the key.

        Raises:
            SerializationError: the key or the value is not bytes, and no serializer makes it so; or a header is none.
            PaperboyError: the message this context belongs to has ended.
        """
        if type(topic) is not str:
            topic, serializer, key_serializer = addressed(topic, serializer, key_serializer)
        if self.unit.message is not (self if self.part is None else self.part):
            raise PaperboyError(
                f"ctx.send to {topic!r} came after its message ({self.topic}[{self.partition}] offset {self.offset})"
                " had ended: await what a hook starts before the hook returns, or use engine.send."
            )
        if serializer is not None or key_serializer is not None:
            if serializer is not None:
                value = to_bytes(serializer, value, part="value", topic=topic)
            if key_serializer is not None:
                key = to_bytes(key_serializer, key, part="key", topic=topic)
            if isinstance(value, SchemaNotFetched) or isinstance(key, SchemaNotFetched):
                self.unit.send_late(topic, value, key, headers, partition, timestamp_ms)
                return DONE
        self.unit.send(topic, value, key, headers, partition, timestamp_ms)
        return DONE
