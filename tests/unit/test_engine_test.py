"""EngineTest: a user's engine in a test, on a broker in memory, in a time that the test turns."""

import asyncio
import dataclasses
import gc
import json
import logging
import os
import shutil
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from paperboy import BulkHandler, Engine, GlobalTable, Handler, Mode, Table, Topic
from paperboy.brokers.memory import MemoryClock, memory_cluster
from paperboy.brokers.protocol import TopicPartition
from paperboy.errors import (
    BrokerError,
    CheckpointError,
    ConfigurationError,
    PaperboyError,
    SerializationError,
    TableError,
    TopicNotFound,
)
from paperboy.serializers import Integer, String
from paperboy.testing import EngineTest, NotSettled, worker


class Counting:
    """An engine as it is built for production: it counts clicks by key, and sends each count on."""

    def __init__(self, **options: Any) -> None:
        clicks = self.clicks = Table("clicks")
        handled = self.handled = list[bytes]()

        class Clicks(Handler):
            topic = "clicks-in"
            key_deserializer = bytes.decode

            @classmethod
            async def on_message(cls, msg, ctx):
                handled.append(msg.value)
                count = clicks.update(msg.key, lambda count: count + 1, default=0)
                await ctx.send("counts", str(count).encode(), key=msg.key.encode())

        self.engine = Engine(Clicks, bootstrap_servers="kafka.example:9092", group_id="clicks", **options)
        self.engine.register_table(clicks)

    def test(self, **options: Any) -> EngineTest:
        return EngineTest(self.engine, topics={"counts": 1}, **options)


def engine_of(*handlers: Any, **options: Any) -> Engine:
    return Engine(*handlers, **{"bootstrap_servers": "kafka.example:9092", "group_id": "g", **options})


def recording(topic: str, *, then: Any = None) -> tuple[type[Handler], list[Any]]:
    """A handler that notes each value, and then does as it is told."""
    seen: list[Any] = []
    name = topic

    class Recording(Handler):
        topic = name

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.value)
            if then is not None:
                await then(msg, ctx)

    return Recording, seen


# What goes in, and what comes of it.


async def test_what_is_sent_is_handled_and_can_be_looked_at() -> None:
    counting = Counting()
    async with counting.test() as t:
        assert await t.send("clicks-in", "1st", key="a") == (0, 0)
        assert await t.send("clicks-in", b"2nd", key=b"a") == (0, 1)
        await t.send("clicks-in", "3rd", key="b")
        await t.settle()
        assert counting.handled == [b"1st", b"2nd", b"3rd"]
        assert t.table("clicks")["a"] == 2
        assert t.table(counting.clicks) == {"a": 2, "b": 1}
        assert [(record.key, record.value) for record in t.sent("counts")] == [(b"a", b"1"), (b"a", b"2"), (b"b", b"1")]
        assert [record.value for record in t.sent("clicks-in")] == [b"1st", b"2nd", b"3rd"]


async def test_nothing_happens_between_the_calls() -> None:
    counting = Counting()
    async with counting.test() as t:
        await t.send("clicks-in", "x", key="a")
        for _ in range(100):
            await asyncio.sleep(0)
        assert counting.handled == []
        await t.settle()
        assert counting.handled == [b"x"]


async def test_a_record_is_sent_as_it_is_told() -> None:
    seen = []

    async def note(msg: Any, ctx: Any) -> None:
        seen.append((msg.partition, msg.timestamp, msg.headers, msg.key, msg.value))

    handler, _ = recording("in", then=note)
    async with EngineTest(engine_of(handler), partitions=3, start_time=datetime(2026, 1, 1, tzinfo=UTC)) as t:
        sent_at = t.time_ms() - 5_000
        await t.send(
            "in",
            {"n": 1},
            key=7,
            headers=[("trace", b"1")],
            partition=2,
            timestamp_ms=sent_at,
            serializer=lambda value: json.dumps(value).encode(),
            key_serializer=lambda key: str(key).encode(),
        )
        await t.settle()
        assert seen == [(2, sent_at, (("trace", b"1"),), b"7", b'{"n": 1}')]


async def test_a_key_chooses_the_partition_and_records_without_one_take_turns() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler), partitions=4) as t:
        assert (await t.send("in", "x", key="a"))[0] == (await t.send("in", "y", key="a"))[0]
        assert [(await t.send("in", "x"))[0] for _ in range(5)] == [0, 1, 2, 3, 0]


async def test_what_was_sent_can_be_decoded() -> None:
    counting = Counting()
    async with counting.test() as t:
        await t.send("clicks-in", "x", key="a")
        await t.settle()
        (record,) = t.sent("counts", key_deserializer=bytes.decode, value_deserializer=int)
        assert (record.key, record.value) == ("a", 1)
        await t.send("clicks-in", None, key="a")
        assert t.sent("clicks-in", value_deserializer=bytes.decode)[-1].value is None


async def test_sent_records_keep_the_order_of_their_partition_and_are_merged_by_time() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler), partitions=2) as t:
        now = t.time_ms()
        for partition, timestamp in ((0, now + 2), (0, now), (1, now + 1), (1, now + 3)):
            await t.send("in", str(timestamp - now), partition=partition, timestamp_ms=timestamp)
        assert [record.value for record in t.sent("in")] == [b"1", b"2", b"0", b"3"]


