"""The engine on a broker that fails on demand: what is kept, what is done again, and when it gives up."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from paperboy import CheckpointError, Handler, OffsetOutOfRange, Table
from paperboy.brokers.memory import MemoryCluster, memory_cluster
from paperboy.brokers.memory.producer import MemoryProducer
from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import random_id
from paperboy.errors import BrokerError
from paperboy.serializers.values import decode_value
from tests.contract.engine.kit import Kit, until


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


async def test_a_changelog_ack_that_is_lost_counts_nothing_twice(kit: Kit) -> None:
    """The write is in the log, the worker is told it failed: it reads the gap, and repeats what that stood for."""
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")] * 5)
    engine = kit.engine(counting(source, table, seen))
    engine.register_table(table)
    cluster_of(kit).faults.fail_next("produce_ack", BrokerError("timed out"))
    async with engine:
        await engine.caught_up()
        # At least once: the changelog already held the five when they were counted again.
        assert [entry.value for entry in table.snapshot()] == [10]
    assert seen == [0, 1, 2, 3, 4] * 2


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


async def test_somebody_elses_write_to_the_changelog_is_noticed_and_read(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    engine = kit.engine(counting(source, table, seen))
    engine.register_table(table)
    async with engine:
        await kit.send(source, [(b"a", b"x")])
        await engine.caught_up()
        (zombie,) = await kit.read(f"{kit.group}-views-changelog")
        await kit.send(f"{kit.group}-views-changelog", [(b"\x01zombie-key-of-no-use", None)])
        await kit.send(source, [(b"b", b"x")])
        await engine.caught_up()
        assert engine.status().checkpoint_failures == 1
        assert {entry.key: entry.value for entry in table.snapshot()}[b"a"] == 1
    assert zombie.value is not None


async def test_a_changelog_that_ends_in_markers_is_restored_to_its_end(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    seen: list[Any] = []
    await kit.send(source, [(b"a", b"x")] * 2)
    for run in range(2):
        engine = kit.engine(counting(source, table, seen))
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert [entry.value for entry in table.snapshot()] == [2 + run]
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
        cluster.faults.hold("fetch")
        await asyncio.sleep(0.15)  # the fetch that is under way ends
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


async def test_with_many_tasks_the_loop_still_gets_its_turn(kit: Kit) -> None:
    source = await kit.topic("busy", partitions=8)
    for partition in range(8):
        await kit.send_values(source, *[b"x"] * 60, partition=partition)
    loop = asyncio.get_running_loop()
    turns: list[float] = []
    done: list[float] = []

    class Busy(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            until_then = loop.time() + 0.001
            while loop.time() < until_then:
                pass
            done.append(loop.time())

    async def watch() -> None:
        while len(done) < 480:
            turns.append(loop.time())
            await asyncio.sleep(0)

    async with kit.engine(Busy) as engine:
        watching = asyncio.create_task(watch())
        await engine.caught_up()
        await watching
    waits = sorted(later - earlier for earlier, later in pairwise(turns) if later > done[0])
    assert waits[len(waits) * 9 // 10] < 0.05  # nine in ten: a shared machine has pauses of its own


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
