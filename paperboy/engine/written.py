"""Whether tables can read what stands in their changelogs: looked at before an engine joins its group."""

import asyncio
from collections.abc import Mapping
from typing import Final

from paperboy.brokers.protocol import Broker, Record, TopicPartition
from paperboy.errors import BrokerError, ConfigurationError, DeserializationError
from paperboy.log import get_logger
from paperboy.serializers.excerpt import excerpt
from paperboy.tables.schemas import fetch_schemas
from paperboy.tables.table import Table

SAMPLED_PARTITIONS: Final = 4
"""Of each changelog."""
SAMPLED_RECORDS: Final = 100
"""Of each of these partitions, the oldest."""

_TIMEOUT_SEC = 5.0
_FETCH_TIMEOUT_SEC = 0.5

_log = get_logger("paperboy.engine")


async def check_written(broker: Broker, tables: Mapping[str, Table]) -> None:
    """Read the oldest records of changelogs, as their tables would: a sample, which finds a type or a serializer that
    was changed for one that cannot read what the one before has written. Tables in our own format are left out.

    Args:
        tables: by changelog topic, which exists.

    Raises:
        ConfigurationError: a table cannot read a record.
    """
    looked_at = {topic: table for topic, table in tables.items() if table.key_serializer or table.value_serializer}
    if not looked_at:
        return
    try:
        async with asyncio.timeout(_TIMEOUT_SEC):
            await _read(broker, looked_at)
    except (BrokerError, TimeoutError) as error:
        _log.warning("changelogs not looked into", changelogs=sorted(looked_at), error=repr(error))


async def _read(broker: Broker, tables: Mapping[str, Table]) -> None:
    described = await broker.describe_topics(tables)
    partitions = [
        TopicPartition(name, number) for name, topic in described.items() for number in range(topic.partitions)
    ]
    begins, ends = await broker.beginning_offsets(partitions), await broker.end_offsets(partitions)
    left: list[TopicPartition] = []
    for name in tables:
        held = [each for each in partitions if each.topic == name and begins[each] < ends[each]]
        left += held[:SAMPLED_PARTITIONS]
    if not left:
        return
    reader = broker.reader()
    await reader.start({partition: begins[partition] for partition in left})
    try:
        while left:
            for partition, records in (await reader.fetch(left, _FETCH_TIMEOUT_SEC, SAMPLED_RECORDS)).items():
                await fetch_schemas(tables[partition.topic], records)
                for record in records:
                    check_record(tables[partition.topic], record)
                left.remove(partition)
            left = [partition for partition in left if reader.position(partition) < ends[partition]]
    finally:
        await reader.stop()


def check_record(table: Table, record: Record) -> None:
    """Whether a table can read a record of its changelog.

    Raises:
        ConfigurationError: it cannot.
    """
    part, data = "key", record.key
    try:
        if not record.key:  # belongs to no entry
            return
        table.codec.decode_key(record.key)
        if record.value is not None:
            part, data = "value", record.value
            table.codec.decode_value(record.value)
    except DeserializationError as error:
        raise ConfigurationError(
            f"Table {table.name!r} cannot read what is in its changelog: the {part} {excerpt(data)} of"
            f" {record.topic}[{record.partition}] offset {record.offset}: {error} Let its types and serializers read"
            " what was written before (a new field needs a default), or stop all workers, and run 'paperboy reset' for"
            " this engine."
        ) from error