async def test_input_topics_are_made_with_the_partitions_that_are_asked_for() -> None:
    one, _ = recording("one")
    two, _ = recording("two")
    async with EngineTest(engine_of(one, two, create_topics="never"), partitions=2, topics={"two": 3}) as t:
        with pytest.raises(BrokerError, match="no partition 2"):
            await t.send("one", "x", partition=2)
        assert await t.send("two", "x", partition=2) == (2, 0)


async def test_tables_of_an_engine_that_creates_no_topics_work() -> None:
    counting = Counting(create_topics="never")
    async with counting.test() as t:
        await t.send("clicks-in", "x", key="a")
        await t.settle()
        assert t.table("clicks") == {"a": 1}


async def test_a_key_that_stands_in_two_partitions_is_told_apart_by_them() -> None:
    counting = Counting()
    async with counting.test(partitions=2) as t:
        for partition in (0, 1, 1):
            await t.send("clicks-in", "x", key="a", partition=partition)
        await t.settle()
        assert t.table("clicks", partition=0) == {"a": 1}
        assert t.table("clicks", partition=1) == {"a": 2}
        with pytest.raises(TableError, match="stands in partitions 0 and 1"):
            t.table("clicks")["a"]


async def test_dead_letters_are_the_records_of_the_topic_beside() -> None:
    async def refuse(msg: Any, ctx: Any) -> None:
        await ctx.send("in-dlt", msg.value)

    handler, _ = recording("in", then=refuse)
    async with EngineTest(engine_of(handler), topics={"in-dlt": 1}) as t:
        assert t.dead_letters("in") == []
        await t.send("in", "bad")
        await t.settle()
        assert [record.value for record in t.dead_letters("in")] == [b"bad"]


async def test_there_are_no_dead_letters_where_nobody_makes_a_topic_for_them() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler)) as t:
        assert t.dead_letters("in") == []
        with pytest.raises(TopicNotFound, match="'inn' does not exist in this test, which has 'in'"):
            t.dead_letters("inn")


async def test_options_and_modes_are_those_of_the_engine() -> None:
    bulks = []

    class Bulk(BulkHandler):
        topic = "in"

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            bulks.append([msg.value for msg in msgs])

    changes: list[tuple[Mode, Mode]] = []
    engine = engine_of(
        Bulk,
        bulk_mode_threshold=2,
        bulk_mode_max_records=3,
        on_mode_change=lambda task, before, now: changes.append((before, now)),
    )
    async with EngineTest(engine) as t:
        for number in range(5):
            await t.send("in", str(number))
        await t.settle()
    assert bulks == [[b"0", b"1", b"2"], [b"3", b"4"]]
    assert changes[0] == (Mode.SINGLE, Mode.BULK)


async def test_topics_can_be_filled_before_the_engine_starts() -> None:
    order: list[str] = []

    async def note(msg: Any, ctx: Any) -> None:
        order.append(ctx.topic)

    first, _ = recording("first", then=note)
    second, _ = recording("second", then=note)
    async with EngineTest(engine_of(first, second, steps=[[second], [first]])) as t:
        await t.stop()
        for topic in ("first", "second", "first"):
            await t.send(topic, "x")
        await t.restart()
        await t.settle()
    assert order == ["second", "first", "first"]


async def test_an_engine_that_stops_at_the_end_has_settled_then() -> None:
    handler, seen = recording("in")
    async with EngineTest(engine_of(handler, stop_at_end=True)) as t:
        await t.send("in", "x")
        await t.restart()
        await t.settle()
        assert seen == [b"x"]
        await t.advance("1s")
        await t.send("in", "y")
        with pytest.raises(NotSettled, match=r"There is input left, and nobody to handle it\. Worker 0 does not run"):
            await t.settle()
        await t.restart()
        await t.settle()
        assert seen == [b"x", b"y"]


# Settling, and time.


async def test_settling_follows_what_handlers_send_to_each_other() -> None:
    async def count_down(msg: Any, ctx: Any) -> None:
        if int(msg.value):
            await ctx.send("in", str(int(msg.value) - 1).encode())

    handler, seen = recording("in", then=count_down)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "50")
        await t.settle()
        assert len(seen) == 51


async def test_settling_takes_no_more_time_than_it_needs() -> None:
    counting = Counting(commit_interval_sec=3_600)
    async with counting.test() as t:
        before = t.time_ms()
        await t.send("clicks-in", "x", key="a")
        await t.settle()
        assert t.table("clicks") == {"a": 1}
        assert t.time_ms() - before < 1_000


async def test_settling_waits_for_a_handler_that_sleeps() -> None:
    async def sleep(msg: Any, ctx: Any) -> None:
        await asyncio.sleep(60)
        done.append(msg.value)

    done: list[bytes] = []
    handler, _ = recording("in", then=sleep)
    async with EngineTest(engine_of(handler)) as t:
        before = t.time_ms()
        await t.send("in", "x")
        await t.settle()
        assert done == [b"x"]
        assert t.time_ms() - before == pytest.approx(60_000, abs=100)


async def test_settled_means_that_what_was_due_has_happened_and_what_is_to_come_has_not() -> None:
    happened: list[str] = []

    async def start_others(msg: Any, ctx: Any) -> None:
        async def now() -> None:
            for _ in range(1_000):
                await asyncio.sleep(0)
            happened.append("now")

        async def later() -> None:
            await asyncio.sleep(600)
            happened.append("later")

        tasks.extend([asyncio.create_task(now()), asyncio.create_task(later())])

    tasks: list[asyncio.Task[None]] = []
    handler, _ = recording("in", then=start_others)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        await t.settle()
        assert happened == ["now"]
        await t.advance("10m")
        assert happened == ["now", "later"]


