"""Reading logs to an end: whether there still is one to come to, where nothing comes."""

import asyncio
from collections.abc import Mapping

from paperboy.brokers.protocol import Broker, Reader, TopicPartition
from paperboy.errors import BrokerError, OffsetOutOfRange, TopicNotFound
from paperboy.log import get_logger

_log = get_logger("paperboy.restore")

_SILENCE_SEC = 10.0
"""A client waits for a broker, or a partition's leader, and says nothing; nor does it of a topic that is gone."""


class Silence:
    """Listens to a reader that is to come to the ends that its partitions had.

    Args:
        ends: by partition; where the reader has come to one, no more is expected.
    """

    def __init__(self, reader: Reader, ends: Mapping[TopicPartition, int], broker: Broker) -> None:
        self._reader = reader
        self._ends = ends
        self._broker = broker
        self._now = asyncio.get_running_loop().time
        self._position = self._sum()
        self._since = self._now()

    async def listen(self) -> None:
        """To be called after each fetch: where none has brought anything for a while, the broker is asked.

        Raises:
            TopicNotFound: a topic is gone.
            OffsetOutOfRange: a log ends before the end that it had.
        """
        position = self._sum()
        if position != self._position:
            self._position, self._since = position, self._now()
        elif self._now() - self._since >= _SILENCE_SEC:
            _log.warning("nothing comes", partitions=[str(partition) for partition in self._behind()])
            await self._ask()
            self._since = self._now()

    async def _ask(self) -> None:
        behind = self._behind()
        try:
            found = await self._broker.describe_topics({partition.topic for partition in behind})
            ends = await self._broker.end_offsets([each for each in behind if each.topic in found])
        except BrokerError as error:
            _log.warning("end offsets unknown", error=str(error))
            return
        for partition in behind:
            if partition.topic not in found:
                raise TopicNotFound(f"Topic {partition.topic!r} is gone: it was deleted while it was being read.")
            if ends[partition] < self._ends[partition]:
                raise OffsetOutOfRange(
                    f"{partition} ended at offset {self._ends[partition]} when it began to be read, and ends at"
                    f" {ends[partition]} now: records were deleted from it, or it was made anew.",
                    *partition,
                    self._reader.position(partition),
                )

    def _behind(self) -> list[TopicPartition]:
        return [partition for partition, end in self._ends.items() if self._reader.position(partition) < end]

    def _sum(self) -> int:
        return sum(self._reader.position(partition) for partition in self._ends)
