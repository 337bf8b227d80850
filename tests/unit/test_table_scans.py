"""Scans: entries in key order, whatever they stand in, as they were when the scan was made."""

import asyncio
import contextvars
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from weakref import WeakSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.errors import DeserializationError, SerializationError, TableError
from paperboy.serializers import String
from paperboy.serializers.values import encode_value
from paperboy.tables.keys import encode_key
from paperboy.tables.layer import Layer, roll_back
from paperboy.tables.partition import TablePartition
from paperboy.tables.scan import LayerKeys, beginning_with
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.protocol import Scan
from paperboy.tables.table import Table
from tests.unit.table_kit import Message, Task, open_store, store_frozen


@pytest.fixture(params=["memory", "rocksdb"])
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Task]:
    """It holds a table "clicks"."""
    task, table = Task(), Table("clicks")
    held = task.hold(table, open_store(request.param, tmp_path, table, task.partition))
    yield task
    held.store.close()


@pytest.fixture
def clicks(task: Task) -> TablePartition:
    return task.tables["clicks"]


@pytest.fixture
def in_message(task: Task) -> Iterator[Message]:
    with task.handling() as message:
        yield message


def spread(clicks: TablePartition, entries: dict[Any, Any]) -> None:
    """Put every third entry into the store, into the layer that is being checkpointed, and into the newest one."""
    pairs = list(entries.items())
    clicks.set_many(pairs[::3])
    store_frozen(clicks, clicks.freeze())
    clicks.set_many(pairs[1::3])
    clicks.freeze()
    clicks.set_many(pairs[2::3])


def keys_between(clicks: TablePartition, *, reverse: bool = False, **bounds: Any) -> list[Any]:
    return list(clicks.keys(clicks.range(**bounds), reverse=reverse))


NUMBERS = {number: str(number) for number in range(20)}


# --- Which entries, and in which order -----------------------------------------


def test_a_scan_gives_what_the_layers_and_the_store_make_up_in_key_order(clicks: TablePartition) -> None:
    shuffled = list(NUMBERS.items())
    random.Random(7).shuffle(shuffled)
    spread(clicks, dict(shuffled))
    assert list(clicks.items()) == list(NUMBERS.items())
    assert list(clicks.keys()) == list(NUMBERS)
    assert list(clicks.values()) == list(NUMBERS.values())
    assert list(clicks.items(reverse=True)) == list(NUMBERS.items())[::-1]


def test_the_newest_layer_that_has_a_key_counts(clicks: TablePartition) -> None:
    clicks.set_many([(key, "store") for key in "abcdefg"])
    store_frozen(clicks, clicks.freeze())
    clicks.set_many([(key, "frozen") for key in "bcdh"])
    clicks.delete("e")
    clicks.freeze()
    clicks.set_many([("c", "layer"), ("e", "layer"), ("i", "layer")])
    clicks.delete_many(["d", "f"])
    expected = [
        ("a", "store"),
        ("b", "frozen"),
        ("c", "layer"),
        ("e", "layer"),
        ("g", "store"),
        ("h", "frozen"),
        ("i", "layer"),
    ]
    assert list(clicks.items()) == expected
    assert list(clicks.items(reverse=True)) == expected[::-1]


def test_start_is_inclusive_and_stop_is_exclusive_and_neither_needs_to_be_there(clicks: TablePartition) -> None:
    spread(clicks, {number: number for number in range(0, 40, 2)})
    assert keys_between(clicks, start=6, stop=12) == [6, 8, 10]
    assert keys_between(clicks, start=5, stop=13) == [6, 8, 10, 12]
    assert keys_between(clicks, start=5, stop=13, reverse=True) == [12, 10, 8, 6]
    assert keys_between(clicks, start=30) == [30, 32, 34, 36, 38]
    assert keys_between(clicks, stop=5) == [0, 2, 4]
    assert keys_between(clicks, stop=5, reverse=True) == [4, 2, 0]
    assert keys_between(clicks, start=8, stop=8) == []
    assert keys_between(clicks, start=12, stop=8) == []
    assert keys_between(clicks, start=12, stop=8, reverse=True) == []
    assert keys_between(clicks, start=100) == []


