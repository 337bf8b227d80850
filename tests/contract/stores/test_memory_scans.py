"""What a scan of a store in memory costs: nothing before the first, and afterwards what it reads."""

import gc

from paperboy.tables.stores.memory import MemoryStore

KEYS = 20_000


class Counted(bytes):
    """A key that counts how often keys were compared."""

    comparisons = 0

    def __lt__(self, other: bytes) -> bool:
        Counted.comparisons += 1
        return bytes.__lt__(self, other)


def key(number: int) -> Counted:
    return Counted(b"%06d" % (number * 7919 % 100_003))


def filled() -> MemoryStore:
    store = MemoryStore("clicks")
    store.write({key(number): b"v" for number in range(KEYS)}, 1, 1)
    return store


def comparisons_since(before: int) -> int:
    return Counted.comparisons - before


def test_keys_are_not_put_in_order_before_somebody_scans() -> None:
    before = Counted.comparisons
    store = filled()
    store.write({key(1): None, key(KEYS): b"v"}, 2, 2)
    store.get_many([key(2), key(3)])
    assert comparisons_since(before) == 0
    next(store.scan())
    assert comparisons_since(before) > KEYS


def test_a_scan_of_a_few_keys_does_not_look_at_the_others() -> None:
    store = filled()
    next(store.scan())
    before = Counted.comparisons
    for reverse in (False, True):
        assert len(list(store.scan(b"0500", b"0501", reverse=reverse))) > 10
    assert comparisons_since(before) < 200


def test_a_write_of_values_alone_leaves_the_order_of_the_keys_as_it_is() -> None:
    store = filled()
    next(store.scan())
    before = Counted.comparisons
    store.write({key(number): b"new" for number in range(KEYS)} | {key(KEYS): None}, 2, 2)
    list(store.scan(b"0500", b"0501"))
    assert comparisons_since(before) < 200


def test_a_few_keys_that_came_or_went_do_not_put_all_others_in_order_again() -> None:
    store = filled()
    next(store.scan())
    before = Counted.comparisons
    store.write({key(5): None, key(KEYS + 5): b"v"}, 2, 2)
    assert key(5) not in [found for found, _ in store.scan()]
    assert comparisons_since(before) < KEYS // 2


def test_what_was_is_kept_only_while_a_scan_may_ask_for_it() -> None:
    store = filled()
    scan = store.scan()
    store.write({key(number): b"new" for number in range(KEYS)}, 2, 2)
    assert len(scan._snapshot._before) == KEYS  # type: ignore[attr-defined]
    del scan
    gc.collect()
    assert list(store._snapshots) == []
