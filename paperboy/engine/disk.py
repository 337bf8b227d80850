"""Where stores are kept that outlive the process."""

from pathlib import Path
from typing import Protocol

from paperboy.engine.home import Home, take_home
from paperboy.errors import StoreError
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Store, StoreIdentity
from paperboy.tables.stores.record import StoreRecord

Opened = tuple[Store, str | None]
"""A store, and why what was there was of no use and has been wiped; None where it was."""


class Disk(Protocol):
    """All that `Stores` asks of a machine's disk. Every call may block, and is made in a thread."""

    def take_home(self, state_dir: Path, group_id: str) -> Home:
        """The first home of the group in `state_dir` that nobody holds.

        Raises:
            StoreError: there is none to be had.
        """
        ...

    def open(self, path: Path, identity: StoreIdentity, options: RocksDBOptions) -> Opened:
        """The store at `path`, made where there is none.

        Raises:
            StoreError: it cannot be opened.
        """
        ...

    def look(self, path: Path) -> StoreRecord | None:
        """How far the store at `path` has come; None where that cannot be told."""
        ...


class LocalDisk:
    """The disk of this machine, and RocksDB on it."""

    def take_home(self, state_dir: Path, group_id: str) -> Home:
        return take_home(state_dir, group_id)

    def open(self, path: Path, identity: StoreIdentity, options: RocksDBOptions) -> Opened:
        # RocksDB takes some time and memory to load: only who uses it pays.
        from paperboy.tables.stores.rocksdb import RocksDBStore

        return RocksDBStore.open(path, identity, options)

    def look(self, path: Path) -> StoreRecord | None:
        from paperboy.tables.stores.rocksdb import RocksDBStore

        try:
            store = RocksDBStore.look(path)
        except StoreError:
            return None  # whoever opens it says what is wrong with it
        try:
            offset, in_step_ms = store.changelog_offset, store.in_step_ms
            return None if offset is None or in_step_ms is None else StoreRecord(store.identity, offset, in_step_ms)
        finally:
            store.close()
