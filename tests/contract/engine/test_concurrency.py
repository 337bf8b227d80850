"""Handlers with `concurrency`, on each broker: order, failures, stops, rebalances, and how long it all takes."""

import asyncio
import itertools
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from paperboy import Engine, Handler, Table
from tests.contract.engine.kit import Kit, until


def waiting(source: str, seen: list[tuple[bytes, int]], lanes: int = 8, seconds: float = 0.002) -> type[Handler]:
    class Waiting(Handler):
        topic = source
        concurrency = lanes

        @classmethod
        async def on_message(cls, msg, ctx):
            await asyncio.sleep(seconds * (1 + msg.offset % 3))
            seen.append((msg.key, msg.offset))

    return Waiting


def entries(table: Table) -> dict[Any, Any]:
    return {key: value for _, key, value in table.snapshot()}


async def test_each_key_is_handled_in_order_and_different_keys_at_the_same_time(kit: Kit) -> None:
    source = await kit.topic("views", 2)
    running, most = Counter[int](), Counter[int]()
    order: dict[Any, list[int]] = defaultdict(list)

    class Waiting(Handler):
        topic = source
        concurrency = 8

        @classmethod
        async def on_message(cls, msg, ctx):
            nonlocal most
            running[msg.partition] += 1
            most |= running
            await asyncio.sleep(0.002 * (1 + msg.offset % 3))
            running[msg.partition] -= 1
            order[msg.partition, msg.key].append(msg.offset)

    for partition in range(2):
        records = [(b"%d" % (number % 7), b"x") for number in range(300)]
        await kit.send(source, records, partition)
    async with kit.engine(Waiting) as engine:
        await engine.caught_up()
        assert engine.status().handled == 600
    assert most == {0: 7, 1: 7}, "7 keys, for each partition"
    for (_, key), offsets in order.items():
        assert offsets == sorted(offsets), key
    assert [await kit.committed(source, partition) for partition in range(2)] == [300, 300]


async def test_a_table_that_messages_of_many_keys_add_to_is_as_if_they_came_one_after_another(kit: Kit) -> None:
    source, target, table = await kit.topic("sales"), await kit.topic("totals"), Table("totals")
    await kit.send(source, [(b"%d" % number, b"%d" % (number % 3)) for number in range(300)])

    class Adding(Handler):
        topic = source
        concurrency = 16
        rerun_on_conflict = True
        value_serializer = int

        @classmethod
        async def on_message(cls, msg, ctx):
            before = table.get(msg.value, 0)
            await asyncio.sleep(0.001)
            table.set(msg.value, before + 1)
            ctx.send(target, b"%d" % (before + 1), key=b"%d" % msg.value)

    engine = kit.engine(Adding)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {0: 100, 1: 100, 2: 100}
        assert engine.status().reruns > 0
    sent: dict[Any, list[int]] = defaultdict(list)
    for record in await kit.read(target):
        sent[record.key].append(int(record.value))
    assert sent == {b"%d" % total: list(range(1, 101)) for total in range(3)}, "each once, in the order of finishing"

    again = Table("totals")
    engine = kit.engine(waiting(source, []))
    engine.register_table(again)
    async with engine:
        await engine.caught_up()
        assert entries(again) == {0: 100, 1: 100, 2: 100}
        assert engine.status().handled == 0


async def test_a_failed_message_is_not_committed_and_those_below_it_are(kit: Kit) -> None:
    source, target, table = await kit.topic("in"), await kit.topic("out"), Table("seen")
    await kit.send(source, [(b"%d" % number, b"x") for number in range(40)])
    seen: list[int] = []
    fails = True

    class Failing(Handler):
        topic = source
        concurrency = 4

        @classmethod
        async def on_message(cls, msg, ctx):
            table.set(msg.offset, True)
            ctx.send(target, b"%d" % msg.offset)
            await asyncio.sleep(0.01)
            if fails and msg.offset == 10:
                raise ValueError("the tenth")
            seen.append(msg.offset)

    def engine_of() -> Engine:
        engine = kit.engine(Failing)
        engine.register_table(table)
        return engine

    with pytest.raises(ValueError, match="the tenth"):
        await engine_of().start()
    assert await kit.committed(source) == 10
    assert b"10" not in [record.value for record in await kit.read(target)]
    before, fails = set(seen), False
    assert before >= set(range(10))
    async with engine_of() as engine:
        await engine.caught_up()
        assert entries(table) == dict.fromkeys(range(40), True)
    assert set(seen) == set(range(40))
    assert {int(record.value) for record in await kit.read(target)} == set(range(40))


async def test_a_stop_lets_what_has_begun_finish_and_commits_exactly_that(kit: Kit) -> None:
    source = await kit.topic("in")
    await kit.send(source, [(b"%d" % (number % 20), b"x") for number in range(2_000)])
    seen: list[tuple[bytes, int]] = []
    async with kit.engine(waiting(source, seen)) as engine:
        await until(lambda: len(seen) > 100)
    assert not engine.status().running
    offsets = sorted(offset for _, offset in seen)
    assert len(offsets) < 2_000
    assert offsets == list(range(len(offsets))), "no hole"
    assert await kit.committed(source) == len(offsets)


async def test_what_outlasts_the_drain_is_cancelled_and_handled_again(kit: Kit) -> None:
    source, table = await kit.topic("in"), Table("seen")
    await kit.send(source, [(b"%d" % number, b"x") for number in range(6)])
    cancelled: list[int] = []
    hangs = True

    class Hanging(Handler):
        topic = source
        concurrency = 3

        @classmethod
        async def on_message(cls, msg, ctx):
            table.set(msg.offset, hangs)
            try:
                if hangs and msg.offset in (2, 4):
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(msg.offset)
                raise

    def engine_of() -> Engine:
        engine = kit.engine(Hanging, drain_timeout_sec=0.3)
        engine.register_table(table)
        return engine

    async with engine_of() as engine:
        await until(lambda: engine.status().handled == 4)
    assert sorted(cancelled) == [2, 4]
    assert await kit.committed(source) == 2
    hangs = False
    async with engine_of() as engine:
        await engine.caught_up()
        assert entries(table) == {0: True, 1: True, **dict.fromkeys(range(2, 6), False)}


async def test_a_worker_that_joins_takes_over_what_has_not_begun(kit: Kit) -> None:
    source, tables = await kit.topic("in", 4), [Table("count"), Table("count")]
    for partition in range(4):
        await kit.send(source, [(b"%d" % (number % 50), b"x") for number in range(500)], partition)

    def counting(table: Table) -> type[Handler]:
        class Counting(Handler):
            topic = source
            concurrency = 8

            @classmethod
            async def on_message(cls, msg, ctx):
                before = table.get(msg.key, 0)
                await asyncio.sleep(0.01)
                table.set(msg.key, before + 1)

        return Counting

    one, two = (kit.engine(counting(table)) for table in tables)
    for engine, table in zip((one, two), tables, strict=True):
        engine.register_table(table)
    async with one:
        await until(lambda: one.status().handled > 200)
        async with two:
            await asyncio.gather(one.caught_up(), two.caught_up())
            counts: list[int] = list(itertools.chain(*(entries_of_all(table) for table in tables)))
            assert counts == [10] * 200, "each message counts once"
            assert one.status().handled + two.status().handled == 2_000


def entries_of_all(table: Table) -> list[Any]:
    return [value for _, _, value in table.snapshot()]


@pytest.mark.parametrize("partitions", [1, 20])
async def test_messages_that_wait_take_about_as_long_as_they_wait_at_the_same_time(partitions: int) -> None:
    """In real time; on a machine with other work one of a few runs has to keep within half as much again."""
    took: list[float] = []
    while len(took) < 4 and not (took and took[-1] <= 1.5):
        took.append(await _ten_thousand(partitions))
    assert took[-1] <= 1.5, took


async def _ten_thousand(partitions: int) -> float:
    """How long it takes, as a multiple of what all of them wait for, shared out among the lanes."""
    unique = f"fast-{partitions}-{next(_numbers)}"
    kit = Kit(f"memory://{unique}", unique)
    source = await kit.topic("in", partitions)
    waits = [0.001 + 0.004 * (number * 37 % 101) / 100 for number in range(10_000)]
    for partition in range(partitions):
        mine = range(partition, 10_000, partitions)
        await kit.send(source, [(b"%d" % number, b"%d" % number) for number in mine], partition)
    loop = asyncio.get_running_loop()
    left = list(range(10_000))
    times: list[float] = []

    class Waiting(Handler):
        topic = source
        concurrency = 64

        @classmethod
        async def on_message(cls, msg, ctx):
            if not times:
                times.append(loop.time() - _others_sec())
            await asyncio.sleep(waits[int(msg.value)])
            left.pop()
            if not left:
                times.append(loop.time() - _others_sec())

    await kit.engine(Waiting, stop_at_end=True).start()
    assert await kit.committed(source) == 10_000 // partitions
    return (times[1] - times[0]) / (sum(waits) / 64)


def _others_sec() -> float:
    """For how long this thread could have run and others had the processor; 0 where nobody tells."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


_numbers = itertools.count()
