"""Single, bulk and step: how records are handed over, by lag and by turn."""

import asyncio
from typing import Any

import pytest

from paperboy import BulkHandler, ConfigurationError, Handler, Mode, Table
from tests.contract.engine.kit import Kit, until


def recording(source: str | tuple[str, ...], seen: list[Any]) -> type[BulkHandler]:
    """Appends the offsets of each bulk, and a bare offset for each single message."""

    class Recording(BulkHandler):
        topic = source

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            seen.append([(msg.topic, msg.offset) for msg in msgs])

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append((msg.topic, msg.offset))

    return Recording


async def test_the_mode_follows_the_lag_both_ways_and_says_so(kit: Kit) -> None:
    source = await kit.topic("lag")
    await kit.send_values(source, *[b"x"] * 100)
    changes: list[Any] = []
    modes: list[Mode] = []

    class Lag(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            modes.append(engine.mode)

        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            """What makes a bulk of this handler more than its messages."""

    engine = kit.engine(
        Lag, bulk_mode_threshold=50, bulk_mode_max_records=30, on_mode_change=lambda *change: changes.append(change)
    )
    assert engine.mode is Mode.SINGLE
    async with engine:
        await engine.caught_up()
        assert engine.mode is Mode.SINGLE
    # 100 and 70 are over the threshold, 40 is between the marks, 10 is under the lower one.
    assert modes == [Mode.BULK] * 90 + [Mode.SINGLE] * 10
    assert changes == [(f"{source}[0]", Mode.SINGLE, Mode.BULK), (f"{source}[0]", Mode.BULK, Mode.SINGLE)]


async def test_without_bulk_mode_every_message_comes_singly(kit: Kit) -> None:
    source = await kit.topic("singly")
    await kit.send_values(source, *[b"x"] * 100)
    seen: list[Any] = []
    engine = kit.engine(recording(source, seen), with_bulk_mode=False, bulk_mode_threshold=10)
    async with engine:
        await engine.caught_up()
    assert seen == [(source, offset) for offset in range(100)]


async def test_a_bulk_is_handed_over_after_its_time_out_though_it_is_not_full(kit: Kit) -> None:
    """More is wanted, but nothing comes: the bulk is not waited for any longer."""
    source = await kit.topic("time-out")
    await kit.send_values(source, *[b"x"] * 100)
    seen: list[Any] = []
    engine = kit.engine(
        recording(source, seen), bulk_mode_threshold=1, bulk_mode_max_records=1_000, bulk_mode_timeout_ms=50
    )
    async with engine:
        await until(lambda: bool(seen))
        await engine.caught_up()
    assert [len(bulk) for bulk in seen] == [100]


async def test_topics_of_one_task_are_handled_in_the_order_of_their_timestamps(kit: Kit) -> None:
    one, two = await kit.topic("ordered-one"), await kit.topic("ordered-two")
    async with kit.broker() as broker:
        now = broker.clock.time_ms()
    await kit.send(one, [(None, b"1"), (None, b"3"), (None, b"5")], timestamps=[now - 6, now - 4, now - 2])
    await kit.send(two, [(None, b"2"), (None, b"4"), (None, b"6")], timestamps=[now - 5, now - 3, now - 1])
    seen: list[bytes] = []
    gate = asyncio.Event()

    class Ordered(Handler):
        topic = (one, two)

        @classmethod
        async def on_message(cls, msg, ctx):
            if not gate.is_set():  # until both topics are fetched
                await until(lambda: engine.status().tasks[0].buffered >= 3)
                gate.set()
            seen.append(msg.value)

    engine = kit.engine(Ordered)
    engine.register_table(Table("ordered"))
    async with engine:
        await engine.caught_up()
    assert sorted(seen) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert seen[-4:] == sorted(seen[-4:])


async def test_steps_take_topics_in_order_up_to_the_end_each_had(kit: Kit) -> None:
    first, second, rest = await kit.topic("first"), await kit.topic("second"), await kit.topic("rest")
    for topic in (rest, second, first):
        await kit.send_values(topic, *[b"x"] * 20)
    seen: list[Any] = []
    modes: list[Any] = []

    class First(recording(first, seen)):  # type: ignore[misc]
        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            modes.append((engine.mode, engine.status().step))

    Second, Rest = recording(second, seen), recording(rest, seen)  # noqa: N806
    engine = kit.engine(First, Second, Rest, steps=[[First], [Second]])
    async with engine:
        await engine.caught_up()
        assert engine.mode is Mode.SINGLE
        assert engine.status().step is None
    assert seen == [
        [(first, offset) for offset in range(20)],
        [(second, offset) for offset in range(20)],
        *[(rest, offset) for offset in range(20)],
    ]
    assert modes == [(Mode.STEP, 0)]


async def test_steps_hold_back_topics_of_one_task_too(kit: Kit) -> None:
    first, second = await kit.topic("held-first"), await kit.topic("held-second")
    await kit.send(second, [(None, b"x")] * 3)  # older than what comes first
    await kit.send(first, [(None, b"x")] * 3)
    seen: list[Any] = []
    First, Second = recording(first, seen), recording(second, seen)  # noqa: N806
    engine = kit.engine(First, Second, steps=[[First], [Second]])
    engine.register_table(Table("held"))
    async with engine:
        await engine.caught_up()
    assert seen == [[(first, offset) for offset in range(3)], [(second, offset) for offset in range(3)]]


async def test_an_empty_step_and_a_silent_partition_let_the_steps_pass(kit: Kit) -> None:
    empty, some = await kit.topic("empty"), await kit.topic("some", partitions=3)
    await kit.send_values(some, b"x", b"y", partition=1)
    seen: list[Any] = []
    Empty, Some = recording(empty, seen), recording(some, seen)  # noqa: N806
    engine = kit.engine(Empty, Some, steps=[[Empty], [Some]])
    async with engine:
        await engine.caught_up()
        assert seen == [[(some, 0), (some, 1)]]
        await kit.send_values(some, b"z", partition=2)  # silent during its step
        await kit.send_values(empty, b"z")
        await engine.caught_up()
    assert sorted(seen[1:]) == [(empty, 0), (some, 0)]


async def test_a_topic_that_grows_lets_its_step_finish(kit: Kit) -> None:
    growing, after = await kit.topic("growing"), await kit.topic("after")
    await kit.send_values(growing, *[b"x"] * 10)
    await kit.send_values(after, b"x")
    handled_after = asyncio.Event()

    class Growing(Handler):
        topic = growing

        @classmethod
        async def on_message(cls, msg, ctx):
            if not handled_after.is_set():
                ctx.send(growing, b"one more")

    class After(Handler):
        topic = after

        @classmethod
        async def on_message(cls, msg, ctx):
            handled_after.set()

    async with kit.engine(Growing, After, steps=[[Growing], [After]]) as engine:
        await handled_after.wait()
        await engine.caught_up()


async def test_a_step_is_a_barrier_for_the_whole_group(kit: Kit) -> None:
    first, second = await kit.topic("barrier-first", partitions=2), await kit.topic("barrier-second", partitions=2)
    for partition in range(2):
        await kit.send_values(first, b"x", partition=partition)
        await kit.send_values(second, b"x", partition=partition)
    release, order = asyncio.Event(), []

    def workers() -> tuple[type[Handler], type[Handler]]:
        class First(Handler):
            topic = first

            @classmethod
            async def on_message(cls, msg, ctx):
                if msg.partition == 1:
                    await release.wait()
                order.append(("first", msg.partition))

        class Second(Handler):
            topic = second

            @classmethod
            async def on_message(cls, msg, ctx):
                order.append(("second", msg.partition))

        return First, Second

    one, two = workers(), workers()
    engines = [
        kit.engine(*handlers, steps=[[handlers[0]], [handlers[1]]], drain_timeout_sec=0.3) for handlers in (one, two)
    ]
    async with engines[0], engines[1]:
        await until(lambda: all(engine.status().tasks for engine in engines))
        await until(lambda: ("first", 0) in order)
        while await kit.committed(first, 0) != 1:  # noqa: ASYNC110 - what another worker commits sets no event
            await asyncio.sleep(0.01)
        assert not [name for name, _ in order if name == "second"]
        release.set()
        await asyncio.gather(*[engine.caught_up() for engine in engines])
    assert {name for name, _ in order[2:]} <= {"first", "second"}
    assert order.index(("first", 1)) < min(order.index(("second", 0)), order.index(("second", 1)))


async def test_stop_at_end_returns_when_the_ends_at_its_start_are_reached(kit: Kit) -> None:
    source = await kit.topic("at-end", partitions=2)
    await kit.send_values(source, b"x", b"x", partition=0)
    engine = kit.engine(recording(source, []), stop_at_end=True)
    await engine.start()
    assert engine.status().handled == 2
    assert await kit.committed(source, 0) == 2


async def test_a_step_that_names_a_stranger_is_refused(kit: Kit) -> None:
    mine, stranger = recording("mine", []), recording("stranger", [])
    with pytest.raises(ConfigurationError, match=r"Step 0 names .*Recording.*not one of the engine's handlers"):
        kit.engine(mine, steps=[[stranger]])
