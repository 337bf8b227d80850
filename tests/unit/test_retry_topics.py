"""Messages that wait in topics to be handled again: never early, never lost, and nobody waits behind them."""

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from paperboy import BulkHandler, DeadLetter, Engine, Handler, Retry, Table
from paperboy.errors import PaperboyError
from paperboy.testing import EngineTest
from tests.unit.failing_kit import cluster_of, committed, engine_of, handler, headers

pytestmark = pytest.mark.time_limit(30)

BY_TOPICS = Retry(delays=["10s", "1m"], via="topics")

both = pytest.mark.parametrize("lanes", [1, 3])


def noting(times: list[Any], bad: tuple[bytes, ...] = (b"bad",)) -> Any:
    """An on_message that notes the value, the attempt and the time in seconds, and raises on these values."""

    async def on_message(msg: Any, ctx: Any) -> None:
        times.append((msg.value, ctx.attempt, asyncio.get_running_loop().time()))
        if msg.value in bad:
            raise ValueError(msg.value.decode())

    return on_message


def waits(times: list[Any], value: bytes) -> list[float]:
    """How long it was between one attempt at a message and the next."""
    mine = [time for each, _, time in times if each == value]
    return [after - before for before, after in pairwise(mine)]


@both
async def test_nothing_waits_behind_it_and_it_is_never_early(lanes: int) -> None:
    times: list[Any] = []
    engine = engine_of(handler(noting(times), concurrency=lanes, retry=BY_TOPICS, dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        for value in ("bad", "good"):
            await t.send("in", value, key="same")
        await t.settle()
        assert [(value, attempt) for value, attempt, _ in times] == [(b"bad", 1), (b"good", 1)]
        assert committed(t) == 2
        await t.advance("5m")
        assert [attempt for value, attempt, _ in times if value == b"bad"] == [1, 2, 3]
        assert 10 <= waits(times, b"bad")[0] < 10.5
        assert 60 <= waits(times, b"bad")[1] < 60.5
        (dead,) = t.dead_letters("in")
        assert (headers(dead)["attempts"], headers(dead)["topic"], headers(dead)["offset"]) == ("3", "in", "0")
        status = engine.status()
        assert (status.handled, status.retried, status.dead_lettered) == (4, 2, 1)


async def test_what_waits_has_a_log_line_of_where_and_its_due_time_in_a_header() -> None:
    async with EngineTest(engine_of(handler(noting([]), retry=BY_TOPICS, dead_letter=DeadLetter()))) as t:
        await t.send("in", "bad", key="k", headers=[("own", b"1")])
        await t.settle()
        (waiting,) = t.sent("g-in-retry-10s")
        assert (waiting.key, waiting.value, waiting.headers[0]) == (b"k", b"bad", ("own", b"1"))
        said = headers(waiting)
        assert int(said["due"]) == int(said["last.failure"]) + 10_000
        assert said["attempts"] == "1"
        assert t.sent("g-in-retry-1m") == []


async def test_a_partition_pauses_until_its_head_is_due_and_keeps_the_order_of_what_waits() -> None:
    times: list[Any] = []
    values = tuple(b"%d" % number for number in range(5))
    failing = handler(noting(times, values), retry=Retry(delays=["10s"], via="topics"), dead_letter=DeadLetter())
    async with EngineTest(engine_of(failing)) as t:
        for value in values:
            await t.send("in", value)
            await t.advance("1s")
        await t.advance("1m")
        assert [value for value, attempt, _ in times if attempt == 2] == list(values)
        assert all(10 <= waits(times, value)[0] < 10.5 for value in values)


@pytest.mark.parametrize("jump_sec", [-3600, 5, 3600])
async def test_a_clock_that_jumps_makes_nothing_early_by_the_clock(jump_sec: int) -> None:
    times: list[Any] = []
    clock_ms: list[int] = []
    engine = engine_of(handler(noting(times), retry=Retry(delays=["10s"], via="topics"), dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        await t.send("in", "bad")
        await t.advance("1s")
        due = int(headers(t.sent("g-in-retry-10s")[0])["due"])
        clock = cluster_of(t).clock
        before = clock.time_ms
        clock.time_ms = lambda: before() + jump_sec * 1000  # type: ignore[method-assign]
        for _ in range(20 if jump_sec > 0 else 3700):
            if len(times) == 2:
                break
            clock_ms.append(t.time_ms())
            await t.advance("1s")
        assert len(times) == 2
        assert clock_ms[-1] + 1_000 >= due


@both
async def test_it_reaches_the_tables_of_its_handler_in_the_task_of_its_partition(lanes: int) -> None:
    table = Table("t")

    async def on_message(msg: Any, ctx: Any) -> None:
        if ctx.attempt == 1:
            raise ValueError("bad")
        table[msg.key] = (msg.topic, msg.partition, msg.offset, msg.timestamp, ctx.topic, ctx.offset)

    engine = engine_of(handler(on_message, concurrency=lanes, retry=Retry(delays=["1s"], via="topics")))
    engine.register_table(table)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    async with EngineTest(engine, partitions=3, start_time=begin) as t:
        for partition in range(3):
            await t.send("in", "v", key=f"k{partition}", partition=partition, timestamp_ms=1_000 + partition)
        await t.advance("5s")
        await t.settle()
        for partition in range(3):
            message = ("in", partition, 0, 1_000 + partition, "in", 0)
            assert t.table("t", partition=partition) == {b"k%d" % partition: message}


async def test_who_begins_at_the_end_of_its_topics_loses_nothing_of_what_waits() -> None:
    times: list[Any] = []
    engine = engine_of(
        handler(noting(times), retry=Retry(delays=["10s"], via="topics"), dead_letter=DeadLetter()),
        auto_offset_reset="latest",
    )
    async with EngineTest(engine, partitions=2) as t:
        await t.send("in", "bad", partition=1)
        await t.settle()
        await t.crash()
        cluster = cluster_of(t)
        group = cluster.group("g")
        group.forget_topic("g-in-retry-10s")
        await t.restart()
        await t.advance("20s")
        assert [attempt for _, attempt, _ in times] == [1, 2]
        assert len(t.dead_letters("in")) == 1


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_a_restart_in_between_changes_nothing(how: str) -> None:
    times: list[Any] = []
    engine = engine_of(handler(noting(times), retry=BY_TOPICS, dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        await t.send("in", "bad")
        await t.settle()
        began = t.time_ms()
        await t.advance("1s")
        await (t.stop() if how == "stop" else t.crash())
        await t.restart()
        await t.advance("30s")
        assert [attempt for _, attempt, _ in times] == [1, 2]
        assert t.time_ms() - began < 60_000
        await t.advance("3m")
        assert [attempt for _, attempt, _ in times] == [1, 2, 3]
        assert len(t.dead_letters("in")) == 1


async def test_a_rebalance_does_not_wait_for_what_is_not_due_and_another_worker_handles_it() -> None:
    times: list[Any] = []
    engine = engine_of(handler(noting(times), retry=Retry(delays=["10m"], via="topics"), dead_letter=DeadLetter()))
    async with EngineTest(engine, partitions=2) as t:
        for partition in range(2):
            await t.send("in", "bad", partition=partition)
        await t.settle()
        before = t.time_ms()
        await t.rebalance(workers=2)
        assert t.time_ms() - before < 15_000
        await t.advance("10m")
        assert sorted(attempt for _, attempt, _ in times) == [1, 1, 2, 2]
        assert len(t.dead_letters("in")) == 2


async def test_in_step_mode_it_waits_until_its_step_is_over() -> None:
    times: list[Any] = []
    first = handler(noting(times), retry=Retry(delays=["5s"], via="topics"), dead_letter=DeadLetter())
    second = handler(noting(times), topic="second")
    async with EngineTest(engine_of(first, second, steps=[[first], [second]])) as t:
        await t.stop()
        for topic, value in (("in", "bad"), ("in", "good"), ("second", "second")):
            await t.send(topic, value)
        await t.restart()
        await t.settle()
        assert [value for value, _, _ in times] == [b"bad", b"good", b"second"]
        await t.advance("10s")
        assert [value for value, _, _ in times[3:]] == [b"bad"]
        assert len(t.dead_letters("in")) == 1


async def test_in_bulk_mode_what_waits_is_no_lag_that_would_keep_it() -> None:
    times: list[Any] = []
    bad = tuple(b"%d" % number for number in range(40))
    failing = handler(noting(times, bad), retry=Retry(delays=["5m"], via="topics"), dead_letter=DeadLetter())
    engine = engine_of(failing, bulk_mode_threshold=10)
    async with EngineTest(engine) as t:
        await t.stop()
        for value in bad:
            await t.send("in", value)
        await t.restart()
        await t.advance("10s")
        assert engine.status().lag == 40
        assert engine.mode.value == "single"
        assert engine.health().reasons == ()
        await t.advance("2m")
        assert engine.health().reasons == (), "it waits by intention"
        await t.advance("4m")
        assert len(t.dead_letters("in")) == 40


async def test_the_end_of_the_input_is_not_that_of_what_waits() -> None:
    times: list[Any] = []
    failing = handler(noting(times), retry=Retry(delays=["1h"], via="topics"), dead_letter=DeadLetter())
    async with EngineTest(engine_of(failing, stop_at_end=True)) as t:
        await t.stop()
        await t.send("in", "bad")
        await t.restart()
        await t.advance("10s")
        assert [attempt for _, attempt, _ in times] == [1]
        assert not t._engine.status().running, "it stopped at the end"
        assert committed(t) == 1


async def test_retry_later_takes_the_first_topic_that_waits_as_long_and_is_due_when_it_was_told() -> None:
    times: list[Any] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        times.append((msg.value, ctx.attempt, asyncio.get_running_loop().time()))
        if ctx.attempt == 1:
            ctx.retry_later(float(msg.value), "later")

    async with EngineTest(engine_of(handler(on_message, retry=BY_TOPICS))) as t:
        for value in ("3", "10", "11", "90"):
            await t.send("in", value)
        await t.settle()
        assert [record.value for record in t.sent("g-in-retry-10s")] == [b"3", b"10"]
        assert [record.value for record in t.sent("g-in-retry-1m")] == [b"11", b"90"]
        await t.advance("2m")
        for delay in (b"3", b"10", b"11", b"90"):
            (waited,) = waits(times, delay)
            assert float(delay) <= waited < float(delay) + 0.5


async def test_retry_later_for_longer_than_its_topic_keeps_messages_stops_the_engine() -> None:
    async def on_message(msg: Any, ctx: Any) -> None:
        ctx.retry_later("8d", "later")

    async with EngineTest(engine_of(handler(on_message, retry=BY_TOPICS))) as t:
        await t.send("in", "it")
        with pytest.raises(PaperboyError, match=r"wait for 8d in 'g-in-retry-1m', .*a week beyond 1m: declare a delay"):
            await t.settle()
        assert t.sent("g-in-retry-1m") == []
        assert committed(t) == 0


async def test_what_is_replayed_is_handled_at_once_with_the_attempts_it_had() -> None:
    times: list[Any] = []
    engine = engine_of(handler(noting(times), dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        await t.send("in", "bad", key="k", headers=[("own", b"1")])
        await t.settle()
        (dead,) = t.dead_letters("in")
        cluster_of(t).topic("g-in-retry").append(
            0, ([(dead.key, dead.value, list(dead.headers), t.time_ms())], [500]), t.time_ms()
        )
        await t.settle()
        assert [(value, attempt) for value, attempt, _ in times] == [(b"bad", 1), (b"bad", 2)]
        again = t.dead_letters("in")[1]
        assert headers(again)["attempts"] == "2"
        assert (again.key, again.headers[0], headers(again)["offset"]) == (b"k", ("own", b"1"), "0")
        assert sum(name == "paperboy.failed" for name, _ in again.headers) == 1


async def test_a_handler_of_lists_gets_what_waited_one_by_one() -> None:
    lists: list[list[bytes]] = []

    class Lists(BulkHandler):
        topic = "in"
        retry = Retry(delays=["10s"], via="topics")
        dead_letter = DeadLetter()

        @classmethod
        async def on_bulk(cls, msgs: Any, ctx: Any) -> None:
            lists.append([msg.value for msg in msgs])
            if any(msg.value.startswith(b"bad") for msg in msgs):
                raise ValueError("bad")

    engine: Engine = engine_of(Lists, bulk_mode_threshold=1)
    async with EngineTest(engine) as t:
        await t.stop()
        for value in ("good", "bad 1", "bad 2"):
            await t.send("in", value)
        await t.restart()
        await t.advance("1m")
        whole = [b"good", b"bad 1", b"bad 2"]
        alone = [[value] for value in whole]
        assert lists == [whole, *alone, [b"bad 1"], [b"bad 2"]]
        assert [headers(dead)["attempts"] for dead in t.dead_letters("in")] == ["2", "2"]


async def test_handlers_of_two_topics_have_retry_topics_of_their_own() -> None:
    times: list[Any] = []

    class Two(Handler):
        topic = ("a", "b")
        retry = Retry(delays=["10s"], via="topics")
        dead_letter = DeadLetter(topic="dead")
        on_message = staticmethod(noting(times))

    async with EngineTest(engine_of(Two)) as t:
        for topic in ("a", "b"):
            await t.send(topic, "bad")
        await t.settle()
        assert [len(t.sent(f"g-{topic}-retry-10s")) for topic in ("a", "b")] == [1, 1]
        await t.advance("20s")
        assert sorted(headers(dead)["topic"] for dead in t.sent("dead")) == ["a", "b"]
