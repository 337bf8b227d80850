"""Bringing a task's stores to the end of their changelogs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

from paperboy.brokers.protocol import Broker, Changes, TopicPartition
from paperboy.engine.restoring import RestoreProgress
from paperboy.engine.silence import Silence
from paperboy.engine.stores import HeldStore, TaskTable
from paperboy.errors import BrokerError, OffsetOutOfRange
from paperboy.tables.stores.protocol import Store

_FETCH_TIMEOUT_SEC = 0.1
"""A tail without records gives a fetch nothing to return with: this is what it costs each restore."""


async def restore(tables: Sequence[TaskTable], broker: Broker, progress: RestoreProgress) -> None:
    """Read each changelog partition from its store's own offset to the end it has now.

    The end is a position, not a record: a tail of transaction markers or compacted gaps ends the restore as well.
    A store that the changelog cannot bring up to date is wiped, restored from the beginning, and says so.

    Raises:
        BrokerError: the changelog cannot be read.
        StoreError: a store does not take what is read.
    """
    if not tables:
        return
    by_partition = {table.changelog: table for table in tables}
    while True:
        now_ms = broker.clock.time_ms()
        begins = await broker.beginning_offsets(by_partition)
        ends = await broker.end_offsets(by_partition)
        for changelog, table in by_partition.items():
            await _wipe_if_useless(table, begins[changelog], ends[changelog], now_ms)
        # A store that cannot tell stands where the changelog begins.
        starts = {
            changelog: begins[changelog] if (offset := table.partition.store.changelog_offset) is None else offset
            for changelog, table in by_partition.items()
        }
        progress.expect(sum(ends[changelog] - start for changelog, start in starts.items()))
        try:
            await _read(by_partition, starts, ends, broker, progress, now_ms)
            return
        except OffsetOutOfRange as error:
            # Deleted under our feet: what is left of the log no longer holds everything from where we stood.
            table = by_partition[TopicPartition(error.topic, error.partition)]
            await table.held.wipe(str(error))


async def take_over(
    held: HeldStore,
    store: Store,
    chunk: Sequence[Changes],
    position: int,
    passed: Callable[[int, int], object],
    on_keyless: Callable[[Sequence[int]], object],
) -> None:
    """Write what a fetch has brought to a store, and let it stand where the reader stands.

    Args:
        store: the one that is held, whose changelog offset is known.
        position: the reader's, past transaction markers and compacted gaps.
        passed: told how many records, and how many offsets, the store has come on by.
        on_keyless: told the offsets of records that belong to no entry, before their slice is written without them.
    """
    before = store.changelog_offset or 0
    in_step_ms = store.in_step_ms or 0
    for changes in chunk:
        if held.fetch_schemas is not None:
            await held.fetch_schemas(changes.last)
        if changes.keyless:
            on_keyless(changes.keyless)
        store.write(changes.last, changes.end, in_step_ms)
        await asyncio.sleep(0)  # the loop gets its turn
    if position > (store.changelog_offset or 0):
        store.write({}, position, in_step_ms)
    passed(sum(changes.records for changes in chunk), (store.changelog_offset or 0) - before)
    if store.flush_due:
        await held.flush()


def uselessness(
    offset: int | None, begin: int, end: int, in_step_ms: int | None, now_ms: int, delete_retention_ms: int
) -> str | None:
    """Why a store that stands at `offset` cannot be brought up to date; None where it can.

    Args:
        begin, end: what the changelog holds.
        in_step_ms: when the store lacked nothing below its offset.
        delete_retention_ms: how long the changelog keeps tombstones: older ones may be gone, unread by this store, and
            what they deleted would come back.
    """
    if offset is None:
        return None
    if not begin <= offset <= end:
        return f"it stands at offset {offset}, and the changelog holds {begin} to {end}"
    away_ms = now_ms - (in_step_ms or 0)
    if offset < end and away_ms >= delete_retention_ms:
        return (
            f"it was away for {away_ms / 3_600_000:.1f} h, and the changelog keeps tombstones for"
            f" {delete_retention_ms / 3_600_000:.1f} h (delete.retention.ms)"
        )
    return None


async def _wipe_if_useless(table: TaskTable, begin: int, end: int, now_ms: int) -> None:
    store = table.partition.store
    reason = uselessness(store.changelog_offset, begin, end, store.in_step_ms, now_ms, table.delete_retention_ms)
    if reason is not None:
        await table.held.wipe(reason)


async def _read(
    tables: Mapping[TopicPartition, TaskTable],
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    broker: Broker,
    progress: RestoreProgress,
    now_ms: int,
) -> None:
    for changelog, start in starts.items():
        store = tables[changelog].partition.store
        if store.changelog_offset is None:
            store.write({}, start, now_ms)
    unfinished = [changelog for changelog, start in starts.items() if start < ends[changelog]]
    if unfinished:
        reader = broker.reader()
        try:
            await reader.start({changelog: starts[changelog] for changelog in unfinished})
            silence = Silence(reader, {changelog: ends[changelog] for changelog in unfinished}, broker)
            while unfinished:
                chunks = await reader.fetch_changes(unfinished, _FETCH_TIMEOUT_SEC)
                for changelog in unfinished:
                    table = tables[changelog]
                    await take_over(
                        table.held,
                        table.partition.store,
                        chunks.get(changelog, ()),
                        reader.position(changelog),
                        progress.passed,
                        partial(_refuse_keyless, table),
                    )
                unfinished = [changelog for changelog in unfinished if reader.position(changelog) < ends[changelog]]
                if unfinished:
                    await silence.listen()
        finally:
            await reader.stop()
    for changelog, start in starts.items():
        # Only now is the store known to lack nothing: until here, what it was before the restore counted.
        table = tables[changelog]
        table.partition.store.write({}, _reached(table), now_ms)
        if start < ends[changelog]:
            await table.held.flush()


def _reached(table: TaskTable) -> int:
    return table.partition.store.changelog_offset or 0


def _refuse_keyless(table: TaskTable, keyless: Sequence[int]) -> NoReturn:
    raise BrokerError(
        f"Changelog {table.changelog} of table {table.partition.table!r} holds a record without a key at offset"
        f" {keyless[0]}, which no table writes: somebody else has written to it; give the table a changelog of"
        " its own (changelog_topic_name)."
    )
