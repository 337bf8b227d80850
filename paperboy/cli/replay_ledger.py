"""What a group has replayed of a dead letter topic: kept in Kafka, in a compacted topic of one partition.

Letters are replayed chunk by chunk, and the entry of a chunk is written in the transaction that sends it: either all of
it is there, or nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from paperboy.brokers.protocol import Broker, TopicDescription, TopicPartition, TopicSpec
from paperboy.cli.errors import LedgerError
from paperboy.cli.extent import extents_of, records_in

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Letters of one partition of a dead letter topic that were sent together."""

    name: str
    """The key of its entry; no other chunk has it."""
    topic_id: str
    """The broker's id of the dead letter topic: in one that is made anew, the same offsets are other letters."""
    partition: int
    offsets: Sequence[int]

    @property
    def entry(self) -> tuple[bytes, bytes]:
        """Its key and value."""
        written = {
            "format": _FORMAT,
            "topic_id": self.topic_id,
            "partition": self.partition,
            "letters": spans(self.offsets),
        }
        return self.name.encode(), json.dumps(written).encode()


def chunk_of(key: bytes, value: bytes, ledger: str) -> Chunk:
    """The chunk of an entry.

    Args:
        ledger: the topic, for the error.

    Raises:
        LedgerError: it is none.
    """
    try:
        written = json.loads(value)
        if written["format"] != _FORMAT:
            raise LedgerError(
                f"The ledger {ledger!r} has an entry of format {written['format']}, which this version of paperboy does"
                " not read: upgrade it."
            )
        offsets = [offset for first, until in written["letters"] for offset in range(first, until)]
        return Chunk(key.decode(), written["topic_id"], written["partition"], offsets)
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"The ledger {ledger!r} has an entry {key!r} that no replay has written: {value!r}; delete it, and let"
            " nothing else write there."
        ) from error


def spans(offsets: Iterable[int]) -> list[list[int]]:
    """Ascending offsets as pairs: from, and up to but not with."""
    found: list[list[int]] = []
    for offset in offsets:
        if found and found[-1][1] == offset:
            found[-1][1] = offset + 1
        else:
            found.append([offset, offset + 1])
    return found


def ledger_spec(group_id: str, topic: str) -> TopicSpec:
    """The ledger of this group and this dead letter topic."""
    return TopicSpec(f"{group_id}-{topic}-replayed", 1, config={"cleanup.policy": "compact"})


@dataclass(frozen=True, slots=True)
class Ledger:
    """What it says."""

    partition: TopicPartition
    """Where it stands, if it exists yet."""
    chunks: Sequence[Chunk] = ()
    """Those of dead letter topics of this name that are gone included."""
    replayed: Mapping[int, set[int]] = field(default_factory=dict)
    """The offsets of letters that were replayed, by partition."""

    def has(self, letter: TopicPartition, offset: int) -> bool:
        """Whether this letter was replayed."""
        return offset in self.replayed.get(letter.partition, ())


async def read_ledger(broker: Broker, group_id: str, topic: TopicDescription) -> Ledger:
    """The ledger of a group about a dead letter topic.

    Raises:
        LedgerError: it holds what no replay has written.
        BrokerError: it cannot be read.
    """
    name = ledger_spec(group_id, topic.name).name
    partition = TopicPartition(name, 0)
    found = await broker.describe_topics([name])
    if name not in found:
        return Ledger(partition)
    extent = (await extents_of(broker, [found[name]]))[0]
    entries: dict[bytes, bytes] = {}
    async with aclosing(records_in(broker, extent)) as chunks_of_records:
        async for records in chunks_of_records:
            for record in records:
                key: bytes = record.key or b""
                if record.value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = record.value
    chunks = [chunk_of(key, value, name) for key, value in entries.items()]
    replayed: dict[int, set[int]] = defaultdict(set)
    for chunk in chunks:
        if chunk.topic_id == topic.id:
            replayed[chunk.partition].update(chunk.offsets)
    return Ledger(partition, chunks, replayed)
