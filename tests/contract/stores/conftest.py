"""Both kinds of store behind one fixture, and what their contract needs to speak of them."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Store, StoreIdentity
from paperboy.tables.stores.rocksdb import RocksDBStore

IDENTITY = StoreIdentity("clicks", 0, "group-clicks-changelog", "topic-id", "definition")

OpenStore = Callable[[], Store]
"""Opens one more store of the kind under test, which holds nothing yet."""


@pytest.fixture(params=["memory", "rocksdb"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[Store] = []

    def open_one() -> Store:
        path = tmp_path / str(len(opened))
        store = MemoryStore(IDENTITY.table) if request.param == "memory" else open_rocksdb(path)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


def open_rocksdb(path: Path, options: RocksDBOptions | None = None) -> RocksDBStore:
    """The store in this directory, which must be of use."""
    store, why_wiped = RocksDBStore.open(path, IDENTITY, options or RocksDBOptions())
    assert why_wiped is None
    return store


def as_a_crash_leaves_it(path: Path, to: Path) -> Path:
    """Copy a directory that a store has open: what the disk holds, without the flush of a close."""
    before: list[tuple[str, int, int]] | None = None
    while before != (now := _listing(path)):  # RocksDB may be tidying up
        before = now
        shutil.rmtree(to, ignore_errors=True)
        try:
            shutil.copytree(path, to)
        except shutil.Error:
            before = None
    return to


def _listing(path: Path) -> list[tuple[str, int, int]]:
    with os.scandir(path) as entries:
        return sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