def test_a_str_or_bytes_prefix_is_of_characters_and_a_tuple_prefix_of_whole_elements(clicks: TablePartition) -> None:
    texts = ["", "a", "an", "ann", "anna", "annb", "b", "an\U0010ffff"]
    binary = [b"", b"\xff", b"\xff\xff", b"\xff\x01", b"\xfe"]
    pairs = [("an",), ("an", 1), ("an", 2, "x"), ("ann", 1), ("b",), ()]
    spread(clicks, dict.fromkeys([*texts, *binary, *pairs], 1))
    assert keys_between(clicks, prefix="an") == ["an", "ann", "anna", "annb", "an\U0010ffff"]
    assert keys_between(clicks, prefix="an", reverse=True) == ["an\U0010ffff", "annb", "anna", "ann", "an"]
    assert keys_between(clicks, prefix="") == sorted(texts)
    assert keys_between(clicks, prefix=b"\xff") == [b"\xff", b"\xff\x01", b"\xff\xff"]
    assert keys_between(clicks, prefix=b"\xff\xff") == [b"\xff\xff"]
    assert keys_between(clicks, prefix=b"") == sorted(binary)
    assert keys_between(clicks, prefix=("an",)) == [("an",), ("an", 1), ("an", 2, "x")]
    assert keys_between(clicks, prefix=("an", 2)) == [("an", 2, "x")]
    assert keys_between(clicks, prefix=()) == sorted(pairs)
    assert keys_between(clicks, prefix="zebra") == []


def test_keys_are_in_their_natural_order_and_types_follow_each_other(clicks: TablePartition) -> None:
    ordered: list[Any] = [
        None, False, True, -(2**70), -256, -1, 0, 1, 255, 256, 2**70, -1.5, 0.0, 1.5, "", "Z", "a", "é", b"", b"a",
        date(2013, 1, 31), date(2013, 2, 1), datetime(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC), UUID(int=1),
        (), (1,), (1, "a"), (1, "a", None), (1, "b"), (2,), ("a",),
    ]  # fmt: skip
    shuffled = ordered.copy()
    random.Random(7).shuffle(shuffled)
    clicks.set_many([(key, None) for key in shuffled[::2]])
    store_frozen(clicks, clicks.freeze())
    clicks.set_many([(key, None) for key in shuffled[1::2]])
    assert list(map(repr, clicks.keys())) == [repr(key) for key in ordered]
    assert [repr(key) for key in clicks.keys(reverse=True)] == [repr(key) for key in reversed(ordered)]


def test_a_limit_counts_entries_that_are_there(clicks: TablePartition) -> None:
    spread(clicks, NUMBERS)
    clicks.delete_many([0, 1, 2, 5])
    assert list(clicks.keys(limit=3)) == [3, 4, 6]
    assert list(clicks.keys(limit=2, reverse=True)) == [19, 18]
    assert list(clicks.keys(clicks.range(start=10), limit=1)) == [10]
    assert list(clicks.keys(limit=0)) == []
    assert len(list(clicks.keys(limit=1_000))) == 16


@pytest.mark.parametrize("limit", [-1, 1.0, "1", True], ids=repr)
def test_what_is_no_limit_is_refused(clicks: TablePartition, limit: Any) -> None:
    with pytest.raises(TableError, match=r"'clicks'.* limited to .* int from 0 on, or None"):
        clicks.items(limit=limit)


def test_a_prefix_goes_with_no_start_and_no_stop(clicks: TablePartition) -> None:
    for bounds in ({"start": "a"}, {"stop": "b"}, {"start": "a", "stop": "b"}):
        with pytest.raises(TableError, match=r"'clicks'.*a prefix, or a start and a stop: leave out the prefix 'a'"):
            clicks.range(prefix="a", **bounds)


@pytest.mark.parametrize("prefix", [1, [1], ("a", [1])], ids=repr)
def test_what_no_key_can_begin_with_is_refused(clicks: TablePartition, prefix: Any) -> None:
    with pytest.raises(SerializationError, match="'clicks'"):
        clicks.range(prefix=prefix)


def test_a_bound_that_cannot_be_a_key_is_refused(clicks: TablePartition) -> None:
    for bounds in ({"start": [1]}, {"stop": [1]}):
        with pytest.raises(SerializationError, match=r"'clicks', partition 3, key \[1\]"):
            clicks.range(**bounds)


