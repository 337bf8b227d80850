"""Workers of one group: what moves when one joins or leaves, and that nothing is lost by it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
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


# Who has the stores gets the tasks.


def on_disk(kit: Kit, source: str, state_dir: Path) -> Engine:
    """Keeps what comes, by its key, in a table that is on disk in `state_dir`."""
    table = Table("kept", store="rocksdb://")

    class Keeping(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table[msg.key] = msg.value

    engine = kit.engine(Keeping, state_dir=state_dir)
    engine.register_table(table)
    return engine


def partitions_of(engine: Engine) -> list[int]:
    """The tasks it has, by partition."""
    return sorted(int(task.name[:-1].rpartition("[")[2]) for task in engine.status().tasks)


@asynccontextmanager
async def all_at_once(engines: Sequence[Engine]) -> AsyncIterator[Sequence[Engine]]:
    """As many workers as there are tasks, started in this order, each when the ones before have what they get; stopped
    all at once, so that nobody takes over what another leaves."""
    async with AsyncExitStack() as stack:
        for number, engine in enumerate(engines, 1):
            await stack.enter_async_context(engine)
            have = engines[:number]
            await until(lambda have=have: all(partitions_of(each) for each in have))  # type: ignore[misc]
            await asyncio.gather(*(each.caught_up() for each in have))
        yield engines
        for engine in engines:
            await engine.stop()


async def test_a_worker_that_comes_back_gets_what_it_has_least_to_restore_of_though_another_has_copies_too(
    kit: Kit, tmp_path: Path
) -> None:
    source = await kit.topic("back", partitions=PARTITIONS)
    sent = Counter[int]()

    async def send(*counts: int) -> None:
        """So many records to each partition; each has a new key, and so one record in the changelog."""
        for partition, count in enumerate(counts):
            keys = [b"%d" % number for number in range(sent[partition], sent[partition] + count)]
            await kit.send(source, [(key, b"x") for key in keys], partition)
            sent[partition] += count

    await send(10, 10, 10, 10)
    async with on_disk(kit, source, tmp_path / "theirs") as theirs:
        await theirs.caught_up()
    await send(20, 20, 10, 10)
    async with on_disk(kit, source, tmp_path / "ours") as ours:
        await ours.caught_up()
        assert ours.status().restored == 40
        async with on_disk(kit, source, tmp_path / "theirs") as theirs:
            await until(lambda: partitions_of(ours) == [0, 1] and partitions_of(theirs) == [2, 3])
            await theirs.caught_up()
            assert theirs.status().restored == 20, "it has what it was least behind with"
            await ours.stop()
            await until(lambda: partitions_of(theirs) == [0, 1, 2, 3])
            await send(5, 5, 9, 9)
            await theirs.caught_up()
            assert theirs.status().restored == 60, "its old copies of the others came to their end, too"
            async with on_disk(kit, source, tmp_path / "ours") as back:
                await until(lambda: partitions_of(back) == [0, 1] and partitions_of(theirs) == [2, 3])
                await back.caught_up()
                assert back.status().restored == 10, "it has the tasks that it had, and reads what it has missed"
                assert theirs.status().restored == 60


async def test_after_a_restart_of_all_a_worker_gets_the_tasks_whose_stores_lie_in_the_home_it_found(
    kit: Kit, tmp_path: Path
) -> None:
    source = await kit.topic("all", partitions=PARTITIONS)

    async def send(keys: range) -> None:
        for partition in range(PARTITIONS):
            await kit.send(source, [(b"%d" % key, b"x") for key in keys], partition)

    await send(range(50))
    async with all_at_once([on_disk(kit, source, tmp_path) for _ in range(PARTITIONS)]) as before:
        had = [partitions_of(engine) for engine in before]
        await send(range(50, 70))  # the copies that were left behind when others came are older now
        await asyncio.gather(*(engine.caught_up() for engine in before))
    assert sorted(had) == [[0], [1], [2], [3]]
    homes = [tmp_path / kit.group / str(number) for number in range(1, PARTITIONS + 1)]
    for home in homes:
        home.rename(home.with_name(f"was-{home.name}"))
    for home, old in zip(homes, reversed(homes), strict=True):
        old.with_name(f"was-{old.name}").rename(home)
    async with all_at_once([on_disk(kit, source, tmp_path) for _ in range(PARTITIONS)]) as after:
        found = after[2:]
        assert [partitions_of(engine) for engine in found] == had[::-1][2:]
        assert [engine.status().restored for engine in found] == [0, 0]


async def test_a_worker_is_ready_from_its_assignment_to_its_stop(kit: Kit) -> None:
    """Also one that is given nothing, because there are more workers than tasks."""
    source = await kit.topic("views")

    class Views(Handler):
        topic = source

    one, other = kit.engine(Views), kit.engine(Views)
    assert not one.status().ready
    async with one:
        await until(lambda: one.status().ready)
        assert len(one.status().tasks) == 1
        async with other:
            await until(lambda: one.status().ready and other.status().ready)
            assert sorted(len(engine.status().tasks) for engine in (one, other)) == [0, 1]
        assert not other.status().ready
        await one.stop()
        assert not one.status().ready, "it finishes what is in hand, and takes nothing more"
