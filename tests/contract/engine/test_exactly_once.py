"""Exactly once: input, tables and output in one transaction."""

import asyncio
from typing import Any, ClassVar

import pytest

from paperboy import Handler, Table
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.errors import BrokerError, ConfigurationError, ProducerFenced
from tests.contract.engine.kit import Kit, said, until


def counting(source: str, table: Table, out: str, *, at_once: int = 1) -> type[Handler]:
    """Counts by key, and sends each count on."""

    class Counting(Handler):
        topic = source
        concurrency = at_once
        failures: ClassVar[list[bytes]] = []

        @classmethod
        async def on_message(cls, msg, ctx):
            count = table.update(msg.key, lambda count: count + 1, default=0)
            await ctx.send(out, b"%d" % count, key=msg.key)
            if msg.value in cls.failures:
                cls.failures.remove(msg.value)
                raise ValueError(msg.value)

    return Counting


def exact(kit: Kit, handler: type[Handler], table: Table, **options: Any) -> Any:
    engine = kit.engine(handler, processing_guarantee="exactly_once", **options)
    engine.register_table(table)
    return engine


def entries(table: Table) -> dict[Any, Any]:
    return {entry.key: entry.value for entry in table.snapshot().items()}


async def outputs(kit: Kit, out: str) -> list[tuple[bytes, int]]:
    return [(record.key, int(record.value)) for record in await kit.read(out)]


@pytest.mark.parametrize("at_once", [1, 4])
async def test_outputs_tables_and_offsets_are_committed_together(kit: Kit, at_once: int) -> None:
    source, out, table = await kit.topic("in"), await kit.topic("out"), Table("counts")
    await kit.send(source, [(b"ab"[number % 2 :][:1], b"x") for number in range(20)])
    async with exact(kit, counting(source, table, out, at_once=at_once), table) as engine:
        await engine.caught_up()
        assert entries(table) == {b"a": 10, b"b": 10}
    assert sorted(await outputs(kit, out)) == [(key, count) for key in (b"a", b"b") for count in range(1, 11)]
    assert await kit.committed(source) == 20


@pytest.mark.parametrize("at_once", [1, 4])
async def test_a_message_that_stops_the_engine_leaves_nothing_and_its_predecessors_everything(
    kit: Kit, at_once: int
) -> None:
    source, out, table = await kit.topic("in"), await kit.topic("out"), Table("counts")
    await kit.send(source, [(b"a", b"%d" % number) for number in range(6)])
    handler: Any = counting(source, table, out, at_once=at_once)
    handler.failures = [b"3"]
    with pytest.raises(ValueError, match="3"):
        await exact(kit, handler, table).start()
    assert await outputs(kit, out) == [(b"a", 1), (b"a", 2), (b"a", 3)]
    assert await kit.committed(source) == 3
    table = Table("counts")
    async with exact(kit, counting(source, table, out, at_once=at_once), table) as engine:
        await engine.caught_up()
        assert entries(table) == {b"a": 6}
    assert await outputs(kit, out) == [(b"a", count) for count in range(1, 7)]


async def test_an_idle_task_makes_no_transactions(kit: Kit) -> None:
    source, out, table = await kit.topic("in"), await kit.topic("out"), Table("counts")
    await kit.send(source, [(b"a", b"x")])
    async with exact(kit, counting(source, table, out), table, transaction_interval_sec=0.01) as engine:
        await engine.caught_up()
        async with kit.broker() as broker:
            partition = TopicPartition(out, 0)
            await until(lambda: engine.status().checkpoints > 0)
            end = await broker.end_offsets([partition])
            await asyncio.sleep(0.3)  # thirty intervals
            assert await broker.end_offsets([partition]) == end
        assert engine.status().checkpoints == 1


async def test_a_zombie_that_stood_still_commits_nothing(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    source, out, table = await kit.topic("in"), await kit.topic("out"), Table("counts")
    await kit.send(source, [(b"a", b"x")] * 3)
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow(counting(source, table, out)):  # type: ignore[misc]
        @classmethod
        async def on_message(cls, msg, ctx):
            await super().on_message(msg, ctx)
            if msg.offset == 2:
                entered.set()
                await go_on.wait()

    async with exact(kit, Slow, table) as engine:
        await entered.wait()
        async with kit.broker() as broker:
            thief = broker.transactional_producer(f"{kit.group}:{source}:0", 60.0)
            await thief.start()  # as a new owner does, before it reads what is committed
            committed = await kit.committed(source)
            await thief.stop()
        go_on.set()
        await engine.caught_up()
        assert entries(table) == {b"a": 3}
    assert committed in (None, 0, 2)
    assert [count for _, count in await outputs(kit, out)] == [1, 2, 3]
    assert said(caplog, "back to what is durable")


async def test_the_id_of_an_earlier_grouping_is_fenced(kit: Kit) -> None:
    source, out, table = await kit.topic("in"), await kit.topic("out"), Table("counts")
    await kit.send(source, [(b"a", b"x")])
    async with kit.broker() as broker:
        earlier = broker.transactional_producer(f"{kit.group}:another-topic:0", 60.0)
        await earlier.start()
        await earlier.commit(kit.group, {TopicPartition(source, 0): 0})
        while (await broker.committed(kit.group, [TopicPartition(source, 0)]))[TopicPartition(source, 0)] is None:
            pass
        async with exact(kit, counting(source, table, out), table) as engine:
            await engine.caught_up()
            with pytest.raises(ProducerFenced):
                await earlier.commit(kit.group, {TopicPartition(source, 0): 0})
            assert await kit.committed(source) == 1
        await earlier.stop()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"processing_guarantee": "at_most_once"}, "processing_guarantee='at_most_once' is not one of"),
        ({"transaction_interval_sec": 60}, "transaction_interval_sec=60 must be less than transaction_timeout_sec=60"),
        ({"handler_timeout_sec": 90}, "handler_timeout_sec=90 must be less than transaction_timeout_sec=60"),
    ],
)
def test_times_that_contradict_each_other_are_refused(options: dict[str, Any], named: str) -> None:
    class Orders(Handler):
        topic = "in"

    with pytest.raises(ConfigurationError, match=named):
        Kit("memory://", "x").engine(Orders, **{"processing_guarantee": "exactly_once", **options})


