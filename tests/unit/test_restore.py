"""Bringing stores to the end of their changelogs: by position, from where each store stands."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.protocol import Broker, Outgoing, Reader, Record, TopicPartition, TopicSpec
from paperboy.engine.restore import restore
from paperboy.errors import BrokerError
from paperboy.tables.partition import TablePartition
from paperboy.tables.stores.memory import MemoryStore
from tests.unit.test_memory_broker_time import run

pytestmark = pytest.mark.time_limit(10)

CHANGELOG = TopicPartition("clicks-log", 0)
OTHER = TopicPartition("users-log", 0)


@dataclass
class Held:
    partition: TablePartition
    changelog: TopicPartition

    @property
    def state(self) -> tuple[dict[bytes, bytes], int | None]:
        return dict(self.partition.store.items()), self.partition.store.changelog_offset


def held(changelog: TopicPartition = CHANGELOG, *, at: int | None = None, **entries: bytes) -> Held:
    """A table whose store stands at this changelog offset, with these entries."""
    store = MemoryStore()
    if at is not None:
        store.write({key.encode(): value for key, value in entries.items()}, at)
    return Held(TablePartition(changelog.topic.removesuffix("-log"), store, [], 1_048_588), changelog)


class Log:
    """The changelogs, on a broker of this process."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.broker = MemoryBroker(self.cluster)
        config = {"cleanup.policy": "compact", "delete.retention.ms": "0"}
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

    async def restore(self, *tables: Held) -> list[int]:
        """Restores; returns how many records each report told of."""
        reports: list[int] = []
        await self.broker.start()
        await restore(tables, self.broker, reports.append)
        return reports


@pytest.fixture
def log() -> Log:
    return Log()


async def test_without_tables_nothing_is_asked_for(log: Log) -> None:
    log.cluster.fail_next("offsets", BrokerError("asked"))
    assert await log.restore() == []


async def test_a_store_that_holds_nothing_gets_the_last_value_of_each_key(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b"3"))
    clicks = held()
    assert sum(await log.restore(clicks)) == 5
    assert clicks.state == ({b"a": b"2", b"c": b"3"}, 5)


async def test_an_empty_changelog_ends_the_restore_at_once(log: Log) -> None:
    log.cluster.fail_next("fetch", BrokerError("fetched"))
    clicks = held()
    assert await log.restore(clicks) == []
    assert clicks.state == ({}, 0)


async def test_a_store_at_the_end_reads_nothing(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"))
    log.cluster.fail_next("fetch", BrokerError("fetched"))
    clicks = held(at=2, a=b"1", b=b"1")
    assert await log.restore(clicks) == []
    assert clicks.state == ({b"a": b"1", b"b": b"1"}, 2)


async def test_a_store_goes_on_from_its_own_offset(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", None))
    clicks = held(at=2, a=b"1", b=b"kept", c=b"1")
    assert sum(await log.restore(clicks)) == 2
    assert clicks.state == ({b"a": b"2", b"b": b"kept"}, 4)


@pytest.mark.parametrize("records", [0, 3])
@pytest.mark.parametrize("markers", [1, 7])
async def test_a_tail_of_transaction_markers_ends_the_restore(log: Log, records: int, markers: int) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x") for number in range(records)])
    for _ in range(markers):
        log.marker()
    clicks = held()
    await log.restore(clicks)
    assert clicks.state == ({b"%d" % number: b"x" for number in range(records)}, records + markers)


def test_a_tail_without_records_costs_no_more_than_a_moment(log: Log) -> None:
    async def scenario() -> None:
        await log.write(CHANGELOG, (b"a", b"1"))
        log.marker()
        began = asyncio.get_running_loop().time()
        for _ in range(10):
            await log.restore(held(at=1, a=b"1"))
        assert asyncio.get_running_loop().time() - began < 10 * 0.2

    run(scenario())


async def test_a_store_that_stands_at_a_marker_reads_nothing_more(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"))
    log.marker()
    clicks = held(at=1, a=b"1")
    assert sum(await log.restore(clicks)) == 0
    assert clicks.state == ({b"a": b"1"}, 2)


async def test_a_changelog_that_ends_in_a_compacted_gap_ends_the_restore(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"b", None))
    log.cluster.compact(CHANGELOG.topic)
    clicks = held()
    assert sum(await log.restore(clicks)) == 1
    assert clicks.state == ({b"a": b"1"}, 3)


async def test_a_changelog_of_which_compaction_left_nothing_ends_the_restore(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"a", None))
    log.cluster.compact(CHANGELOG.topic)
    clicks = held()
    assert sum(await log.restore(clicks)) == 0
    assert clicks.state == ({}, 2)


async def test_a_store_whose_offset_was_compacted_away_goes_on_behind_the_gap(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"a", b"2"), (b"a", b"3"), (b"b", b"1"))
    log.cluster.compact(CHANGELOG.topic)
    clicks = held(at=1, a=b"1")
    assert sum(await log.restore(clicks)) == 2
    assert clicks.state == ({b"a": b"3", b"b": b"1"}, 4)


def wiped(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record.__dict__["paperboy"] for record in caplog.records if record.getMessage().startswith("store wiped")]


