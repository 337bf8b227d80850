"""Bringing stores to the end of their changelogs: by position, from where each store stands."""

import asyncio
import contextlib
import itertools
import re
from collections.abc import Collection, Mapping
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paperboy.brokers import protocol
from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.protocol import Broker, Outgoing, Reader, Record, TopicPartition, TopicSpec
from paperboy.clock import SystemClock
from paperboy.engine.restore import restore, uselessness
from paperboy.engine.restoring import RestoreProgress
from paperboy.engine.stores import TaskTable
from paperboy.errors import BrokerError, StoreError, TopicNotFound
from paperboy.tables.stores.memory import MemoryStore
from tests.unit.test_held_stores import DAY_MS, entries, said, task_table
from tests.unit.test_memory_broker_time import run

pytestmark = pytest.mark.time_limit(10)

CHANGELOG = TopicPartition("clicks-log", 0)
OTHER = TopicPartition("users-log", 0)


class Store(MemoryStore):
    """Notes what it is flushed at; `flush_due` and what a write raises are for the test to set."""

    flush_due = False

    def __init__(self, table: str = "clicks") -> None:
        super().__init__(table)
        self.flushed_at: list[int | None] = []
        self.fails: StoreError | None = None

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
        if self.fails is not None:
            raise self.fails
        super().write(changes, changelog_offset, in_step_ms)

    def flush(self) -> None:
        self.flushed_at.append(self.changelog_offset)


async def held(
    changelog: TopicPartition = CHANGELOG, /, *, at: int | None = None, in_step_ms: int | None = None, **kept: bytes
) -> TaskTable:
    """A table whose store stands at this changelog offset with these entries, lately in step if nothing is said."""
    store = Store(changelog.topic.removesuffix("-log"))
    if at is not None:
        now_ms = SystemClock().time_ms()
        written = {key.encode(): value for key, value in kept.items()}
        store.write(written, at, now_ms if in_step_ms is None else in_step_ms)
    return await task_table(changelog, store)


def store_of(table: TaskTable) -> Store:
    return cast(Store, table.partition.store)


def state(table: TaskTable) -> tuple[dict[bytes, bytes], int | None]:
    """What its store holds, and where it stands."""
    return entries(table.partition.store), table.partition.store.changelog_offset


class Log:
    """The changelogs, on a broker of this process; a compaction leaves no tombstones unless they are retained."""

    def __init__(self, *, delete_retention_ms: int = 0, cleanup_policy: str = "compact") -> None:
        self.cluster = MemoryCluster()
        self.broker = MemoryBroker(self.cluster)
        config = {"cleanup.policy": cleanup_policy, "delete.retention.ms": str(delete_retention_ms)}
        self.cluster.create_topics([TopicSpec(name, 1, config=config) for name in (CHANGELOG.topic, OTHER.topic)])

    async def write(self, changelog: TopicPartition = CHANGELOG, /, *changes: tuple[bytes, bytes | None]) -> None:
        producer = self.broker.producer()
        await producer.start()
        now_ms = self.broker.clock.time_ms()
        records: list[Outgoing] = [(key, value, (), now_ms) for key, value in changes]
        await asyncio.gather(*await producer.send(changelog, records))
        await producer.stop()

    def marker(self, changelog: TopicPartition = CHANGELOG) -> None:
        self.cluster.append_marker(changelog)

    async def restore(self, *tables: TaskTable) -> int:
        """Returns how many records were read."""
        await self.broker.start()
        progress = progress_now()
        await restore(tables, self.broker, progress)
        return progress.so_far().records


def progress_now() -> RestoreProgress:
    return RestoreProgress(asyncio.get_running_loop().time)


