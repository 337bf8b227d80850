"""Exactly once where messages wait, take too long, or change hands. In virtual time, on the memory broker."""

import asyncio
import random
from typing import Any

import pytest

from paperboy import CheckpointError, DeadLetter, Engine, Exponential, GlobalTable, Handler, Retry, Table
from paperboy.brokers.memory import MemoryBroker, MemoryCluster, Operation
from paperboy.brokers.memory.producer import MemoryTransactionalProducer
from paperboy.brokers.protocol import TopicPartition
from paperboy.errors import StoreError
from paperboy.serializers.builtins import Bytes
from paperboy.tables.stores.memory import MemoryStore
from paperboy.testing import EngineTest
from paperboy.testing.backdoor import MemoryBackdoor


def cluster_of(test: EngineTest) -> MemoryCluster:
    backdoor = test._open.backdoor
    assert isinstance(backdoor, MemoryBackdoor)
    return backdoor._cluster


def release(test: EngineTest, operation: Operation) -> None:
    """In the engine's loop: who waits there is woken by nobody else."""

    async def released() -> None:
        cluster_of(test).faults.release(operation)

    test._open.turn(released())


def exact(*handlers: type[Handler], tables: tuple[Table | GlobalTable, ...] = (), **options: Any) -> Engine:
    engine = Engine(
        *handlers, bootstrap_servers="memory://", group_id="exact", processing_guarantee="exactly_once", **options
    )
    for table in tables:
        engine.register_table(table)
    return engine


def values(test: EngineTest, topic: str = "out") -> list[bytes]:
    return sorted(record.value for record in test.sent(topic))


# Messages that are handled at the same time.


async def test_what_finishes_while_a_checkpoint_waits_for_the_one_before_is_not_committed_ahead_of_its_position() -> (
    None
):
    """Two messages wait to be handled again; the second's time comes while the next checkpoint is about to begin."""
    attempts: dict[bytes, int] = {}

    class Failing(Handler):
        topic = "in"
        concurrency = 4
        retry = Retry(attempts=3, backoff=Exponential("1s", jitter=0))

        @classmethod
        async def on_message(cls, msg, ctx):
            attempts[msg.value] = attempts.get(msg.value, 0) + 1
            await ctx.send("out", msg.value, key=msg.key)
            if msg.value == b"first" and attempts[msg.value] <= 2:
                raise ValueError("not yet")
            if msg.value == b"second" and attempts[msg.value] == 1:
                raise ValueError("not yet")

    async with EngineTest(exact(Failing), topics={"out": 1}) as t:
        faults = cluster_of(t).faults
        await t.send("in", "before", key="a")
        await t.advance("50ms")
        faults.hold("end_transaction")
        await t.advance("100ms")  # the transaction of the first message is being committed
        await t.send("in", "begins", key="a")
        await t.send("in", "first", key="b")
        await t.send("in", "second", key="c")
        await t.advance("500ms")
        await t.send("in", "third", key="d")  # lets the task see that the next checkpoint is due
        await t.advance("1s")
        release(t, "end_transaction")
        await t.advance("50ms")
        await t.crash()
        await t.restart()
        await t.settle()
        assert values(t) == [b"before", b"begins", b"first", b"second", b"third"]


async def test_a_message_that_waits_for_long_beside_others_holds_no_transaction_open() -> None:
    failures = 0

    class Failing(Handler):
        topic = "in"
        concurrency = 4
        retry = Retry(attempts=3, backoff=Exponential("90s", jitter=0))

        @classmethod
        async def on_message(cls, msg, ctx):
            nonlocal failures
            await ctx.send("out", msg.value, key=msg.key)
            if msg.value == b"first" and failures == 0:
                failures += 1
                raise ValueError("not yet")

    engine = exact(Failing)
    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.send("in", "first", key="b")
        await t.send("in", "second", key="c")
        await t.advance("2s")
        log = cluster_of(t).log(TopicPartition("out", 0))
        assert log.stable_offset == log.end_offset, "readers wait for nothing"
        await t.settle()
        assert values(t) == [b"first", b"second"]


async def test_a_stop_commits_nothing_that_finished_behind_a_message_that_outlasts_it() -> None:
    is_slow, counts = True, Table("counts")

    class Counting(Handler):
        topic = "in"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"slow" and is_slow:
                await asyncio.sleep(1000)
            await ctx.send("out", msg.value)
            counts.update(msg.value, lambda n: n + 1, default=0)

    async with EngineTest(exact(Counting, tables=(counts,)), topics={"out": 1}) as t:
        for value in ("before", "slow", "behind"):
            await t.send("in", value, key=value)
        await t.advance("50ms")
        await t.stop()
        is_slow = False
        await t.restart()
        await t.settle()
        assert values(t) == [b"before", b"behind", b"slow"]
        assert t.table("counts") == {b"before": 1, b"slow": 1, b"behind": 1}


