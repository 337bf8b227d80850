"""A worker's stores: open once, in one thread at a time, kept while their task may come back."""

import asyncio
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from paperboy import Table
from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import in_thread
from paperboy.engine.changelogs import Changelog
from paperboy.engine.disk import Opened
from paperboy.engine.home import Home, take_home
from paperboy.engine.stores import HeldStore, Stores, TaskTable, recency, store_identity
from paperboy.engine.topology import TaskId, TopicGroup
from paperboy.errors import StoreError
from paperboy.tables.partition import TablePartition
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Store, StoreIdentity
from paperboy.tables.stores.record import StoreRecord

pytestmark = pytest.mark.time_limit(10)

LINGER_SEC = 0.03
"""How long something is waited for that must not happen."""
GATE_SEC = 5.0
"""How long a gate holds at most: a thread that waits for ever would keep the tests from ending."""
CLICKS = StoreIdentity("clicks", 0, "clicks-log", "id", "format 1")
DAY_MS = 86_400_000


async def task_table(
    changelog: TopicPartition, store: Store | None = None, delete_retention_ms: int = DAY_MS
) -> TaskTable:
    """A table as its task has it, over a store that is open; it is called as its changelog, without ``-log``."""
    name = changelog.topic.removesuffix("-log")
    partition = TablePartition(Table(name), changelog.partition, [], 1_048_588)
    bottom = MemoryStore(name) if store is None else store
    held = HeldStore(StoreIdentity(name, changelog.partition, changelog.topic, "", ""), lambda _: (bottom, None))
    partition.store = await held.open()
    return TaskTable(partition, changelog, delete_retention_ms, held)


def entries(store: Store) -> dict[bytes, bytes]:
    """All that a store holds."""
    return dict(store.scan())


class Disk:
    """What is under one store, over its life: one process may have it open once, and one thread may be at work in it.

    `gates` are what calls wait for, by name; `failures` what they raise, once.
    """

    def __init__(self) -> None:
        self.linger_sec = 0.0
        """How long each call waits for another one to come in beside it."""
        self.calls: list[str] = []
        self.overlaps: list[list[str]] = []
        self.gates: dict[str, threading.Event] = {}
        self.failures: dict[str, StoreError] = {}
        self.wiped: str | None = None
        self.is_open = False
        self.times_opened = 0
        self._inside: list[str] = []
        self._somebody_came_in = threading.Event()
        self._guard = threading.Lock()

    def open(self) -> Opened:
        with self._guard:
            twice, self.is_open = self.is_open, True
        if twice:
            raise StoreError("it is open already")
        self.times_opened += 1
        self.do("open")
        return DiskStore(self), self.wiped

    def do(self, call: str) -> None:
        with self._guard:
            self.calls.append(call)
            self._inside.append(call)
            if len(self._inside) > 1:
                self.overlaps.append(list(self._inside))
                self._somebody_came_in.set()
        self._somebody_came_in.wait(self.linger_sec)
        if call in self.gates:
            self.gates[call].wait(GATE_SEC)
        with self._guard:
            self._inside.remove(call)
        if call in self.failures:
            raise self.failures.pop(call)

    def hold(self, call: str) -> threading.Event:
        self.gates[call] = threading.Event()
        return self.gates[call]


