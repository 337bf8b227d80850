"""What every store promises a table, whatever keeps its bytes."""

import threading
from collections.abc import Callable, Mapping
from itertools import islice

import pytest

from paperboy.errors import TableError
from paperboy.tables.stores.protocol import Store
from tests.contract.stores.conftest import IDENTITY, OpenStore


def entries(store: Store) -> dict[bytes, bytes]:
    return dict(store.scan())


def keys(store: Store, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> list[bytes]:
    return [key for key, _ in store.scan(start, stop, reverse=reverse)]


def filled(store: Store, *names: bytes) -> Store:
    store.write({name: b"of " + name for name in names}, 10, 1_000)
    return store


def test_a_new_store_holds_nothing(store: Store) -> None:
    assert (store.changelog_offset, store.in_step_ms) == (None, None)
    assert store.get(b"a") is None
    assert store.get_many([b"a", b"b"]) == [None, None]
    assert keys(store) == keys(store, reverse=True) == []
    assert store.len_estimate() == 0
    assert not store.flush_due


def test_a_write_puts_values_offset_and_time(store: Store) -> None:
    store.write({b"a": b"1", b"b": b"2"}, 7, 1_700_000_000_000)
    assert entries(store) == {b"a": b"1", b"b": b"2"}
    assert (store.changelog_offset, store.in_step_ms) == (7, 1_700_000_000_000)
    store.write({b"a": b"3"}, 9, 1_700_000_000_001)
    assert entries(store) == {b"a": b"3", b"b": b"2"}
    assert (store.changelog_offset, store.in_step_ms) == (9, 1_700_000_000_001)


def test_a_write_of_none_deletes(store: Store) -> None:
    filled(store, b"a", b"b").write({b"a": None, b"never there": None}, 11, 1_000)
    assert store.get(b"a") is None
    assert entries(store) == {b"b": b"of b"}


def test_a_write_without_changes_moves_the_offset_and_the_time(store: Store) -> None:
    filled(store, b"a").write({}, 20, 2_000)
    assert (store.changelog_offset, store.in_step_ms) == (20, 2_000)
    assert entries(store) == {b"a": b"of a"}


def test_any_bytes_but_none_at_all_are_a_key_and_any_bytes_a_value(store: Store) -> None:
    values = {b"\x00": b"", b"\x00\x00": b"\x00", b"\xff" * 300: b"v" * 1_000_000, bytes(range(256)): b"\xff"}
    store.write(values, 1, 1)
    assert entries(store) == values
    assert store.get_many(list(values)) == list(values.values())
    assert store.get(b"\x00") == b""


def test_an_empty_key_is_refused_and_nothing_of_its_write_happens(store: Store) -> None:
    filled(store, b"a")
    with pytest.raises(TableError, match=r"'clicks': an empty key cannot be stored.*give each entry a key"):
        store.write({b"a": b"new", b"": b"x", b"b": b"new"}, 99, 99)
    assert entries(store) == {b"a": b"of a"}
    assert (store.changelog_offset, store.in_step_ms) == (10, 1_000)


def test_get_many_answers_in_the_order_it_was_asked(store: Store) -> None:
    filled(store, b"a", b"b", b"c")
    assert store.get_many([b"c", b"x", b"a", b"c"]) == [b"of c", None, b"of a", b"of c"]
    assert store.get_many((b"b",)) == [b"of b"]
    assert store.get_many([]) == []


def test_a_store_keeps_no_hold_on_the_mapping_it_was_given(store: Store) -> None:
    changes: dict[bytes, bytes | None] = {b"a": b"1"}
    store.write(changes, 1, 1)
    changes[b"b"] = b"2"
    assert entries(store) == {b"a": b"1"}


# Scans.


NAMES = (b"\x00", b"\x00\xff", b"a", b"a\x00", b"ab", b"b", b"\xff", b"\xff\xff")


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_has_what_is_between_its_bounds_in_order(store: Store, *, reverse: bool) -> None:
    filled(store, *reversed(NAMES))
    for start in (b"", b"\x00", b"a", b"a\x01", b"b", b"\xff\xff", b"\xff\xff\xff"):
        for stop in (None, b"", b"\x00", b"a", b"ab", b"b\x00", b"\xff\xff"):
            expected = [name for name in NAMES if start <= name and (stop is None or name < stop)]
            assert list(store.scan(start, stop, reverse=reverse)) == [
                (name, b"of " + name) for name in (reversed(expected) if reverse else expected)
            ]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_as_of_its_beginning_whatever_is_written_meanwhile(open_store: OpenStore, *, reverse: bool) -> None:
    store = filled(open_store(), b"a", b"b", b"c", b"d")
    scan = store.scan(reverse=reverse)
    first = next(scan)
    store.write({b"a": b"new", b"b": None, b"c": b"new", b"c2": b"new", b"d": None, b"e": b"new"}, 11, 1)
    store.write({b"b": b"newer", b"c2": None, b"c": None, b"0": b"newer"}, 12, 1)
    before = [(name, b"of " + name) for name in (b"a", b"b", b"c", b"d")]
    assert [first, *scan] == (before[::-1] if reverse else before)
    assert entries(store) == {b"0": b"newer", b"a": b"new", b"b": b"newer", b"e": b"new"}


def test_a_scan_begins_when_it_is_asked_for_and_not_when_it_is_read(store: Store) -> None:
    filled(store, b"a")
    scan = store.scan()
    store.write({b"a": None, b"b": b"new"}, 11, 1)
    assert list(scan) == [(b"a", b"of a")]


def test_scans_that_began_at_different_times_each_have_their_own(store: Store) -> None:
    scans = []
    for number in range(5):
        store.write({b"same": b"%d" % number, b"key %d" % number: b"", b"key %d" % (number - 2): None}, number, 1)
        scans.append((store.scan(), store.scan(b"key", b"same"), store.scan(reverse=True), entries(store)))
    for forward, bounded, backward, expected in reversed(scans):
        assert dict(forward) == dict(backward) == expected
        assert dict(bounded) == {key: value for key, value in expected.items() if key != b"same"}


def test_a_scan_at_its_end_stays_there(store: Store) -> None:
    scan = filled(store, b"a").scan()
    assert list(scan) == [(b"a", b"of a")]
    store.write({b"b": b""}, 11, 1)
    assert list(scan) == []


def end_itself(store: Store, close_scan: Callable[[], None]) -> None:
    close_scan()


def close_store(store: Store, close_scan: Callable[[], None]) -> None:
    store.close()


def clear_store(store: Store, close_scan: Callable[[], None]) -> None:
    store.clear()


@pytest.mark.parametrize("end", [end_itself, close_store, clear_store])
@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_scan_that_was_closed_says_so_and_does_not_look_like_one_at_its_end(
    open_store: OpenStore, end: Callable[[Store, Callable[[], None]], None], read: int
) -> None:
    store = filled(open_store(), b"a", b"b")
    scan = store.scan()
    for _ in range(read):
        next(scan)
    end(store, scan.close)
    with pytest.raises(TableError, match=f"'{IDENTITY.table}': this scan was closed.*begin a new one"):
        next(scan)
    scan.close()


def test_the_other_scans_go_on_when_one_is_closed(store: Store) -> None:
    filled(store, b"a", b"b")
    one, other = store.scan(), store.scan()
    next(one), next(other)
    one.close()
    store.write({b"b": b"new"}, 11, 1)
    assert list(other) == [(b"b", b"of b")]


# Snapshots.


def test_a_snapshot_is_scanned_as_the_store_was_as_often_as_one_likes(store: Store) -> None:
    filled(store, b"a", b"b", b"c", b"d")
    before = entries(store)
    with_all = store.snapshot()
    store.write({b"a": b"new", b"b": None, b"bb": b"new"}, 11, 1)
    with_some = store.snapshot()
    now = entries(store)
    store.write(dict.fromkeys(now), 12, 1)
    store.flush()
    for snapshot, expected in ((with_all, before), (with_some, now), (store.snapshot(), {})) * 2:
        assert list(snapshot.scan()) == sorted(expected.items())
        assert list(snapshot.scan(reverse=True)) == sorted(expected.items(), reverse=True)
        for start, stop in ((b"b", b"d"), (b"bb", b"c\x00"), (b"d", None), (b"", b"b"), (b"c", b"b"), (b"e", None)):
            within = {key for key in expected if start <= key and (stop is None or key < stop)}
            assert [key for key, _ in snapshot.scan(start, stop)] == sorted(within)
            assert [key for key, _ in snapshot.scan(start, stop, reverse=True)] == sorted(within, reverse=True)


def test_scans_of_one_snapshot_do_not_disturb_each_other(store: Store) -> None:
    snapshot = filled(store, *(b"%02d" % number for number in range(20))).snapshot()
    store.write({b"05": None, b"055": b"new"}, 11, 1)
    expected = [b"%02d" % number for number in range(20)]
    found: list[list[bytes]] = [[], [], []]
    scans = [snapshot.scan(), snapshot.scan(reverse=True), snapshot.scan(b"03", b"17")]
    for _ in range(21):
        for keys_found, scan in zip(found, scans, strict=True):
            keys_found.extend(key for key, _ in islice(scan, 1))
    assert found == [expected, expected[::-1], expected[3:17]]


@pytest.mark.parametrize("end", [end_itself, close_store, clear_store])
def test_a_snapshot_that_was_closed_says_so(
    open_store: OpenStore, end: Callable[[Store, Callable[[], None]], None]
) -> None:
    store = filled(open_store(), b"a", b"b")
    snapshot = store.snapshot()
    scan = snapshot.scan()
    next(scan)
    end(store, snapshot.close)
    for read in (snapshot.scan, lambda: next(scan)):
        with pytest.raises(TableError, match=f"'{IDENTITY.table}': this scan was closed"):
            read()
    snapshot.close()


@pytest.mark.parametrize("number", [1, 999, 1_000, 1_001, 5_000])
def test_many_keys_that_come_and_go_stay_in_order(open_store: OpenStore, number: int) -> None:
    store, expected = open_store(), dict[bytes, bytes]()
    changes: Mapping[bytes, bytes | None]
    for turn in range(6):
        if turn % 2:
            changes = dict.fromkeys(list(expected)[turn::3])
            for key in changes:
                del expected[key]
        else:
            changes = new = {b"%05d" % (index * 7919 % 100_003): b"%d" % turn for index in range(turn, number + turn)}
            expected |= new
        store.write(changes, turn, turn)
        assert list(store.scan()) == sorted(expected.items())
        assert list(store.scan(b"3", b"7", reverse=True)) == sorted(
            ((key, value) for key, value in expected.items() if b"3" <= key < b"7"), reverse=True
        )


# How many, flush, clear, close.


def test_the_estimated_length_is_about_right_for_keys_that_were_written_once(store: Store) -> None:
    for number in range(10):
        store.write({b"%d %d" % (number, index): b"v" for index in range(100)}, number, 1)
        assert abs(store.len_estimate() - (number + 1) * 100) <= 1
    store.flush()
    assert abs(store.len_estimate() - 1_000) <= 1


def test_the_estimated_length_is_never_negative(store: Store) -> None:
    filled(store, b"a", b"b")
    for number in range(20):
        store.write({b"a": None, b"b": None, b"c": None}, number, 1)
        assert store.len_estimate() >= 0
        if number % 3 == 0:
            store.flush()
    store.write({}, 21, 1)
    assert store.len_estimate() >= 0


def test_a_flush_changes_nothing_to_be_seen(store: Store) -> None:
    filled(store, b"a", b"b")
    scan = store.scan()
    store.flush()
    store.write({b"a": None}, 11, 2)
    store.flush()
    assert not store.flush_due
    assert entries(store) == {b"b": b"of b"}
    assert (store.changelog_offset, store.in_step_ms) == (11, 2)
    assert list(scan) == [(b"a", b"of a"), (b"b", b"of b")]


def test_the_store_goes_on_while_a_thread_flushes_it(store: Store) -> None:
    value = b"v" * 100
    ended = threading.Event()

    def flush() -> None:
        for _ in range(20):
            store.flush()
        ended.set()

    flushing = threading.Thread(target=flush)
    flushing.start()
    number = 0
    while not ended.is_set() or number < 200:
        number += 1
        store.write({b"%d" % index: b"%d" % number + value for index in range(50)}, number, number)
        assert store.get(b"7") == b"%d" % number + value
        assert store.get_many([b"1", b"x"]) == [b"%d" % number + value, None]
        assert len(keys(store)) == 50
        assert store.changelog_offset == number
    flushing.join()


def test_a_clear_forgets_everything_and_the_store_goes_on(store: Store) -> None:
    filled(store, b"a", b"b")
    store.flush()
    filled(store, b"c")
    store.clear()
    assert (store.changelog_offset, store.in_step_ms) == (None, None)
    assert store.get_many([b"a", b"b", b"c"]) == [None, None, None]
    assert entries(store) == {}
    assert store.len_estimate() == 0
    assert not store.flush_due
    store.write({b"d": b"4"}, 3, 4)
    assert entries(store) == {b"d": b"4"}
    assert (store.changelog_offset, store.in_step_ms) == (3, 4)
    store.clear()
    store.clear()
    assert entries(store) == {}


def test_a_second_close_does_nothing(open_store: OpenStore) -> None:
    store = filled(open_store(), b"a")
    store.close()
    store.close()


def test_two_stores_know_nothing_of_each_other(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    filled(one, b"a")
    assert (entries(other), other.changelog_offset) == ({}, None)
    one.close()
    filled(other, b"b")
    assert entries(other) == {b"b": b"of b"}
