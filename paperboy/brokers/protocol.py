"""The narrow door to a log: what the engine asks of a broker, and nothing more.

Two brokers stand behind it: ``brokers.kafka`` (aiokafka) and ``brokers.memory`` (in process). One
contract suite, ``tests/contract``, runs against both; where they differ, the memory broker is wrong.

Where a transaction is wanted, outputs, changelog records and input offsets go through one
`TransactionalProducer`; otherwise through a `Producer` and `Consumer.commit`.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from aiokafka import ConsumerRecord

from paperboy.brokers.record import Record, new_record
from paperboy.clock import Clock

__all__ = [
    "Ack",
    "Assignment",
    "Assignor",
    "Batches",
    "Broker",
    "Consumer",
    "ConsumerRecord",
    "GivenHeaders",
    "Headers",
    "Member",
    "MembershipOptions",
    "Outgoing",
    "Producer",
    "Reader",
    "RebalanceListener",
    "Record",
    "TopicDescription",
    "TopicPartition",
    "TopicSpec",
    "TransactionalProducer",
    "Watermark",
    "new_record",
]

Headers = Sequence[tuple[str, bytes | None]]
"""Header names and values, order and duplicates kept."""

GivenHeaders = Iterable[tuple[str, bytes | str | None]]
"""Headers as somebody gives them to be sent: a str goes out in UTF-8."""

Outgoing = tuple[bytes | None, bytes | None, Headers, int]
"""A record on its way out: key, value, headers, timestamp in ms. A plain tuple, because there is one per record."""


class TopicPartition(NamedTuple):
    """One partition of a topic. Equal to, and hashed as, aiokafka's own of that name."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


RESETTING = 2**63 - 1
"""Where a group stands while it is being reset: no log has such an offset."""


class Watermark(NamedTuple):
    """The end of a partition's log as it was known at some moment."""

    end_offset: int
    """The offset the next readable record will have (the last stable one, where transactions are read committed)."""
    age_sec: float
    """How long ago the broker said so, in seconds."""


class Ack(NamedTuple):
    """The broker's word that a batch is in the log."""

    base_offset: int
    """The offset of the batch's first record; -1 where the broker knows the batch but not where it stands."""
    records: int
    """How many records the batch held; their offsets follow one another."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. ``replication_factor=None`` takes the cluster's default."""

    name: str
    partitions: int
    replication_factor: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as it is: its partition count and its effective settings, all as the broker spells them."""

    name: str
    partitions: int
    config: Mapping[str, str]
    id: str = ""
    """The broker's own id of the topic: a topic that is deleted and made anew gets another. Empty where the broker
    (Kafka before 2.8) gives none."""
    replication_factor: int | None = None
    """How many brokers have each partition; None where nobody says."""

    max_message_bytes: int = field(init=False, compare=False)
    """The largest batch it takes; Kafka's default where the broker does not say. Asked for with every send."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_message_bytes", int(self.config.get("max.message.bytes", 1_048_588)))

    @property
    def delete_retention_ms(self) -> int:
        """How long a compacted topic keeps tombstones, in ms; Kafka's default where the broker does not say."""
        return int(self.config.get("delete.retention.ms", 86_400_000))


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the group gave this consumer, until the next rebalance."""

    generation: int
    """A number of ours that grows with every assignment of this consumer."""
    partitions: tuple[TopicPartition, ...]
    """Sorted."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group, as an assignor sees it."""

    topics: frozenset[str]
    user_data: bytes


@dataclass(frozen=True, slots=True)
class MembershipOptions:
    """How a consumer takes part in its group. Times are in seconds."""

    session_timeout_sec: float = 10.0
    heartbeat_interval_sec: float = 3.0
    rebalance_timeout_sec: float = 60.0
    """How long a revoke may take before the group goes on without this member."""
    group_instance_id: str | None = None


class Assignor(Protocol):
    """Decides which member gets which partitions; handed to the broker by the engine."""

    name: str

    def user_data(self) -> bytes:
        """What this member tells the leader about itself with every join."""
        ...

    def assign(
        self, members: Mapping[str, Member], partition_counts: Mapping[str, int]
    ) -> dict[str, list[TopicPartition]]:
        """Run by the group's leader: every partition of every subscribed topic goes to exactly one member."""
        ...


