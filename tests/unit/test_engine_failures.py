"""The engine on a broker that fails on demand: what is kept, what is done again, and when it gives up."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from paperboy import CheckpointError, ConfigurationError, Engine, Handler, OffsetOutOfRange, Retry, Table
from paperboy.brokers.memory import MemoryCluster, memory_cluster
from paperboy.brokers.memory.producer import MemoryProducer
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.errors import BrokerError, StoreError
from paperboy.serializers.values import decode_value, encode_value
from paperboy.tables.keys import encode_key
from paperboy.tables.stores.memory import MemoryStore
from paperboy.testing import EngineTest
from tests.contract.engine.kit import Kit, said, until
from tests.unit.test_memory_broker_time import run

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def kit() -> Kit:
    unique = random_id()[:12]
    return Kit(f"memory://{unique}", unique)


def cluster_of(kit: Kit) -> MemoryCluster:
    return memory_cluster(kit.unique)


def counting(source: str, table: Table, seen: list[Any]) -> type[Handler]:
    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table.update(msg.key, lambda count: count + 1, default=0)
            seen.append(msg.offset)

    return Counting


async def restored(kit: Kit, source: str) -> dict[Any, Any]:
    """What the next owner finds in the changelog of the table ``views``, and its snapshot says."""
    table = Table("views")
    engine = kit.engine(counting(source, table, []))
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        return {entry.key: entry.value for entry in table.snapshot()}


async def test_a_checkpoint_whose_changelog_write_fails_is_done_again_from_what_is_durable(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")] * 5)
    engine = kit.engine(counting(source, table, seen))
    engine.register_table(table)
    cluster_of(kit).faults.fail_next("produce", BrokerError("the disk is full"))
    async with engine:
        await engine.caught_up()
        assert [entry.value for entry in table.snapshot()] == [5]
        assert engine.status().checkpoint_failures == 1
    assert seen == [0, 1, 2, 3, 4] * 2, "the fault hit, and the records came again"
    assert await kit.committed(source) == 5


async def test_a_changelog_ack_that_is_lost_counts_nothing_twice(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    """The write is in the log, the worker is told it failed: it takes the write back, and handles the records again."""
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")] * 5)
    engine = kit.engine(counting(source, table, seen))
    engine.register_table(table)
    cluster_of(kit).faults.fail_next("produce_ack", BrokerError("timed out"))
    async with engine:
        await engine.caught_up()
        assert [entry.value for entry in table.snapshot()] == [5]
    assert seen == [0, 1, 2, 3, 4] * 2
    assert caplog.text.count("changelog reclaimed") == 1, "once, and then they agree"
    assert await restored(kit, source) == {b"a": 5}


async def test_checkpoints_that_go_on_failing_stop_the_engine(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")])
    engine = kit.engine(counting(source, table, seen), checkpoint_attempts=3)
    engine.register_table(table)
    for _ in range(3):
        cluster_of(kit).faults.fail_next("produce", BrokerError("the disk is full"))
    with pytest.raises(CheckpointError, match=r"Task views-.*\[0\] failed 3 times in a row .*the disk is full"):
        await engine.start()
    assert seen == [0, 0, 0]
    assert await kit.committed(source) == 0


async def test_a_commit_that_fails_is_made_up_for_by_the_next_checkpoint(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    engine = kit.engine(counting(source, table, seen))
    engine.register_table(table)
    async with engine:
        await engine.caught_up()  # the first commit of all is the start's own
        cluster_of(kit).faults.fail_next("commit", BrokerError("timed out"))
        await kit.send(source, [(b"a", b"x")] * 5)
        await engine.caught_up()
        assert engine.status().checkpoint_failures == 0
        assert [entry.value for entry in table.snapshot()] == [5]
    assert seen == [0, 1, 2, 3, 4]
    assert await kit.committed(source) == 5


async def test_an_input_offset_is_not_committed_before_its_outputs_are_acknowledged(kit: Kit) -> None:
    source, target = await kit.topic("in"), await kit.topic("out")
    await kit.send_values(source, b"x")
    handled = asyncio.Event()

    class Forward(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            ctx.send(target, msg.value)
            handled.set()

    faults = cluster_of(kit).faults
    async with kit.engine(Forward, commit_interval_sec=0.01) as engine:
        faults.hold("produce")
        await handled.wait()
        await asyncio.wait([waiting := asyncio.create_task(engine.caught_up())], timeout=0.3)
        assert not waiting.done()
        assert await kit.committed(source) == 0
        faults.release("produce")
        await waiting
    assert await kit.committed(source) == 1


async def test_a_worker_that_was_expired_discards_its_work_and_begins_again(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    engine = kit.engine(counting(source, table, seen), commit_interval_sec=60)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        await kit.send(source, [(b"a", b"x")] * 3)
        await until(lambda: len(seen) == 3)
        engine._membership._wiring.consumer.expire()  # type: ignore[union-attr]
        await until(lambda: len(seen) == 6)
        await engine.caught_up()
        assert [entry.value for entry in table.snapshot()] == [3]


@pytest.mark.parametrize("theirs", [7, None], ids=["another value", "a tombstone"])
async def test_a_zombies_late_write_is_taken_back(
    kit: Kit, theirs: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a key that the owner has touched since, of one that it has not, and of one that nobody else knows."""
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    engine = kit.engine(counting(source, table, seen))
    engine.register_table(table)
    async with engine:
        await kit.send(source, [(b"touched", b"x")] * 2 + [(b"untouched", b"x")] * 3)
        await engine.caught_up()
        value = None if theirs is None else encode_value(theirs)
        late = [(encode_key(key), value) for key in (b"touched", b"untouched", b"unknown")]
        await kit.send(f"{kit.group}-views-changelog", late)
        await kit.send(source, [(b"touched", b"x")])
        await engine.caught_up()
        assert engine.status().checkpoint_failures == 0
        assert {entry.key: entry.value for entry in table.snapshot()} == {b"touched": 3, b"untouched": 3}
    assert seen == [0, 1, 2, 3, 4, 5], "nothing had to be handled again"
    assert "changelog reclaimed" in caplog.text
    assert await restored(kit, source) == {b"touched": 3, b"untouched": 3}


