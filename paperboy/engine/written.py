"""Whether tables can read what stands in their changelogs: looked at before an engine joins its group."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from paperboy.brokers.protocol import Broker, Record, TopicDescription, TopicPartition
from paperboy.errors import BrokerError, ConfigurationError, DeserializationError
from paperboy.log import get_logger
from paperboy.serializers.excerpt import excerpt
from paperboy.tables.schemas import fetch_schemas
from paperboy.tables.table import Table

SAMPLED_PARTITIONS: Final = 4
"""Of each changelog."""
SAMPLED_RECORDS: Final = 100
"""Of each of these partitions, the newest, and the oldest."""

_TIMEOUT_SEC = 5.0
_FETCH_TIMEOUT_SEC = 0.5

_log = get_logger("paperboy.engine")


async def check_written(
    broker: Broker, tables: Mapping[str, Table], changelogs: Mapping[str, TopicDescription]
) -> None:
    """Read the newest and the oldest records of changelogs, as their tables would: a sample, which finds a type or a
    serializer that was changed for one that cannot read what the one before has written. Tables in our own format are
    left out.

    What was written over, or deleted, need not be readable, compacted away or not. Of an old record that may have been
    written over beyond the sample, the log says so, and the start goes on.

    Args:
        tables: by changelog topic.
        changelogs: those topics, as they are, by their names.

    Raises:
        ConfigurationError: a table cannot read what is the last of its key.
    """
    looked_at = {topic: table for topic, table in tables.items() if table.key_serializer or table.value_serializer}
    if not looked_at:
        return
    try:
        async with asyncio.timeout(_TIMEOUT_SEC):
            await _read(broker, looked_at, changelogs)
    except (BrokerError, TimeoutError) as error:
        _log.warning("changelogs not looked into", changelogs=sorted(looked_at), error=repr(error))


async def _read(broker: Broker, tables: Mapping[str, Table], changelogs: Mapping[str, TopicDescription]) -> None:
    partitions = [TopicPartition(name, number) for name in tables for number in range(changelogs[name].partitions)]
    begins, ends = await broker.beginning_offsets(partitions), await broker.end_offsets(partitions)
    sampled: list[TopicPartition] = []
    for name in tables:
        held = [each for each in partitions if each.topic == name and begins[each] < ends[each]]
        sampled += held[:SAMPLED_PARTITIONS]
    tails = {each: max(begins[each], ends[each] - SAMPLED_RECORDS) for each in sampled}
    newest = await _last_of_keys(broker, tables, tails, ends)
    for partition, records in newest.items():
        for record in records.values():
            check_record(tables[partition.topic], record)
    heads = {each: begins[each] for each in sampled if begins[each] < tails[each]}
    oldest = await _last_of_keys(broker, tables, heads, tails)
    for partition, records in oldest.items():
        _report_unreadable(
            tables[partition.topic], [record for key, record in records.items() if key not in newest[partition]]
        )


async def _last_of_keys(
    broker: Broker,
    tables: Mapping[str, Table],
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, dict[bytes, Record]]:
    """Of the first records of these parts of changelogs, the last one of each key."""
    last: dict[TopicPartition, dict[bytes, Record]] = {partition: {} for partition in begins}
    counts = dict.fromkeys(begins, 0)
    left = list(begins)
    if not left:
        return last
    reader = broker.reader()
    await reader.start(begins)
    try:
        while left:
            for partition, fetched in (await reader.fetch(left, _FETCH_TIMEOUT_SEC, SAMPLED_RECORDS)).items():
                records = [record for record in fetched if record.offset < ends[partition]]
                keyed = {record.key: record for record in records if record.key}
                await fetch_schemas(tables[partition.topic], {key: record.value for key, record in keyed.items()})
                last[partition].update(keyed)
                counts[partition] += len(records)
            left = [
                partition
                for partition in left
                if reader.position(partition) < ends[partition] and counts[partition] < SAMPLED_RECORDS
            ]
    finally:
        await reader.stop()
    return last


def _report_unreadable(table: Table, records: Iterable[Record]) -> None:
    """Say which of these cannot be read: the first, and how many."""
    problems = []
    for record in records:
        try:
            check_record(table, record)
        except ConfigurationError as error:
            problems.append((record, error.__cause__))
    if problems:
        first, why = problems[0]
        _log.warning(
            "changelog holds what its table cannot read",
            table=table.name,
            changelog=f"{first.topic}[{first.partition}]",
            offset=first.offset,
            records=len(problems),
            error=repr(why),
            meaning="fine if these keys were written again since; else reading them is a DeserializationError",
        )


def check_record(table: Table, record: Record) -> None:
    """Whether a table can read a record of its changelog.

    Raises:
        ConfigurationError: it cannot.
    """
    part, data = "key", record.key
    try:
        if not record.key or record.value is None:  # leaves no entry
            return
        table.codec.decode_key(record.key)
        part, data = "value", record.value
        table.codec.decode_value(record.value)
    except DeserializationError as error:
        raise ConfigurationError(
            f"Table {table.name!r} cannot read what is in its changelog: the {part} {excerpt(data)} of"
            f" {record.topic}[{record.partition}] offset {record.offset}: {error} Let its types and serializers read"
            " what was written before (a new field needs a default), or stop all workers, and run 'paperboy reset' for"
            " this engine."
        ) from error