class Reports(RestoreProgress):
    """Notes how many records it was told of each time."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop().time)
        self.reports: list[int] = []

    def passed(self, records: int, offsets: int) -> None:
        super().passed(records, offsets)
        self.reports.append(records)


@pytest.fixture
def log() -> Log:
    return Log()


async def test_without_tables_nothing_is_asked_for(log: Log) -> None:
    log.cluster.fail_next("offsets", BrokerError("asked"))
    assert await log.restore() == 0


async def test_a_store_that_holds_nothing_gets_the_last_value_of_each_key(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b"3"))
    clicks = await held()
    assert await log.restore(clicks) == 5
    assert state(clicks) == ({b"a": b"2", b"c": b"3"}, 5)


async def test_an_empty_changelog_ends_the_restore_at_once(log: Log) -> None:
    log.cluster.fail_next("fetch", BrokerError("fetched"))
    clicks = await held()
    assert await log.restore(clicks) == 0
    assert state(clicks) == ({}, 0)


async def test_a_store_at_the_end_reads_nothing(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"))
    log.cluster.fail_next("fetch", BrokerError("fetched"))
    clicks = await held(at=2, a=b"1", b=b"1")
    assert await log.restore(clicks) == 0
    assert state(clicks) == ({b"a": b"1", b"b": b"1"}, 2)


async def test_a_store_goes_on_from_its_own_offset(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", None))
    clicks = await held(at=2, a=b"1", b=b"kept", c=b"1")
    assert await log.restore(clicks) == 2
    assert state(clicks) == ({b"a": b"2", b"b": b"kept"}, 4)


@pytest.mark.parametrize("records", [0, 3])
@pytest.mark.parametrize("markers", [1, 7])
async def test_a_tail_of_transaction_markers_ends_the_restore(log: Log, records: int, markers: int) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x") for number in range(records)])
    for _ in range(markers):
        log.marker()
    clicks = await held()
    await log.restore(clicks)
    assert state(clicks) == ({b"%d" % number: b"x" for number in range(records)}, records + markers)


def test_a_tail_without_records_costs_no_more_than_a_moment(log: Log) -> None:
    async def scenario() -> None:
        await log.write(CHANGELOG, (b"a", b"1"))
        log.marker()
        began = asyncio.get_running_loop().time()
        for _ in range(10):
            await log.restore(await held(at=1, a=b"1"))
        assert asyncio.get_running_loop().time() - began < 10 * 0.2

    run(scenario())


async def test_a_store_that_stands_at_a_marker_reads_nothing_more(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"))
    log.marker()
    clicks = await held(at=1, a=b"1")
    assert await log.restore(clicks) == 0
    assert state(clicks) == ({b"a": b"1"}, 2)


async def test_a_changelog_that_ends_in_a_compacted_gap_ends_the_restore(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"b", None))
    log.cluster.compact(CHANGELOG.topic)
    clicks = await held()
    assert await log.restore(clicks) == 1
    assert state(clicks) == ({b"a": b"1"}, 3)


async def test_a_changelog_of_which_compaction_left_nothing_ends_the_restore(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"a", None))
    log.cluster.compact(CHANGELOG.topic)
    clicks = await held()
    assert await log.restore(clicks) == 0
    assert state(clicks) == ({}, 2)


async def test_a_store_whose_offset_was_compacted_away_goes_on_behind_the_gap(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"a", b"2"), (b"a", b"3"), (b"b", b"1"))
    log.cluster.compact(CHANGELOG.topic)
    clicks = await held(at=1, a=b"1")
    assert await log.restore(clicks) == 2
    assert state(clicks) == ({b"a": b"3", b"b": b"1"}, 4)


async def test_a_store_beyond_the_changelogs_end_is_wiped_and_restored(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(CHANGELOG, (b"a", b"1"))
    clicks = await held(at=5, a=b"9", ghost=b"1")
    await log.restore(clicks)
    assert state(clicks) == ({b"a": b"1"}, 1)
    [wiped] = said(caplog, "store wiped")
    assert (wiped["table"], wiped["changelog"]) == ("clicks", "clicks-log[0]")
    assert wiped["reason"] == "it stands at offset 5, and the changelog holds 0 to 1"


async def test_a_store_before_the_changelogs_beginning_is_wiped_and_restored(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"ghost", None), (b"b", b"1"))
    log.cluster.delete_records(CHANGELOG, before=2)
    clicks = await held(at=1, a=b"1", ghost=b"1")
    await log.restore(clicks)
    assert state(clicks) == ({b"b": b"1"}, 3)
    [wiped] = said(caplog, "store wiped")
    assert wiped["reason"] == "it stands at offset 1, and the changelog holds 2 to 3"


async def test_a_store_beyond_an_empty_changelog_is_wiped(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    clicks = await held(at=5, a=b"9")
    await log.restore(clicks)
    assert state(clicks) == ({}, 0)
    assert len(said(caplog, "store wiped")) == 1


@pytest.mark.parametrize("at", [2, 3])
async def test_a_store_at_the_changelogs_very_beginning_or_end_is_kept(
    log: Log, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    log.cluster.delete_records(CHANGELOG, before=2)
    clicks = await held(at=at, kept=b"1")
    await log.restore(clicks)
    assert b"kept" in state(clicks)[0]
    assert said(caplog, "store wiped") == []


async def test_a_changelog_that_was_emptied_by_deletion_ends_the_restore(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"))
    log.cluster.delete_records(CHANGELOG, before=2)
    clicks = await held()
    await log.restore(clicks)
    assert state(clicks) == ({}, 2)


async def test_several_tables_are_restored_each_from_its_own_offset(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"))
    await log.write(OTHER, (b"a", b"2"), (b"b", b"2"), (b"c", b"2"))
    log.marker(OTHER)
    clicks, users = await held(at=9, ghost=b"1"), await held(OTHER, at=1, a=b"kept")
    assert await log.restore(clicks, users) == 4
    assert state(clicks) == ({b"a": b"1", b"b": b"1"}, 2)
    assert state(users) == ({b"a": b"kept", b"b": b"2", b"c": b"2"}, 4)
    assert [wiped["table"] for wiped in said(caplog, "store wiped")] == ["clicks"]


async def test_a_large_changelog_comes_in_several_fetches(log: Log) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 100_000) for number in range(40)])
    clicks = await held()
    progress = Reports()
    await log.broker.start()
    await restore([clicks], log.broker, progress)
    assert len(progress.reports) > 1
    assert sum(progress.reports) == 40
    assert (len(state(clicks)[0]), state(clicks)[1]) == (40, 40)


class Interfering(MemoryBroker):
    """Something happens to the log just before each fetch, by turns."""

    def __init__(self, cluster: MemoryCluster, *happenings: Any) -> None:
        super().__init__(cluster)
        self.happenings = list(happenings)

    def reader(self) -> Any:
        reader = super().reader()
        fetch = reader.fetch

        async def fetch_after(
            partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
        ) -> dict[TopicPartition, list[Record]]:
            if self.happenings:
                happening = self.happenings.pop(0)
                if happening is not None:
                    happening()
            return await fetch(partitions, timeout_sec, max_records)

        reader.fetch = fetch_after  # type: ignore[method-assign]
        return reader


async def test_what_is_deleted_under_our_feet_wipes_the_store_and_begins_again(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(12)])
    await log.write(OTHER, (b"a", b"2"))
    broker = Interfering(log.cluster, None, lambda: log.cluster.delete_records(CHANGELOG, before=10))
    await broker.start()
    clicks, users = await held(), await held(OTHER)
    await restore([clicks, users], broker, progress_now())
    assert sorted(state(clicks)[0]) == [b"10", b"11"]
    assert state(clicks)[1] == 12
    assert state(users) == ({b"a": b"2"}, 1)
    [wiped] = said(caplog, "store wiped")
    assert wiped["table"] == "clicks"


def test_a_changelog_that_is_deleted_while_it_is_read_ends_the_restore(log: Log) -> None:
    async def scenario() -> None:
        await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(12)])
        broker = Interfering(log.cluster, None, lambda: log.cluster.delete_topics([CHANGELOG.topic]))
        await broker.start()
        with pytest.raises(TopicNotFound, match=r"'clicks-log' is gone"):
            await restore([await held()], broker, progress_now())

    run(scenario())


def test_a_changelog_that_becomes_shorter_while_it_is_read_is_read_anew(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left ends before the end that the restore was to come to, but not before where it has come."""

    def make_anew() -> None:
        log.cluster.delete_topics([CHANGELOG.topic])
        log.cluster.create_topics([TopicSpec(CHANGELOG.topic, 1, config={"cleanup.policy": "compact"})])
        log.cluster.topic(CHANGELOG.topic).append(
            0, ([(b"anew", b"%d" % number, (), 0) for number in range(9)], [0] * 9), 0
        )

    async def scenario() -> None:
        await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(12)])
        broker = Interfering(log.cluster, None, make_anew)
        await broker.start()
        clicks = await held()
        await restore([clicks], broker, progress_now())
        assert state(clicks) == ({b"anew": b"8"}, 9)

    run(scenario())
    [wiped] = said(caplog, "store wiped")
    assert "ended at offset 12 when it began to be read, and ends at 9 now" in wiped["reason"]