async def test_somebody_who_goes_on_writing_to_the_changelog_stops_the_engine(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, table = await kit.topic("views"), Table("views")
    changelog = f"{kit.group}-views-changelog"
    send = MemoryProducer.send
    others = 0

    async def after_another(self: MemoryProducer, partition: TopicPartition, records: Any) -> Any:
        nonlocal others
        if partition.topic == changelog:
            others += 1
            now_ms = cluster_of(kit).clock.time_ms()
            for ack in await send(self, partition, [(encode_key(b"b"), encode_value(others), (), now_ms)]):
                await ack
        return await send(self, partition, records)

    monkeypatch.setattr(MemoryProducer, "send", after_another)
    engine = kit.engine(counting(source, table, []), checkpoint_attempts=2)
    engine.register_table(table)
    await kit.send(source, [(b"a", b"x")])
    with pytest.raises(CheckpointError, match=r"failed 2 times in a row .*somebody else goes on writing to it"):
        await engine.start()
    assert await kit.committed(source) == 0
    assert others == 3, "before the batch, before the owner's word against it, and before that word again"


class FailsOnce:
    """A producer's deliveries, of which one to a topic does not arrive, or its acknowledgement does not."""

    def __init__(self, topic: str, *, arrives: bool) -> None:
        self._topic = topic
        self._arrives = arrives
        self._write = MemoryProducer._write
        self.has_failed = False

    def __call__(self, producer: MemoryProducer, partition: TopicPartition, batch: Any) -> Any:
        if partition.topic != self._topic or self.has_failed:
            return self._write(producer, partition, batch)
        self.has_failed = True
        if self._arrives:
            self._write(producer, partition, batch)
        raise BrokerError("timed out")


@pytest.mark.parametrize("arrives", [False, True], ids=["the batch is lost", "the ack is lost"])
@pytest.mark.parametrize("failing", ["first", "second"])
async def test_a_checkpoint_that_fails_between_two_tables_counts_in_both_or_in_none(
    kit: Kit, failing: str, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await kit.topic("views")
    first, second = Table("first"), Table("second")

    def counting_twice(*tables: Table) -> type[Handler]:
        class Counting(Handler):
            topic = source

            @classmethod
            async def on_message(cls, msg, ctx):
                for table in tables:
                    table.update(msg.key, lambda count: count + 1, default=0)

        return Counting

    fails = FailsOnce(f"{kit.group}-{failing}-changelog", arrives=arrives)
    monkeypatch.setattr(MemoryProducer, "_write", lambda *given: fails(*given))
    engine = kit.engine(counting_twice(first, second))
    engine.register_table(first)
    engine.register_table(second)
    async with engine:
        await kit.send(source, [(b"a", b"x")] * 5)
        await engine.caught_up()
        assert fails.has_failed
        assert engine.status().checkpoint_failures == 1
        for table in (first, second):
            assert [entry.value for entry in table.snapshot()] == [5]
    again = [Table("first"), Table("second")]
    engine = kit.engine(counting_twice(*again))
    for table in again:
        engine.register_table(table)
    async with engine:
        await engine.caught_up()
        for table in again:
            assert [entry.value for entry in table.snapshot()] == [5]


class Disk:
    """What is left of a store when it is closed; it fails when told to, and is full for ever if told so often."""

    def __init__(self) -> None:
        self.times_opened = 0
        self.left: tuple[dict[bytes, bytes], int, int] | None = None
        self.failures: dict[str, int] = {}

    def open(self, table: str) -> "OnDisk":
        self.times_opened += 1
        return OnDisk(table, self)

    def do(self, what: str) -> None:
        if self.failures.get(what, 0):
            self.failures[what] -= 1
            raise StoreError(f"The disk is full ({what}).")


class OnDisk(MemoryStore):
    """A store that finds again what it held when it was flushed or closed, and is always due to be flushed."""

    flush_due = True

    def __init__(self, table: str, disk: Disk) -> None:
        super().__init__(table)
        self._disk = disk
        self.is_open = True
        if disk.left is not None:
            super().write(*disk.left)

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
        assert self.is_open
        if changes:
            self._disk.do("write")
        super().write(changes, changelog_offset, in_step_ms)

    def get(self, key: bytes) -> bytes | None:
        self._disk.do("read")
        return super().get(key)

    def flush(self) -> None:
        assert self.is_open
        self._disk.do("flush")
        if self.changelog_offset is not None and self.in_step_ms is not None:
            self._disk.left = dict(self.scan()), self.changelog_offset, self.in_step_ms

    def close(self) -> None:
        assert self.is_open
        self.is_open = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Under the tables of an engine that is started in this test."""
    disk = Disk()
    monkeypatch.setattr("paperboy.engine.stores.MemoryStore", disk.open)
    return disk


def noting(source: str, table: Table, seen: list[Any]) -> type[Handler]:
    """What a message writes is the same when it is handled again."""

    class Noting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table[msg.key] = msg.offset
            seen.append(msg.offset)

    return Noting


@pytest.mark.parametrize("failing", ["write", "flush"])
async def test_a_store_that_fails_is_opened_anew_from_the_disk_and_the_task_goes_on(
    kit: Kit, disk: Disk, failing: str
) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    engine = kit.engine(noting(source, table, seen))
    engine.register_table(table)
    async with engine:
        await kit.send(source, [(b"before", b"x")])
        await engine.caught_up()
        disk.failures[failing] = 1
        await kit.send(source, [(b"a", b"x")] * 3)
        await engine.caught_up()
        await until(lambda: engine.status().checkpoint_failures == 1)
        await kit.send(source, [(b"after", b"x")])
        await engine.caught_up()
        assert disk.times_opened == 2
        assert {entry.key: entry.value for entry in table.snapshot()} == {b"before": 0, b"a": 3, b"after": 4}
    assert sorted(set(seen)) == [0, 1, 2, 3, 4]
    assert await kit.committed(source) == 5
    assert await restored(kit, source) == {b"before": 0, b"a": 3, b"after": 4}


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("threshold", [1, 1_000])
async def test_a_store_that_cannot_be_read_is_not_the_messages_failure(
    kit: Kit, disk: Disk, concurrency: int, threshold: int
) -> None:
    source, table, lanes = await kit.topic("views"), Table("views"), concurrency
    blamed: list[Exception] = []

    class Counting(Handler):
        topic = source
        concurrency = lanes

        @classmethod
        async def on_message(cls, msg, ctx):
            table[msg.key] = table.get(msg.key, 0) + 1

        @classmethod
        async def on_error(cls, e, msg, ctx):
            blamed.append(e)

    engine = kit.engine(Counting, bulk_mode_threshold=threshold)
    engine.register_table(table)
    disk.failures["read"] = 1
    await kit.send(source, [(b"%d" % number, b"x") for number in range(10)])
    async with engine:
        await engine.caught_up()
        assert {entry.key: entry.value for entry in table.snapshot()} == {b"%d" % number: 1 for number in range(10)}
        assert (disk.failures["read"], engine.status().checkpoint_failures, disk.times_opened) == (0, 1, 2)
    assert blamed == []


async def test_a_store_that_fails_between_two_tables_leaves_both_as_the_changelogs_say(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks: dict[str, Disk] = {"first": Disk(), "second": Disk()}
    monkeypatch.setattr("paperboy.engine.stores.MemoryStore", lambda table: disks[table].open(table))
    source = await kit.topic("views")
    first, second = Table("first"), Table("second")

    class Noting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            first[msg.key] = second[msg.key] = msg.offset

    engine = kit.engine(Noting)
    engine.register_table(first)
    engine.register_table(second)
    async with engine:
        await engine.caught_up()
        disks["second"].failures["write"] = 1
        await kit.send(source, [(b"a", b"x")] * 5)
        await engine.caught_up()
        assert engine.status().checkpoint_failures == 1
        for table in (first, second):
            assert {entry.key: entry.value for entry in table.snapshot()} == {b"a": 4}
    assert [disk.times_opened for disk in disks.values()] == [2, 2]
    assert await kit.committed(source) == 5


@pytest.mark.parametrize("failing", ["write", "flush"])
async def test_a_store_that_goes_on_failing_stops_the_engine_with_a_sentence(
    kit: Kit, disk: Disk, failing: str
) -> None:
    source, table = await kit.topic("views"), Table("views")
    engine = kit.engine(noting(source, table, []), checkpoint_attempts=3)
    engine.register_table(table)
    disk.failures[failing] = 1_000
    await kit.send(source, [(b"a", b"x")])
    sentence = rf"Task views-.*\[0\] failed 3 times in a row .*The disk is full \({failing}\)"

    async def work() -> None:
        async with engine:
            for _ in range(10):
                await kit.send(source, [(b"a", b"x")])
                await engine.caught_up()

    with pytest.raises(CheckpointError, match=sentence) as caught:
        await work()
    assert isinstance(caught.value.__cause__, StoreError)
    assert disk.times_opened == 3


async def test_a_changelog_that_is_made_anew_under_a_running_engine_has_the_store_wiped(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    source, table = await kit.topic("views"), Table("views")
    changelog = f"{kit.group}-views-changelog"
    engine = kit.engine(noting(source, table, []))
    engine.register_table(table)
    async with engine:
        for _ in range(3):
            await kit.send(source, [(b"before", b"x")])
            await engine.caught_up()
        config = {"cleanup.policy": "compact"}
        cluster_of(kit).delete_topics([changelog])
        cluster_of(kit).create_topics([TopicSpec(changelog, 1, config=config)])
        await kit.send(source, [(b"after", b"x")])
        await engine.caught_up()
        assert engine.status().checkpoint_failures == 1
        assert {entry.key: entry.value for entry in table.snapshot()} == {b"after": 3}
    [wiped] = said(caplog, "store wiped")
    assert wiped["reason"] == f"of an earlier changelog topic of this name: {changelog!r} was made anew"
    assert await restored(kit, source) == {b"after": 3}


async def test_a_changelog_that_ends_in_markers_is_restored_to_its_end(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")] * 2)
    for times in range(2):
        engine = kit.engine(counting(source, table, seen))
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert [entry.value for entry in table.snapshot()] == [2 + times]
        cluster_of(kit).append_marker(TopicPartition(f"{kit.group}-views-changelog", 0))
        cluster_of(kit).append_marker(TopicPartition(source, 0))
        await kit.send(source, [(b"a", b"x")])


async def test_an_input_whose_tail_is_a_marker_is_caught_up_with(kit: Kit) -> None:
    source = await kit.topic("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")] * 2)
    cluster_of(kit).append_marker(TopicPartition(source, 0))

    class Views(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.offset)

    await kit.engine(Views, steps=[[Views]], stop_at_end=True).start()
    assert seen == [0, 1]
    assert await kit.committed(source) == 3


async def test_an_offset_that_fell_out_of_the_log_stops_the_engine(kit: Kit) -> None:
    source = await kit.topic("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")] * 10)

    class Views(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.offset)
            if msg.offset == 2 and len(seen) == 3:
                await engine.stop()

    engine = kit.engine(Views, with_bulk_mode=False)
    await engine.start()
    cluster_of(kit).delete_records(TopicPartition(source, 0), 6)
    with pytest.raises(OffsetOutOfRange, match=r"stands at offset 3 of views-.*holds 6 to 10.*'continue'"):
        await kit.engine(Views).start()

    engine = kit.engine(Views, offset_out_of_range="continue")
    async with engine:
        await engine.caught_up()
        assert engine.status().lost == 3
    assert seen == [0, 1, 2, 6, 7, 8, 9]


async def test_a_stop_ends_though_the_broker_acknowledges_nothing(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperboy.engine.membership.LAST_CHECKPOINT_SEC", 0.1)
    monkeypatch.setattr("paperboy.engine.engine._CLOSE_TIMEOUT_SEC", 0.1)
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")])
    faults = cluster_of(kit).faults
    engine = kit.engine(counting(source, table, seen), drain_timeout_sec=0.1)
    engine.register_table(table)
    async with engine:
        await until(lambda: bool(seen) or engine.status().handled == 1)
        faults.hold("produce")
    assert await kit.committed(source) == 0
    faults.release("produce")


async def test_a_flush_that_a_drain_interrupts_loses_no_send(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer has no room while the task is cancelled: what it was handing over is not forgotten."""
    monkeypatch.setattr("paperboy.engine.membership.LAST_CHECKPOINT_SEC", 0.2)
    source, target = await kit.topic("in"), await kit.topic("out")
    await kit.send_values(source, b"x")
    room, sending = asyncio.Event(), asyncio.Event()
    send = MemoryProducer.send

    async def waiting_for_room(self: MemoryProducer, partition: TopicPartition, records: Any) -> Any:
        if partition.topic == target:
            sending.set()
            await room.wait()
        return await send(self, partition, records)

    class Forward(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            ctx.send(target, msg.value)

    monkeypatch.setattr(MemoryProducer, "send", waiting_for_room)
    async with kit.engine(Forward, drain_timeout_sec=0.1):
        await sending.wait()
    assert await kit.committed(source) == 0
    room.set()
    monkeypatch.undo()
    await kit.engine(Forward, stop_at_end=True).start()
    assert [record.value for record in await kit.read(target)] == [b"x"]
    assert await kit.committed(source) == 1


async def test_a_last_checkpoint_that_takes_its_time_is_not_given_up(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")])
    faults = cluster_of(kit).faults
    engine = kit.engine(counting(source, table, seen), drain_timeout_sec=0.1, commit_interval_sec=60)
    engine.register_table(table)
    async with engine:
        await until(lambda: bool(seen))
        faults.hold("produce")
        asyncio.get_running_loop().call_later(0.5, faults.release, "produce")
    assert await kit.committed(source) == 1


async def test_a_stop_does_not_wait_for_a_restore(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")])
    engine = kit.engine(counting(source, table, seen), stop_at_end=True)
    engine.register_table(table)
    await engine.start()
    faults = cluster_of(kit).faults
    again = Table("views")
    engine = kit.engine(counting(source, again, seen), drain_timeout_sec=30)
    engine.register_table(again)
    async with engine:
        faults.hold("fetch")
        await until(lambda: bool(engine.status().tasks))
        assert not engine.status().tasks[0].ready
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < 5
    faults.release("fetch")


async def test_an_offset_that_falls_out_of_the_log_while_it_is_read_is_gone_on_behind(kit: Kit) -> None:
    source = await kit.topic("views")
    await kit.send(source, [(b"a", b"x")] * 5)
    seen: list[Any] = []

    class Views(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.offset)

    cluster = cluster_of(kit)
    engine = kit.engine(Views, offset_out_of_range="continue")
    async with engine:
        await engine.caught_up()
        assert engine._membership is not None
        cluster.faults.hold("fetch")
        engine._membership.apply_limits()  # the fetch that is under way ends
        await until(lambda: bool(cluster.faults._held["fetch"]._waiters))
        await kit.send(source, [(b"a", b"x")] * 5)
        cluster.delete_records(TopicPartition(source, 0), 8)
        cluster.faults.release("fetch")
        await engine.caught_up()
        assert engine.status().lost == 3
    assert seen == [0, 1, 2, 3, 4, 8, 9]


async def test_a_broker_that_is_away_when_a_step_begins_stops_nothing(kit: Kit) -> None:
    source = await kit.topic("views")
    await kit.send_values(source, b"x")
    seen: list[Any] = []

    class Views(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.offset)

    engine = kit.engine(Views, steps=[[Views]])
    async with engine:
        cluster_of(kit).faults.fail_next("offsets", BrokerError("away"))
        await engine.caught_up()
    assert seen == [0]


def test_with_many_tasks_the_loop_still_gets_its_turn(kit: Kit) -> None:
    """Nobody but the handlers lets time pass, so that a busy machine makes no difference."""

    async def scenario() -> None:
        source = await kit.topic("busy", partitions=8)
        for partition in range(8):
            await kit.send_values(source, *[b"x"] * 60, partition=partition)
        loop: Any = asyncio.get_running_loop()
        handled = 0
        waits: list[float] = []

        class Busy(Handler):
            topic = source

            @classmethod
            async def on_message(cls, msg, ctx):
                nonlocal handled
                handled += 1
                loop._jump.now += 0.001

        async def watch() -> None:
            while handled < 480:
                begun, before = loop.time(), handled
                await asyncio.sleep(0)
                waits.append(loop.time() - begun)
                if handled == before:  # nothing goes on before a timer rings
                    await asyncio.sleep(0.001)

        async with kit.engine(Busy, commit_interval_sec=60) as engine:
            watching = asyncio.create_task(watch())
            await engine.caught_up()
            await watching
        assert 0.01 < max(waits) < 0.05

    run(scenario())


async def test_a_worker_that_stood_still_past_its_session_writes_nothing_over_the_new_owners_table(kit: Kit) -> None:
    source, stale, fresh = await kit.topic("views"), Table("views"), Table("views")
    seen_by_zombie: list[Any] = []
    zombie = kit.engine(counting(source, stale, seen_by_zombie), commit_interval_sec=1.5)
    zombie.register_table(stale)
    owner = kit.engine(counting(source, fresh, []))
    owner.register_table(fresh)
    async with zombie:
        await zombie.caught_up()
        await kit.send(source, [(b"a", b"x")] * 5)
        await until(lambda: len(seen_by_zombie) == 5)
        consumer: Any = zombie._membership._wiring.consumer  # type: ignore[union-attr]
        consumer.freeze()  # it hears nothing any more,
        consumer._fetcher.hold()  # and reads nothing
        consumer.expire()
        async with owner:
            await kit.send(source, [(b"a", b"x")] * 5)
            await owner.caught_up()
            assert [entry.value for entry in fresh.snapshot()] == [10]
            assert zombie.status().tasks[0].ready, "the zombie has not heard of it yet"
            await until(lambda: not zombie.status().tasks or not zombie.status().tasks[0].ready)
            last = (await kit.read(f"{kit.group}-views-changelog"))[-1]
            assert decode_value(last.value) == 10


# Fetches that fail.


class Fetches:
    """The next fetch of `engine`'s consumer that brings something fails once it has moved on, as where one of its
    partitions cannot be read: what was fetched of the others is gone."""

    def __init__(self, engine: Engine) -> None:
        self.lost = 0
        consumer: Any = engine._membership._wiring.consumer  # type: ignore[union-attr]
        fetch = consumer.fetch

        async def losing(*args: Any) -> Any:
            chunks = await fetch(*args)
            if chunks and not self.lost:
                self.lost = sum(map(len, chunks.values()))
                raise BrokerError("one partition is damaged")
            return chunks

        consumer.fetch = losing


def noting_offsets(source: str, seen: list[Any]) -> type[Handler]:
    class Noting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append((msg.partition, msg.offset))

    return Noting


async def test_a_fetch_that_fails_is_tried_again(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    source = await kit.topic("views")
    seen: list[Any] = []
    async with kit.engine(noting_offsets(source, seen)) as engine:
        for _ in range(3):
            cluster_of(kit).faults.fail_next("fetch", BrokerError("the broker is confused"))
        await kit.send(source, [(b"a", b"x")] * 5)
        await engine.caught_up()
    assert seen == [(0, offset) for offset in range(5)]
    failed = said(caplog, "fetch failed")
    assert [line["attempt"] for line in failed] == [1, 2, 3]
    assert {line["error"] for line in failed} == {"the broker is confused"}


async def test_what_a_failed_fetch_had_brought_of_other_partitions_is_fetched_again(kit: Kit) -> None:
    source = await kit.topic("views", partitions=2)
    seen: list[Any] = []
    async with kit.engine(noting_offsets(source, seen)) as engine:
        await engine.caught_up()
        fetches = Fetches(engine)
        for partition in range(2):
            await kit.send(source, [(b"a", b"x")] * 5, partition)
        await engine.caught_up()
    assert fetches.lost, "the fault hit"
    assert sorted(seen) == [(partition, offset) for partition in range(2) for offset in range(5)]


async def test_fetches_that_go_on_failing_stop_the_engine_with_what_they_said(kit: Kit) -> None:
    source = await kit.topic("views")
    for _ in range(3):
        cluster_of(kit).faults.fail_next("fetch", BrokerError("the broker is confused"))
    with pytest.raises(BrokerError, match="the broker is confused"):
        await kit.engine(noting_offsets(source, []), checkpoint_attempts=3).start()


def test_fetches_that_fail_now_and_then_do_not_add_up(kit: Kit) -> None:
    async def scenario() -> None:
        source = await kit.topic("views")
        seen: list[Any] = []
        async with kit.engine(noting_offsets(source, seen), checkpoint_attempts=2) as engine:
            for _ in range(5):
                await engine.caught_up()
                cluster_of(kit).faults.fail_next("fetch", BrokerError("the broker is confused"))
                await kit.send(source, [(b"a", b"x")])
                await asyncio.sleep(60)
            await engine.caught_up()
        assert len(seen) == 5

    run(scenario())


# A changelog that is made anew while its table is in use.


async def make_anew(kit: Kit, changelog: str, *entries: tuple[bytes, int]) -> None:
    cluster_of(kit).delete_topics([changelog])
    cluster_of(kit).create_topics([TopicSpec(changelog, 1, config={"cleanup.policy": "compact"})])
    await kit.send(changelog, [(encode_key(key), encode_value(value)) for key, value in entries])


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
async def test_a_changelog_made_anew_is_noticed_without_a_checkpoint_though_the_stores_offset_would_fit(
    kit: Kit, guarantee: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("paperboy.engine.engine._CHANGELOGS_SEC", 0.05)
    source, table = await kit.topic("views"), Table("views")
    changelog = f"{kit.group}-views-changelog"
    engine = kit.engine(noting(source, table, []), processing_guarantee=guarantee)
    engine.register_table(table)
    async with engine:
        await kit.send(source, [(b"before", b"x")])
        await engine.caught_up()
        await make_anew(kit, changelog, (b"theirs", 7), (b"theirs", 8), (b"theirs", 9))
        await until(lambda: {entry.key: entry.value for entry in table.snapshot()} == {b"theirs": 9})
        await kit.send(source, [(b"after", b"x")])
        await engine.caught_up()
        live = {entry.key: entry.value for entry in table.snapshot()}
        assert live == {b"theirs": 9, b"after": 1}
        assert engine.status().checkpoint_failures == 1
    [wiped] = said(caplog, "store wiped")
    assert wiped["reason"] == f"of an earlier changelog topic of this name: {changelog!r} was made anew"
    assert await restored(kit, source) == live


async def test_a_checkpoint_that_lands_in_a_changelog_made_anew_does_not_believe_what_it_finds(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    """Its batch lands further on than the store stands, as behind somebody else's stray records."""
    source, table = await kit.topic("views"), Table("views")
    changelog = f"{kit.group}-views-changelog"
    engine = kit.engine(noting(source, table, []))
    engine.register_table(table)
    async with engine:
        await kit.send(source, [(b"before", b"x")])
        await engine.caught_up()
        await make_anew(kit, changelog, (b"theirs", 7), (b"theirs", 8), (b"theirs", 9))
        await kit.send(source, [(b"after", b"x")])
        await engine.caught_up()
        live = {entry.key: entry.value for entry in table.snapshot()}
        assert live == {b"theirs": 9, b"after": 1}
    [wiped] = said(caplog, "store wiped")
    assert "was made anew" in wiped["reason"]
    assert await restored(kit, source) == live


async def test_a_changelog_made_anew_that_can_be_none_stops_the_engine(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a broker makes one that creates whatever topic is asked for."""
    monkeypatch.setattr("paperboy.engine.engine._CHANGELOGS_SEC", 0.05)
    source, table = await kit.topic("views"), Table("views")
    changelog = f"{kit.group}-views-changelog"
    engine = kit.engine(noting(source, table, []))
    engine.register_table(table)

    async def work() -> None:
        async with engine:
            await engine.caught_up()
            cluster_of(kit).delete_topics([changelog])
            cluster_of(kit).create_topics([TopicSpec(changelog, 1)])
            await asyncio.sleep(60)

    running = asyncio.create_task(work())
    await until(lambda: engine.status().failure is not None)
    running.cancel()
    with pytest.raises(ConfigurationError, match=r"views-changelog' has cleanup\.policy='delete'"):
        await running


async def test_a_changelog_that_is_gone_stops_the_engine_with_the_remedy(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    engine = kit.engine(noting(source, table, []), checkpoint_attempts=2)
    engine.register_table(table)

    async def work() -> None:
        async with engine:
            await engine.caught_up()
            cluster_of(kit).delete_topics([f"{kit.group}-views-changelog"])
            await kit.send(source, [(b"a", b"x")])
            await engine.caught_up()

    with pytest.raises(CheckpointError, match=r"'group-.*-views-changelog' of table 'views' is gone.*paperboy reset"):
        await work()


# Topics that are given more partitions while the engine runs.


async def test_new_partitions_of_an_input_without_tables_are_handled(kit: Kit) -> None:
    source, go_on = await kit.topic("views"), asyncio.Event()
    seen: list[Any] = []

    class Views(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.partition == 1:
                await go_on.wait()
            seen.append((msg.partition, msg.offset))

    async with kit.engine(Views) as engine:
        await kit.send(source, [(b"a", b"x")])
        await engine.caught_up()
        cluster_of(kit).create_partitions(source, 2)
        await kit.send(source, [(b"a", b"x")] * 3, 1)
        waiting = asyncio.create_task(engine.caught_up())
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        go_on.set()
        await waiting
        assert seen == [(0, 0), (1, 0), (1, 1), (1, 2)]


async def test_new_partitions_of_an_input_with_tables_stop_the_engine_with_the_remedy(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    engine = kit.engine(counting(source, table, []))
    engine.register_table(table)

    async def work() -> None:
        async with engine:
            await engine.caught_up()
            cluster_of(kit).create_partitions(source, 2)
            await until(lambda: engine.status().failure is not None)

    with pytest.raises(ConfigurationError, match=r"have a partition 1 now, but changelog .* has 1 partitions.*reset"):
        await work()


async def test_new_partitions_of_an_input_that_is_retried_stop_the_engine_with_what_differs(kit: Kit) -> None:
    source = await kit.topic("views")

    class Views(Handler):
        topic = source
        retry = Retry(delays=["1m"], via="topics")

    engine = kit.engine(Views)

    async def work() -> None:
        async with engine:
            await engine.caught_up()
            cluster_of(kit).create_partitions(source, 2)
            await until(lambda: engine.status().failure is not None)

    with pytest.raises(
        ConfigurationError, match=r"of task views-.*\[1\], without .*-retry-1m\[1\]: .* give it as many"
    ):
        await work()


async def test_a_failed_commit_and_then_a_failed_checkpoint_count_nothing_twice() -> None:
    clicks = Table("clicks")

    class Clicks(Handler):
        topic = "clicks"
        key_serializer = bytes.decode

        @classmethod
        async def on_message(cls, msg, ctx):
            clicks[msg.key] = clicks.get(msg.key, 0) + 1

    engine = Engine(Clicks, bootstrap_servers="kafka.example:9092", group_id="clicks", commit_interval_sec=1)
    engine.register_table(clicks)
    async with EngineTest(engine) as t:
        await t.send("clicks", "1st", key="a")
        t.fail_next("commit")
        await t.advance("1500ms")
        await t.send("clicks", "2nd", key="a")
        t.fail_next("produce_ack")
        await t.settle()
        assert engine.status().checkpoint_failures == 1
        assert t.table("clicks") == {"a": 2}