# Messages that take long.


@pytest.mark.parametrize("at_once", [1, 4])
async def test_a_transaction_that_expires_under_a_slow_message_is_done_again(at_once: int) -> None:
    slept = 0

    class Slow(Handler):
        topic = "in"
        concurrency = at_once

        @classmethod
        async def on_message(cls, msg, ctx):
            nonlocal slept
            await ctx.send("out", msg.value, key=msg.key)
            await asyncio.sleep(0.03)  # longer than a turn
            if msg.value == b"slow" and slept < 1:
                slept += 1
                await asyncio.sleep(100)

    engine = exact(Slow)
    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.send("in", b"%0300000d" % 1, key="a")  # more than the outbox keeps: it goes out at once
        await t.send("in", "slow", key="b")
        await t.send("in", "behind", key="b")
        await t.settle()
        assert engine.status().checkpoint_failures == (at_once == 1), "beside others it is in no transaction"
        assert [value[-6:] for value in values(t)] == [b"000001", b"behind", b"slow"]


async def test_transactions_that_always_expire_stop_the_engine_with_the_remedy() -> None:
    class Slow(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send("out", msg.value, key=msg.key)
            await asyncio.sleep(0.03)  # longer than a turn
            if msg.value == b"slow":
                await asyncio.sleep(100)

    async with EngineTest(exact(Slow), topics={"out": 1}) as t:
        await t.send("in", b"%0300000d" % 1, key="a")
        await t.send("in", "slow", key="b")
        with pytest.raises(CheckpointError, match="transaction_timeout_sec"):
            await t.settle("1h")


# While a transaction is committed.


async def test_what_is_sent_meanwhile_is_made_into_batches_at_once_and_goes_out_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Sending(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send("out", msg.value, key=msg.key)

    packed: list[bytes | None] = []
    batches = MemoryTransactionalProducer.batches

    def noted(producer: MemoryTransactionalProducer, partition: TopicPartition) -> Any:
        made = batches(producer, partition)
        extend = made.extend

        def noting(records: Any) -> None:
            packed.extend(value for _, value, _, _ in records)
            extend(records)

        monkeypatch.setattr(made, "extend", noting)
        return made

    monkeypatch.setattr(MemoryTransactionalProducer, "batches", noted)
    async with EngineTest(exact(Sending), topics={"out": 1}) as t:
        faults = cluster_of(t).faults
        await t.send("in", "1", key="a")
        await t.settle()
        faults.hold("end_transaction")
        await t.send("in", "2", key="a")
        await t.advance("1s")
        await t.send("in", "3", key="a")
        await t.send("in", "4", key="b")
        await t.advance("50ms")
        assert packed == [b"3", b"4"]
        assert values(t) == [b"1"]
        release(t, "end_transaction")
        await t.settle()
        assert values(t) == [b"1", b"2", b"3", b"4"]


async def test_a_task_goes_on_for_as_long_as_a_commit_takes() -> None:
    handled: list[bytes] = []

    class Sending(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            handled.append(msg.value)
            await ctx.send("out", msg.value, key=msg.key)

    async with EngineTest(exact(Sending), topics={"out": 1}) as t:
        cluster_of(t).faults.hold("end_transaction")
        for value in (b"1", b"2", b"3"):
            await t.send("in", value, key="a")
            await t.advance("1s")
        assert handled == [b"1", b"2", b"3"]
        assert values(t) == []
        release(t, "end_transaction")
        await t.settle()
        assert values(t) == [b"1", b"2", b"3"]


async def test_a_task_waits_for_a_commit_behind_which_too_much_waits() -> None:
    handled: list[bytes] = []

    class Sending(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            handled.append(msg.value)
            await ctx.send("out", msg.value, key=msg.key)

    async with EngineTest(exact(Sending, max_unacked_bytes=150), topics={"out": 1}) as t:
        cluster_of(t).faults.hold("end_transaction")
        for value in (b"1", b"2", b"3", b"4", b"5"):
            await t.send("in", value, key="a")
            await t.advance("1s")
        assert handled == [b"1", b"2", b"3", b"4"], "three of 66 bytes are too many"
        assert values(t) == []
        release(t, "end_transaction")
        await t.settle()
        assert values(t) == [b"1", b"2", b"3", b"4", b"5"]


# Stores.


async def test_a_store_that_fails_when_the_transaction_is_committed_reads_the_changelog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts, last = Table("counts"), Table("last")

    class Counting(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send("out", b"%d" % counts.update(msg.key, lambda n: n + 1, default=0))
            last[msg.key] = msg.value

    engine, write = exact(Counting, tables=(counts, last)), MemoryStore.write
    failed: list[int] = []

    def writes(store: MemoryStore, changes: Any, offset: int, now_ms: int) -> None:
        if len(failed) < 2 and b"2" in str(changes).encode():
            failed.append(offset)
            if len(failed) == 2:  # the second table's: the first has written
                raise StoreError("the disk is full")
        write(store, changes, offset, now_ms)

    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.send("in", "1", key="a")
        await t.settle()
        monkeypatch.setattr(MemoryStore, "write", writes)
        await t.send("in", "2", key="a")
        await t.settle()
        assert len(failed) == 2, "it has hit"
        assert t.table("counts") == {b"a": 2}
        assert t.table("last") == {b"a": b"2"}
        await t.send("in", "3", key="a")
        await t.settle()
        assert values(t) == [b"1", b"2", b"3"]
        assert t.table("counts") == {b"a": 3}


# Changing hands.


@pytest.mark.parametrize("seed", range(5))
async def test_through_rebalances_and_crashes_every_output_is_there_once(seed: int) -> None:
    chance, counts = random.Random(seed), Table("counts")

    class Counting(Handler):
        topic = "in"
        dead_letter = DeadLetter()

        @classmethod
        async def on_message(cls, msg, ctx):
            count = counts.update(msg.key, lambda n: n + 1, default=0)
            await asyncio.sleep(0.01)
            await ctx.send("out", b"%s-%d" % (msg.key, count), key=msg.key)

    engine = exact(Counting, tables=(counts,))
    sent: dict[bytes, int] = {}
    async with EngineTest(engine, partitions=3, topics={"out": 3}) as t:
        workers = 1
        for _ in range(12):
            for _ in range(20):
                key = b"%d" % chance.randrange(6)
                await t.send("in", "x", key=key)
                sent[key] = sent.get(key, 0) + 1
            await t.advance(chance.choice(["10ms", "90ms", "300ms"]))
            change = chance.choice(["join", "leave", "crash", "rebalance"])
            if change == "crash":
                await t.crash(chance.randrange(workers))
                await t.restart()
            else:
                workers = max(1, min(3, workers + {"join": 1, "leave": -1}.get(change, 0)))
                await t.rebalance(workers=workers)
        await t.settle()
        assert values(t) == sorted(b"%s-%d" % (key, n + 1) for key, count in sent.items() for n in range(count))
        assert t.table("counts") == sent


async def test_a_commit_that_is_given_up_in_a_rebalance_is_settled_by_the_next_owner() -> None:
    counts = Table("counts")

    class Counting(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send("out", b"%d" % counts.update(msg.key, lambda n: n + 1, default=0))

    async with EngineTest(exact(Counting, tables=(counts,)), partitions=1, topics={"out": 1}) as t:
        await t.send("in", "x", key="a")
        await t.settle()
        faults = cluster_of(t).faults
        operations: list[Operation] = ["end_transaction", "end_transaction_ack"]
        for operation in operations:
            faults.hold(operation)
            await t.send("in", "x", key="a")
            await t.advance("1s")
            t._open.workers._all[0].rejoin()
            await t.advance("55s")
            release(t, operation)
            await t.settle()
        assert values(t) == [b"1", b"2", b"3"]
        assert t.table("counts") == {b"a": 3}


async def test_a_global_table_shows_nothing_that_is_not_committed() -> None:
    names, seen = GlobalTable("names", topic="names", key_serializer=Bytes(), value_serializer=Bytes()), []

    class Naming(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send("names", msg.value, key=msg.key)
            await asyncio.sleep(0.03)  # longer than a turn: what was sent goes out
            if msg.value == b"2":
                await asyncio.sleep(30)
                seen.append(names.get(b"a"))

    async with EngineTest(exact(Naming, tables=(names,)), topics={"names": 1}) as t:
        await t.send("in", b"1" * 300_000, key="a")
        await t.send("in", "2", key="b")
        await t.advance("5s")
        log = cluster_of(t).log(TopicPartition("names", 0))
        assert log.stable_offset < log.end_offset, "it is there, and not committed"
        assert len(t.table("names")) == 0
        await t.settle()
        assert seen == [None]
        assert len(t.table("names")) == 2


async def test_nothing_is_handled_before_the_mark_of_the_new_owner_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Kafka, a commit shows a moment after it; until then, whoever took over would fence the owner before."""
    handled: list[bytes] = []

    class PassingOn(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            handled.append(msg.value)

    late = [6]
    committed_by = MemoryBroker.committed_by

    async def committed_by_some_time_ago(broker: MemoryBroker, group_id: str, partitions: Any) -> Any:
        late[0] -= 1
        shown = await committed_by(broker, group_id, partitions)
        if late[0] >= 0:
            assert handled == []
            return dict.fromkeys(partitions)
        return shown

    monkeypatch.setattr(MemoryBroker, "committed_by", committed_by_some_time_ago)
    async with EngineTest(exact(PassingOn)) as t:
        await t.send("in", "x")
        await t.settle()
        assert late[0] == -1
        assert handled == [b"x"]