async def test_a_transaction_longer_than_the_broker_allows_refuses_the_start(kit: Kit) -> None:
    source = await kit.topic("in")

    class Orders(Handler):
        topic = source

    with pytest.raises(BrokerError, match=r"transaction_timeout_sec=1000 .*transaction\.max\.timeout\.ms"):
        await kit.engine(Orders, processing_guarantee="exactly_once", transaction_timeout_sec=1000).start()


# Regrouping: tables come and go, and with them what is one task.


def passing_on(source: str, out: str, *used: Table) -> type[Handler]:
    class PassingOn(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(out, msg.value)
            for table in used:
                table[msg.value] = msg.offset

    PassingOn.tables = list(used)
    return PassingOn


async def test_topics_that_merge_into_one_task_and_split_again_have_one_owner_each(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    one, other, out = await kit.topic("a"), await kit.topic("b"), await kit.topic("out")
    partitions = [TopicPartition(one, 0), TopicPartition(other, 0)]
    ids = {partition: f"{kit.group}:{partition.topic}:0" for partition in partitions}
    sent: list[bytes] = []
    for round_number, is_one_task in enumerate([False, True, False, False]):
        caplog.clear()
        shared = [Table("shared")] if is_one_task else []
        handlers = [passing_on(source, out, *shared) for source in (one, other)]
        engine = kit.engine(*handlers, processing_guarantee="exactly_once")
        for table in shared:
            engine.register_table(table)
        async with engine, kit.broker() as broker:
            await engine.caught_up()
            wanted = dict.fromkeys(partitions, ids[partitions[0]]) if is_one_task else ids
            assert await broker.committed_by(kit.group, partitions) == wanted, "before anything is handled"
            for source in (one, other):
                sent += (values := [b"%s-%d-%d" % (source.encode(), round_number, number) for number in range(20)])
                await kit.send_values(source, *values)
            await engine.caught_up()
            assert await broker.committed_by(kit.group, partitions) == wanted
        fenced = [line for line in said(caplog, "back to what is durable") if "another producer" in line["error"]]
        # After the split, who takes the second topic fences whoever had both, which may be the first one's new owner.
        assert len(fenced) <= (round_number == 2)
    assert sorted(record.value for record in await kit.read(out)) == sorted(sent)


@pytest.mark.parametrize("was_one_task", [True, False])
async def test_an_owner_of_an_earlier_grouping_commits_nothing_any_more(kit: Kit, was_one_task: bool) -> None:
    """In a rolling deploy, the worker of the version before is a zombie with a transaction that is open."""
    one, other, out = await kit.topic("a"), await kit.topic("b"), await kit.topic("out")
    tables = [] if was_one_task else [Table("shared")]
    async with kit.broker() as broker:
        # It has opened its task, which leaves its mark on both topics, or on the second.
        had = [TopicPartition(topic, 0) for topic in ([one, other] if was_one_task else [other])]
        zombie = broker.transactional_producer(f"{kit.group}:{had[0].topic}:0", 60.0)
        await zombie.start()
        await zombie.commit(kit.group, dict.fromkeys(had, 0))
        async with asyncio.timeout(10):
            while None in (await broker.committed(kit.group, had)).values():
                pass
        for ack in await zombie.send(TopicPartition(out, 0), [(None, b"zombie", (), 0)]):
            await ack
        engine = kit.engine(
            *(passing_on(source, out, *tables) for source in (one, other)), processing_guarantee="exactly_once"
        )
        for table in tables:
            engine.register_table(table)
        async with engine:
            for source in (one, other):
                await kit.send_values(source, source.encode())
            await engine.caught_up()
            with pytest.raises(ProducerFenced):
                await zombie.commit(kit.group, dict.fromkeys(had, 1))
        await zombie.stop()
    assert sorted(record.value for record in await kit.read(out)) == [one.encode(), other.encode()]


def test_a_handler_that_may_take_longer_than_a_transaction_is_refused() -> None:
    class Slow(Handler):
        topic = "in"
        handler_timeout_sec = 60.0

    with pytest.raises(ConfigurationError, match="handler_timeout_sec=60 must be less than transaction_timeout"):
        Kit("memory://", "x").engine(Slow, processing_guarantee="exactly_once")
    Kit("memory://", "x").engine(Slow)


async def test_a_changelog_made_anew_under_a_transaction_is_noticed_before_it_commits(kit: Kit) -> None:
    source, out, table = await kit.topic("in"), await kit.topic("out"), Table("counts")
    changelog = f"{kit.group}-counts-changelog"
    await kit.send(source, [(b"a", b"x")] * 3)
    async with exact(kit, counting(source, table, out), table) as engine:
        await engine.caught_up()
        async with kit.broker() as broker:
            await broker.delete_topics([changelog])
            await broker.create_topics([TopicSpec(changelog, 1, None, {"cleanup.policy": "compact"})])
        await kit.send(source, [(b"b", b"x")])
        await engine.caught_up()
        assert entries(table) == {b"b": 1}