class DiskStore(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__("clicks")
        self.disk = disk

    def flush(self) -> None:
        self.disk.do("flush")

    def clear(self) -> None:
        self.disk.do("clear")
        super().__init__("clicks")

    def close(self) -> None:
        try:
            self.disk.do("close")
        finally:
            self.disk.is_open = False


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def held(disk: Disk) -> HeldStore:
    return HeldStore(CLICKS, lambda _: disk.open())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    while not condition():  # noqa: ASYNC110 - a thread sets no event of the loop's
        await asyncio.sleep(0.001)


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    fields = [record.__dict__["paperboy"] for record in caplog.records]
    return [each for each in fields if each["event"] == event]


# One call at a time, to its end.


async def test_an_open_store_is_given_to_everybody_who_asks(held: HeldStore, disk: Disk) -> None:
    first, second = await asyncio.gather(held.open(), held.open())
    assert first is second is await held.open()
    assert disk.times_opened == 1


async def test_what_was_thrown_away_at_the_opening_is_said(
    held: HeldStore, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.wiped = "it was written by another version"
    await held.open()
    assert said(caplog, "store wiped") == [
        {
            "event": "store wiped",
            "table": "clicks",
            "changelog": "clicks-log[0]",
            "reason": "it was written by another version",
        }
    ]


async def test_a_store_that_opens_as_it_was_left_says_nothing(
    held: HeldStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await held.open()
    assert said(caplog, "store wiped") == []


async def test_a_wipe_forgets_everything_and_says_so(
    held: HeldStore, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    store = await held.open()
    store.write({b"a": b"1"}, 5, 1)
    await held.wipe("it is of no use")
    assert (entries(store), store.changelog_offset, store.in_step_ms) == ({}, None, None)
    assert [each["reason"] for each in said(caplog, "store wiped")] == ["it is of no use"]
    assert disk.calls == ["open", "clear"]


async def test_a_store_that_is_not_open_has_nothing_to_flush_or_close(held: HeldStore, disk: Disk) -> None:
    await held.flush()
    await held.close()
    assert disk.calls == []


async def test_a_store_that_was_closed_is_opened_anew(held: HeldStore, disk: Disk) -> None:
    first = await held.open()
    await held.close()
    assert await held.open() is not first
    assert disk.calls == ["open", "close", "open"]


async def test_a_store_that_has_failed_is_reopened_from_the_disk(held: HeldStore, disk: Disk) -> None:
    failed = await held.open()
    assert await held.reopen() is not failed
    assert disk.calls == ["open", "close", "open"]


async def test_a_store_that_is_not_open_is_reopened_as_well(held: HeldStore, disk: Disk) -> None:
    disk.failures["open"] = StoreError("no disk")
    with pytest.raises(StoreError, match="no disk"):
        await held.open()
    disk.is_open = False
    await held.reopen()
    assert disk.calls == ["open", "open"]


async def test_a_disk_that_fails_when_the_store_is_closed_is_said_and_stops_nothing(
    held: HeldStore, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    await held.open()
    disk.failures["close"] = StoreError("the disk is gone")
    await held.close()
    [warned] = said(caplog, "store not closed")
    assert (warned["table"], warned["error"]) == ("clicks", "the disk is gone")
    await held.close()
    assert disk.calls == ["open", "close"], "it is closed once"


@pytest.mark.parametrize("call", ["flush", "clear"])
async def test_a_disk_that_fails_is_told_to_whoever_asked(held: HeldStore, disk: Disk, call: str) -> None:
    await held.open()
    disk.failures[call] = StoreError("the disk is gone")
    with pytest.raises(StoreError, match="the disk is gone"):
        await (held.flush() if call == "flush" else held.wipe("of no use"))


CALLS: dict[str, Callable[[HeldStore], Coroutine[Any, Any, object]]] = {
    "open": HeldStore.open,
    "reopen": HeldStore.reopen,
    "flush": HeldStore.flush,
    "clear": lambda held: held.wipe("of no use"),
    "close": HeldStore.close,
}


@pytest.mark.parametrize("second", list(CALLS))
@pytest.mark.parametrize("first", ["flush", "clear", "close", "reopen"])
async def test_no_call_overlaps_with_another(held: HeldStore, disk: Disk, first: str, second: str) -> None:
    await held.open()
    disk.linger_sec = LINGER_SEC
    await asyncio.gather(CALLS[first](held), CALLS[second](held))
    assert disk.overlaps == []
    await held.close()


async def test_an_opening_waits_for_the_close_that_is_under_way(held: HeldStore, disk: Disk) -> None:
    await held.open()
    gate = disk.hold("close")
    closing = asyncio.ensure_future(held.close())
    await until(lambda: disk.calls == ["open", "close"])
    opening = asyncio.ensure_future(held.open())
    assert not await ended_by_itself(opening)
    gate.set()
    await asyncio.gather(closing, opening)
    assert disk.calls == ["open", "close", "open"]


async def ended_by_itself(task: "asyncio.Future[Any]") -> bool:
    """Whether it ends while whatever it should wait for is held up."""
    done, _ = await asyncio.wait([task], timeout=LINGER_SEC)
    return bool(done)


# Whoever is cancelled.


@pytest.mark.parametrize("call", ["flush", "clear", "close"])
async def test_who_is_cancelled_does_not_leave_the_store_to_two_threads(held: HeldStore, disk: Disk, call: str) -> None:
    await held.open()
    disk.linger_sec = LINGER_SEC
    gate = disk.hold(call)
    given_up = asyncio.ensure_future(CALLS[call](held))
    await until(lambda: call in disk.calls)
    for _ in range(3):
        given_up.cancel()
        assert not await ended_by_itself(given_up)
    next_one = asyncio.ensure_future(held.reopen())
    assert not await ended_by_itself(next_one)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await next_one
    assert disk.overlaps == []
    await held.close()
    assert not disk.is_open


async def test_a_store_whose_opening_was_given_up_is_not_lost(held: HeldStore, disk: Disk) -> None:
    gate = disk.hold("open")
    given_up = asyncio.ensure_future(held.open())
    await until(lambda: disk.calls == ["open"])
    given_up.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await held.open()
    assert disk.times_opened == 1, "it is the one that was opened"
    await held.close()
    assert not disk.is_open


async def test_a_wipe_is_said_though_its_caller_was_cancelled(
    held: HeldStore, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    await held.open()
    gate = disk.hold("clear")
    given_up = asyncio.ensure_future(held.wipe("of no use"))
    await until(lambda: "clear" in disk.calls)
    given_up.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert [each["reason"] for each in said(caplog, "store wiped")] == ["of no use"]


async def test_who_is_cancelled_while_waiting_for_another_leaves_the_store_alone(held: HeldStore, disk: Disk) -> None:
    await held.open()
    gate = disk.hold("flush")
    flushing = asyncio.ensure_future(held.flush())
    await until(lambda: "flush" in disk.calls)
    waiting = asyncio.ensure_future(held.close())
    assert not await ended_by_itself(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await flushing
    await held.open()
    assert disk.calls == ["open", "flush"]


async def test_what_failed_after_its_caller_was_cancelled_is_the_cancellation_all_the_same() -> None:
    gate = threading.Event()

    def fail() -> None:
        gate.wait(GATE_SEC)
        raise StoreError("the disk is gone")

    given_up = asyncio.ensure_future(in_thread(fail))
    assert not await ended_by_itself(given_up)
    given_up.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_what_a_thread_raises_and_returns_reaches_who_waits() -> None:
    def fail() -> None:
        raise StoreError("the disk is gone")

    assert await in_thread(lambda: threading.current_thread() is not threading.main_thread())
    with pytest.raises(StoreError, match="the disk is gone"):
        await in_thread(fail)


# All stores of a worker.


class Worker:
    """The stores of one worker, whose memory tables stand on `Disk`s; what runs in the background is the test's."""

    def __init__(self, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disks: dict[str, Disk] = {}
        self.background: list[asyncio.Task[None]] = []
        self.stores = Stores(state_dir, "group", RocksDBOptions(), self.spawn)
        monkeypatch.setattr("paperboy.engine.stores.MemoryStore", self.open_store)

    def open_store(self, table: str) -> Store:
        return self.disks.setdefault(table, Disk()).open()[0]

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        self.background.append(asyncio.get_running_loop().create_task(work, name=name))
        return self.background[-1]

    def hold(self, table: str) -> HeldStore:
        return self.stores.hold(Table(table), StoreIdentity(table, 0, f"{table}-log", "id", "format 1"))

    async def rest(self) -> None:
        """Until nothing goes on in the background."""
        while self.background:
            await self.background.pop()


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(tmp_path, monkeypatch)


async def test_a_table_partition_has_one_store_however_often_it_is_asked_for(worker: Worker) -> None:
    assert worker.hold("clicks") is worker.hold("clicks")
    assert worker.hold("clicks") is not worker.hold("users")
    other = worker.stores.hold(Table("clicks"), StoreIdentity("clicks", 1, "clicks-log", "id", "format 1"))
    assert other is not worker.hold("clicks")


async def test_stores_that_are_not_wanted_any_more_are_closed_in_the_background(worker: Worker) -> None:
    for table in ("clicks", "users"):
        await worker.hold(table).open()
    worker.stores.keep([("clicks", 0)])
    assert worker.disks["users"].is_open, "nobody waits for it"
    await worker.rest()
    assert worker.disks["clicks"].calls == ["open"]
    assert worker.disks["users"].calls == ["open", "close"]


async def test_a_store_whose_task_comes_back_at_once_is_not_closed(worker: Worker) -> None:
    store = await worker.hold("clicks").open()
    store.write({b"a": b"1"}, 1, 1)
    worker.stores.keep([])
    worker.stores.keep([("clicks", 0)])
    await worker.rest()
    assert await worker.hold("clicks").open() is store
    assert worker.disks["clicks"].calls == ["open"]


async def test_a_store_whose_task_comes_back_while_it_is_closed_is_opened_again(worker: Worker) -> None:
    await worker.hold("clicks").open()
    disk = worker.disks["clicks"]
    gate = disk.hold("close")
    worker.stores.keep([])
    await until(lambda: "close" in disk.calls)
    worker.stores.keep([("clicks", 0)])
    opening = asyncio.ensure_future(worker.hold("clicks").open())
    assert not await ended_by_itself(opening)
    gate.set()
    await opening
    await worker.rest()
    assert disk.calls == ["open", "close", "open"]
    assert (disk.is_open, disk.overlaps) == (True, [])


async def test_a_store_that_is_being_flushed_is_closed_after_that(worker: Worker) -> None:
    await worker.hold("clicks").open()
    disk = worker.disks["clicks"]
    disk.linger_sec = LINGER_SEC
    worker.stores.flush()
    worker.stores.keep([])
    await worker.rest()
    assert (disk.calls, disk.overlaps) == (["open", "flush", "close"], [])


async def test_all_open_stores_are_flushed_and_one_that_fails_is_said(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    for table in ("clicks", "users"):
        await worker.hold(table).open()
    worker.hold("idle")
    worker.disks["clicks"].failures["flush"] = StoreError("the disk is gone")
    worker.stores.flush()
    await worker.rest()
    assert [worker.disks[table].calls for table in ("clicks", "users")] == [["open", "flush"]] * 2
    assert [each["error"] for each in said(caplog, "store not flushed")] == ["the disk is gone"]


async def test_at_the_end_every_store_is_closed(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    for table in ("clicks", "users", "views"):
        await worker.hold(table).open()
    worker.disks["users"].failures["close"] = StoreError("the disk is gone")
    await worker.stores.close()
    assert not any(disk.is_open for disk in worker.disks.values())
    assert len(said(caplog, "store not closed")) == 1


async def test_memory_tables_need_no_directory(worker: Worker, tmp_path: Path) -> None:
    await worker.stores.take_homes([Table("clicks")])
    await worker.stores.close()
    assert os.listdir(tmp_path) == []


async def test_tables_on_disk_share_a_home_in_each_directory_and_leave_it_at_the_end(tmp_path: Path) -> None:
    state_dir, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    tables = [Table("a", "rocksdb://"), Table("b", "rocksdb://"), Table("c", f"rocksdb://{elsewhere}")]
    for _ in range(2):
        first, second = (Stores(state_dir, "group", RocksDBOptions(), lambda work, name: None) for _ in range(2))
        await first.take_homes(tables)
        await second.take_homes(tables)
        for directory in (state_dir, elsewhere):
            assert sorted(os.listdir(directory / "group")) == ["1", "2"]
        await first.close()
        await second.close()


async def test_a_home_that_was_taken_for_nobody_is_left_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def take_slowly(state_dir: Path, group_id: str) -> Home:
        gate.wait(GATE_SEC)
        return take_home(state_dir, group_id)

    monkeypatch.setattr("paperboy.engine.disk.take_home", take_slowly)
    stores = Stores(tmp_path, "group", RocksDBOptions(), lambda work, name: None)
    given_up = asyncio.ensure_future(stores.take_homes([Table("clicks", "rocksdb://")]))
    assert not await ended_by_itself(given_up)
    given_up.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await stores.close()
    home = take_home(tmp_path, "group")
    assert home.path.name == "1"
    home.release()


# How far they have come: what the group is told, so that a task goes to who has least of it to restore.


class Disks:
    """The stores of one worker after another, whose tables are on disk under `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.background: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.background.append(asyncio.get_running_loop().create_task(work, name=name))

    async def worker(self, *tables: Table) -> Stores:
        stores = Stores(self.state_dir, "group", RocksDBOptions(), self.spawn)
        await stores.take_homes(tables)
        return stores

    async def rest(self) -> None:
        while self.background:
            await self.background.pop()


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)


KEPT = Table("kept", "rocksdb://")
FLEETING = Table("fleeting")
KEPT_LOG = Changelog("kept-log", 3, 1_048_588, DAY_MS, "id")
FLEETING_LOG = Changelog("fleeting-log", 3, 1_048_588, DAY_MS, "other id")


async def filled(stores: Stores, table: Table, changelog: Changelog, partition: int, offset: int, at_ms: int) -> Store:
    store = await stores.hold(table, store_identity(table, changelog, partition)).open()
    store.write({b"key": b"value"}, offset, at_ms)
    return store


def offsets(stores: Stores) -> dict[tuple[str, int], int]:
    return {store_id: record.changelog_offset for store_id, record in stores.records().items()}


async def test_what_a_worker_left_on_disk_is_found_at_the_next_start(disks: Disks) -> None:
    stores = await disks.worker(KEPT)
    assert stores.records() == {}
    await filled(stores, KEPT, KEPT_LOG, 0, 7, 1_000)
    await filled(stores, KEPT, KEPT_LOG, 12, 9, 2_000)
    await stores.close()
    stores = await disks.worker(KEPT)
    assert stores.records() == {
        ("kept", 0): StoreRecord(store_identity(KEPT, KEPT_LOG, 0), 7, 1_000),
        ("kept", 12): StoreRecord(store_identity(KEPT, KEPT_LOG, 12), 9, 2_000),
    }
    await stores.close()


async def test_each_worker_finds_what_is_in_its_own_home(disks: Disks) -> None:
    for _ in range(2):
        first, second = await disks.worker(KEPT), await disks.worker(KEPT)
        await filled(first, KEPT, KEPT_LOG, 0, 7, 1_000)
        await filled(second, KEPT, KEPT_LOG, 1, 8, 1_000)
        await first.close()
        await second.close()
    first, second = await disks.worker(KEPT), await disks.worker(KEPT)
    assert (offsets(first), offsets(second)) == ({("kept", 0): 7}, {("kept", 1): 8})
    await first.close()
    await second.close()


async def test_only_tables_that_are_registered_and_on_disk_are_looked_at(disks: Disks) -> None:
    gone = Table("gone", "rocksdb://")
    stores = await disks.worker(KEPT, gone)
    await filled(stores, gone, KEPT_LOG, 0, 7, 1_000)
    await stores.close()
    stores = await disks.worker(KEPT, FLEETING)
    assert stores.records() == {}
    await stores.close()


async def test_what_is_no_store_or_damaged_is_passed_over(disks: Disks) -> None:
    stores = await disks.worker(KEPT)
    for partition in range(3):
        await filled(stores, KEPT, KEPT_LOG, partition, 7, 1_000)
    await stores.close()
    table = disks.state_dir / "group" / "1" / "kept"
    (table / "0" / "CURRENT").write_text("rubbish")
    (table / "1").rename(table / "01")
    (table / "5").mkdir()
    (table / "6").write_text("a file")
    (table / "@notes").mkdir()
    stores = await disks.worker(KEPT)
    assert offsets(stores) == {("kept", 2): 7}
    await stores.close()


async def test_a_tables_directory_that_cannot_be_read_is_said(disks: Disks) -> None:
    await (await disks.worker(KEPT)).close()
    (disks.state_dir / "group" / "1" / "kept").write_text("a file")
    stores = Stores(disks.state_dir, "group", RocksDBOptions(), disks.spawn)
    with pytest.raises(StoreError, match="kept' cannot be read: Not a directory; let "):
        await stores.take_homes([KEPT])
    await stores.close()


async def test_a_store_that_is_open_tells_how_far_it_is_now(disks: Disks) -> None:
    stores = await disks.worker(KEPT)
    await filled(stores, KEPT, KEPT_LOG, 0, 7, 1_000)
    await stores.close()
    stores = await disks.worker(KEPT)
    held = stores.hold(KEPT, store_identity(KEPT, KEPT_LOG, 0))
    assert offsets(stores) == {("kept", 0): 7}, "as it was found, until it is open"
    (await held.open()).write({}, 11, 3_000)
    await filled(stores, FLEETING, FLEETING_LOG, 0, 5, 3_000)
    assert offsets(stores) == {("kept", 0): 11, ("fleeting", 0): 5}
    await held.wipe("of no use")
    assert offsets(stores) == {("fleeting", 0): 5}
    await stores.close()


async def test_a_store_that_was_closed_is_known_as_it_was_left_where_it_is_on_disk(disks: Disks) -> None:
    stores = await disks.worker(KEPT, FLEETING)
    await filled(stores, KEPT, KEPT_LOG, 0, 7, 1_000)
    await filled(stores, FLEETING, FLEETING_LOG, 0, 5, 1_000)
    stores.keep([])
    await disks.rest()
    assert offsets(stores) == {("kept", 0): 7}
    await stores.close()


async def test_looking_into_many_stores_takes_a_bounded_time(
    disks: Disks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stores = await disks.worker(KEPT)
    for partition in range(6):
        await filled(stores, KEPT, KEPT_LOG, partition, 7, 1_000)
    await stores.close()
    monkeypatch.setattr("paperboy.engine.stores.LOOK_SEC", 0.0)
    stores = await disks.worker(KEPT)
    assert stores.records() == {}
    assert [each["left_out"] for each in said(caplog, "not all stores looked at")] == [6]
    await stores.close()


async def test_who_is_cancelled_while_looking_leaves_nothing_going_on(
    disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []
    ended: list[Path] = []
    gate = threading.Event()

    def look(path: Path) -> None:
        begun.append(path)
        gate.wait()
        ended.append(path)

    stores = await disks.worker(KEPT)
    for partition in range(8):
        await filled(stores, KEPT, KEPT_LOG, partition, 7, 1_000)
    await stores.close()
    monkeypatch.setattr("paperboy.engine.disk.LocalDisk.look", lambda _, path: look(path))
    stores = Stores(disks.state_dir, "group", RocksDBOptions(), disks.spawn)
    starting = asyncio.ensure_future(stores.take_homes([KEPT]))
    await until(lambda: bool(begun))
    starting.cancel()
    assert not await ended_by_itself(starting)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert len(begun) == len(ended) < 8
    await stores.close()


GROUPS = [TopicGroup("clicks", ("clicks", "views"), (FLEETING, KEPT)), TopicGroup("users", ("users",), ())]
CHANGELOGS = {"kept": KEPT_LOG, "fleeting": FLEETING_LOG}
NOW_MS = 10 * DAY_MS


def left(table: Table, number: int, offset: int, in_step_ms: int = NOW_MS, **identity: Any) -> StoreRecord:
    return StoreRecord(
        dataclasses.replace(store_identity(table, CHANGELOGS[table.name], number), **identity), offset, in_step_ms
    )


def recency_of(*records: StoreRecord, now_ms: int = NOW_MS) -> dict[TaskId, int]:
    by_id = {(record.identity.table, record.identity.partition): record for record in records}
    return dict(recency(GROUPS, CHANGELOGS, by_id, now_ms))


def test_a_tasks_recency_is_the_sum_of_its_tables_changelog_offsets() -> None:
    assert recency_of(left(KEPT, 0, 7), left(FLEETING, 0, 5), left(KEPT, 2, 9)) == {
        TaskId("clicks", 0): 12,
        TaskId("clicks", 2): 9,
    }


@pytest.mark.parametrize(
    "identity", [{"changelog": "another"}, {"changelog_id": "made anew"}, {"definition": "another"}, {"partition": 1}]
)
def test_a_store_that_would_be_wiped_for_whose_it_is_does_not_count(identity: dict[str, Any]) -> None:
    record = left(KEPT, 0, 7, **identity)
    assert dict(recency(GROUPS, CHANGELOGS, {("kept", 0): record}, NOW_MS)) == {}


def test_a_store_of_a_changelog_whose_id_nobody_knew_counts() -> None:
    assert recency_of(left(KEPT, 0, 7, changelog_id="")) == {TaskId("clicks", 0): 7}


def test_a_store_that_was_away_for_as_long_as_tombstones_are_kept_does_not_count() -> None:
    old = left(KEPT, 0, 7)
    assert recency_of(old, left(FLEETING, 0, 5, NOW_MS + 1), now_ms=NOW_MS + DAY_MS) == {TaskId("clicks", 0): 5}
    assert recency_of(old, now_ms=NOW_MS + DAY_MS - 1) == {TaskId("clicks", 0): 7}


def test_stores_of_no_task_do_not_count() -> None:
    """Those of global tables, and of partitions that the changelog does not have."""
    copy = StoreRecord(StoreIdentity("countries", 0, "countries", "", ""), 99, NOW_MS)
    assert recency_of(copy, left(KEPT, 3, 7)) == {}


def test_where_stores_are_too_many_those_are_told_of_that_were_in_step_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperboy.engine.stores._MOST_TOLD", 2)
    records = [left(KEPT, number, 7 + number, NOW_MS - at) for number, at in enumerate((5, 9, 3))]
    assert recency_of(*records) == {TaskId("clicks", 0): 7, TaskId("clicks", 2): 9}