async def test_after_settling_nothing_is_due() -> None:
    async def start_a_clock(msg: Any, ctx: Any) -> None:
        async def tick() -> None:
            while True:
                await asyncio.sleep(0.001)
                for _ in range(200):
                    await asyncio.sleep(0)
                ticks.append(len(ticks))

        tasks.append(asyncio.create_task(tick()))

    tasks, ticks = list[asyncio.Task[None]](), list[int]()
    handler, _ = recording("in", then=start_a_clock)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        await t.settle()
        before = len(ticks)
        await t.advance(0)
        assert 0 < before == len(ticks)


async def test_time_moves_by_what_it_is_told_and_no_real_time_passes() -> None:
    handler, _ = recording("in")
    loop = asyncio.get_running_loop()
    async with EngineTest(engine_of(handler), start_time=datetime(2026, 1, 1, tzinfo=UTC)) as t:
        began, started = t.time_ms(), loop.time()
        assert timedelta(milliseconds=began) - (datetime(2026, 1, 1) - datetime(1970, 1, 1)) < timedelta(seconds=1)
        for duration, seconds in (("10s", 10), ("250ms", 0.25), (timedelta(minutes=5), 300), (1.5, 1.5), ("0s", 0)):
            before = t.time_ms()
            await t.advance(duration)
            assert t.time_ms() - before == pytest.approx(seconds * 1000, abs=1)
        assert loop.time() - started < (t.time_ms() - began) / 1000


async def test_the_clock_is_not_turned_by_the_loop_of_the_test() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler)) as t:
        before = t.time_ms()
        await asyncio.sleep(0.01)
        assert t.time_ms() == before


async def test_advancing_by_nothing_does_what_is_due_now() -> None:
    gate = asyncio.Event()

    async def wait(msg: Any, ctx: Any) -> None:
        await gate.wait()

    handler, seen = recording("in", then=wait)
    engine = engine_of(handler)
    async with EngineTest(engine) as t:
        await t.send("in", "x")
        await t.advance(0)
        assert seen == [b"x"]
        assert engine.status().handled == 0
        gate.set()
        await t.settle()
        assert engine.status().handled == 1


async def test_a_checkpoint_is_made_when_its_time_has_come() -> None:
    counting = Counting(commit_interval_sec=60)
    async with counting.test() as t:
        await t.send("clicks-in", "x", key="a")
        await t.advance("59s")
        assert counting.handled == [b"x"]
        assert t.table("clicks") == {}
        await t.advance("1s")
        assert t.table("clicks") == {"a": 1}


async def test_a_handler_that_feeds_itself_for_ever_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperboy.testing.virtual_time._MOST_TURNS", 10_000)

    async def again(msg: Any, ctx: Any) -> None:
        await ctx.send("in", b"again")

    handler, _ = recording("in", then=again)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        with pytest.raises(NotSettled, match=r"time pass: .*sends to its own input\. Worker 0 task in\[0\]"):
            await t.settle()


async def test_a_handler_that_feeds_itself_now_and_then_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperboy.testing.bench._ROUNDS", 20)

    async def again(msg: Any, ctx: Any) -> None:
        await asyncio.sleep(0.1)
        await ctx.send("in", b"again")

    handler, _ = recording("in", then=again)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        with pytest.raises(NotSettled, match=r"makes new input.* there is in\[0\] 1 to handle; which handler"):
            await t.settle()


async def test_a_handler_that_never_ends_is_told_of() -> None:
    async def wait_for_ever(msg: Any, ctx: Any) -> None:
        await asyncio.Event().wait()

    handler, _ = recording("in", then=wait_for_ever)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        with pytest.raises(
            NotSettled,
            match=r"has not ended after 5 s of virtual time\. Worker 0 task in\[0\] at in\[0\] offset 0, lag 1\.",
        ):
            await t.settle(within="5s")


async def test_a_handler_that_never_lets_time_pass_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperboy.testing.virtual_time._MOST_TURNS", 10_000)

    async def turn_for_ever(msg: Any, ctx: Any) -> None:
        while True:  # noqa: ASYNC110 - just that
            await asyncio.sleep(0)

    handler, _ = recording("in", then=turn_for_ever)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        with pytest.raises(NotSettled, match=r"time pass: a handler goes on for ever.* Worker 0 task in\[0\]"):
            await t.settle()


# Failures.


class Bad(Exception):
    """What a handler raises."""


async def refuse(msg: Any, ctx: Any) -> None:
    if msg.value == b"bad":
        raise Bad("no")


async def test_what_a_handler_raises_comes_out_of_settle_as_it_was() -> None:
    handler, _ = recording("in", then=refuse)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "bad")
        with pytest.raises(Bad) as raised:
            await t.settle()
        assert raised.value.__notes__ == ["While handling in[0] offset 0."]
        with pytest.raises(Bad):
            await t.settle()


async def test_what_a_handler_raised_comes_out_of_the_next_call() -> None:
    handler, _ = recording("in", then=refuse)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "bad")
        with pytest.raises(Bad):
            await t.advance("1s")
        await t.send("in", "good")  # told once is enough


async def test_what_a_handler_raised_comes_out_of_the_block() -> None:
    handler, _ = recording("in", then=refuse)
    with pytest.raises(Bad):  # noqa: PT012
        async with EngineTest(engine_of(handler)) as t:
            await t.send("in", "bad")
            await t.settle()