def test_a_restore_waits_for_a_broker_that_is_away_and_says_so(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(12)])
        answers: list[Any] = [{}] * 350  # 35 s in which a client waits
        broker = Interfering(log.cluster)
        await broker.start()
        reader_as_before = broker.reader

        def reader() -> Any:
            silent = reader_as_before()
            fetch = silent.fetch

            async def fetch_in_vain(*args: Any) -> Any:
                if not answers:
                    return await fetch(*args)
                log.cluster.fail_next("describe", BrokerError("away"))
                await asyncio.sleep(0.1)
                return answers.pop()

            silent.fetch = fetch_in_vain
            return silent

        broker.reader = reader  # type: ignore[method-assign]
        clicks = await held()
        await restore([clicks], broker, progress_now())
        assert len(state(clicks)[0]) == 12

    run(scenario())
    assert len(said(caplog, "nothing comes")) == 3
    assert {line["error"] for line in said(caplog, "end offsets unknown")} == {"away"}


async def test_what_fails_is_raised_and_the_next_restore_goes_on_from_where_this_one_came(log: Log) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(12)])
    clicks = await held()
    broken = Interfering(log.cluster, None, lambda: log.cluster.fail_next("fetch", BrokerError("broken")))
    await broken.start()
    with pytest.raises(BrokerError, match="broken"):
        await restore([clicks], broken, progress_now())
    half = clicks.partition.store.changelog_offset
    assert half is not None
    assert 0 < half < 12
    assert await log.restore(clicks) == 12 - half
    assert len(state(clicks)[0]) == 12


