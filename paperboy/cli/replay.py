"""``paperboy dlt replay``: give dead letters back to those who failed to handle them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from paperboy.brokers.protocol import Outgoing, TopicDescription, TopicPartition, TransactionalProducer
from paperboy.cli.administration import Administration
from paperboy.cli.dead_letters import Letter, Origin, letters_in
from paperboy.cli.extent import Extent, extents_of
from paperboy.cli.letter_filter import LetterFilter
from paperboy.cli.replay_ledger import Chunk, Ledger, ledger_spec, read_ledger
from paperboy.cli.replay_ways import Target, Way
from paperboy.cli.shown import counted
from paperboy.clock import random_id
from paperboy.engine.topology import transactional_ids_prefix
from paperboy.errors import BrokerError, ProducerFenced

_CHUNK_LETTERS = 500
_CHUNK_BYTES = 4 * 1024 * 1024
_TRANSACTION_SEC = 15.0
"""How long a replay that was killed may hold up those who read what it has begun to send."""
_NOBODYS = "no header says whose they are"


@dataclass(frozen=True, slots=True)
class Replay:
    """Everything that a replay does."""

    group_id: str
    topic: TopicDescription
    """Of the dead letters."""
    extents: Sequence[Extent]
    """Its partitions as they were: what fails again meanwhile is not replayed again."""
    meant: LetterFilter
    again: bool
    """Whether letters are replayed that were replayed before."""
    way: Way
    ledger: Ledger
    targets: Mapping[Origin, Target]
    """Where letters go, by whose they are; those that are not here stay."""
    sent: Mapping[tuple[str, str], int]
    """How many letters go, by topic that they go to, and class of error."""
    left: Mapping[str, int]
    """How many of those that were meant stay, by the reason."""

    @property
    def letters(self) -> int:
        return sum(self.sent.values())

    def takes(self, letter: Letter) -> bool:
        target = None if letter.origin is None else self.targets.get(letter.origin)
        return (
            target is not None
            and letter.timestamp_ms >= target.since_ms
            and self.meant.means(letter)
            and (self.again or not self.ledger.has(letter.at, letter.offset))
        )


async def plan(
    group_id: str,
    topic: TopicDescription,
    meant: LetterFilter,
    way: Way,
    broker: Administration,
    *,
    again: bool = False,
    passed: Callable[[int], object] = lambda offsets: None,
) -> Replay:
    """What there is to do. Only asks.

    Args:
        group_id: of the engine; letters of others are left where they are.
        topic: of the dead letters.
        passed: told how many more offsets of it were read.

    Raises:
        LedgerError: the ledger holds what no replay has written.
        Misuse: the letters cannot go this way.
    """
    ledger = await read_ledger(broker, group_id, topic)
    extents = await extents_of(broker, [topic])
    targets: dict[Origin, Target] = {}
    sent, left = Counter[tuple[str, str]](), Counter[str]()
    for extent in extents:
        async with aclosing(letters_in(broker, extent, passed)) as letters:
            async for letter in letters:
                if not meant.means(letter):
                    continue
                if not again and ledger.has(letter.at, letter.offset):
                    left["replayed before (--again replays them again)"] += 1
                    continue
                target = _NOBODYS if letter.origin is None else await way.target(letter.origin, broker)
                if isinstance(target, str):
                    left[target] += 1
                elif letter.timestamp_ms < target.since_ms:
                    left[f"older than what {target.partition.topic!r} keeps: they would be deleted at once"] += 1
                elif letter.origin is not None:
                    targets[letter.origin] = target
                    sent[target.partition.topic, letter.error_class] += 1
    return Replay(group_id, topic, extents, meant, again, way, ledger, targets, sent, left)


def described(replay: Replay) -> list[str]:
    """A plan as lines for a person."""
    lines = [
        f"  to {target}: {counted(letters, 'letter')}, {error_class or 'without an error'}"
        for (target, error_class), letters in sorted(replay.sent.items())
    ]
    if replay.left:
        lines.append("Left where they are:")
        lines += [f"  {counted(letters, 'letter')}: {why}" for why, letters in sorted(replay.left.items())]
    return lines


async def carry_out(
    replay: Replay, broker: Administration, report: Callable[[int], object] = lambda letters: None
) -> None:
    """Do it: in the order of the letters in each partition, chunk by chunk, each in a transaction of its own with its
    entry in the ledger.

    Args:
        report: told how many more letters are committed.

    Raises:
        ProducerFenced: somebody else has begun to replay letters of the same topic to the same group.
        BrokerError: the broker refuses something. The same replay, run again, goes on.
    """
    name = replay.topic.name
    await broker.create_topics([ledger_spec(replay.group_id, name)])
    producer = broker.transactional_producer(
        f"{transactional_ids_prefix(replay.group_id)}{name}:replay", _TRANSACTION_SEC
    )
    try:
        await producer.start()
        # Whoever has replayed before can do nothing more: from here on, the ledger is ours.
        ledger = await read_ledger(broker, replay.group_id, replay.topic)
        for extent in replay.extents:
            async with aclosing(_chunks(replace(replay, ledger=ledger), broker, extent)) as chunks:
                async for letters in chunks:
                    await _send(letters, replay, producer, broker.clock.time_ms())
                    report(len(letters))
    except ProducerFenced as error:
        raise ProducerFenced(
            f"Somebody else has begun to replay dead letters of {name!r} to group {replay.group_id!r}: wait for that to"
            " end, and run this one again if letters are left."
        ) from error
    finally:
        # What others read must not wait until an open transaction has timed out.
        with suppress(BrokerError):
            await producer.abort()
        await producer.stop()


async def _chunks(replay: Replay, broker: Administration, extent: Extent) -> AsyncGenerator[list[Letter], None]:
    """The letters that go, of one partition."""
    chunk: list[Letter] = []
    size = 0
    async with aclosing(letters_in(broker, extent)) as letters:
        async for letter in letters:
            if not replay.takes(letter):
                continue
            chunk.append(letter)
            size += len(letter.key or b"") + len(letter.value or b"")
            if len(chunk) >= _CHUNK_LETTERS or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


async def _send(letters: list[Letter], replay: Replay, producer: TransactionalProducer, now_ms: int) -> None:
    records: dict[TopicPartition, list[Outgoing]] = defaultdict(list)
    for letter in letters:
        assert letter.origin is not None
        records[replay.targets[letter.origin].partition].append(replay.way.outgoing(letter, now_ms))
    offsets = [letter.offset for letter in letters]
    chunk = Chunk(random_id(), replay.topic.id, letters[0].at.partition, offsets)
    records[replay.ledger.partition].append((*chunk.entry, (), now_ms))
    for partition, outgoing in records.items():
        await asyncio.gather(*await producer.send(partition, outgoing))
    await producer.commit(replay.group_id, {})