async def test_a_store_beyond_the_changelogs_end_is_wiped_and_restored(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(CHANGELOG, (b"a", b"1"))
    clicks = held(at=5, a=b"9", ghost=b"1")
    await log.restore(clicks)
    assert clicks.state == ({b"a": b"1"}, 1)
    [said] = wiped(caplog)
    assert (said["table"], said["changelog"]) == ("clicks", "clicks-log[0]")
    assert said["reason"] == "it stands at offset 5, and the changelog holds 0 to 1"


async def test_a_store_before_the_changelogs_beginning_is_wiped_and_restored(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"ghost", None), (b"b", b"1"))
    log.cluster.delete_records(CHANGELOG, before=2)
    clicks = held(at=1, a=b"1", ghost=b"1")
    await log.restore(clicks)
    assert clicks.state == ({b"b": b"1"}, 3)
    assert [said["reason"] for said in wiped(caplog)] == ["it stands at offset 1, and the changelog holds 2 to 3"]


async def test_a_store_beyond_an_empty_changelog_is_wiped(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    clicks = held(at=5, a=b"9")
    await log.restore(clicks)
    assert clicks.state == ({}, 0)
    assert len(wiped(caplog)) == 1


@pytest.mark.parametrize("at", [2, 3])
async def test_a_store_at_the_changelogs_very_beginning_or_end_is_kept(
    log: Log, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    log.cluster.delete_records(CHANGELOG, before=2)
    clicks = held(at=at, kept=b"1")
    await log.restore(clicks)
    assert b"kept" in clicks.state[0]
    assert wiped(caplog) == []


async def test_a_changelog_that_was_emptied_by_deletion_ends_the_restore(log: Log) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"))
    log.cluster.delete_records(CHANGELOG, before=2)
    clicks = held()
    await log.restore(clicks)
    assert clicks.state == ({}, 2)


async def test_several_tables_are_restored_each_from_its_own_offset(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    await log.write(CHANGELOG, (b"a", b"1"), (b"b", b"1"))
    await log.write(OTHER, (b"a", b"2"), (b"b", b"2"), (b"c", b"2"))
    log.marker(OTHER)
    clicks, users = held(at=9, ghost=b"1"), held(OTHER, at=1, a=b"kept")
    assert sum(await log.restore(clicks, users)) == 4
    assert clicks.state == ({b"a": b"1", b"b": b"1"}, 2)
    assert users.state == ({b"a": b"kept", b"b": b"2", b"c": b"2"}, 4)
    assert [said["table"] for said in wiped(caplog)] == ["clicks"]


async def test_a_large_changelog_comes_in_several_fetches(log: Log) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 100_000) for number in range(40)])
    clicks = held()
    reports = await log.restore(clicks)
    assert len(reports) > 1
    assert sum(reports) == 40
    assert (len(clicks.partition.store), clicks.partition.store.changelog_offset) == (40, 40)


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
    clicks, users = held(), held(OTHER)
    await restore([clicks, users], broker)
    assert sorted(clicks.state[0]) == [b"10", b"11"]
    assert clicks.state[1] == 12
    assert users.state == ({b"a": b"2"}, 1)
    [said] = wiped(caplog)
    assert said["table"] == "clicks"


async def test_what_fails_is_raised_and_the_next_restore_goes_on_from_where_this_one_came(log: Log) -> None:
    await log.write(CHANGELOG, *[(b"%d" % number, b"x" * 200_000) for number in range(12)])
    clicks = held()
    broken = Interfering(log.cluster, None, lambda: log.cluster.fail_next("fetch", BrokerError("broken")))
    await broken.start()
    with pytest.raises(BrokerError, match="broken"):
        await restore([clicks], broken)
    half = clicks.partition.store.changelog_offset
    assert half is not None
    assert 0 < half < 12
    assert sum(await log.restore(clicks)) == 12 - half
    assert len(clicks.partition.store) == 12


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
    await restore([held()], broker)
    log.cluster.fail_next("fetch", BrokerError("broken"))
    with pytest.raises(BrokerError):
        await restore([held()], broker)
    assert len(opened) == 2
    for each in opened:
        with pytest.raises(BrokerError, match="not open"):
            each.position(CHANGELOG)


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
EVENTS = st.lists(
    st.tuples(KEYS, st.none() | st.sampled_from([b"1", b"2", b"3"]))
    | st.sampled_from(["marker", "compact", "restore"]),
    max_size=30,
)


@settings(max_examples=150)
@given(EVENTS)
def test_a_restored_store_equals_the_live_one_whatever_became_of_the_changelog(
    events: list[tuple[bytes, bytes | None] | str],
) -> None:
    """One store is restored again and again along the way; another one at the end, from the beginning."""

    async def scenario() -> None:
        log = Log()
        live: dict[bytes, bytes] = {}
        standby = held()
        for event in events:
            if event == "marker":
                log.marker()
            elif event == "compact":
                await log.restore(standby)  # within the time for which tombstones are kept
                log.cluster.compact(CHANGELOG.topic)
            elif isinstance(event, str):
                await log.restore(standby)
            else:
                key, value = event
                await log.write(CHANGELOG, event)
                if value is None:
                    live.pop(key, None)
                else:
                    live[key] = value
        fresh = held()
        await log.restore(standby)
        await log.restore(fresh)
        end = (await log.broker.end_offsets([CHANGELOG]))[CHANGELOG]
        assert standby.state == fresh.state == (live, end)

    run(scenario())