async def test_the_reader_is_closed_whatever_happens(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"))
    opened: list[Reader] = []
    broker: Broker = MemoryBroker(log.cluster)
    reader_as_before = broker.reader

    def reader() -> Reader:
        opened.append(reader_as_before())
        return opened[-1]

    broker.reader = reader  # type: ignore[method-assign]
    await broker.start()
    await restore([await held()], broker, progress_now())
    log.cluster.fail_next("fetch", BrokerError("broken"))
    with pytest.raises(BrokerError):
        await restore([await held()], broker, progress_now())
    assert len(opened) == 2
    for each in opened:
        with pytest.raises(BrokerError, match="not open"):
            each.position(CHANGELOG)


# A store that was away for too long.


def away(log: Log, passes_ms: int, *, then: tuple[bytes, bytes | None] | None) -> Mapping[str, Any]:
    """A store is in step, a key is deleted, time passes, and the cleaner runs twice; what the store is then."""
    found: dict[str, Any] = {}

    async def scenario() -> None:
        clicks = await held()
        await log.write(CHANGELOG, (b"a", b"1"), (b"ghost", b"1"))
        await log.restore(clicks)
        if then is not None:
            await log.write(CHANGELOG, (b"ghost", None))
            log.cluster.compact(CHANGELOG.topic)
        await asyncio.sleep(passes_ms / 1000)
        if then is not None:
            log.cluster.compact(CHANGELOG.topic)
            await log.write(CHANGELOG, then)
        found["read"] = await log.restore(clicks)
        found["kept"] = state(clicks)[0]

    run(scenario())
    return found


@pytest.mark.parametrize("days", [1, 2])
def test_a_store_that_was_away_while_a_tombstone_came_and_went_is_wiped(
    days: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = away(Log(delete_retention_ms=DAY_MS), days * DAY_MS, then=(b"b", b"1"))
    assert found == {"kept": {b"a": b"1", b"b": b"1"}, "read": 2}, "the deleted key has not come back"
    [wiped] = said(caplog, "store wiped")
    assert wiped["reason"] == (
        f"it was away for {24 * days}.0 h, and the changelog keeps tombstones for 24.0 h (delete.retention.ms)"
    )


def test_a_store_that_was_away_for_a_shorter_time_reads_the_tombstone(caplog: pytest.LogCaptureFixture) -> None:
    found = away(Log(delete_retention_ms=DAY_MS), DAY_MS - 1000, then=(b"b", b"1"))
    assert found == {"kept": {b"a": b"1", b"b": b"1"}, "read": 2}
    assert said(caplog, "store wiped") == []


def test_a_store_of_a_changelog_that_has_not_moved_is_kept_however_long_it_was_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = away(Log(delete_retention_ms=DAY_MS), 20 * DAY_MS, then=None)
    assert found == {"kept": {b"a": b"1", b"ghost": b"1"}, "read": 0}
    assert said(caplog, "store wiped") == []


def test_a_store_that_was_looked_at_meanwhile_was_not_away(caplog: pytest.LogCaptureFixture) -> None:
    """A restore that has nothing to read finds out just that: the store lacks nothing, now."""

    async def scenario() -> None:
        log = Log(delete_retention_ms=DAY_MS)
        clicks = await held()
        await log.write(CHANGELOG, (b"a", b"1"))
        await log.restore(clicks)
        for _ in range(5):
            await asyncio.sleep(0.9 * DAY_MS / 1000)
            await log.restore(clicks)
        await asyncio.sleep(0.9 * DAY_MS / 1000)
        await log.write(CHANGELOG, (b"b", b"1"))
        assert await log.restore(clicks) == 1

    run(scenario())
    assert said(caplog, "store wiped") == []


HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("offset", "begin", "end", "away_ms", "reason"),
    [
        (None, 0, 10, DAY_MS, None),
        (None, 5, 5, None, None),
        (0, 0, 0, 0, None),
        (0, 0, 10, 0, None),
        (10, 0, 10, 0, None),
        (5, 5, 10, 0, None),
        (4, 5, 10, 0, "it stands at offset 4, and the changelog holds 5 to 10"),
        (11, 5, 10, 0, "it stands at offset 11, and the changelog holds 5 to 10"),
        (1, 0, 0, 0, "it stands at offset 1, and the changelog holds 0 to 0"),
        (5, 0, 10, DAY_MS - 1, None),
        (5, 0, 10, DAY_MS, "it was away for 24.0 h, and the changelog keeps tombstones for 24.0 h"),
        (5, 0, 10, 30 * HOUR_MS, "it was away for 30.0 h, and the changelog keeps tombstones for 24.0 h"),
        (10, 0, 10, 1000 * DAY_MS, None),
        (10, 0, 10, None, None),
        (5, 0, 10, None, "it was away for .* h, and the changelog keeps tombstones for 24.0 h"),
        (5, 0, 10, -HOUR_MS, None),
    ],
)
def test_a_store_is_useless_where_the_changelog_cannot_bring_it_up_to_date(
    offset: int | None, begin: int, end: int, away_ms: int | None, reason: str | None
) -> None:
    now_ms = 1_700_000_000_000
    in_step_ms = None if away_ms is None else now_ms - away_ms
    said = uselessness(offset, begin, end, in_step_ms, now_ms, DAY_MS)
    assert said is None if reason is None else re.match(reason, said or "")


TIMES = st.integers(0, 10 * DAY_MS)
OFFSETS = st.integers(0, 20)


@given(OFFSETS, OFFSETS, OFFSETS, TIMES, TIMES, TIMES, TIMES)
def test_who_is_useless_stays_so_and_who_stands_at_the_end_is_not(
    offset: int, begin: int, length: int, in_step_ms: int, away_ms: int, longer_ms: int, retention_ms: int
) -> None:
    end, now_ms = begin + length, in_step_ms + away_ms
    now = uselessness(offset, begin, end, in_step_ms, now_ms, retention_ms)
    later = uselessness(offset, begin, end, in_step_ms, now_ms + longer_ms, retention_ms)
    assert now is None or later is not None
    assert uselessness(end, begin, end, in_step_ms, now_ms, retention_ms) is None
    assert uselessness(None, begin, end, None, now_ms, retention_ms) is None


# A restore that is interrupted.


async def interrupted(log: Log, clicks: TaskTable) -> None:
    """A restore that fails after the first fetch."""
    broken = Interfering(log.cluster, None, lambda: log.cluster.fail_next("fetch", BrokerError("broken")))
    await broken.start()
    before = clicks.partition.store.changelog_offset or 0
    with pytest.raises(BrokerError, match="broken"):
        await restore([clicks], broken, progress_now())
    assert before < (clicks.partition.store.changelog_offset or 0) < log.cluster.log(CHANGELOG).end_offset


async def write_much(log: Log) -> None:
    """More than two fetches bring."""
    await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(20)])