class RebalanceListener(Protocol):
    """Told by a consumer what the group decided. Rebalances are eager: a revoke takes everything."""

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Before the group gives these away. Heartbeats go on while this runs, for
        `MembershipOptions.rebalance_timeout_sec` at most; commits with the current generation still pass. Not called by
        `Consumer.stop`."""
        ...

    def on_assigned(self, assignment: Assignment) -> None:
        """After a rebalance. Every partition is held (nothing is fetched) until `Consumer.release`. Must not block."""
        ...


CHANGES_AT_ONCE: Final = 5_000
"""Records that one `Changes` is made of, about."""


class Changes(NamedTuple):
    """What records come to, where each says what is under its key from now on."""

    last: dict[bytes, bytes | None]
    """The last value of each key; None: a tombstone."""
    records: int
    """How many there were."""
    keyless: list[int]
    """Offsets of those that have no key, or an empty one."""
    end: int
    """An offset behind the last record, and not behind another one."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> "list[Changes]":
        slices = (records[start : start + CHANGES_AT_ONCE] for start in range(0, len(records), CHANGES_AT_ONCE))
        return [
            cls(
                {record.key: record.value for record in part if record.key},
                len(part),
                [record.offset for record in part if not record.key],
                part[-1].offset + 1,
            )
            for part in slices
        ]


