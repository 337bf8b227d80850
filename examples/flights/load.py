"""Fills the job's input topics from the source files, as if others had produced them."""

import json
from collections.abc import Callable, Iterable, Iterator

from examples.flights import data
from examples.flights.topics import Topics
from paperboy.brokers import Broker, open_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Outgoing, Producer, TopicPartition, TopicSpec
from paperboy.errors import ConfigurationError

CHUNK = 10_000
"""How many rows are read before they are sent."""


async def load(
    bootstrap_servers: str,
    topics: Topics,
    *,
    partitions: int,
    limit: int | None = None,
    report: Callable[[int], None] = lambda flights: None,
) -> None:
    """Make the topics, and send every airline, airport and plane, and the first `limit` flights (or all).

    What the topics hold of it already is left out: a load that was stopped goes on where it was, and a second one does
    nothing.

    Args:
        report: told, now and then, how many flights are there.

    Raises:
        ConfigurationError: the topics exist, with another number of partitions or with more flights.
    """
    broker = open_broker(bootstrap_servers)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(name, partitions) for name in topics])
        for name, found in (await broker.describe_topics(topics)).items():
            if found.partitions != partitions:
                raise ConfigurationError(f"Topic {name!r} has {found.partitions} partitions, not {partitions}.")
        producer = broker.producer()
        await producer.start()
        try:
            fill = _Fill(broker, producer, partitions)
            await fill(topics.airlines, data.airlines(), "carrier")
            await fill(topics.airports, data.airports(), "faa", everywhere=True)
            await fill(topics.planes, data.planes(), "tailnum", everywhere=True)
            await fill(topics.flights, data.flights(limit), "carrier", report=report)
        finally:
            await producer.stop()
    finally:
        await broker.stop()


class _Fill:
    """Sends rows as JSON, as many at once as a broker likes."""

    def __init__(self, broker: Broker, producer: Producer, partitions: int) -> None:
        self._broker = broker
        self._producer = producer
        self._partitions = partitions

    async def __call__(
        self,
        topic: str,
        rows: Iterable[data.Row],
        key: str,
        *,
        everywhere: bool = False,
        report: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """Send rows to the partitions of their keys, or each to every partition; return when all are in the log."""
        partitions = [TopicPartition(topic, number) for number in range(self._partitions)]
        held = await self._broker.end_offsets(partitions)
        acks = []
        sent = 0
        for chunk in _chunks(rows):
            now_ms = self._broker.clock.time_ms()
            batches: dict[TopicPartition, list[Outgoing]] = {partition: [] for partition in partitions}
            for row in chunk:
                name = str(row[key]).encode()
                record = (name, json.dumps(row).encode(), (), now_ms)
                own = [partitions[partition_for_key(name, self._partitions)]]
                for partition in partitions if everywhere else own:
                    batches[partition].append(record)
            for partition, records in batches.items():
                known = min(held[partition], len(records))
                held[partition] -= known
                if len(records) > known:
                    acks += await self._producer.send(partition, records[known:])
            sent += len(chunk)
            report(sent)
        for ack in acks:
            await ack
        if any(held.values()):
            raise ConfigurationError(f"Topic {topic!r} holds more than these {sent:,} rows.")


def _chunks(rows: Iterable[data.Row]) -> Iterator[list[data.Row]]:
    chunk: list[data.Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