def test_an_interrupted_restore_leaves_the_store_in_step_as_of_when_it_was() -> None:
    """What it has read does not say what it lacks: only the end of a restore does."""

    async def scenario() -> None:
        log = Log(delete_retention_ms=DAY_MS)
        clicks = await held()
        await log.restore(clicks)
        was_in_step = clicks.partition.store.in_step_ms
        assert was_in_step == log.broker.clock.time_ms()
        await write_much(log)
        for _ in range(2):
            await asyncio.sleep(3600)
            await interrupted(log, clicks)
            assert clicks.partition.store.in_step_ms == was_in_step
        await asyncio.sleep(3600)
        began = log.broker.clock.time_ms()
        await log.restore(clicks)
        assert clicks.partition.store.in_step_ms == began

    run(scenario())


def test_a_store_that_held_nothing_is_in_step_as_of_when_its_first_restore_began() -> None:
    async def scenario() -> None:
        log = Log(delete_retention_ms=DAY_MS)
        await write_much(log)
        clicks = await held()
        began = log.broker.clock.time_ms()
        await interrupted(log, clicks)
        await asyncio.sleep(3600)
        await interrupted(log, clicks)
        assert clicks.partition.store.in_step_ms == began

    run(scenario())


def test_an_interrupted_restore_that_was_left_for_too_long_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        log = Log(delete_retention_ms=DAY_MS)
        await write_much(log)
        clicks = await held()
        await interrupted(log, clicks)
        await asyncio.sleep(2 * DAY_MS / 1000)
        assert await log.restore(clicks) == 20

    run(scenario())
    assert len(said(caplog, "store wiped")) == 1