class Reader(Protocol):
    """Reads named partitions from chosen offsets, outside any group."""

    async def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Connect, and stand at these offsets."""
        ...

    async def stop(self) -> None: ...

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        """Chunks of records, in offset order, of the named partitions only; what is fetched for others is kept.

        Returns as soon as there is anything, or ``{}``: after `timeout_sec` seconds, or when a position has moved past
        what is never handed out. Keys and values are bytes or None.

        Raises:
            OffsetOutOfRange: a position is not in the log (nothing is reset silently).
            BrokerError: reading is refused.
        """
        ...

    async def fetch_changes(
        self, partitions: Collection[TopicPartition], timeout_sec: float
    ) -> dict[TopicPartition, list[Changes]]:
        """As `fetch`, but what records come to, in slices: for copies of compacted topics, and in half of the time."""
        ...

    def position(self, partition: TopicPartition) -> int:
        """The offset after the last record handed out, moved past transaction markers and compacted gaps as well."""
        ...


class Consumer(Protocol):
    """A member of a consumer group."""

    async def start(self, listener: RebalanceListener) -> None:
        """Connect and join. Returns before the first assignment."""
        ...

    async def stop(self) -> None:
        """Leave the group (a static member stays in it until its session ends) and disconnect. Commits nothing."""
        ...

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        """As `Reader.fetch`; also raises what went wrong in the background. May take longer than its time-out while a
        rebalance is under way. Not to be cancelled, but see `wake`."""
        ...

    def wake(self) -> None:
        """Let the fetch that is under way, if there is one, return now."""
        ...

    def position(self, partition: TopicPartition) -> int | None:
        """As `Reader.position`; None where the partition is not ours now, or is held."""
        ...

    def watermark(self, partition: TopicPartition) -> Watermark | None:
        """What the last fetch said about the partition's end; None where nothing was fetched yet."""
        ...

    def release(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """Begin fetching these partitions at these offsets; does nothing where `generation` is over.

        Raises:
            BrokerError: one of them is not assigned to this member.
        """
        ...

    def seek(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """Move to these offsets, dropping what was fetched ahead; does nothing where `generation` is over."""
        ...

    def owns(self, generation: int) -> bool:
        """Whether this generation's assignment is still the group's, as far as this member has heard."""
        ...

    async def confirm(self, generation: int) -> None:
        """Make sure, by the group's own word, that this generation is not over.

        `owns` knows what this member has heard; a process that has stood still for a while has heard nothing. The
        group's last word is taken for a moment (a second at most).

        Raises:
            NotOwner: the generation is over.
            BrokerError: the group does not answer.
        """
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """Commit these offsets (of the next record to handle) for the group.

        Raises:
            NotOwner: the generation is over; nothing was committed.
            BrokerError: it failed, or its outcome is not known; committing the same or later offsets again is safe.
        """
        ...

    def rejoin(self) -> None:
        """Ask the group for a rebalance. Others are disturbed only if this member leads the group, or has something new
        to say to it (topics, user data)."""
        ...


class Producer(Protocol):
    """Writes batches. Order is kept per partition; retries neither lose nor repeat a record."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Deliver what was sent, and disconnect."""
        ...

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        """Queue records as batches of at most 256 KiB (or one record) each: one future a batch, in order.

        Waits only for room in the send queue. A future fails with BrokerError; batches behind it may still arrive.
        """
        ...


class Batches(Protocol):
    """Records for one partition that are to be sent later. They are made into batches as they come: as objects they
    would take several times the memory, and the processor's cache from whatever is done meanwhile."""

    def extend(self, records: Iterable[Outgoing]) -> None: ...

    async def send(self) -> list["asyncio.Future[Ack]"]:
        """As `Producer.send`; once."""
        ...


class TransactionalProducer(Producer, Protocol):
    """A producer whose records, and input offsets with them, become visible together or not at all.

    There is one transaction at a time; the first send, or a commit, begins it. After an error only `abort`, `start` and
    `stop` make sense.
    """

    transactional_id: str

    async def start(self) -> None:
        """Begin anew, as the only producer of this id: what another one, or this one earlier, has left open is aborted,
        what it was just committing is committed, and it can do nothing more. When this returns, both are over.

        Raises:
            BrokerError: the broker refuses, or does not answer.
        """
        ...

    async def stop(self) -> None:
        """Disconnect. A transaction that is open is left to whoever starts next, or to its time-out."""
        ...

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        """As `Producer.send`, in the transaction.

        Raises:
            ProducerFenced: it is over; also raised by the futures.
        """
        ...

    def batches(self, partition: TopicPartition) -> Batches:
        """For what is to be sent in the transaction after the one that is being committed."""
        ...

    async def commit(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit the transaction, and with it these offsets for the group. All acks were awaited before. When this
        returns it is certain; readers, and those who ask for the group's offsets, see it a moment later.

        Raises:
            ProducerFenced: another producer has this id, or the transaction has timed out: nothing was committed.
            BrokerError: it failed, or its outcome is not known: after `start`, the log and the group tell.
        """
        ...

    async def abort(self) -> None:
        """Drop the transaction, if one is open.

        Raises:
            BrokerError: it could not be said to the broker, which drops it nevertheless, later.
        """
        ...


class Broker(Protocol):
    """One broker or cluster, as one engine is connected to it."""

    name: str
    """As the user wrote it, for messages: ``localhost:9092``, ``memory://flights``."""
    clock: Clock
    new_topic_partitions: int | None
    """The partition count input topics get when they do not exist; None where they are not ours to create."""

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerUnreachable: nobody answered within the connect time-out.
            AuthenticationFailed: the credentials were refused.
        """
        ...

    async def stop(self) -> None: ...

    async def describe_topics(self, names: Collection[str]) -> dict[str, TopicDescription]:
        """The topics of these names that exist. Asking creates none."""
        ...

    async def topic_names(self) -> list[str]:
        """Every topic there is, sorted."""
        ...

    async def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        """Create them, and return when they can be used; one that exists by now is left as it is."""
        ...

    async def delete_topics(self, names: Collection[str]) -> None:
        """Delete those of them that exist, and return when they are gone."""
        ...

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]: ...

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after the last readable record (read committed: the last stable offset)."""
        ...

    async def committed(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        """The group's committed offsets; None where it has none."""
        ...

    async def committed_by(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, str | None]:
        """The transactional id whose transaction has committed the group's offsets; None where none has."""
        ...

    async def reset_committed(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Let a group without members stand at these offsets.

        Raises:
            BrokerError: the group has members, which would go on where they are.
        """
        ...

    async def check_transactions(self, transactional_ids: Collection[str], timeout_sec: float) -> None:
        """Find out what a producer of one of these ids would only hear when it starts. Nobody is fenced.

        Raises:
            BrokerError: transactions may not stand open for as long as that.
            AuthenticationFailed: an id is not ours to use.
        """
        ...

    def consumer(
        self, group_id: str, topics: Collection[str], assignor: Assignor, options: MembershipOptions
    ) -> Consumer: ...

    def reader(self) -> Reader: ...

    def producer(self) -> Producer: ...

    def transactional_producer(self, transactional_id: str, timeout_sec: float) -> TransactionalProducer:
        """Transactions that are open for longer than `timeout_sec` are aborted by the broker. Its start fails where
        that is longer than the broker allows."""
        ...
