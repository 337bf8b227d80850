"""Following the topic of a global table where something goes wrong: in virtual time, on a broker that fails."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy import ConfigurationError, Engine, GlobalTable, GlobalTableStatus, Handler, PaperboyError, Table
from paperboy.brokers.memory import MemoryCluster, memory_cluster
from paperboy.brokers.memory.broker import MemoryBroker
from paperboy.brokers.memory.log import PartitionLog
from paperboy.brokers.memory.reader import MemoryReader
from paperboy.brokers.protocol import Record, TopicDescription, TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.engine import globals as following
from paperboy.engine.globals import differences
from paperboy.engine.stores import HeldStore
from paperboy.errors import BrokerError, OffsetOutOfRange, StoreError
from paperboy.serializers import String
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.rocksdb import RocksDBStore
from paperboy.testing import VirtualLoop
from tests.contract.engine.kit import Kit, said

KEEPS_SEC = 300
"""How long the topic keeps tombstones."""
TEXTS = TopicPartition("texts", 0)

Pair = tuple[bytes | None, bytes | None]


def in_virtual_time(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario)


class Readers:
    """What every reader of the memory broker meets when it fetches. (The group's own consumers are no readers.)"""

    def __init__(self) -> None:
        self.fetches = 0
        self.before: Callable[[], object] = lambda: None
        """Called before each fetch; may raise."""
        self.open = asyncio.Event()
        """No fetch begins while it is not set."""
        self.open.set()
        self.deaf = False
        """Every fetch brings nothing, without a word."""
        self.max_records: int | None = None

    async def close(self) -> None:
        """Let no fetch begin, and the one under way end."""
        self.open.clear()
        await asyncio.sleep(2)

    async def go_deaf(self) -> None:
        """From the fetch on that follows the one under way."""
        self.deaf = True
        await asyncio.sleep(2)

    async def fetch(
        self, real: Callable[..., Any], partitions: Collection[TopicPartition], timeout_sec: float
    ) -> dict[TopicPartition, list[Record]]:
        self.fetches += 1
        await self.open.wait()
        self.before()
        if self.deaf:
            await asyncio.sleep(timeout_sec)
            return {}
        chunks: dict[TopicPartition, list[Record]] = await real(partitions, timeout_sec, self.max_records)
        return chunks


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Readers:
    readers, real = Readers(), MemoryReader.fetch

    async def fetch(
        self: MemoryReader, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        return await readers.fetch(lambda *arguments: real(self, *arguments), partitions, timeout_sec)

    monkeypatch.setattr(MemoryReader, "fetch", fetch)
    return readers


class World:
    """A memory broker with the topics ``views`` and ``texts``, and an engine with a global table of the latter."""

    def __init__(self) -> None:
        unique = random_id()[:12]
        self.kit = Kit(f"memory://{unique}", unique)
        self.cluster: MemoryCluster = memory_cluster(unique)
        self.cluster.create_topics([TopicSpec("views", 1)])
        self.make_texts(delete_retention_ms=f"{KEEPS_SEC}000")
        self.seen: list[Any] = []
        self.table = GlobalTable("texts", "texts", key_serializer=String(), value_serializer=String())

    def make_texts(self, partitions: int = 1, **config: str) -> None:
        settings = {"cleanup.policy": "compact", **{name.replace("_", "."): value for name, value in config.items()}}
        self.cluster.create_topics([TopicSpec("texts", partitions, config=settings)])

    def engine(self, **options: Any) -> Engine:
        seen, table = self.seen, self.table

        class Views(Handler):
            topic = "views"

            @classmethod
            async def on_message(cls, msg, ctx):  # type: ignore[no-untyped-def]
                seen.append(dict(table.items()))

        engine = self.kit.engine(Views, **options)
        engine.register_table(table)
        return engine

    async def write(self, *records: Pair, partition: int = 0) -> None:
        await self.kit.send("texts", records, partition)

    async def remake_texts(self, *records: Pair, partitions: int = 1) -> None:
        """Delete the topic, and make one of the same name, with these records."""
        self.cluster.delete_topics(["texts"])
        self.make_texts(partitions)
        await self.write(*records)

    def truncate_texts(self) -> None:
        """Lose all records, as after an unclean election: the topic is the same one."""
        self.cluster.topics["texts"].logs[0] = PartitionLog(TEXTS)

    @property
    def content(self) -> dict[str, str]:
        return dict(self.table.items())


@pytest.fixture
def world() -> World:
    return World()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, for 100 s of virtual time."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it has not happened")


def status_of(engine: Engine) -> GlobalTableStatus:
    [status] = engine.status().global_tables
    return status


# --- Failures --------------------------------------------------------------------------------------------------------


def test_a_fetch_that_fails_is_tried_again_while_the_last_values_stay_readable(
    world: World, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await world.write((b"a", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            assert status_of(engine).failing is None
            readers.before = refusing
            await until(lambda: status_of(engine).failing is not None)
            await world.write((b"a", b"2"))
            assert (status_of(engine).failing, status_of(engine).ready) == ("refused", True)
            assert world.content == {"a": "1"}
            before = readers.fetches
            await asyncio.sleep(100)
            assert readers.fetches - before <= 25, "it backs off"
            assert world.content == {"a": "1"}
            readers.before = lambda: None
            await engine.caught_up()
            assert world.content == {"a": "2"}
            await until(lambda: status_of(engine).failing is None)

    in_virtual_time(scenario())
    lines = said(caplog, "global table not followed")
    assert {(line["table"], line["topic"], line["error"]) for line in lines} == {("texts", "texts", "refused")}


def test_it_goes_on_trying_however_long_the_broker_is_away(
    world: World, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_BACKOFF_SEC", 0.001)

    async def scenario() -> None:
        await world.write((b"a", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            readers.before = refusing
            await until(lambda: readers.fetches > 1_200)
            readers.before = lambda: None
            await world.write((b"a", b"2"))
            await engine.caught_up()
            assert world.content == {"a": "2"}

    in_virtual_time(scenario())


def refusing() -> None:
    raise BrokerError("refused")


def test_a_topic_that_cannot_be_looked_at_shows_in_the_status_and_is_followed_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = asyncio.Event()
    describe = MemoryBroker.describe_topics

    async def not_answering(self: MemoryBroker, names: Collection[str]) -> dict[str, TopicDescription]:
        await silent.wait()
        return await describe(self, names)

    async def scenario() -> None:
        await world.write((b"a", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            monkeypatch.setattr(MemoryBroker, "describe_topics", not_answering)
            await until(lambda: status_of(engine).failing is not None)
            assert "did not answer within 10 s" in str(status_of(engine).failing)
            await world.write((b"a", b"2"))
            await until(lambda: world.content == {"a": "2"})
            silent.set()
            await until(lambda: status_of(engine).failing is None)

    in_virtual_time(scenario())


def test_a_restore_that_fails_at_the_start_is_tried_again(world: World, readers: Readers) -> None:
    failures = iter(range(3))

    def refuse_thrice() -> None:
        if next(failures, None) is not None:
            refusing()

    readers.before = refuse_thrice

    async def scenario() -> None:
        await world.write((b"a", b"1"))
        await world.kit.send_values("views", b"x")
        async with world.engine() as engine:
            await engine.caught_up()

    in_virtual_time(scenario())
    assert world.seen == [{"a": "1"}]


def test_a_table_that_cannot_be_restored_at_all_stops_the_engine_with_a_sentence(
    world: World, readers: Readers
) -> None:
    readers.before = refusing

    async def scenario() -> None:
        await world.write((b"a", b"1"))
        await world.kit.send_values("views", b"x")
        await world.engine(checkpoint_attempts=3).start()

    with pytest.raises(
        BrokerError, match=r"'texts' could not be restored from topic 'texts' in 3 attempts .*: refused"
    ):
        in_virtual_time(scenario())
    assert readers.fetches == 3
    assert world.seen == []


def test_a_store_that_fails_is_opened_and_restored_again_and_shows_nothing_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = MemoryStore.write
    failures = iter(range(1))

    def failing_once(self: MemoryStore, changes: Any, offset: int, in_step_ms: int) -> None:
        if changes and next(failures, None) is not None:
            raise StoreError("the disk is full")
        write(self, changes, offset, in_step_ms)

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"b", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            monkeypatch.setattr(MemoryStore, "write", failing_once)
            await world.write((b"a", b"2"))
            await until(lambda: not status_of(engine).ready)
            with pytest.raises(PaperboyError, match="is being restored"):
                world.table.get("a")
            await engine.caught_up()
            assert world.content == {"a": "2", "b": "1"}

    in_virtual_time(scenario())


def test_a_store_that_goes_on_failing_stops_the_engine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: MemoryStore, changes: Any, offset: int, in_step_ms: int) -> None:
        raise StoreError("the disk is full")

    async def scenario() -> None:
        async with world.engine(checkpoint_attempts=3) as engine:
            await engine.caught_up()
            monkeypatch.setattr(MemoryStore, "write", failing)
            await world.write((b"a", b"2"))
            await engine.caught_up()

    with pytest.raises(StoreError, match=r"'texts' could not be restored .* in 3 attempts .*the disk is full"):
        in_virtual_time(scenario())


def test_who_waits_for_it_waits_until_the_broker_says_where_the_topic_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = MemoryBroker.end_offsets
    asked = 0

    async def refusing_for_texts(self: MemoryBroker, partitions: Collection[TopicPartition]) -> Any:
        nonlocal asked
        if TEXTS in partitions:
            asked += 1
            if asked < 10:
                refusing()
        return await ends(self, partitions)

    async def scenario() -> None:
        await world.write((b"a", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            monkeypatch.setattr(MemoryBroker, "end_offsets", refusing_for_texts)
            await world.write((b"a", b"2"))
            begun = asyncio.get_running_loop().time()
            await engine.caught_up()
            assert world.content == {"a": "2"}
            assert asyncio.get_running_loop().time() - begun > 4, "it does not ask all the time"

    in_virtual_time(scenario())


def test_who_waits_for_it_hears_of_the_engines_end(world: World, readers: Readers) -> None:
    async def scenario() -> None:
        async with world.engine() as engine:
            await engine.caught_up()
            await readers.go_deaf()
            await world.write((b"a", b"1"))
            waiting = asyncio.create_task(engine.caught_up())
            await asyncio.sleep(10)
            assert not waiting.done()
        with pytest.raises(PaperboyError, match="stopped before it had caught up"):
            await waiting

    in_virtual_time(scenario())


def test_a_worker_without_tasks_has_it_too_and_waits_for_it_in_caught_up(world: World, readers: Readers) -> None:
    spare = GlobalTable("texts", "texts", key_serializer=String(), value_serializer=String())

    async def scenario() -> None:
        await world.write((b"a", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            world.table = spare
            await readers.close()
            async with world.engine() as second:
                await until(lambda: len(engine.status().tasks) + len(second.status().tasks) == 1)
                await asyncio.sleep(20)
                idle = second if not second.status().tasks else engine
                assert idle is second, "tasks stay where they are"
                waiting = asyncio.create_task(second.caught_up())
                await asyncio.sleep(10)
                assert not waiting.done()
                readers.open.set()
                await waiting
                assert spare["a"] == "1"

    in_virtual_time(scenario())


def test_a_broker_that_never_answers_does_not_hold_up_a_stop(world: World, readers: Readers) -> None:
    async def scenario() -> None:
        await world.write((b"a", b"1"))
        readers.open.clear()
        loop = asyncio.get_running_loop()
        async with world.engine() as engine:
            await until(lambda: len(engine.status().tasks) == 1)
            begun = loop.time()
        assert loop.time() - begun < 1

    in_virtual_time(scenario())


# --- Time ------------------------------------------------------------------------------------------------------------


def test_heartbeats_go_on_while_it_is_restored(
    world: World, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await world.write((b"a", b"1"))
        await world.kit.send_values("views", b"x")
        readers.open.clear()
        async with world.engine(session_timeout_sec=6) as engine:
            await asyncio.sleep(600)
            assert [task.ready for task in engine.status().tasks] == [False]
            readers.open.set()
            await engine.caught_up()
            assert world.seen == [{"a": "1"}]

    with caplog.at_level("INFO", logger="paperboy"):
        in_virtual_time(scenario())
    assert len(said(caplog, "assigned")) == 1


def test_an_idle_topic_is_asked_about_now_and_then_only(
    world: World, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    for name in ("describe_topics", "beginning_offsets", "reader"):
        monkeypatch.setattr(MemoryBroker, name, counted(name, getattr(MemoryBroker, name), asked))

    async def scenario() -> None:
        async with world.engine() as engine:
            await engine.caught_up()
            await asyncio.sleep(10)
            asked.clear()
            readers.fetches = 0
            await asyncio.sleep(1_000)
            assert readers.fetches <= 1_001
            assert asked["describe_topics"] <= 201
            assert (asked["beginning_offsets"], asked["reader"]) == (0, 0)

    in_virtual_time(scenario())


def counted(name: str, real: Callable[..., Any], asked: Counter[str]) -> Callable[..., Any]:
    def counting(*arguments: Any) -> Any:
        asked[name] += 1
        return real(*arguments)

    return counting


def test_what_is_new_shows_at_once(world: World) -> None:
    async def scenario() -> None:
        async with world.engine() as engine:
            await engine.caught_up()
            await asyncio.sleep(77.7)
            begun = asyncio.get_running_loop().time()
            await world.write((b"a", b"1"))
            await until(lambda: "a" in world.table)
            assert asyncio.get_running_loop().time() - begun < 0.1

    in_virtual_time(scenario())


def test_the_status_says_how_far_it_is_behind(world: World, readers: Readers) -> None:
    async def scenario() -> None:
        await world.write((b"a", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            await readers.go_deaf()
            await world.write((b"a", b"2"), (b"b", b"1"))
            await until(lambda: status_of(engine).lag == 2)
            assert status_of(engine).offsets == {"texts[0]": 1}
            readers.deaf = False
            await until(lambda: status_of(engine).lag == 0)
            assert status_of(engine).offsets == {"texts[0]": 3}

    in_virtual_time(scenario())


# --- Copies that are of no use any more ------------------------------------------------------------------------------


def watched(world: World, watch: Callable[[], object]) -> "asyncio.Task[None]":
    """Looks at the table whenever anything has happened."""

    async def look() -> None:
        while True:
            watch()
            await asyncio.sleep(0.001)

    return asyncio.create_task(look())


def test_records_deleted_unread_renew_the_copy_and_nobody_sees_it_empty_or_going_back(
    world: World, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    seen: set[tuple[str | None, ...]] = set()

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"gone", b"1"), (b"a", b"2"))
        async with world.engine() as engine:
            await engine.caught_up()
            await readers.close()
            await world.write((b"gone", None), (b"a", b"3"), (b"b", b"1"))
            world.cluster.delete_records(TEXTS, before=4)
            readers.max_records = 1
            watching = watched(world, lambda: seen.add(tuple(world.table.get_many(["a", "b", "gone"]))))
            readers.open.set()
            await engine.caught_up()
            assert world.content == {"a": "3", "b": "1"}
            watching.cancel()
            await asyncio.wait([watching])
            await world.write((b"b", b"2"))
            await engine.caught_up()
            assert world.content == {"a": "3", "b": "2"}
            assert engine.status().global_tables[0].ready

    in_virtual_time(scenario())
    assert seen >= {("2", None, "1")}
    assert {a for a, _, _ in seen} <= {"2", "3"}
    [line] = said(caplog, "global table restored anew")
    assert (line["table"], line["topic"]) == ("texts", "texts[0]")
    assert line["reason"] == "it stands at offset 3, and the changelog holds 4 to 6"


@pytest.mark.parametrize("says", ["nothing", "refused"])
def test_a_copy_that_was_away_for_longer_than_tombstones_are_kept_is_renewed(
    world: World, readers: Readers, says: str
) -> None:
    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"gone", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            if says == "refused":
                readers.before = refusing
            await readers.go_deaf()
            await world.write((b"gone", None), (b"b", b"1"))
            world.cluster.compact("texts")
            await asyncio.sleep(2 * KEEPS_SEC)
            world.cluster.compact("texts")
            assert [record.key for record in await read_texts(world, readers)] == [b"a", b"b"]
            readers.deaf, readers.before = False, lambda: None
            await until(lambda: world.content == {"a": "1", "b": "1"})

    in_virtual_time(scenario())


async def read_texts(world: World, readers: Readers) -> list[Record]:
    before, readers.before, readers.deaf, deaf = readers.before, lambda: None, False, readers.deaf
    try:
        return await world.kit.read("texts")
    finally:
        readers.before, readers.deaf = before, deaf


def test_a_topic_that_hardly_keeps_tombstones_is_followed_without_renewals(
    world: World, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    world.cluster.delete_topics(["texts"])
    world.make_texts(delete_retention_ms="0")

    async def scenario() -> None:
        async with world.engine() as engine:
            await engine.caught_up()
            for number in range(30):
                readers.deaf = number % 2 == 0  # at some of the looks it is behind
                await world.write((b"a", b"%d" % number))
                await asyncio.sleep(4)
            await engine.caught_up()
            assert world.content == {"a": "29"}

    in_virtual_time(scenario())
    assert said(caplog, "global table restored anew") == []


def test_a_topic_that_grows_with_every_look_is_followed_without_renewals(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whenever the ends are asked for, the copy has not come to them yet."""
    describe = MemoryBroker.describe_topics

    async def with_one_more(self: MemoryBroker, names: Collection[str]) -> dict[str, TopicDescription]:
        await world.write((b"a", b"1"))
        return await describe(self, names)

    async def scenario() -> None:
        async with world.engine() as engine:
            await engine.caught_up()
            monkeypatch.setattr(MemoryBroker, "describe_topics", with_one_more)
            await asyncio.sleep(2 * KEEPS_SEC)

    in_virtual_time(scenario())
    assert said(caplog, "global table restored anew") == []


def test_a_topic_made_anew_with_fewer_partitions_is_shown_as_it_is_now(world: World) -> None:
    async def scenario() -> None:
        await world.remake_texts((b"old", b"1"), partitions=3)
        await world.write((b"older", b"1"), partition=2)
        async with world.engine() as engine:
            await engine.caught_up()
            assert world.content == {"old": "1", "older": "1"}
            await world.remake_texts((b"new", b"1"))
            await until(lambda: world.content == {"new": "1"})
            await world.write((b"newer", b"1"))
            await engine.caught_up()
            assert world.content == {"new": "1", "newer": "1"}
            assert status_of(engine).offsets == {"texts[0]": 2}

    in_virtual_time(scenario())


def test_a_partition_that_is_gone_is_not_read_any_more_when_its_store_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    readable_when_closed: list[bool] = []
    close_as_before = HeldStore.close

    async def close(held: HeldStore) -> None:
        readable = world.table._readable
        if readable is not None:
            readable_when_closed.append(any(store is held._store for store in readable() or ()))
        await close_as_before(held)

    monkeypatch.setattr(HeldStore, "close", close)

    async def scenario() -> None:
        await world.remake_texts((b"old", b"1"), partitions=3)
        async with world.engine() as engine:
            await engine.caught_up()
            await world.remake_texts((b"new", b"1"))
            await until(lambda: world.content == {"new": "1"})
            await until(lambda: len(readable_when_closed) >= 2)

    in_virtual_time(scenario())
    assert not any(readable_when_closed)


def test_a_topic_made_anew_that_is_longer_than_the_old_one_is_read_from_its_beginning(world: World) -> None:
    async def scenario() -> None:
        await world.write((b"old", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            await world.remake_texts((b"new", b"1"), (b"newer", b"1"), (b"newest", b"1"))
            await until(lambda: world.content == {"new": "1", "newer": "1", "newest": "1"})

    in_virtual_time(scenario())


def test_a_topic_that_is_gone_leaves_the_last_values_and_says_so(world: World) -> None:
    async def scenario() -> None:
        await world.write((b"a", b"1"))
        async with world.engine() as engine:
            await engine.caught_up()
            world.cluster.delete_topics(["texts"])
            await until(lambda: status_of(engine).failing is not None)
            assert status_of(engine).failing == "Topic 'texts' of global table 'texts' is gone: create it again."
            assert world.content == {"a": "1"}
            world.make_texts()
            await world.write((b"b", b"1"))
            await until(lambda: world.content == {"b": "1"})

    in_virtual_time(scenario())


def test_a_renewal_that_is_interrupted_leaves_nothing_that_the_next_start_would_trust(
    world: World, readers: Readers, tmp_path: Path
) -> None:
    """The log has grown past where the copy stood: its offset alone would look right."""
    world.table = GlobalTable("texts", "texts", "rocksdb://", key_serializer=String(), value_serializer=String())

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"ghost", b"1"), (b"b", b"1"))
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            await readers.close()
            world.truncate_texts()
            await world.write((b"a", b"2"))
            fetched = readers.fetches
            readers.open.set()
            readers.before = lambda: refusing() if readers.fetches > fetched else None
            await until(lambda: readers.fetches > fetched + 3)
            assert world.content == {"a": "1", "ghost": "1", "b": "1"}
        await world.write((b"b", b"2"), (b"c", b"2"), (b"d", b"2"))
        readers.before = lambda: None
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            assert world.content == {"a": "2", "b": "2", "c": "2", "d": "2"}

    in_virtual_time(scenario())


def test_what_an_interrupted_renewal_has_read_is_not_taken_for_the_next_one(
    world: World, readers: Readers, tmp_path: Path
) -> None:
    world.table = on_disk()

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            await readers.close()
            world.truncate_texts()
            await world.write((b"ghost", b"2"), (b"b", b"2"))
            fetched, readers.max_records = readers.fetches, 1
            readers.open.set()
            readers.before = lambda: refusing() if readers.fetches > fetched + 1 else None
            await until(lambda: readers.fetches > fetched + 1)
        readers.before, readers.max_records = lambda: None, None
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            assert world.content == {"ghost": "2", "b": "2"}
            await readers.close()
            world.truncate_texts()
            await world.write((b"a", b"3"))
            readers.open.set()
            await until(lambda: world.content == {"a": "3"})

    in_virtual_time(scenario())


def test_a_take_over_that_is_interrupted_leaves_nothing_that_would_be_trusted(
    world: World, readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.table = on_disk()
    monkeypatch.setattr(following, "SLICE", 1)
    write = RocksDBStore.write
    writes: list[dict[bytes, bytes | None]] = []

    def failing_at_the_second(self: RocksDBStore, changes: Any, offset: int, in_step_ms: int) -> None:
        if changes and self._identity.table == "texts":
            writes.append(changes)
            if len(writes) == 2:
                raise StoreError("the disk is full")
        write(self, changes, offset, in_step_ms)

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"ghost", b"1"))
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            await readers.close()
            world.truncate_texts()
            await world.write((b"a", b"2"))
            monkeypatch.setattr(RocksDBStore, "write", failing_at_the_second)
            readers.open.set()
            await until(lambda: not status_of(engine).ready)
            assert writes == [{b"a": b"2"}, {b"ghost": None}]
            await engine.caught_up()
            assert world.content == {"a": "2"}

    in_virtual_time(scenario())


# --- On disk ---------------------------------------------------------------------------------------------------------


def on_disk() -> GlobalTable:
    return GlobalTable("texts", "texts", "rocksdb://", key_serializer=String(), value_serializer=String())


def test_a_worker_that_followed_for_long_reads_only_what_is_new_at_its_next_start(world: World, tmp_path: Path) -> None:
    """Although its last record is older than tombstones are kept."""
    world.table = on_disk()

    async def scenario() -> None:
        await world.write(*[(b"%d" % number, b"1") for number in range(100)])
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            await asyncio.sleep(3 * KEEPS_SEC)
        await world.write((b"new", b"1"))
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            assert engine.status().restored == 1
            assert len(world.content) == 101

    in_virtual_time(scenario())


def test_a_store_that_was_away_for_longer_than_tombstones_are_kept_is_wiped_at_the_start(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.table = on_disk()

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"gone", b"1"))
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
        await world.write((b"gone", None), (b"b", b"1"))
        world.cluster.compact("texts")
        await asyncio.sleep(2 * KEEPS_SEC)
        world.cluster.compact("texts")
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            assert world.content == {"a": "1", "b": "1"}

    in_virtual_time(scenario())
    assert ["was away for 0.2 h" in line["reason"] for line in said(caplog, "store wiped")] == [True]


def test_a_store_on_disk_that_fails_is_opened_anew_and_goes_on_from_what_it_has(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.table = on_disk()
    opened: list[Path] = []
    open_store, write = RocksDBStore.open, RocksDBStore.write
    failures = iter(range(1))

    def opening(path: Path, *arguments: Any) -> Any:
        opened.append(path)
        return open_store(path, *arguments)

    def failing_once(self: RocksDBStore, changes: Any, offset: int, in_step_ms: int) -> None:
        if changes and next(failures, None) is not None:
            raise StoreError("the disk is full")
        write(self, changes, offset, in_step_ms)

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"b", b"1"))
        monkeypatch.setattr(RocksDBStore, "open", opening)
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            monkeypatch.setattr(RocksDBStore, "write", failing_once)
            await world.write((b"a", b"2"))
            await engine.caught_up()
            assert world.content == {"a": "2", "b": "1"}
            assert engine.status().restored == 3

    in_virtual_time(scenario())
    assert len(opened) == 2


def test_a_renewed_copy_on_disk_is_what_the_next_start_goes_on_with(
    world: World, readers: Readers, tmp_path: Path
) -> None:
    world.table = on_disk()

    async def scenario() -> None:
        await world.write((b"a", b"1"), (b"gone", b"1"))
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            await readers.close()
            await world.write((b"gone", None), (b"a", b"2"))
            world.cluster.delete_records(TEXTS, before=3)
            readers.open.set()
            await engine.caught_up()
            assert world.content == {"a": "2"}
        await world.write((b"b", b"1"))
        async with world.engine(state_dir=tmp_path) as engine:
            await engine.caught_up()
            assert world.content == {"a": "2", "b": "1"}
            assert engine.status().restored == 1

    in_virtual_time(scenario())


# --- What the engine makes of it -------------------------------------------------------------------------------------


def test_on_a_memory_broker_its_topic_is_made_compacted_even_where_it_is_an_input(world: World) -> None:
    made = GlobalTable("made", "made", key_serializer=String())
    inputs = GlobalTable("inputs", "inputs", key_serializer=String())

    class Inputs(Handler):
        topic = "inputs"

    async def scenario() -> None:
        engine = world.kit.engine(Inputs)
        engine.register_table(made)
        engine.register_table(inputs)
        async with engine:
            await engine.caught_up()
        assert [world.cluster.topics[name].compacted for name in ("made", "inputs")] == [True, True]

    in_virtual_time(scenario())


def test_the_changelog_of_its_own_engine_is_made_as_a_changelog(world: World) -> None:
    counts = Table("counts")
    everywhere = GlobalTable("everywhere", f"{world.kit.group}-counts-changelog")
    world.cluster.create_partitions("views", 3)

    class Views(Handler):
        topic = "views"

    async def scenario() -> None:
        engine = world.kit.engine(Views)
        engine.register_table(counts)
        engine.register_table(everywhere)
        async with engine:
            await engine.caught_up()
            assert len(engine.status().global_tables[0].offsets) == 3

    in_virtual_time(scenario())


def test_a_table_and_a_global_table_of_one_name_are_refused(world: World) -> None:
    engine = world.engine()
    for other in (Table("texts"), GlobalTable("texts", "other")):
        with pytest.raises(ConfigurationError, match="Two tables are called 'texts'"):
            engine.register_table(other)


def test_a_restore_tells_on_restore_how_far_it_has_come(world: World, readers: Readers) -> None:
    told: list[tuple[str, int, int]] = []
    readers.max_records = 10

    def on_restore(name: str, restoring: Any) -> None:
        told.append((name, restoring.records, restoring.total_offsets))

    async def scenario() -> None:
        await world.write(*[(b"%d" % number, b"1") for number in range(25)])
        readers.before = readers.open.clear  # one fetch, and then none
        async with world.engine(on_restore=on_restore) as engine:
            await until(lambda: bool(told))
            readers.before = lambda: None
            readers.open.set()
            await engine.caught_up()
            assert engine.status().restored == 25

    in_virtual_time(scenario())
    assert told[0] == ("texts", 10, 25)
    assert ("texts", 25, 25) in told


# --- What makes one store another ------------------------------------------------------------------------------------

ENTRIES = st.dictionaries(st.binary(min_size=1, max_size=2), st.sampled_from([b"1", b"2"]))


def entries_of(entries: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    return iter(sorted(entries.items()))


@given(ENTRIES, ENTRIES)
def test_differences_are_what_makes_one_store_the_other_and_nothing_more(
    old: dict[bytes, bytes], new: dict[bytes, bytes]
) -> None:
    changes = list(differences(entries_of(old), entries_of(new)))  # type: ignore[arg-type]
    assert dict(changes) == {key: new.get(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    assert len(changes) == len(dict(changes))


def test_offset_out_of_range_is_a_broker_error() -> None:
    """What `run` leans on."""
    assert issubclass(OffsetOutOfRange, BrokerError)