async def test_what_nobody_was_told_of_comes_out_at_the_end_of_the_block() -> None:
    async def refuse_later(msg: Any, ctx: Any) -> None:
        await asyncio.sleep(1)
        raise Bad("late")

    handler, seen = recording("in", then=refuse_later)
    with pytest.raises(Bad):  # noqa: PT012
        async with EngineTest(engine_of(handler)) as t:
            await t.send("in", "bad")
            await t.advance(0)
            assert seen == [b"bad"]


async def test_a_tests_own_failure_is_not_hidden_by_the_engines() -> None:
    async def refuse_later(msg: Any, ctx: Any) -> None:
        await asyncio.sleep(1)
        raise Bad("late")

    handler, _ = recording("in", then=refuse_later)
    with pytest.raises(AssertionError, match="mine"):  # noqa: PT012
        async with EngineTest(engine_of(handler)) as t:
            await t.send("in", "bad")
            await t.advance(0)
            raise AssertionError("mine")


async def test_after_a_failure_the_engine_can_be_run_again() -> None:
    handler, seen = recording("in", then=refuse)
    async with EngineTest(engine_of(handler)) as t:
        for value in ("good", "bad"):
            await t.send("in", value)
        with pytest.raises(Bad):
            await t.settle()
        await t.restart()
        with pytest.raises(Bad):
            await t.settle()
        assert seen == [b"good", b"bad", b"bad"]


async def test_a_refused_start_is_told_as_it_was_and_leaves_the_engine_as_it_was() -> None:
    counting = Counting()
    counting.engine.register_table(Table("clicks-2", changelog_topic_num_partitions=7))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="changelog_topic_num_partitions=7"):
            async with counting.test():
                pass


@pytest.mark.parametrize("end", ["stop", "restart", "fewer workers"])
async def test_what_a_handler_raises_as_it_is_stopped_is_told(end: str) -> None:
    async def refuse_later(msg: Any, ctx: Any) -> None:
        await asyncio.sleep(1)
        raise Bad("late")

    handler, _ = recording("in", then=refuse_later)
    engine = engine_of(handler)
    async with EngineTest(engine, partitions=2) as t:
        await t.rebalance(workers=2)
        (firsts,) = engine.status().tasks
        await t.send("in", "bad", partition=1 if firsts.name == "in[0]" else 0)
        await t.advance(0)
        ends = {"stop": t.stop, "restart": t.restart, "fewer workers": lambda: t.rebalance(workers=1)}
        with pytest.raises(Bad):
            await ends[end]()
        await t.advance(0)


async def test_a_message_that_is_passed_over_fails_nothing() -> None:
    handler, _ = recording("in", then=refuse)
    engine = engine_of(handler, fail_on_exception=False)
    async with EngineTest(engine) as t:
        await t.send("in", "bad")
        await t.settle()
        assert engine.status().passed_over == 1


# A crash, a restart, a rebalance.


async def test_a_crash_runs_nothing_of_the_engine_again() -> None:
    ran: list[str] = []

    async def wait(msg: Any, ctx: Any) -> None:
        try:
            await gate.wait()
            ran.append("went on")
        except BaseException as error:
            ran.append(repr(error))
            raise
        finally:
            ran.append("finally")

    gate = asyncio.Event()
    handler, seen = recording("in", then=wait)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        await t.advance(0)
        assert seen == [b"x"]
        await t.crash()
        gate.set()
        await t.advance("1h")
        gc.collect()
        assert ran == []
        await t.restart()
        await t.settle()
        assert seen == [b"x", b"x"]
        assert ran == ["went on", "finally"]
    gc.collect()
    assert ran == ["went on", "finally"]


