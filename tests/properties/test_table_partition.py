"""A partition of a table against dicts, whatever messages, checkpoints, failures and crashes come in whatever order."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paperboy.errors import SerializationError
from paperboy.serializers.equality import same
from paperboy.serializers.values import decode_value
from paperboy.tables.keys import decode_key, encode_key
from paperboy.tables.layer import Layer, Undo, changelog_values, entry_bytes, roll_back
from paperboy.tables.partition import TablePartition
from paperboy.tables.scan import Range
from paperboy.tables.table import Table
from tests.unit.table_kit import LIMIT, open_store

KEYS = st.sampled_from([1, 1.0, True, 0, False, "a", "ab", "b", b"a", b"\xff", "1", None, (1, "a"), (1,), ("a",), ""])
VALUES = st.sampled_from([None, 0, False, 1.5, "x", "é", "x" * 2_000, Decimal("1.10"), [1], [], {"a": [1]}, {1}, (1,)])
BOUNDS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"prefix": st.sampled_from(["", "a", b"", b"\xff", (), (1,), ("a",)])}),
    st.fixed_dictionaries({}, optional={"start": KEYS, "stop": KEYS}),
)

Entries = dict[bytes, tuple[Any, Any]]
"""By key bytes, which tell keys apart: key and value."""


@dataclass
class OpenScan:
    """A scan of the message in hand, what it has yet to give, and how much the message had written when it began."""

    scan: Iterator[tuple[Any, Any]]
    left: list[tuple[Any, Any]]
    mark: int


class PartitionMachine(RuleBasedStateMachine):
    """A partition against dicts: what is durable, being checkpointed, finished, and the running message's.

    The changelog is a list. A crash leaves it, and of the store what its disk holds.
    """

    store_kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.crashes = 0
        self.undo: Undo = []
        self.changelog: list[tuple[bytes, bytes | None]] = []
        self.frozen_layer: Layer | None = None
        self.durable: Entries = {}
        self.frozen: Entries = {}
        self.finished: Entries = {}
        self.now: Entries = {}
        self.marks: list[tuple[int, Entries]] = []
        self.scans: list[OpenScan] = []
        self.open()

    def open(self) -> None:
        """As a task begins: with the store as it is found, brought to the end of the changelog."""
        table = Table("clicks")
        self.partition = TablePartition(table, 3, self.undo, LIMIT)
        self.partition.store = open_store(self.store_kind, self.directory / str(self.crashes), table, 3)
        self.restore()

    def restore(self) -> None:
        offset = self.partition.store.changelog_offset or 0
        self.partition.store.write(dict(self.changelog[offset:]), len(self.changelog), 0)

    def teardown(self) -> None:
        self.partition.store.close()
        shutil.rmtree(self.directory)

    # What messages do.

    @rule(key=KEYS, value=VALUES)
    def set(self, key: Any, value: Any) -> None:
        self.partition.set(key, value)
        self.now[encode_key(key)] = key, value

    @rule(key=KEYS)
    def delete(self, key: Any) -> None:
        self.partition.delete(key)
        self.now.pop(encode_key(key), None)

    @rule(keys=st.lists(KEYS, max_size=6), value=VALUES)
    def set_many(self, keys: list[Any], value: Any) -> None:
        self.partition.set_many((key, value) for key in keys)
        self.now.update((encode_key(key), (key, value)) for key in keys)

    @rule(keys=st.lists(KEYS, max_size=6), value=VALUES)
    def set_many_and_one_that_is_refused(self, keys: list[Any], value: Any) -> None:
        with pytest.raises(SerializationError):
            self.partition.set_many([*((key, value) for key in keys), ("refused", object()), ("a", value)])

    @rule(keys=st.lists(KEYS, max_size=6))
    def delete_many(self, keys: list[Any]) -> None:
        self.partition.delete_many(keys)
        for key in keys:
            self.now.pop(encode_key(key), None)

    @rule(key=KEYS)
    def read(self, key: Any) -> None:
        _, expected = self.now.get(encode_key(key), (key, "none"))
        assert same(self.partition.get(key, "none"), expected)
        assert (key in self.partition) is (encode_key(key) in self.now)

    @rule(keys=st.lists(KEYS, max_size=6))
    def read_many(self, keys: list[Any]) -> None:
        expected = [self.now.get(encode_key(key), (key, "none"))[1] for key in keys]
        assert same(self.partition.get_many(keys, "none"), expected)

    @rule(bounds=BOUNDS, reverse=st.booleans(), limit=st.none() | st.integers(0, 4))
    def scan(self, bounds: dict[str, Any], reverse: bool, limit: int | None) -> None:
        within = self.partition.range(**bounds)
        expected = self.expected(within, reverse, limit)
        assert same(list(self.partition.items(within, reverse=reverse, limit=limit)), expected)
        assert same(list(self.partition.keys(within, reverse=reverse, limit=limit)), [key for key, _ in expected])
        assert same(list(self.partition.values(within, reverse=reverse, limit=limit)), [value for _, value in expected])

    @rule(bounds=BOUNDS, reverse=st.booleans(), limit=st.none() | st.integers(0, 4))
    def begin_a_scan(self, bounds: dict[str, Any], reverse: bool, limit: int | None) -> None:
        within = self.partition.range(**bounds)
        scan = self.partition.items(within, reverse=reverse, limit=limit)
        self.scans.append(OpenScan(scan, self.expected(within, reverse, limit), len(self.undo)))

    @precondition(lambda self: self.scans)
    @rule(data=st.data(), count=st.integers(1, 5))
    def read_on(self, data: st.DataObject, count: int) -> None:
        index = data.draw(st.integers(0, len(self.scans) - 1))
        scan = self.scans[index]
        assert same(list(islice(scan.scan, count)), scan.left[:count])
        del scan.left[:count]

    def expected(self, within: Range, reverse: bool, limit: int | None) -> list[tuple[Any, Any]]:
        start, stop = within
        keys = [key for key in self.now if start <= key and (stop is None or key < stop)]
        return [self.now[key] for key in sorted(keys, reverse=reverse)][:limit]

    # What becomes of it.

    @rule()
    def mark(self) -> None:
        self.marks.append((len(self.undo), dict(self.now)))

    @precondition(lambda self: self.marks)
    @rule()
    def back_to_mark(self) -> None:
        mark, self.now = self.marks.pop()
        roll_back(self.undo, mark)
        self.scans = [scan for scan in self.scans if scan.mark <= mark]

    @rule()
    def finish(self) -> None:
        self.undo.clear()
        self.finished = dict(self.now)
        self.marks, self.scans = [], []

    @rule()
    def fail(self) -> None:
        roll_back(self.undo)
        self.now = dict(self.finished)
        self.marks, self.scans = [], []

    @precondition(lambda self: self.frozen_layer is None)
    @rule()
    def begin_a_checkpoint(self) -> None:
        self.finish()
        self.frozen_layer = self.partition.freeze()
        self.frozen = dict(self.now)

    @precondition(lambda self: self.frozen_layer is not None)
    @rule()
    def end_the_checkpoint(self) -> None:
        """Beside a message, whose scans go on."""
        changes = self.log_the_checkpoint()
        self.partition.store.write(changes, len(self.changelog), 0)
        self.partition.thaw()
        self.frozen_layer = None

    @precondition(lambda self: self.frozen_layer is not None)
    @rule(logged=st.booleans())
    def fail_the_checkpoint(self, logged: bool) -> None:
        """Before or after the changelog had it all."""
        if logged:
            self.log_the_checkpoint()
        self.fail()
        self.partition.discard()
        self.restore()
        self.begin_from_durable()

    @rule()
    def flush(self) -> None:
        self.partition.store.flush()

    @rule()
    def crash(self) -> None:
        """Without a flush: a disk keeps what was flushed, and memory nothing."""
        old = self.partition.store
        before = self.directory / str(self.crashes)
        self.crashes += 1
        if before.exists():
            _copy_as_of_now(before, self.directory / str(self.crashes))
        self.undo.clear()
        self.open()
        self.begin_from_durable()
        old.close()

    def log_the_checkpoint(self) -> dict[bytes, bytes | None]:
        assert self.frozen_layer is not None
        changes = changelog_values(self.frozen_layer)
        self.changelog.extend(changes.items())
        self.durable = self.frozen
        return changes

    def begin_from_durable(self) -> None:
        self.frozen_layer = None
        self.now, self.finished = dict(self.durable), dict(self.durable)
        self.marks, self.scans = [], []

    # What holds at any time.

    @invariant()
    def the_store_holds_what_is_durable(self) -> None:
        assert {key: (decode_key(key), decode_value(data)) for key, data in self.partition.store.scan()} == self.durable

    @invariant()
    def the_table_is_as_the_model(self) -> None:
        assert same(list(self.partition.items()), [self.now[key] for key in sorted(self.now)])

    @invariant()
    def the_layer_is_counted_as_it_is(self) -> None:
        layer = self.partition.layer
        assert self.partition.layer_bytes == sum(entry_bytes(key, entry) for key, entry in layer.items())

    @invariant()
    def the_length_is_estimated(self) -> None:
        assert self.partition.len_estimate() >= 0


class DiskMachine(PartitionMachine):
    """The same over a store on disk."""

    store_kind = "rocksdb"


TestAPartitionInMemory = PartitionMachine.TestCase
TestAPartitionOnDisk = DiskMachine.TestCase
TestAPartitionOnDisk.settings = settings(max_examples=30, deadline=None)


def _copy_as_of_now(directory: Path, copy: Path) -> None:
    """RocksDB tidies up beside us: what it has deleted while it was copied was never there at one moment."""
    while True:
        try:
            shutil.copytree(directory, copy)
            return
        except shutil.Error:
            shutil.rmtree(copy)