@given(st.binary(), st.binary())
def test_the_range_of_a_prefix_holds_what_begins_with_it_and_nothing_else(prefix: bytes, key: bytes) -> None:
    start, stop = beginning_with(prefix)
    assert (start <= key and (stop is None or key < stop)) is key.startswith(prefix)
    assert start <= prefix + key
    assert stop is None or prefix + key < stop


def test_keys_are_read_without_their_values_and_values_without_their_keys(clicks: TablePartition) -> None:
    clicks.store.write({encode_key("a"): b"no value", b"no key": encode_value(1)}, 1, 0)
    assert list(clicks.keys(clicks.range(prefix="a"))) == ["a"]
    assert list(clicks.values(clicks.range(stop=None), limit=0)) == []
    assert list(clicks.values(beginning_with(b"no key"))) == [1]


def test_an_entry_that_cannot_be_read_is_named_and_those_before_it_are_read(clicks: TablePartition) -> None:
    clicks.store.write({encode_key("a"): encode_value(1), encode_key("b"): b"\x01\xc1"}, 1, 0)
    items = clicks.items()
    assert next(items) == ("a", 1)
    with pytest.raises(DeserializationError, match=r"'clicks', partition 3, key 'b': .* 01 c1 are not a value"):
        next(items)
    clicks.store.write({encode_key("b"): None, b"\x01\x99": encode_value(1)}, 2, 0)
    with pytest.raises(DeserializationError, match=r"'clicks', partition 3, the key b'\\x01\\x99'"):
        list(clicks.items())


# --- As of when ------------------------------------------------------------------


def write_all_over(clicks: TablePartition) -> None:
    """Change, delete and add entries everywhere, and let another scan see it."""
    for number in range(-5, 25, 2):
        clicks.set(number, "changed")
    clicks.delete_many(range(0, 20, 3))
    assert len(list(clicks.items())) != len(NUMBERS)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("read", [0, 1, 10])
def test_what_is_written_after_a_scan_was_made_does_not_show(clicks: TablePartition, read: int, reverse: bool) -> None:
    spread(clicks, NUMBERS)
    scan = clicks.items(reverse=reverse)
    found = [next(scan) for _ in range(read)]
    write_all_over(clicks)
    found.extend(scan)
    assert found == sorted(NUMBERS.items(), reverse=reverse)


def test_a_handler_may_write_what_it_iterates_over(clicks: TablePartition) -> None:
    spread(clicks, NUMBERS)
    for number, text in clicks.items():
        clicks.set(number, text + "!")
        clicks.set(number + 100, text)
        clicks.delete(number - 1)
    assert list(clicks.items(clicks.range(stop=100))) == [(19, "19!")]
    assert len(list(clicks.items())) == 21


def test_a_checkpoint_beside_a_scan_changes_nothing_of_it(clicks: TablePartition, task: Task) -> None:
    spread(clicks, NUMBERS)
    frozen = clicks._frozen
    assert frozen is not None
    task.finish()
    scan, late = clicks.items(), clicks.items()
    found = [next(scan) for _ in range(3)]
    clicks.set(1, "changed")
    store_frozen(clicks, frozen)
    clicks.set(4, "changed")
    clicks.store.write({encode_key(6): None, encode_key(7): encode_value("changed")}, 100, 0)
    found.extend(scan)
    assert found == list(late) == list(NUMBERS.items())


def test_a_scan_of_an_empty_layer_does_not_see_what_comes_into_it(clicks: TablePartition) -> None:
    scan = clicks.items()
    clicks.set("a", 1)
    assert list(scan) == []
    assert list(clicks.items()) == [("a", 1)]


def test_a_scan_sees_past_a_part_of_the_message_that_was_taken_back(clicks: TablePartition, task: Task) -> None:
    spread(clicks, NUMBERS)
    scan = clicks.items()
    found = [next(scan)]
    mark = len(task.undo)
    for attempt in range(3):
        write_all_over(clicks)
        found.append(next(scan))
        roll_back(task.undo, mark)
        clicks.set(attempt + 10, "changed")
        clicks.set(-1, "new")
        found.append(next(scan))
        roll_back(task.undo, mark)
    found.extend(scan)
    assert found == list(NUMBERS.items())