async def test_timers_of_a_crashed_engine_never_ring() -> None:
    rang: list[float] = []

    async def set_timer(msg: Any, ctx: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(10, lambda: rang.append(loop.time()))

    handler, _ = recording("in", then=set_timer)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        await t.settle()
        await t.crash()
        await t.advance("1m")
        assert rang == []


async def test_a_crash_loses_what_was_not_checkpointed_and_nothing_else() -> None:
    counting = Counting(commit_interval_sec=5)
    async with counting.test() as t:
        await t.send("clicks-in", "1", key="a")
        await t.settle()
        await t.send("clicks-in", "2", key="a")
        await t.advance("1s")
        assert counting.handled == [b"1", b"2"]
        await t.crash()
        await t.restart()
        assert t.table("clicks") == {"a": 1}
        await t.settle()
        assert t.table("clicks") == {"a": 2}
        assert counting.handled == [b"1", b"2", b"2"]


async def test_after_a_crash_the_session_has_to_end_first() -> None:
    counting = Counting(session_timeout_sec=45, heartbeat_interval_sec=3)
    async with counting.test() as t:
        await t.crash()
        before = t.time_ms()
        await t.restart()
        assert 42_000 <= t.time_ms() - before <= 46_000


async def test_after_a_clean_stop_nobody_has_to_wait() -> None:
    counting = Counting(session_timeout_sec=45, heartbeat_interval_sec=3)
    async with counting.test() as t:
        await t.send("clicks-in", "1", key="a")
        await t.settle()
        before = t.time_ms()
        await t.restart()
        assert t.time_ms() - before < 1_000
        assert t.table("clicks") == {"a": 1}
        await t.send("clicks-in", "2", key="a")
        await t.settle()
        assert t.table("clicks") == {"a": 2}
        assert counting.handled == [b"1", b"2"]


async def test_the_engine_object_is_the_same_after_a_crash() -> None:
    counting = Counting()
    async with counting.test() as t:
        await t.send("clicks-in", "1", key="a")
        await t.settle()
        assert counting.engine.status().handled == 1
        await t.crash()
        assert not counting.engine.status().running
        await t.restart()
        assert counting.engine.status().running
        assert counting.engine.status().handled == 0


async def test_records_can_be_sent_while_the_engine_is_down() -> None:
    counting = Counting()
    async with counting.test() as t:
        await t.crash()
        await t.send("clicks-in", "1", key="a")
        with pytest.raises(NotSettled, match="There is input left, and nobody to handle it"):
            await t.settle()
        with pytest.raises(TableError, match="held by nobody: no worker runs"):
            t.table("clicks")
        await t.restart()
        await t.settle()
        assert t.table("clicks") == {"a": 1}


async def test_a_crash_between_changelog_and_commit_counts_twice_as_the_guarantees_say() -> None:
    counting = Counting(commit_interval_sec=1)
    async with counting.test() as t:
        await t.send("clicks-in", "1", key="a")
        t.fail_next("commit")
        await t.advance("1500ms")
        await t.crash()
        await t.restart()
        assert t.table("clicks") == {"a": 1}
        await t.settle()
        assert t.table("clicks") == {"a": 2}


async def test_a_rebalance_revokes_and_assigns_again() -> None:
    counting = Counting()
    async with counting.test(partitions=2) as t:
        await t.send("clicks-in", "1", key="a")
        await t.advance("1s")
        assert t.table("clicks") == {}
        await t.rebalance()
        assert t.table("clicks") == {"a": 1}, "what is given back is durable"
        await t.send("clicks-in", "2", key="a")
        await t.settle()
        assert t.table("clicks") == {"a": 2}
        assert counting.handled == [b"1", b"2"]


async def test_a_second_worker_takes_its_share_and_hands_it_back() -> None:
    counting = Counting()
    async with counting.test(partitions=4) as t:
        for partition in range(4):
            await t.send("clicks-in", "x", key=f"k{partition}", partition=partition)
        await t.settle()
        everything = {f"k{partition}": 1 for partition in range(4)}
        await t.rebalance(workers=2)
        assert len(counting.engine.status().tasks) == 2
        assert t.table("clicks") == everything
        for partition in range(4):
            await t.send("clicks-in", "x", key=f"k{partition}", partition=partition)
        await t.settle()
        assert t.table("clicks") == dict.fromkeys(everything, 2)
        assert counting.engine.status().handled < 8
        await t.rebalance(workers=1)
        assert len(counting.engine.status().tasks) == 4
        assert t.table("clicks") == dict.fromkeys(everything, 2)


async def test_a_worker_that_is_killed_is_replaced_by_the_other() -> None:
    counting = Counting()
    async with counting.test(partitions=2) as t:
        await t.rebalance(workers=2)
        for partition in range(2):
            await t.send("clicks-in", "x", key=f"k{partition}", partition=partition)
        await t.advance("1s")
        assert len(counting.handled) == 2
        await t.crash(worker=1)
        await t.settle()
        assert t.table("clicks") == {"k0": 1, "k1": 1}
        assert len(counting.handled) == 3
        assert len(counting.engine.status().tasks) == 2
        await t.restart()
        assert len(counting.engine.status().tasks) == 1


async def test_static_members_are_told_apart() -> None:
    counting = Counting(group_instance_id="static")
    async with counting.test(partitions=2) as t:
        await t.rebalance(workers=2)
        assert len(counting.engine.status().tasks) == 1


async def test_state_on_disk_is_the_tests_own_and_is_removed(tmp_path: Path) -> None:
    options = {"state_dir": tmp_path / "production"}
    kept = Table("kept", store="rocksdb://")
    elsewhere = Table("elsewhere", store=f"rocksdb://{tmp_path / 'elsewhere'}")

    class Keeping(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            kept[msg.key] = elsewhere[msg.key] = msg.value

    engine = engine_of(Keeping, **options)
    for table in (kept, elsewhere):
        engine.register_table(table)
    directories = []
    async with EngineTest(engine) as t:
        directories.append(Path(engine._options.state_dir))
        assert directories[0].exists()
        await t.send("in", "1", key="a")
        await t.settle()
        await t.crash()
        await t.restart()
        await t.send("in", "2", key="b")
        await t.settle()
        assert t.table("kept") == t.table("elsewhere") == {b"a": b"1", b"b": b"2"}
    assert not directories[0].parent.exists()
    assert os.listdir(tmp_path) == []
    assert engine._options.state_dir == options["state_dir"]
    assert elsewhere.store_path == tmp_path / "elsewhere"


async def test_a_store_on_disk_keeps_through_a_crash_what_was_flushed_and_through_a_stop_everything() -> None:
    kept = Table("kept", store="rocksdb://")

    class Keeping(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            kept[msg.key] = msg.value

    engine = engine_of(Keeping)
    engine.register_table(kept)
    async with EngineTest(engine) as t:
        for key in ("a", "b"):
            await t.send("in", "x", key=key)
        await t.settle()
        await t.restart()
        assert engine.status().restored == 0
        await t.send("in", "x", key="c")
        await t.settle()
        await t.crash()
        await t.restart()
        assert engine.status().restored == 1, "the third was in the changelog, and not flushed"
        assert len(t.table("kept")) == 3


async def test_a_crash_copies_the_disk_though_a_file_of_it_goes_meanwhile(tmp_path: Path, monkeypatch) -> None:
    """RocksDB's own threads tidy up, in no loop's time."""
    disk, copied = tmp_path / "disk", tmp_path / "copied"
    disk.mkdir()
    for name in ("1.sst", "2.sst"):
        (disk / name).write_text("x")
    copy_file, goes = shutil.copy2, [disk / "2.sst"]

    def copy(source: str, target: str, **options: Any) -> Any:
        if goes:
            goes.pop().unlink()
            raise FileNotFoundError(source)
        return copy_file(source, target, **options)

    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, copy, False, False))
    worker._copy(disk, copied)
    assert [path.name for path in copied.iterdir()] == ["1.sst"]


async def test_crashes_leave_no_file_open() -> None:
    kept = Table("kept", store="rocksdb://")

    class Keeping(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            kept[msg.key] = msg.value

    engine = engine_of(Keeping)
    engine.register_table(kept)
    open_files = []
    for _ in range(3):
        async with EngineTest(engine) as t:
            await t.send("in", "x", key="a")
            await t.settle()
            await t.crash()
        open_files.append(len(os.listdir("/dev/fd")))
    assert open_files[1] == open_files[2]


async def test_a_global_table_is_made_filled_and_seen_whole_by_every_worker() -> None:
    countries = GlobalTable("countries", "countries", key_serializer=String(), value_serializer=String())
    named: list[str] = []

    class Views(Handler):
        topic = "views"

        @classmethod
        async def on_message(cls, msg, ctx):
            named.append(countries.get(msg.value.decode(), "unknown"))

    engine = engine_of(Views)
    engine.register_table(countries)
    async with EngineTest(engine, partitions=2) as t:
        await t.send("countries", "Norway", key="NO")
        await t.settle()
        assert t.table("countries") == t.table(countries) == {"NO": "Norway"}
        await t.rebalance(workers=2)
        for partition in range(2):
            await t.send("views", "NO", partition=partition)
        await t.settle()
        assert named == ["Norway", "Norway"]
        await t.crash(worker=0)
        await t.send("views", "NO", partition=0)
        await t.settle()
        assert named == ["Norway"] * 3
        assert t.table("countries") == {"NO": "Norway"}
        with pytest.raises(TableError, match="the same in all partitions"):
            t.table("countries", partition=0)
    with pytest.raises(TableError, match="no engine that it is registered with is running"):
        countries.get("NO")


async def test_a_global_table_may_show_a_table_of_the_same_engine() -> None:
    counting = Counting()
    counting.engine.register_table(GlobalTable("all-clicks", "clicks-clicks-changelog"))
    async with EngineTest(counting.engine, topics={"clicks-in": 2, "counts": 1}) as t:
        for partition in range(2):
            await t.send("clicks-in", "x", key=f"k{partition}", partition=partition)
        await t.settle()
        assert t.table("all-clicks") == {"k0": 1, "k1": 1}


async def test_a_table_of_another_engine_that_runs_is_refused() -> None:
    counting, other = Counting(), engine_of(recording("in")[0], bootstrap_servers="memory://")
    other.register_table(counting.clicks)
    async with other:
        with pytest.raises(ConfigurationError, match="in use by another running engine"):
            async with counting.test():
                pass
    async with counting.test() as t:
        assert t.table("clicks") == {}


# A failing broker.


async def test_an_operation_fails_as_often_as_it_is_told_to() -> None:
    counting = Counting()
    async with counting.test() as t:
        await t.send("clicks-in", "x", key="a")
        t.fail_next("produce")
        t.fail_next("commit", BrokerError("not now"))
        await t.settle()
        assert t.table("clicks") == {"a": 1}
        assert counting.engine.status().checkpoint_failures == 1


async def test_a_broker_that_goes_on_failing_stops_the_engine() -> None:
    counting = Counting(checkpoint_attempts=2)
    async with counting.test() as t:
        await t.send("clicks-in", "x", key="a")
        for _ in range(2):
            t.fail_next("commit", BrokerError("not ever"))
        with pytest.raises(CheckpointError, match="not ever"):
            await t.settle()


async def test_faults_are_not_met_by_the_test_itself() -> None:
    counting = Counting()
    async with counting.test() as t:
        for operation in ("produce", "describe", "offsets"):
            t.fail_next(operation)
        await t.send("clicks-in", "x", key="a")
        assert len(t.sent("clicks-in")) == 1


# Misuse.


async def test_sending_makes_no_topic_as_on_kafka() -> None:
    async def misspell(msg: Any, ctx: Any) -> None:
        await engine.send("ou", b"x")

    handler, _ = recording("in", then=misspell)
    engine = engine_of(handler)
    async with EngineTest(engine) as t:
        await t.send("in", "x")
        with pytest.raises(TopicNotFound, match="'ou'"):
            await t.settle()


async def test_a_topic_that_does_not_exist_is_named_with_the_remedy() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler)) as t:
        for ask in (lambda: t.sent("ou"), lambda: t.dead_letters("ou")):
            with pytest.raises(TopicNotFound, match=r"'ou' .* has 'in': .*EngineTest\(engine, topics={'ou': 1}\)"):
                ask()
        with pytest.raises(TopicNotFound, match="'ou' does not exist in this test"):
            await t.send("ou", "x")


