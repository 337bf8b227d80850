"""Bringing a task's stores to the end of their changelogs."""

from collections.abc import Callable, Sequence
from typing import Any

from paperboy.brokers.protocol import Broker, TopicPartition
from paperboy.engine.checkpoint import ChangelogPartition
from paperboy.errors import OffsetOutOfRange
from paperboy.log import get_logger

_log = get_logger("paperboy.restore")

_FETCH_TIMEOUT_SEC = 0.1
"""A tail without records gives a fetch nothing to return with: this is what it costs each restore."""


async def restore(
    tables: Sequence[ChangelogPartition], broker: Broker, report: Callable[[int], None] = lambda records: None
) -> None:
    """Read each changelog partition from its store's own offset to the end it has now.

    The end is a position, not a record: a tail of transaction markers or compacted gaps ends the restore as well.
    A store that stands before the changelog's beginning, or beyond its end, is wiped, restored from the beginning,
    and says so.

    Args:
        report: told how many changelog records each fetch brought.

    Raises:
        BrokerError: the changelog cannot be read.
    """
    if not tables:
        return
    by_partition = {table.changelog: table for table in tables}
    while True:
        begins = await broker.beginning_offsets(by_partition)
        ends = await broker.end_offsets(by_partition)
        starts = {
            changelog: _start(table, begins[changelog], ends[changelog]) for changelog, table in by_partition.items()
        }
        try:
            await _read(by_partition, starts, ends, broker, report)
            return
        except OffsetOutOfRange as error:
            # Deleted under our feet: what is left of the log no longer holds everything from where we stood.
            table = by_partition[TopicPartition(error.topic, error.partition)]
            _log.warning("store wiped", table=table.partition.table, changelog=str(table.changelog), reason=str(error))
            table.partition.store.clear()


async def _read(
    tables: dict[TopicPartition, ChangelogPartition],
    starts: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
    broker: Broker,
    report: Callable[[int], None],
) -> None:
    missing = {changelog: start for changelog, start in starts.items() if start < ends[changelog]}
    for changelog, start in starts.items():
        if changelog not in missing:
            tables[changelog].partition.store.write({}, start)
    if not missing:
        return
    reader = broker.reader()
    try:
        await reader.start(missing)
        unfinished = list(missing)
        while unfinished:
            chunks = await reader.fetch(unfinished, _FETCH_TIMEOUT_SEC)
            for changelog in unfinished:
                records = chunks.get(changelog, ())
                changes: dict[Any, Any] = {record.key: record.value for record in records}
                tables[changelog].partition.store.write(changes, reader.position(changelog))
                report(len(records))
            unfinished = [changelog for changelog in unfinished if reader.position(changelog) < ends[changelog]]
    finally:
        await reader.stop()


def _start(table: ChangelogPartition, begin: int, end: int) -> int:
    store = table.partition.store
    offset = store.changelog_offset
    if offset is None:
        return begin
    if begin <= offset <= end:
        return offset
    _log.warning(
        "store wiped",
        table=table.partition.table,
        changelog=str(table.changelog),
        reason=f"it stands at offset {offset}, and the changelog holds {begin} to {end}",
    )
    store.clear()
    return begin