@pytest.mark.parametrize("seen_by_another", [False, True])
def test_a_scan_of_writes_that_were_taken_back_is_at_its_end(
    clicks: TablePartition, task: Task, seen_by_another: bool
) -> None:
    clicks.set_many(NUMBERS.items())
    clicks.set("only now", 1)
    scan = clicks.items()
    next(scan)
    roll_back(task.undo, len(task.undo) - 1)
    if seen_by_another:
        assert len(list(clicks.items())) == 20
    for _ in range(2):
        with pytest.raises(TableError, match="'clicks': a scan was read on after its message had failed"):
            next(scan)


def test_a_scan_ends_with_its_store(clicks: TablePartition) -> None:
    clicks.set_many(NUMBERS.items())
    store_frozen(clicks, clicks.freeze())
    scan = clicks.items()
    next(scan)
    clicks.store.close()
    with pytest.raises(TableError, match="'clicks'"):
        next(scan)


def test_what_another_table_of_the_task_writes_is_none_of_a_scans(clicks: TablePartition, task: Task) -> None:
    users = task.hold(Table("users"), MemoryStore("users"))
    clicks.set_many(NUMBERS.items())
    scan = clicks.items()
    next(scan)
    users.set_many([(number, "user") for number in NUMBERS])
    users.set_many([(number, "changed") for number in NUMBERS])
    assert list(scan) == list(NUMBERS.items())[1:]


def test_as_much_written_as_was_taken_back_is_told_from_it(clicks: TablePartition, task: Task) -> None:
    clicks.set_many(NUMBERS.items())
    scan = clicks.items()
    mark = len(task.undo)
    found = []
    for first, *others in ([10], [11], [12, 13], [14, 15]):
        roll_back(task.undo, mark)
        clicks.set(first, "changed")
        for number in others:
            clicks.set(number, "changed")
        found.append(next(scan))
    assert [*found, *scan] == list(NUMBERS.items())


# --- What it costs -----------------------------------------------------------------


class Watched(MemoryStore):
    """Counts the entries that scans read, and knows the scans that are open."""

    def __init__(self) -> None:
        super().__init__("clicks")
        self.read = 0
        self.open: WeakSet[WatchedScan] = WeakSet()

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        scan = WatchedScan(super().scan(start, stop, reverse=reverse), self)
        self.open.add(scan)
        return scan


class WatchedScan:
    def __init__(self, scan: Scan, store: Watched) -> None:
        self.scan, self.store = scan, store

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        self.store.read += 1
        return next(self.scan)

    def close(self) -> None:
        self.store.open.discard(self)


def test_a_scan_that_is_at_its_end_or_that_nobody_has_any_more_lets_go_of_the_store() -> None:
    task, store = Task(), Watched()
    clicks = task.hold(Table("clicks"), store)
    clicks.set_many(NUMBERS.items())
    store_frozen(clicks, clicks.freeze())
    at_its_end, at_its_limit = clicks.items(), clicks.items(limit=1)
    for scan in (at_its_end, at_its_limit):
        assert list(scan)
        assert list(scan) == []
    next(clicks.items())
    clicks.items()
    assert len(store.open) == 0
    kept = clicks.items()
    assert len(store.open) == 1
    del kept


def test_a_scan_reads_only_as_far_as_it_is_read() -> None:
    task, store = Task(), Watched()
    clicks = task.hold(Table("clicks"), store)
    clicks.set_many((number, number) for number in range(1_000))
    store_frozen(clicks, clicks.freeze())
    clicks.set_many([(2, 2), (3, 3)])
    assert list(clicks.keys(limit=5)) == [0, 1, 2, 3, 4]
    assert store.read <= 7
    next(clicks.items(clicks.range(start=500), reverse=True))
    assert store.read <= 9


class WatchedLayer(dict[bytes, object]):
    """Counts the keys that are taken from it one after another."""

    read = 0

    def __iter__(self) -> Iterator[bytes]:
        return self._counted(super().__iter__())

    def __reversed__(self) -> Iterator[bytes]:
        return self._counted(super().__reversed__())

    def _counted(self, keys: Iterator[bytes]) -> Iterator[bytes]:
        for key in keys:
            self.read += 1
            yield key