# What no table has written, and what does not do as it is told.


@pytest.mark.parametrize("key", [None, b""])
async def test_a_record_without_a_key_is_refused_by_name(key: bytes | None) -> None:
    log = Log(cleanup_policy="delete")
    records: list[tuple[Any, bytes]] = [(b"a", b"1"), (b"b", b"1"), (key, b"x"), (b"c", b"1")]
    await log.write(CHANGELOG, *records)
    clicks = await held()
    with pytest.raises(BrokerError) as caught:
        await log.restore(clicks)
    assert str(caught.value) == (
        "Changelog clicks-log[0] of table 'clicks' holds a record without a key at offset 2, which no table writes:"
        " somebody else has written to it; give the table a changelog of its own (changelog_topic_name)."
    )
    assert state(clicks) == ({}, 0)


async def test_a_store_that_takes_nothing_ends_the_restore(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"))
    clicks = await held()
    store_of(clicks).fails = StoreError("the disk is full")
    with pytest.raises(StoreError, match="the disk is full"):
        await log.restore(clicks)


# Flushes, turns, and how far it has come.


async def test_a_chunk_of_which_only_a_part_was_taken_leaves_the_store_at_that_parts_end(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "CHANGES_AT_ONCE", 2)
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"))
    clicks = await held()
    write = store_of(clicks).write

    def full_at_the_second_slice(changes: Mapping[bytes, bytes | None], offset: int, in_step_ms: int) -> None:
        if b"c" in changes:
            raise StoreError("the disk is full")
        write(changes, offset, in_step_ms)

    with monkeypatch.context() as patch:
        patch.setattr(store_of(clicks), "write", full_at_the_second_slice)
        with pytest.raises(StoreError, match="full"):
            await log.restore(clicks)
    assert state(clicks) == ({b"a": b"1", b"b": b"1"}, 2)
    assert await log.restore(clicks) == 2
    assert state(clicks) == ({b"a": b"2", b"b": b"1", b"c": b"1"}, 4)


async def test_a_restore_that_has_read_something_ends_with_a_flush(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"))
    log.marker()
    await log.write(OTHER, (b"a", b"1"))
    clicks, users = await held(at=1, a=b"1"), await held(OTHER, at=1, a=b"1")
    await log.restore(clicks, users)
    assert store_of(clicks).flushed_at == [3]
    assert store_of(users).flushed_at == [], "nothing was read into it"


async def test_nothing_is_flushed_where_nothing_was_read(log: Log) -> None:
    await log.write(OTHER, (b"a", b"1"))
    fresh, in_step = await held(), await held(OTHER, at=1, a=b"1")
    store_of(fresh).flush_due = store_of(in_step).flush_due = True
    await log.restore(fresh, in_step)
    assert (store_of(fresh).flushed_at, store_of(in_step).flushed_at) == ([], [])


async def test_a_store_is_flushed_whenever_it_is_due(log: Log) -> None:
    await write_much(log)
    clicks = await held()
    store_of(clicks).flush_due = True
    progress = Reports()
    await log.broker.start()
    await restore([clicks], log.broker, progress)
    reached = list(itertools.accumulate(progress.reports))
    assert len(reached) > 1
    assert store_of(clicks).flushed_at == [*reached, 20]


async def test_a_large_chunk_is_written_with_turns_for_the_others_in_between(log: Log) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"") for number in range(12_000)])
    turns = 0
    written: list[tuple[int, int]] = []

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    class Watched(Store):
        def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
            super().write(changes, changelog_offset, in_step_ms)
            if changes:
                written.append((len(changes), turns))

    clicks = await task_table(CHANGELOG, Watched())
    others = asyncio.create_task(take_turns())
    progress = Reports()
    await log.broker.start()
    await restore([clicks], log.broker, progress)
    others.cancel()
    assert progress.reports == [12_000], "it came in one piece"
    assert [size for size, _ in written] == [5_000, 5_000, 2_000]
    assert len({turns for _, turns in written}) == 3
    assert state(clicks)[1] == 12_000