async def test_a_handler_that_sends_to_a_topic_that_does_not_exist_fails_as_on_kafka() -> None:
    async def misspell(msg: Any, ctx: Any) -> None:
        await ctx.send("ou", b"x")

    handler, _ = recording("in", then=misspell)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        with pytest.raises(TopicNotFound, match="'ou'"):
            await t.settle()


async def test_a_table_that_is_not_registered_is_named() -> None:
    counting = Counting()
    async with counting.test() as t:
        with pytest.raises(TableError, match=r"'click' is not registered with this engine: it has 'clicks'\."):
            t.table("click")
        with pytest.raises(TableError, match="'clicks' is not registered"):
            t.table(Table("clicks"))


@pytest.mark.parametrize("duration", ["1 fortnight", "", "s", "10", "-1s", -1, float("nan"), True, timedelta(-1), None])
async def test_what_is_no_duration_is_refused(duration: Any) -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler)) as t:
        with pytest.raises(ConfigurationError, match="is no duration: write '1h', '10s', '250ms'"):
            await t.advance(duration)


async def test_an_unknown_operation_is_refused() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler)) as t:
        with pytest.raises(ConfigurationError, match=r"'comit'.* is one of .*'commit'"):
            t.fail_next("comit")  # type: ignore[arg-type]


