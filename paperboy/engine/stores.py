"""The stores of this worker: opened when a task needs them, kept while it may come back, closed when it has gone."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import in_thread
from paperboy.engine.assignment import Recency
from paperboy.engine.changelogs import Changelog, is_another
from paperboy.engine.disk import Disk, LocalDisk, Opened
from paperboy.engine.home import Home
from paperboy.engine.topology import TaskId, TopicGroup
from paperboy.errors import StoreError
from paperboy.log import get_logger
from paperboy.tables.partition import TablePartition
from paperboy.tables.schemas import fetch_schemas, has_schemas
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Store, StoreIdentity
from paperboy.tables.stores.record import StoreRecord, mismatch
from paperboy.tables.table import Table

_log = get_logger("paperboy.stores")

StoreId = tuple[str, int]
"""A table's name, and a partition."""

_LOOKS_AT_ONCE = 4
_MOST_TOLD = 1_000
"""Tasks that a member tells the recency of, those first that were in step last: what all members of a group say of
themselves is one record on the broker."""
LOOK_SEC = 5.0
"""How long a start may look into its stores: what it has not come to by then counts as not there."""
_LOCAL_DISK = LocalDisk()


class HeldStore:
    """A store that is this worker's, open or not. What blocks is done in a thread, one call at a time, to its end."""

    def __init__(
        self,
        identity: StoreIdentity,
        open_store: Callable[[StoreIdentity], Opened],
        fetch_schemas: Callable[[Mapping[bytes, bytes | None]], Awaitable[None]] | None = None,
    ) -> None:
        self.fetch_schemas = fetch_schemas
        """To be awaited with entries before they are taken over; None where nothing has to be fetched for them."""
        self._identity = identity
        self._open_store = open_store
        self._store: Store | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        return self._store is not None

    @property
    def changelog_id(self) -> str:
        """The broker's id of the changelog that it belongs to."""
        return self._identity.changelog_id

    @property
    def record(self) -> StoreRecord | None:
        """How far it has come; None where it is not open, or holds nothing."""
        store = self._store
        if store is None or store.changelog_offset is None or store.in_step_ms is None:
            return None
        return StoreRecord(self._identity, store.changelog_offset, store.in_step_ms)

    async def open(self) -> Store:
        """The store, as it was left.

        Raises:
            StoreError: it cannot be opened.
        """
        async with self._one_at_a_time:
            return await in_thread(self._open) if self._store is None else self._store

    async def reopen(self) -> Store:
        """As `open`, but from the disk: after the store has failed."""
        await self.close()
        return await self.open()

    async def flush(self) -> None:
        """Make what was written survive the end of the process."""
        async with self._one_at_a_time:
            if self._store is not None:
                await in_thread(self._store.flush)

    async def wipe(self, reason: str) -> None:
        """Forget everything in it, and say so."""
        async with self._one_at_a_time:
            if self._store is not None:
                await in_thread(partial(self._wipe, self._store, reason))

    async def belong_to(self, changelog_id: str) -> None:
        """Be opened as a store of the changelog with this id: where that is another one than before, as an empty one.

        Raises:
            StoreError: what it holds cannot be wiped.
        """
        if not is_another(self.changelog_id, changelog_id):
            return
        anew = replace(self._identity, changelog_id=changelog_id)
        await self.wipe(mismatch(self._identity, anew) or "")
        await self.close()
        self._identity = anew

    async def close(self) -> None:
        """Flush it, and let go. A disk that fails now costs a restore, later."""
        async with self._one_at_a_time:
            store, self._store = self._store, None
            if store is not None:
                try:
                    await in_thread(store.close)
                except StoreError as error:
                    _log.warning("store not closed", **self._names(), error=str(error))

    # In a thread, to their last word: whoever waits may be cancelled, and it is done all the same.

    def _open(self) -> Store:
        self._store, wiped = self._open_store(self._identity)
        if wiped is not None:
            self._say_wiped(wiped)
        return self._store

    def _wipe(self, store: Store, reason: str) -> None:
        store.clear()
        self._say_wiped(reason)

    def _say_wiped(self, reason: str) -> None:
        _log.warning("store wiped", **self._names(), reason=reason)

    def _names(self) -> dict[str, str]:
        identity = self._identity
        return {"table": identity.table, "changelog": f"{identity.changelog}[{identity.partition}]"}


@dataclass(frozen=True, slots=True)
class TaskTable:
    """A table's partition in a task, the changelog partition behind it, and its store."""

    partition: TablePartition
    changelog: TopicPartition
    delete_retention_ms: int
    """How long the changelog keeps tombstones."""
    held: HeldStore


