"""Whether a job has done the whole work: read from Kafka, not believed."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable

from benchmarks.workloads import PARTITIONS
from paperboy.brokers import open_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Record, TopicPartition
from paperboy.serializers.values import decode_value
from paperboy.tables.keys import decode_key


class WorkMissing(Exception):
    """What was to be done was not done, or done twice; the message is for the table."""


async def check_committed(bootstrap: str, group: str, topic: str) -> None:
    """The group has committed everything up to the topic's end."""
    broker = open_broker(bootstrap)
    await broker.start()
    try:
        partitions = _partitions(topic)
        ends, committed = await broker.end_offsets(partitions), await broker.committed(group, partitions)
    finally:
        await broker.stop()
    missing = {str(at): (committed[at], end) for at, end in ends.items() if (committed[at] or 0) != end}
    if missing:
        raise WorkMissing(f"committed, of: {missing}")


async def check_output(bootstrap: str, topic: str, expected: Counter[bytes]) -> None:
    """Each key's records are there, no more and no less, in the partition of the key."""
    found: Counter[bytes] = Counter()
    async for record in _records(bootstrap, topic):
        found[record.key] += 1
        if len(found) <= 2_000 and record.partition != partition_for_key(record.key, PARTITIONS):
            raise WorkMissing(f"key {record.key!r} is in partition {record.partition} of the output")
    _compare(found, expected, "in the output")


async def check_counts(bootstrap: str, changelog: str, decoding: str, expected: Counter[bytes]) -> None:
    """The last value of each key in the changelog is its count."""
    decode = _DECODINGS[decoding]
    found: Counter[bytes] = Counter()
    async for record in _records(bootstrap, changelog):
        entry = decode(record)
        if entry is not None:
            found[entry[0]] = entry[1]
    _compare(found, expected, "in the changelog")


def _compare(found: Counter[bytes], expected: Counter[bytes], where: str) -> None:
    if found == expected:
        return
    wrong = [key for key in expected.keys() | found.keys() if found[key] != expected[key]]
    example = min(wrong)
    raise WorkMissing(
        f"{len(wrong)} of {len(expected)} keys are wrong {where}: {example!r} has {found[example]}"
        f" instead of {expected[example]}"
    )


async def _records(bootstrap: str, topic: str) -> AsyncIterator[Record]:
    broker = open_broker(bootstrap)
    await broker.start()
    try:
        reader = broker.reader()
        partitions = _partitions(topic)
        ends = await broker.end_offsets(partitions)
        await reader.start(await broker.beginning_offsets(partitions))
        try:
            while any(reader.position(partition) < end for partition, end in ends.items()):
                for chunk in (await reader.fetch(partitions, 1.0)).values():
                    for record in chunk:
                        yield record
        finally:
            await reader.stop()
    finally:
        await broker.stop()


def _partitions(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


Entry = tuple[bytes, int]


def _paperboy(record: Record) -> Entry:
    count = decode_value(record.value)
    key = decode_key(record.key)
    assert isinstance(key, bytes)
    assert isinstance(count, int)
    return key, count


def _quix(record: Record) -> Entry | None:
    # The message's key, a "|" and the state's key.
    key, _, name = record.key.rpartition(b"|")
    return (key, json.loads(record.value)) if name == b'"count"' else None


def _faust(record: Record) -> Entry:
    return record.key, json.loads(record.value)


def _streams(record: Record) -> Entry:
    return record.key, int.from_bytes(record.value, "big")


_DECODINGS: dict[str, Callable[[Record], Entry | None]] = {
    "paperboy": _paperboy,
    "paperboy-as-python": _paperboy,
    "quix": _quix,
    "faust": _faust,
    "streams": _streams,
}
