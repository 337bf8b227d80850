"""Parts of logs that are read whole, up to where they ended when they were looked at."""

from collections.abc import AsyncGenerator, Callable, Collection
from typing import NamedTuple

from paperboy.brokers.protocol import Broker, Record, TopicDescription, TopicPartition

_FETCH_TIMEOUT_SEC = 0.1


class Extent(NamedTuple):
    """Of a partition, the offsets from `begin` up to but not with `end`."""

    partition: TopicPartition
    begin: int
    end: int


async def extents_of(broker: Broker, topics: Collection[TopicDescription]) -> list[Extent]:
    """All partitions of these topics, as they are now."""
    partitions = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
    begins, ends = await broker.beginning_offsets(partitions), await broker.end_offsets(partitions)
    return [Extent(partition, begins[partition], ends[partition]) for partition in partitions]


async def records_in(
    broker: Broker, extent: Extent, passed: Callable[[int], object] = lambda offsets: None
) -> AsyncGenerator[list[Record], None]:
    """Its records, in chunks.

    Args:
        passed: told by how many offsets each chunk has come on.

    Raises:
        OffsetOutOfRange: some were deleted meanwhile.
        BrokerError: it cannot be read.
    """
    partition, position, end = extent
    if position >= end:
        return
    reader = broker.reader()
    try:
        await reader.start({partition: position})
        while position < end:
            fetched = (await reader.fetch([partition], _FETCH_TIMEOUT_SEC)).get(partition, [])
            before, position = position, min(end, reader.position(partition))
            records = [record for record in fetched if record.offset < end]
            if records:
                yield records
            passed(position - before)
    finally:
        await reader.stop()