class Stores:
    """See above.

    Args:
        state_dir: where ``rocksdb://`` tables are kept.
        rocksdb: how RocksDB is set up.
        spawn: starts a coroutine that the engine owns.
        disk: where those are kept that outlive the process.
    """

    def __init__(
        self,
        state_dir: Path,
        group_id: str,
        rocksdb: RocksDBOptions,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        disk: Disk = _LOCAL_DISK,
    ) -> None:
        self._state_dir = state_dir
        self._group_id = group_id
        self._rocksdb = rocksdb
        self._spawn = spawn
        self._disk = disk
        self._held: dict[StoreId, HeldStore] = {}
        self._wanted: frozenset[StoreId] = frozenset()
        self._homes: dict[Path, Home] = {}
        self._on_disk: set[str] = set()
        """Names of tables."""
        self._left: dict[StoreId, StoreRecord] = {}
        """How far stores on disk had come when they were found, or closed."""

    async def take_homes(self, tables: Collection[Table]) -> None:
        """Find a home for the tables that are kept on disk, and look at what is there.

        Raises:
            StoreError: there is none to be had.
        """
        on_disk = [table for table in tables if table.store_kind == "rocksdb"]
        self._on_disk.update(table.name for table in on_disk)
        for table in on_disk:
            base = self._base(table)
            if base not in self._homes:
                await in_thread(partial(self._take_home, base))
        await self._look_around(on_disk)

    def records(self) -> dict[StoreId, StoreRecord]:
        """How far each store has come: those that are open now, and those on disk that are not, as they were left."""
        is_open = {store_id: held for store_id, held in self._held.items() if held.is_open}
        left = {store_id: record for store_id, record in self._left.items() if store_id not in is_open}
        return left | {store_id: record for store_id, held in is_open.items() if (record := held.record) is not None}

    def hold(self, table: Table, identity: StoreIdentity) -> HeldStore:
        """The store of a table partition, which may be open already."""
        store_id = (identity.table, identity.partition)
        if store_id not in self._held:
            self._held[store_id] = HeldStore(
                identity,
                self._opener(table),
                partial(fetch_schemas, table) if has_schemas(table) else None,
            )
        return self._held[store_id]

    def keep(self, wanted: Collection[StoreId]) -> None:
        """Close, in the background, all stores but these."""
        self._wanted = frozenset(wanted)
        for store_id, held in self._held.items():
            if store_id not in self._wanted:
                self._spawn(self._close_unwanted(store_id, held), f"close {store_id[0]}[{store_id[1]}]")

    def flush(self) -> None:
        """Flush them all, in the background: a kill is to cost little, whoever has the tasks next."""
        for store_id, held in self._held.items():
            self._spawn(_flush(held), f"flush {store_id[0]}[{store_id[1]}]")

    def abandon(self) -> list[Store]:
        """For tests of what a kill leaves: leave the homes, and hand out the stores that are open, not flushed."""
        for home in self._homes.values():
            home.release()
        self._homes.clear()
        return [held._store for held in self._held.values() if held._store is not None]

    async def close(self) -> None:
        """Flush and close them all, and leave the homes."""
        await asyncio.gather(*(held.close() for held in self._held.values()))
        for home in self._homes.values():
            home.release()
        self._homes.clear()

    def _take_home(self, base: Path) -> None:
        """In a thread: whoever waits may be cancelled, and it is taken all the same."""
        home = self._homes[base] = self._disk.take_home(base, self._group_id)
        _log.info("state kept", directory=str(home.path), group_id=self._group_id)

    def _opener(self, table: Table) -> Callable[[StoreIdentity], Opened]:
        if table.store_kind == "memory":
            return lambda identity: (MemoryStore(identity.table), None)
        home = self._homes[self._base(table)]
        return lambda identity: self._disk.open(
            home.store_path(identity.table, identity.partition), identity, self._rocksdb
        )

    def _base(self, table: Table) -> Path:
        return self._state_dir if table.store_path is None else table.store_path

    async def _close_unwanted(self, store_id: StoreId, held: HeldStore) -> None:
        if store_id not in self._wanted:  # it may have come back meanwhile
            record = held.record
            await held.close()
            if record is not None and store_id[0] in self._on_disk:
                self._left[store_id] = record

    async def _look_around(self, tables: Sequence[Table]) -> None:
        """Find out how far the stores have come that were left in the homes."""
        if not tables:
            return
        now = asyncio.get_running_loop().time
        until = now() + LOOK_SEC
        paths = iter(await in_thread(partial(self._paths, tables)))

        async def look() -> None:
            while now() < until and (found := next(paths, None)) is not None:
                store_id, path = found
                if (record := await in_thread(partial(self._disk.look, path))) is not None:
                    self._left[store_id] = record

        async with asyncio.TaskGroup() as group:
            for _ in range(_LOOKS_AT_ONCE):
                group.create_task(look())
        if (left_out := len(list(paths))) > 0:
            _log.warning("not all stores looked at", left_out=left_out, after_sec=LOOK_SEC)

    def _paths(self, tables: Sequence[Table]) -> list[tuple[StoreId, Path]]:
        return [
            ((table.name, partition), path)
            for table in tables
            for partition, path in self._homes[self._base(table)].stores_of(table.name).items()
        ]


def recency(
    groups: Iterable[TopicGroup],
    changelogs: Mapping[str, Changelog],
    records: Mapping[StoreId, StoreRecord],
    now_ms: int,
) -> Recency:
    """How recent the stores are that a task would not have to restore from the beginning.

    One of another changelog or definition does not count, nor one that has been away for as long as its changelog keeps
    tombstones: a restore wipes it if the changelog has moved on.

    Args:
        records: how far each store has come.
        now_ms: the broker's time.
    """
    sums: dict[TaskId, int] = defaultdict(int)
    in_step: dict[TaskId, int] = defaultdict(int)
    for group in groups:
        for table in group.tables:
            changelog = changelogs[table.name]
            for partition in range(changelog.partitions):
                record = records.get((table.name, partition))
                if record is None or now_ms - record.in_step_ms >= changelog.delete_retention_ms:
                    continue
                if mismatch(record.identity, store_identity(table, changelog, partition)) is None:
                    task = TaskId(group.name, partition)
                    sums[task] += record.changelog_offset
                    in_step[task] = max(in_step[task], record.in_step_ms)
    told = sorted(sums, key=lambda task: (-in_step[task], task))[:_MOST_TOLD]
    return {task: sums[task] for task in told}


def store_identity(table: Table, changelog: Changelog, partition: int) -> StoreIdentity:
    """Whose bytes the store of a table partition holds."""
    return StoreIdentity(table.name, partition, changelog.topic, changelog.topic_id, table.definition)


async def _flush(held: HeldStore) -> None:
    try:
        await held.flush()
    except StoreError as error:
        _log.warning("store not flushed", error=str(error))