async def test_a_restore_says_how_many_offsets_it_has_passed_and_how_many_records_they_held(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"a", b"2"), (b"b", b"1"), (b"b", None))
    log.marker()
    log.cluster.compact(CHANGELOG.topic)
    await log.write(OTHER, (b"a", b"1"), (b"b", b"1"))
    progress = progress_now()
    await log.broker.start()
    await restore([await held(), await held(OTHER, at=1, a=b"1")], log.broker, progress)
    so_far = progress.so_far()
    assert (so_far.records, so_far.offsets, so_far.total_offsets) == (2, 6, 6)


async def test_a_restore_that_begins_again_counts_anew(log: Log) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(12)])
    broker = Interfering(log.cluster, None, lambda: log.cluster.delete_records(CHANGELOG, before=10))
    await broker.start()
    progress = progress_now()
    await restore([await held()], broker, progress)
    so_far = progress.so_far()
    assert (so_far.records, so_far.offsets, so_far.total_offsets) == (2, 2, 2)


# Whatever becomes of the changelog.

KEPT_MS = 1000
KEYS = st.sampled_from([b"a", b"b", b"c"])
EVENTS = st.lists(
    st.tuples(KEYS, st.none() | st.sampled_from([b"1", b"2"]))
    | st.sampled_from(["marker", "compact", "restore", "restore and compact", "interrupted"])
    | st.sampled_from([1, KEPT_MS // 2, KEPT_MS]),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
@example([(b"a", b"1"), "restore", (b"a", None), "compact", KEPT_MS, "compact"])
@example([(b"a", b"1"), *[(b"b", b"1")] * 3, "interrupted", (b"a", None), "compact", KEPT_MS, "compact"])
def test_a_restored_store_equals_the_live_one_whatever_became_of_the_changelog(
    events: list[tuple[bytes, bytes | None] | str | int],
) -> None:
    """One store is restored now and then along the way; another one at the end, from the beginning."""

    async def scenario() -> None:
        log = Log(delete_retention_ms=KEPT_MS)
        live: dict[bytes, bytes] = {}
        standby = await task_table(CHANGELOG, delete_retention_ms=KEPT_MS)

        def compact() -> None:
            log.cluster.compact(CHANGELOG.topic)

        async def restore_while(*happenings: Any) -> None:
            broker = Interfering(log.cluster, *happenings)
            await broker.start()
            with contextlib.suppress(BrokerError):
                await restore([standby], broker, progress_now())

        for event in events:
            if isinstance(event, int):
                await asyncio.sleep(event / 1000)
            elif event == "marker":
                log.marker()
            elif event == "compact":
                compact()
            elif event == "restore":
                await restore_while()
            elif event == "restore and compact":
                await restore_while(compact, compact)
            elif event == "interrupted":
                begun = log.cluster.log(CHANGELOG).end_offset
                await restore_while(*[None] * (begun // 2), lambda: log.cluster.fail_next("fetch", BrokerError("x")))
            else:
                assert isinstance(event, tuple)
                key, value = event
                await log.write(CHANGELOG, event)
                if value is None:
                    live.pop(key, None)
                else:
                    live[key] = value
        fresh = await held()
        await log.restore(standby)
        await log.restore(fresh)
        end = log.cluster.log(CHANGELOG).end_offset
        assert state(standby) == state(fresh) == (live, end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paperboy.brokers.memory.log.FETCH_BYTES", 1)  # a fetch brings one record
        run(scenario())
