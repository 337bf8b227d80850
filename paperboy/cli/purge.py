"""``paperboy dlt purge``: delete dead letters that nobody needs any more.

A log is deleted from its beginning on. So of each partition those letters go that stand before the first one that is
to stay.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from paperboy.brokers.protocol import TopicDescription, TopicPartition
from paperboy.cli.administration import Administration
from paperboy.cli.dead_letters import letters_in
from paperboy.cli.extent import extents_of
from paperboy.cli.letter_filter import LetterFilter
from paperboy.cli.replay_ledger import Chunk, Ledger, read_ledger
from paperboy.cli.shown import counted


@dataclass(frozen=True, slots=True)
class Purge:
    """Everything that a purge does."""

    topic: TopicDescription
    before: Mapping[TopicPartition, int]
    """The offsets below which everything goes, of the partitions where anything does."""
    gone: Mapping[str, int]
    """How many letters go, by their groups."""
    held_up: int
    """Letters that were meant, but stand behind one that stays."""
    ledger: Ledger

    @property
    def letters(self) -> int:
        return sum(self.gone.values())


async def plan(
    group_id: str,
    topic: TopicDescription,
    meant: LetterFilter,
    broker: Administration,
    *,
    only_replayed: bool = False,
    passed: Callable[[int], object] = lambda offsets: None,
) -> Purge:
    """What there is to do. Only asks.

    Args:
        group_id: of the engine: what counts is what it has replayed.
        only_replayed: letters stay that were not.
        passed: told how many more offsets were read.
    """
    ledger = await read_ledger(broker, group_id, topic)
    before: dict[TopicPartition, int] = {}
    gone, held_up = Counter[str](), 0
    for extent in await extents_of(broker, [topic]):
        stays = False
        async with aclosing(letters_in(broker, extent, passed)) as letters:
            async for letter in letters:
                is_meant = meant.means(letter) and (not only_replayed or ledger.has(letter.at, letter.offset))
                stays = stays or not is_meant
                if not stays:
                    before[letter.at] = letter.offset + 1
                    gone[letter.failed.group if letter.failed is not None else ""] += 1
                elif is_meant:
                    held_up += 1
    return Purge(topic, before, gone, held_up, ledger)


def described(purge: Purge) -> list[str]:
    """A plan as lines for a person."""
    lines = [f"  {partition}: below offset {offset}" for partition, offset in sorted(purge.before.items())]
    lines += [
        f"  {counted(letters, 'letter')} of {f'group {group!r}' if group else 'no group that is known'}"
        for group, letters in sorted(purge.gone.items())
    ]
    if purge.held_up:
        lines.append(f"  {counted(purge.held_up, 'letter')} more stand behind letters that stay, and stay with them")
    return lines


async def carry_out(purge: Purge, broker: Administration) -> None:
    """Do it. What was noted of letters that are gone is forgotten, after they are.

    Raises:
        BrokerError: the broker refuses it.
    """
    await broker.delete_records(purge.before)
    useless = [chunk for chunk in purge.ledger.chunks if _is_gone(chunk, purge)]
    if not useless:
        return
    producer = broker.producer()
    await producer.start()
    try:
        now_ms = broker.clock.time_ms()
        tombstones = [(chunk.name.encode(), None, (), now_ms) for chunk in useless]
        await asyncio.gather(*await producer.send(purge.ledger.partition, tombstones))
    finally:
        await producer.stop()


def _is_gone(chunk: Chunk, purge: Purge) -> bool:
    """Whether no letter is left that it speaks of."""
    if chunk.topic_id != purge.topic.id:
        return True
    before = purge.before.get(TopicPartition(purge.topic.name, chunk.partition), 0)
    return max(chunk.offsets, default=-1) < before