async def test_what_is_no_bytes_needs_a_serializer() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler)) as t:
        with pytest.raises(SerializationError, match="value sent to topic 'in' is dict"):
            await t.send("in", {"a": 1})


async def test_numbers_of_workers_and_partitions_are_checked() -> None:
    handler, _ = recording("in")
    for wrong in (0, -1, True, "2"):
        with pytest.raises(ConfigurationError, match="'in' cannot have"):
            EngineTest(engine_of(handler), partitions=wrong)  # type: ignore[arg-type]
    async with EngineTest(engine_of(handler)) as t:
        with pytest.raises(ConfigurationError, match="workers=0"):
            await t.rebalance(workers=0)
        with pytest.raises(ConfigurationError, match="no worker 1: the group has 1, counted from 0"):
            await t.crash(worker=1)
        await t.crash()
        with pytest.raises(PaperboyError, match=r"A rebalance needs workers that run: await t\.restart\(\) first"):
            await t.rebalance()


def test_a_start_time_needs_a_time_zone() -> None:
    handler, _ = recording("in")
    with pytest.raises(ConfigurationError, match="no time zone"):
        EngineTest(engine_of(handler), start_time=datetime(2026, 1, 1))


async def test_an_engine_that_was_started_is_refused() -> None:
    handler, _ = recording("in")
    engine = engine_of(handler, bootstrap_servers="memory://")
    async with engine:
        with pytest.raises(PaperboyError, match="was started already"):
            async with EngineTest(engine):
                pass


async def test_one_engine_is_in_one_test_at_a_time() -> None:
    handler, _ = recording("in")
    engine = engine_of(handler)
    async with EngineTest(engine):
        with pytest.raises(PaperboyError, match="was started already"):
            async with EngineTest(engine):
                pass


async def test_outside_its_block_it_says_so() -> None:
    handler, _ = recording("in")
    t = EngineTest(engine_of(handler))
    for _ in range(2):
        with pytest.raises(PaperboyError, match=r"not open: use it inside 'async with EngineTest\(engine\) as t:'"):
            await t.send("in", "x")
        with pytest.raises(PaperboyError, match="not open"):
            t.sent("in")
        async with t:
            pass


async def test_a_handler_that_calls_the_test_is_told_what_to_do() -> None:
    tests: list[EngineTest] = []

    async def call_the_test(msg: Any, ctx: Any) -> None:
        await tests[0].send("in", "y")

    handler, _ = recording("in", then=call_the_test)
    async with EngineTest(engine_of(handler)) as t:
        tests.append(t)
        await t.send("in", "x")
        with pytest.raises(PaperboyError, match=r"a handler sends with ctx\.send"):
            await t.settle()


async def test_a_handler_that_opens_a_socket_is_told_how_to_be_tested() -> None:
    async def connect(msg: Any, ctx: Any) -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    handler, _ = recording("in", then=connect)
    async with EngineTest(engine_of(handler)) as t:
        await t.send("in", "x")
        with pytest.raises(PaperboyError, match=r"real time: EngineTest\(engine, bootstrap_servers='memory://'\)"):
            await t.settle()


# Around the test.


async def test_the_engine_is_given_back_as_it_was() -> None:
    counting = Counting()
    before = dataclasses.asdict(counting.engine._options)
    for _ in range(3):
        async with counting.test() as t:
            assert t.table("clicks") == {}
            await t.send("clicks-in", "x", key="a")
            await t.settle()
            assert t.table("clicks") == {"a": 1}
    assert dataclasses.asdict(counting.engine._options) == before
    with pytest.raises(TableError, match="no snapshot"):
        counting.clicks.snapshot()


async def test_after_a_test_the_engine_runs_where_it_was_meant_to() -> None:
    handler, seen = recording("in")
    table = Table("t")
    engine = engine_of(handler, bootstrap_servers="memory://after-a-test")
    engine.register_table(table)
    async with EngineTest(engine) as t:
        await t.send("in", "in the test")
        await t.settle()
    async with engine:
        await engine.send("in", b"afterwards")
        await engine.caught_up()
        assert seen == [b"in the test", b"afterwards"]
        assert memory_cluster("after-a-test").log(TopicPartition("in", 0)).end_offset == 1
        other = engine_of(handler)
        other.register_table(table)
        with pytest.raises(ConfigurationError, match="in use by another running engine"):
            async with EngineTest(other):
                pass


