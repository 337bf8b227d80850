"""Dead letters for the tests of ``paperboy dlt``: put into a topic by an engine, or by hand."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from paperboy import DeadLetter, Engine, Handler, Table
from paperboy.brokers.protocol import ConsumerRecord, Headers, Outgoing, Record, TopicPartition, TopicSpec
from paperboy.cli import purge, replay
from paperboy.cli.administration import Administration, open_administration
from paperboy.cli.letter_filter import LetterFilter
from paperboy.cli.loading import Definition, definition_of
from paperboy.cli.replay import Replay
from paperboy.cli.replay_ways import ToGroup, ToOriginal, Way
from paperboy.clock import SystemClock
from paperboy.handlers.failed_record import FailedRecord, original_of
from tests.contract.engine.kit import Kit

EVERYTHING = LetterFilter()


@asynccontextmanager
async def administration(kit: Kit) -> AsyncIterator[Administration]:
    broker = open_administration(kit.bootstrap)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def write(kit: Kit, partition: TopicPartition, records: Sequence[Outgoing]) -> None:
    """Returns after the acks."""
    async with kit.broker() as broker:
        producer = broker.producer()
        await producer.start()
        try:
            for ack in await producer.send(partition, records):
                await ack
        finally:
            await producer.stop()


class Desk:
    """A topic, an engine that puts what it cannot handle with the dead letters, and the command that replays them."""

    def __init__(self, kit: Kit, topic: str, partitions: int) -> None:
        self.kit = kit
        self.topic = topic
        self.partitions = partitions
        self.dead = f"{topic}-dlt"
        self.retry = f"{kit.group}-{topic}-retry"
        self.bad: set[bytes] = {b"bad"}
        """Values that cannot be handled."""
        self.handled: list[Record] = []
        self.sent_ms = SystemClock().time_ms() - 60_000
        """The timestamp of the message at offset 0 whose letter is put there by hand: retention takes what is old."""

    def engine(self, group: str | None = None, **options: Any) -> tuple[Engine, Table]:
        amounts = Table("amounts")

        class Charge(Handler):
            topic = self.topic

            @classmethod
            async def on_message(cls, msg, ctx):
                if msg.value in self.bad:
                    raise LookupError(f"no account for {msg.value!r}")
                amounts[msg.key] = msg.value
                self.handled.append(msg)

        engine = self.kit.engine(
            Charge, **{"dead_letter": DeadLetter(), "group_id": group or self.kit.group, **options}
        )
        engine.register_table(amounts)
        return engine, amounts

    @property
    def definition(self) -> Definition:
        return definition_of(self.engine()[0])

    async def run(self, **options: Any) -> dict[bytes, bytes]:
        """Handle all there is; returns the table."""
        engine, amounts = self.engine(**options)
        async with engine:
            await engine.caught_up()
            return {entry.key: entry.value for entry in amounts.snapshot()}

    async def make_topics(self) -> None:
        """Those that the engine makes at its start."""
        async with self.kit.broker() as broker:
            await broker.create_topics(
                [
                    TopicSpec(self.dead, self.partitions, config={"retention.ms": "-1"}),
                    TopicSpec(self.retry, self.partitions),
                ]
            )

    async def put(
        self, values: Sequence[bytes], partition: int = 0, *, first: int = 0, **failed: Any
    ) -> list[Outgoing]:
        """Put letters there by hand: of messages with these values, at offsets from `first` on."""
        letters = [self.letter(value, partition, first + number, **failed) for number, value in enumerate(values)]
        await write(self.kit, TopicPartition(self.dead, partition), letters)
        return letters

    def letter(
        self, value: bytes, partition: int, offset: int, *, key: bytes = b"key", headers: Headers = (), **failed: Any
    ) -> Outgoing:
        said: dict[str, Any] = {
            "topic": self.topic,
            "partition": partition,
            "offset": offset,
            "timestamp_ms": self.sent_ms + offset,
            "group": self.kit.group,
            "handler": "Charge",
            "error_class": "LookupError",
            "error": "no account",
            "stack": "Traceback",
            "attempts": 5,
            "first_ms": 1_700_000_001_000,
            "last_ms": 1_700_000_002_000,
            **failed,
        }
        return key, value, FailedRecord(**said).headers(headers), said["timestamp_ms"]

    async def plan(
        self,
        broker: Administration,
        meant: LetterFilter = EVERYTHING,
        way: Callable[[Definition], Way] = ToGroup,
        *,
        again: bool = False,
    ) -> Replay:
        topic = (await broker.describe_topics([self.dead]))[self.dead]
        definition = self.definition
        return await replay.plan(self.kit.group, topic, meant, way(definition), broker, again=again)

    async def replay(self, meant: LetterFilter = EVERYTHING, *, again: bool = False) -> int:
        """Replay to the group. Returns how many letters went."""
        return await self._replay(meant, ToGroup, again)

    async def replay_to_original(self) -> int:
        return await self._replay(EVERYTHING, ToOriginal, False)

    async def _replay(self, meant: LetterFilter, way: Callable[[Definition], Way], again: bool) -> int:
        async with administration(self.kit) as broker:
            planned = await self.plan(broker, meant, way, again=again)
            reported: list[int] = []
            await replay.carry_out(planned, broker, reported.append)
            await self.until_visible(broker)
        assert sum(reported) == planned.letters
        return planned.letters

    async def until_visible(self, broker: Administration) -> None:
        """What was committed shows a moment later: wait for it, as the next replay would."""
        producer = broker.transactional_producer(f"{self.kit.group}:{self.dead}:replay", 15.0)
        await producer.start()
        await producer.stop()

    async def purge(self, meant: LetterFilter = EVERYTHING, *, only_replayed: bool = False) -> purge.Purge:
        async with administration(self.kit) as broker:
            topic = (await broker.describe_topics([self.dead]))[self.dead]
            planned = await purge.plan(self.kit.group, topic, meant, broker, only_replayed=only_replayed)
            await purge.carry_out(planned, broker)
        return planned

    async def replayed(self) -> list[bytes]:
        """The values that stand in the retry topic, partition by partition."""
        return [record.value for record in await self.kit.read(self.retry)]

    async def ledger(self) -> list[Record]:
        return await self.kit.read(f"{self.kit.group}-{self.dead}-replayed")


async def new_desk(kit: Kit, partitions: int = 1) -> Desk:
    return Desk(kit, await kit.topic("orders", partitions), partitions)


def same_message(one: ConsumerRecord[Any, Any], other: ConsumerRecord[Any, Any]) -> bool:
    """Whether a handler cannot tell them apart."""
    return _seen(one) == _seen(other)


def originals(records: Sequence[Record], topic: str) -> list[tuple[Any, ...]]:
    """What a handler sees of records from a retry topic."""
    return [_seen(original_of(record, topic)) for record in records]


def _seen(record: Record) -> tuple[Any, ...]:
    return (
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )
