"""Workers of one group: what moves when one joins or leaves, and that nothing is lost by it."""

import asyncio
from collections import Counter
from typing import Any

from paperboy import Engine, Handler, Table
from tests.contract.engine.kit import Kit, until

PARTITIONS = 4
PER_PARTITION = 205


def worker(kit: Kit, source: str, seen: list[Any], pace: asyncio.Event) -> Engine:
    """Counts per key into a table, one record at a time; after 300 it waits for `pace`."""
    table = Table("counts")

    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if len(seen) >= 300:
                await pace.wait()
            table.update(msg.key, lambda count: count + 1, default=0)
            seen.append((msg.partition, msg.offset))
            await asyncio.sleep(0)

    engine = kit.engine(Counting, with_bulk_mode=False)
    engine.register_table(table)
    return engine


async def test_a_worker_that_joins_takes_its_share_and_nothing_is_lost(kit: Kit) -> None:
    source = await kit.topic("joined", partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        await kit.send(source, [(b"%d" % (number % 7), b"x") for number in range(PER_PARTITION)], partition)
    pace = asyncio.Event()
    first_saw: list[Any] = []
    second_saw: list[Any] = []
    async with worker(kit, source, first_saw, pace) as first:
        await until(lambda: len(first_saw) == 300)
        async with worker(kit, source, second_saw, pace) as second:
            pace.set()
            await until(lambda: len(first.status().tasks) == 2 and len(second.status().tasks) == 2)
            await asyncio.gather(first.caught_up(), second.caught_up())
            owners = [{task.name for task in engine.status().tasks} for engine in (first, second)]
            assert owners[0].isdisjoint(owners[1])
            for partition in range(PARTITIONS):
                await kit.send_values(source, b"more", partition=partition)
            await asyncio.gather(first.caught_up(), second.caught_up())
    handled = Counter(first_saw + second_saw)
    assert set(handled) == {
        (partition, offset) for partition in range(PARTITIONS) for offset in range(PER_PARTITION + 1)
    }
    assert set(handled.values()) == {1}, "a graceful rebalance repeats nothing"


async def test_a_worker_that_leaves_hands_its_tables_over(kit: Kit) -> None:
    source = await kit.topic("left", partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        await kit.send(source, [(b"key", b"x")] * 10, partition)
    pace = asyncio.Event()
    pace.set()
    seen: list[Any] = []
    async with worker(kit, source, seen, pace) as first:
        async with worker(kit, source, seen, pace) as second:
            await until(lambda: len(first.status().tasks) == 2 and len(second.status().tasks) == 2)
            await asyncio.gather(first.caught_up(), second.caught_up())
        await until(lambda: len(first.status().tasks) == PARTITIONS)
        for partition in range(PARTITIONS):
            await kit.send(source, [(b"key", b"x")], partition)
        await first.caught_up()
        counts = [(entry.partition, entry.value) for entry in first._tables["counts"].snapshot()]
    assert counts == [(partition, 11) for partition in range(PARTITIONS)]


async def test_tasks_move_whole_so_that_topics_that_share_a_table_stay_together(kit: Kit) -> None:
    one, two = await kit.topic("whole-one", partitions=3), await kit.topic("whole-two", partitions=3)

    def engine() -> Engine:
        class Both(Handler):
            topic = (one, two)

        made = kit.engine(Both)
        made.register_table(Table("shared"))
        return made

    async with engine() as first, engine() as second:
        await until(lambda: len(first.status().tasks) + len(second.status().tasks) == 3 and bool(second.status().tasks))
        for worker_of in (first, second):
            for task in worker_of.status().tasks:
                assert set(task.positions) == {f"{one}[{task.name[-2]}]", f"{two}[{task.name[-2]}]"}