async def test_nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def leave_a_task(msg: Any, ctx: Any) -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(3_600)))

    tasks: list[asyncio.Task[None]] = []
    handler, _ = recording("in", then=leave_a_task)
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, logger="asyncio"):
        warnings.simplefilter("error")
        async with EngineTest(engine_of(handler)) as t:
            await t.send("in", "x")
            await t.settle()
            await t.send("in", "y")
            await t.advance(0)
            await t.crash()
            await t.restart()
        assert tasks[-1].cancelled()
        tasks.clear()
        del t
        gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_two_tests_at_once_do_not_meet() -> None:
    one, two = Counting(), Counting()
    async with one.test() as first, two.test() as second:
        await first.send("clicks-in", "x", key="a")
        await first.settle()
        await second.send("clicks-in", "y", key="b")
        await second.settle()
        assert first.table("clicks") == {"a": 1}
        assert second.table("clicks") == {"b": 1}


def test_it_runs_where_no_loop_runs() -> None:
    """Whoever steps a coroutine by hand, or has a loop that is not asyncio's, can use it."""
    counting = Counting()

    async def main() -> None:
        async with counting.test() as t:
            await t.send("clicks-in", "x", key="a")
            await t.settle()
            assert t.table("clicks") == {"a": 1}

    with pytest.raises(StopIteration):
        main().send(None)


def test_two_runs_of_one_test_do_not_differ(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Any]:
        counting = Counting()
        async with counting.test(partitions=3, start_time=datetime(2026, 1, 1, tzinfo=UTC)) as t:
            for number in range(20):
                await t.send("clicks-in", str(number), key=f"k{number % 5}")
            t.fail_next("produce")
            await t.settle()
            await t.rebalance(workers=2)
            await t.crash(worker=0)
            for number in range(20):
                await t.send("clicks-in", str(number), key=f"k{number % 5}")
            await t.settle()
            return [t.time_ms(), counting.handled, [(record.offset, record.value) for record in t.sent("counts")]]

    caplog.set_level(logging.INFO, logger="paperboy")
    first, lines = asyncio.run(main()), [record.getMessage() for record in caplog.records]
    caplog.clear()
    second = asyncio.run(main())
    assert first == second
    assert lines == [record.getMessage() for record in caplog.records]


async def test_a_clock_that_was_not_asked_for_begins_now() -> None:
    handler, _ = recording("in")
    async with EngineTest(engine_of(handler)) as t:
        assert abs(t.time_ms() - MemoryClock().time_ms()) < 60_000


# In real time.


async def test_handlers_with_sockets_and_threads_are_tested_in_real_time() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def ask(msg: Any, ctx: Any) -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(msg.value + b"\n")
            answered.append(await reader.readline())
            writer.close()
            await writer.wait_closed()
        answered.append(await asyncio.to_thread(lambda: b"from a thread"))

    answered: list[bytes] = []
    handler, _ = recording("in", then=ask)
    async with EngineTest(engine_of(handler), bootstrap_servers="memory://") as t:
        await t.send("in", "x")
        await t.settle()
        assert answered == [b"x\n", b"from a thread"]


async def test_in_real_time_what_cannot_be_done_is_said() -> None:
    counting = Counting()
    async with counting.test(bootstrap_servers="memory://") as t:
        with pytest.raises(PaperboyError, match="does not fail on demand"):
            t.fail_next("commit")
        with pytest.raises(ConfigurationError, match="time is real"):
            await t.advance("1h")


async def test_in_real_time_a_crash_and_a_rebalance_are_the_same(caplog: pytest.LogCaptureFixture) -> None:
    counting = Counting(session_timeout_sec=0.5, heartbeat_interval_sec=0.1, commit_interval_sec=60)
    async with counting.test(bootstrap_servers="memory://", partitions=2) as t:
        await t.send("clicks-in", "1", key="a")
        await t.settle()
        await t.send("clicks-in", "2", key="a")
        await t.advance("200ms")
        assert counting.handled == [b"1", b"2"]
        await t.crash()
        await t.restart()
        await t.settle()
        assert t.table("clicks") == {"a": 2}
        await t.rebalance(workers=2)
        assert len(counting.engine.status().tasks) == 1
        await t.send("clicks-in", "3", key="a")
        await t.settle()
        assert t.table("clicks") == {"a": 3}
        assert [record.value for record in t.sent("counts")][-1] == b"3"
        assert {record.topic for record in t.sent("clicks-in")} == {"clicks-in"}


async def test_the_environment_takes_every_test_to_another_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPERBOY_TEST_BOOTSTRAP_SERVERS", "memory://")
    counting = Counting()
    async with counting.test() as t:
        with pytest.raises(ConfigurationError, match="time is real"):
            await t.advance("1h")


# Declared topics.


async def test_declared_topics_are_made_as_declared_and_bring_their_serializers() -> None:
    source = Topic("orders", key=str, value=dict[str, int], partitions=3, config={"retention.ms": 1000})
    target = Topic("amounts", key=str, value=Integer(), partitions=2, replication_factor=3)

    class Orders(Handler):
        topic = source
        outputs = (target, "told")

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(target, msg.value["amount"], key=msg.key)
            await ctx.send("told", b"x")

    engine = Engine(Orders, bootstrap_servers="kafka.example:9092", group_id="orders")
    async with EngineTest(engine) as t:
        await t.send(source, {"amount": 3}, key="anna", headers=[("by", "é")])
        await t.settle()
        [record] = t.sent(target)
        assert (record.key, record.value) == ("anna", 3)
        assert [record.value for record in t.sent(source)] == [{"amount": 3}]
        assert t.sent(source)[0].headers == (("by", "é".encode()),)
        assert len(t.sent("told")) == 1
        [record] = t.sent(target, value_deserializer=bytes.hex)
        assert record.value == "00000003"