def all_keys(keys: LayerKeys) -> list[bytes]:
    keys.refresh()
    return list(keys.between(b"", None, reverse=False))


def test_each_further_scan_sorts_in_only_what_is_new() -> None:
    layer = WatchedLayer((b"%06d" % number, 1) for number in range(0, 200_000, 2))
    keys = LayerKeys(layer)
    keys.refresh()
    layer.read = 0
    for number in range(1, 201, 2):
        layer[b"%06d" % number] = 1
        keys.refresh()
        layer[b"%06d" % number] = 2
        keys.refresh()
    assert layer.read == 100
    layer.update((b"x%06d" % number, 1) for number in range(1_000))
    keys.refresh()
    assert layer.read == 1_100
    assert all_keys(keys) == sorted(layer.keys())


@pytest.mark.parametrize("few", [True, False])
def test_keys_that_are_taken_back_leave_the_order_and_may_come_again(few: bool) -> None:
    count = 10 if few else 2_000
    layer: Layer = {b"%06d" % number: 1 for number in range(0, 4_000, 2)}
    keys = LayerKeys(layer)

    def take_back(number: int) -> None:
        for _ in range(number):
            key = next(reversed(layer))
            del layer[key]
            keys.taken_back(key)

    assert all_keys(keys) == sorted(layer)
    layer.update({b"%06d" % number: 1 for number in range(1, 2 * count, 2)})
    assert all_keys(keys) == sorted(layer)
    take_back(count)
    assert all_keys(keys) == sorted(layer)
    layer.update({b"x%06d" % number: 1 for number in range(count)})
    take_back(count // 2)  # never seen by a scan
    layer.update({b"y%06d" % number: 1 for number in range(count)})
    assert all_keys(keys) == sorted(layer)
    take_back(count)
    layer.update({b"y%06d" % number: 1 for number in range(count)})  # the same again, before a scan
    assert all_keys(keys) == sorted(layer)


@given(
    present=st.sets(st.integers(0, 2_000), max_size=50),
    spread_by=st.sampled_from([1, 40]),
    start=st.integers(0, 2_000),
    stop=st.none() | st.integers(0, 2_000),
    reverse=st.booleans(),
)
def test_a_range_of_a_layers_keys(
    present: set[int], spread_by: int, start: int, stop: int | None, reverse: bool
) -> None:
    ordered = sorted({b"%06d" % (number * step) for number in present for step in range(1, spread_by + 1)})
    keys = LayerKeys(dict.fromkeys(ordered[::-1], 1))
    keys.refresh()
    first, end = b"%06d" % start, None if stop is None else b"%06d" % stop
    expected = [key for key in ordered if first <= key and (end is None or key < end)]
    assert list(keys.between(first, end, reverse=reverse)) == (expected[::-1] if reverse else expected)


def test_a_range_goes_on_where_it_was_while_keys_come_and_go() -> None:
    for reverse in (False, True):
        layer: Layer = {b"%06d" % number: 1 for number in range(0, 10_000, 10)}
        there, keys = sorted(layer, reverse=reverse), LayerKeys(layer)
        keys.refresh()
        found = []
        for read, key in enumerate(keys.between(b"", None, reverse=reverse)):
            found.append(key)
            if read % 100 == 0:
                layer.update({b"%06d" % (number * 10 + read // 100 % 9 + 1): 1 for number in range(1_000)})
                keys.refresh()
        assert [key for key in found if key in set(there)] == there
        assert len(set(found)) == len(found)


# --- On a table, in a message --------------------------------------------------------


@pytest.fixture
def table(task: Task) -> Table:
    """The table "clicks", as a handler has it."""
    return Table("clicks")


def test_a_table_is_scanned_as_its_partition(table: Table, clicks: TablePartition, in_message: Message) -> None:
    spread(clicks, {("anna", 1): 1, ("anna", 2): 2, ("bert", 1): 3})
    assert list(table.items()) == [(("anna", 1), 1), (("anna", 2), 2), (("bert", 1), 3)]
    assert list(table.items(prefix=("anna",), reverse=True, limit=1)) == [(("anna", 2), 2)]
    assert list(table.keys(start=("anna", 2))) == [("anna", 2), ("bert", 1)]
    assert list(table.values(stop=("anna", 2))) == [1]
    assert list(table) == list(dict(table)) == list(table.keys())


SCANS: list[Callable[[Table], Iterator[Any]]] = [Table.items, Table.keys, Table.values]


@pytest.mark.parametrize("scan", SCANS)
def test_a_scan_ends_with_its_message(
    table: Table, task: Task, clicks: TablePartition, scan: Callable[[Table], Iterator[Any]]
) -> None:
    clicks.set_many(NUMBERS.items())
    with task.handling():
        begun, unused, finished = scan(table), scan(table), scan(table)
        next(begun)
        list(finished)
    for kept in (begun, unused):
        for _ in range(2):
            with pytest.raises(TableError, match=r"'clicks': a scan was read on in page-views\[3\] after its message"):
                next(kept)
    with task.handling():
        late = scan(table)
        with task.handling():
            with pytest.raises(TableError, match="after its message had ended"):
                next(late)
            next(scan(table))
    assert list(finished) == []


@pytest.mark.parametrize("scan", SCANS)
def test_a_scan_outside_a_message_says_what_to_use(table: Table, scan: Callable[[Table], Iterator[Any]]) -> None:
    with pytest.raises(TableError, match=r"'clicks' was used outside a message.*snapshot"):
        scan(table)


def test_a_scan_that_is_kept_past_its_message_lets_go_of_the_store() -> None:
    task, table, store = Task(), Table("clicks"), Watched()
    clicks = task.hold(table, store)
    clicks.set_many(NUMBERS.items())
    store_frozen(clicks, clicks.freeze())
    with task.handling():
        kept = table.items()
        next(kept)
    with pytest.raises(TableError):
        next(kept)
    assert len(store.open) == 0


async def test_a_scan_goes_on_after_an_await(table: Table, task: Task, clicks: TablePartition) -> None:
    clicks.set_many(NUMBERS.items())
    found = []
    with task.handling():
        for entry in table.items():
            await asyncio.sleep(0)
            table.set(entry[0], "changed")
            found.append(entry)
    assert found == list(NUMBERS.items())


def test_a_scan_that_a_straggler_reads_on_raises_while_a_later_message_is_in_hand(
    table: Table, task: Task, clicks: TablePartition
) -> None:
    clicks.set_many(NUMBERS.items())
    with task.handling():
        straggler = contextvars.copy_context()
        scan = table.items()
    with task.handling(), pytest.raises(TableError, match="after its message had ended"):
        straggler.run(lambda: next(scan))


def test_a_length_is_estimated(table: Table, clicks: TablePartition, in_message: Message) -> None:
    assert table.len_estimate() == 0
    clicks.set_many((number, number) for number in range(1_000))
    assert table.len_estimate() == 1_000
    store_frozen(clicks, clicks.freeze())
    assert 900 <= table.len_estimate() <= 1_100
    clicks.set_many((number, number) for number in range(1_000))
    assert 900 <= table.len_estimate() <= 1_100


# --- With a serializer of keys ---------------------------------------------------------


def test_with_a_key_serializer_the_order_is_that_of_the_serialized_keys(tmp_path: Path) -> None:
    class Decimals:
        lossless = True

        def serialize(self, value: int) -> bytes:
            return str(value).encode()

        def deserialize(self, data: bytes) -> int:
            return int(data)

    clicks = Task().hold(Table("clicks", key_serializer=Decimals()), MemoryStore("clicks"))
    spread(clicks, {number: number for number in range(1, 21)})
    assert list(clicks.keys()) == sorted(range(1, 21), key=str)
    assert keys_between(clicks, start=18, stop=3) == [18, 19, 2, 20]
    assert keys_between(clicks, prefix=b"1") == [1, *range(10, 20)]
    assert keys_between(clicks, prefix=b"") == sorted(range(1, 21), key=str)


def test_with_a_key_serializer_a_prefix_is_bytes() -> None:
    clicks = Task().hold(Table("clicks", key_serializer=String()), MemoryStore("clicks"))
    with pytest.raises(SerializationError, match=r"'clicks'.* a prefix is bytes .* key_serializer.* not the str 'an'"):
        clicks.range(prefix="an")
