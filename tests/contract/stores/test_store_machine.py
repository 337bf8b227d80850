"""Every store, in any order of calls and through crashes, against a dict and what it was at each changelog offset."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Scan, Store
from tests.contract.stores.conftest import IDENTITY, as_a_crash_leaves_it, open_rocksdb

Entry = tuple[bytes, bytes]

KEYS = st.text("\x00ab\xff", min_size=1, max_size=3).map(lambda text: text.encode("latin-1"))
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=12)
BOUNDS = st.tuples(st.just(b"") | KEYS, st.none() | KEYS, st.booleans())

SETTINGS = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class Machine(RuleBasedStateMachine):
    """A store that is never opened again: in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = self.opened()
        self.entries: dict[bytes, bytes] = {}
        self.offset = 0
        self.as_of: dict[int | None, dict[bytes, bytes]] = {None: {}}
        """What the store held at each changelog offset since it was last empty."""
        self.scans: list[tuple[Scan, Iterator[Entry]]] = []

    def opened(self) -> Store:
        return MemoryStore(IDENTITY.table)

    def teardown(self) -> None:
        self.store.close()

    @rule(changes=CHANGES)
    def write(self, changes: dict[bytes, bytes | None]) -> None:
        self.offset += 1
        self.store.write(changes, self.offset, self.offset * 10)
        kept = {**self.entries, **changes}
        self.entries = {key: value for key, value in kept.items() if value is not None}
        self.as_of[self.offset] = self.entries

    @rule(keys=st.lists(KEYS, max_size=5))
    def get(self, keys: list[bytes]) -> None:
        expected = [self.entries.get(key) for key in keys]
        assert self.store.get_many(keys) == expected
        assert [self.store.get(key) for key in keys] == expected

    @rule(bounds=BOUNDS)
    def begin_a_scan(self, bounds: tuple[bytes, bytes | None, bool]) -> None:
        start, stop, reverse = bounds
        expected = sorted(
            ((key, value) for key, value in self.entries.items() if start <= key and (stop is None or key < stop)),
            reverse=reverse,
        )
        self.scans.append((self.store.scan(start, stop, reverse=reverse), iter(expected)))

    @rule(choice=st.integers(0, 99), count=st.integers(0, 4))
    def read_of_a_scan(self, choice: int, count: int) -> None:
        if self.scans:
            scan, expected = self.scans[choice % len(self.scans)]
            for _ in range(count):
                assert next(scan, None) == next(expected, None)

    @rule(choice=st.integers(0, 99), to_the_end=st.booleans())
    def be_done_with_a_scan(self, choice: int, to_the_end: bool) -> None:
        if self.scans:
            scan, expected = self.scans.pop(choice % len(self.scans))
            if to_the_end:
                assert list(scan) == list(expected)
            scan.close()

    @rule()
    def flush(self) -> None:
        self.store.flush()
        assert not self.store.flush_due

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.scans.clear()
        self.entries, self.as_of = {}, {None: {}}
        assert self.store.changelog_offset is None

    @invariant()
    def the_store_equals_the_model(self) -> None:
        assert list(self.store.scan()) == sorted(self.entries.items())
        at = self.store.changelog_offset
        assert self.as_of[at] == self.entries
        assert self.store.in_step_ms == (None if at is None else at * 10)
        assert self.store.len_estimate() >= 0


class DiskMachine(Machine):
    """A store that outlives its process: closed, or in the middle of anything."""

    def opened(self) -> Store:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "0"
        self.flushed: int | None = None
        return open_rocksdb(self.path, RocksDBOptions(flush_records=50))

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()

    @rule()
    def flush(self) -> None:
        super().flush()
        self.flushed = self.store.changelog_offset

    @rule()
    def clear(self) -> None:
        super().clear()
        self.flushed = None

    @rule()
    def close_and_open(self) -> None:
        before = self.store.changelog_offset
        self.store.close()
        self.scans.clear()
        self.store = open_rocksdb(self.path)
        assert self.store.changelog_offset == before
        self.flushed = before

    @rule()
    def crash_and_open(self) -> None:
        left = as_a_crash_leaves_it(self.path, self.path.with_name(str(int(self.path.name) + 1)))
        self.store.close()
        self.scans.clear()
        self.path = left
        self.store = open_rocksdb(left)
        at = self.store.changelog_offset
        assert (at or 0) >= (self.flushed or 0)
        self.entries = self.as_of[at]
        self.as_of = {offset: entries for offset, entries in self.as_of.items() if (offset or 0) <= (at or 0)}
        self.offset = at or 0


TestMemoryStoreAgainstADict = Machine.TestCase
TestMemoryStoreAgainstADict.settings = SETTINGS
TestRocksDBStoreAgainstADict = DiskMachine.TestCase
TestRocksDBStoreAgainstADict.settings = SETTINGS
