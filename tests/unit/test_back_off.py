"""Messages that failed and are tried again after a while: what waits behind them, and what goes on."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from paperboy import BulkHandler, DeadLetter, Exponential, Retry, Table
from paperboy.brokers.protocol import TopicPartition
from paperboy.errors import CheckpointError, PaperboyError, StoreError
from paperboy.testing import EngineTest
from tests.unit.failing_kit import (
    AT_ONCE,
    EVERY_SECOND,
    cluster_of,
    committed,
    engine_of,
    handler,
    headers,
    tried,
)

pytestmark = pytest.mark.time_limit(30)


async def test_a_message_that_is_tried_again_at_once_lets_the_event_loop_turn() -> None:
    turned = asyncio.Event()
    attempts = 0

    async def on_message(msg: Any, ctx: Any) -> None:
        nonlocal attempts
        attempts = ctx.attempt
        if attempts == 1:
            asyncio.get_running_loop().call_soon(turned.set)
        if not turned.is_set() and attempts < 1_000:
            ctx.retry_later(0)

    async with EngineTest(engine_of(handler(on_message))) as t:
        await t.send("in", "v")
        await t.settle()
    assert 1 < attempts < 10


async def test_what_a_bulk_did_behind_a_message_that_waits_does_not_count_it_anew() -> None:
    seen: list[Any] = []

    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        if msgs[0].offset == 0:
            ctx.skip("nothing of it is needed")

    engine = engine_of(
        handler(
            tried(seen),
            on_finished_handling=on_finished_handling,
            retry=Retry(attempts=3, backoff=EVERY_SECOND),
            dead_letter=DeadLetter(),
        ),
        bulk_mode_threshold=1,
    )
    async with EngineTest(engine) as t:
        await t.stop()
        for value in ("good", "good", "bad", "good"):
            await t.send("in", value)
        await t.restart()
        await t.settle()
        assert seen == [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]
        assert [headers(dead)["offset"] for dead in t.dead_letters("in")] == ["2"]


async def test_a_dead_letter_is_not_lost_with_the_bulk_that_it_stood_in() -> None:
    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        ctx.skip("of those that it is given")

    failing = handler(tried([]), on_finished_handling=on_finished_handling, dead_letter=DeadLetter())
    engine = engine_of(failing, bulk_mode_threshold=1)
    async with EngineTest(engine) as t:
        await t.stop()
        for value in ("good", "bad", "good"):
            await t.send("in", value)
        await t.restart()
        await t.settle()
        assert [headers(dead)["offset"] for dead in t.dead_letters("in")] == ["1"]
        assert (engine.status().passed_over, engine.status().dead_lettered) == (2, 1)


async def test_other_topics_of_a_task_go_on_while_a_message_of_lanes_waits() -> None:
    seen: list[Any] = []
    others: list[int] = []
    table = Table("t")

    async def count(msg: Any, ctx: Any) -> None:
        others.append(msg.offset)
        table["others"] = len(others)

    engine = engine_of(
        handler(tried(seen), concurrency=3, retry=Retry(delays=["5m"])),
        handler(count, topic="other"),
        fail_on_exception=False,
    )
    engine.register_table(table)
    async with EngineTest(engine) as t:
        await t.send("in", "bad", key="a")
        await t.advance("1s")
        for _ in range(3):
            await t.send("other", "v")
            await t.send("in", "good", key="b")
        await t.send("in", "good", key="a")
        await t.advance("10s")
        assert others == [0, 1, 2]
        assert seen == [(0, 1), (1, 1), (2, 1), (3, 1)]
        assert t.table("t") == {"others": 3}
        await t.advance("5m")
        assert seen[4:] == [(0, 2), (4, 1)]
        await t.send("other", "v")
        await t.settle()
        assert others == [0, 1, 2, 3]


async def test_a_message_of_lanes_that_is_due_waits_for_what_is_in_hand_outside_them() -> None:
    running: list[str] = []
    together: list[list[str]] = []
    table = Table("t")

    def noting(name: str, seconds: float) -> Any:
        async def on_message(msg: Any, ctx: Any) -> None:
            running.append(name)
            together.append(list(running))
            table["last"] = name
            await asyncio.sleep(seconds)
            running.remove(name)
            if name == "in lanes" and ctx.attempt == 1:
                raise ValueError("once")

        return on_message

    engine = engine_of(
        handler(noting("in lanes", 0.01), concurrency=3, retry=Retry(delays=["5s"])),
        handler(noting("alone", 10), topic="other"),
    )
    engine.register_table(table)
    async with EngineTest(engine) as t:
        await t.send("in", "v", key="a")
        await t.advance("1s")
        await t.send("other", "v")
        await t.settle()
        assert together == [["in lanes"], ["alone"], ["in lanes"]]
        assert t.table("t") == {"last": "in lanes"}


@pytest.mark.parametrize("makes_of_it", ["an error", "a verdict"])
async def test_nothing_of_a_task_that_was_given_back_is_handled_again_there(makes_of_it: str) -> None:
    running = 0
    most = 0

    async def on_message(msg: Any, ctx: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if makes_of_it == "a verdict":
                ctx.retry_later("1s")
            raise ConnectionError("as some clients put it") from None
        finally:
            running -= 1

    engine = engine_of(handler(on_message, concurrency=3, retry=Retry(backoff=EVERY_SECOND)), drain_timeout_sec=1)
    async with EngineTest(engine) as t:
        await t.send("in", "v", key="k")
        await t.advance("1s")
        await t.rebalance()
        await t.advance("10s")
        assert (running, most) == (1, 1)
        await t.crash()


both = pytest.mark.parametrize("lanes", [1, 3])


@both
@pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])
async def test_a_stop_while_a_message_waits_is_prompt(lanes: int, threshold: int) -> None:
    seen: list[Any] = []

    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        pass

    failing = handler(
        tried(seen), concurrency=lanes, retry=Retry(delays=["1h"]), on_finished_handling=on_finished_handling
    )
    async with EngineTest(engine_of(failing, bulk_mode_threshold=threshold)) as t:
        await t.stop()
        for value in ("good", "bad", "good"):
            await t.send("in", value, key=value)
        await t.restart()
        await t.advance("2m")
        before = t.time_ms()
        await t.stop()
        assert t.time_ms() - before < 100
        assert committed(t) == 1
        assert (1, 1) in seen
        assert (1, 2) not in seen


@both
async def test_what_came_before_a_message_that_waits_is_committed(lanes: int) -> None:
    table = Table("t")
    note = tried([])

    async def on_message(msg: Any, ctx: Any) -> None:
        table[msg.offset] = True
        await note(msg, ctx)

    engine = engine_of(handler(on_message, concurrency=lanes, retry=Retry(delays=["1h"])))
    engine.register_table(table)
    async with EngineTest(engine) as t:
        for value in ("good", "good", "bad", "good"):
            await t.send("in", value, key=value)
        await t.advance("10s")
        assert committed(t) == 2
        assert t.table("t") == ({0: True, 1: True} if lanes == 1 else {0: True, 1: True, 3: True})
        await t.crash()


@both
async def test_a_worker_whose_message_waits_stays_in_its_group_and_is_well(lanes: int) -> None:
    engine = engine_of(handler(tried([]), concurrency=lanes, retry=Retry(delays=["6m"] * 9)), stalled_sec=60)
    async with EngineTest(engine) as t:
        await t.send("in", "bad", key="a")
        await t.advance("1s")
        generation = cluster_of(t).group("g").generation
        for _ in range(10):
            await t.advance("1m")
            assert engine.health().reasons == ()
            assert engine.health().alive
        assert cluster_of(t).group("g").generation == generation
        assert engine.status().retried == 2
        await t.crash()


@both
async def test_a_task_whose_message_waits_moves_at_once_and_the_message_is_handled_elsewhere(lanes: int) -> None:
    handled: list[tuple[int, int, float]] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        handled.append((msg.partition, ctx.attempt, asyncio.get_running_loop().time()))
        if msg.value == b"bad" and len(handled) <= 2:
            raise ValueError("bad")

    engine = engine_of(handler(on_message, concurrency=lanes, retry=Retry(delays=["1h"])))
    async with EngineTest(engine, partitions=2) as t:
        for partition in range(2):
            await t.send("in", "bad", partition=partition)
        await t.advance("1s")
        assert [(partition, attempt) for partition, attempt, _ in handled] == [(0, 1), (1, 1)]
        before = t.time_ms()
        await t.rebalance(workers=2)
        await t.settle()
        assert t.time_ms() - before < 15_000
        assert sorted((partition, attempt) for partition, attempt, _ in handled[2:]) == [(0, 1), (1, 1)]
        assert [committed(t, partition=partition) for partition in range(2)] == [1, 1]


async def test_other_partitions_go_on_while_a_message_waits_and_its_own_waits_behind_it() -> None:
    seen: list[Any] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        seen.append((msg.partition, msg.offset))
        if msg.value == b"bad" and ctx.attempt == 1:
            raise ValueError("bad")

    async with EngineTest(engine_of(handler(on_message, retry=Retry(delays=["5m"]))), partitions=2) as t:
        for value in ("bad", "good"):
            for partition in range(2):
                await t.send("in", value if partition == 0 else "good", partition=partition)
        await t.advance("4m")
        assert seen == [(0, 0), (1, 0), (1, 1)]
        await t.advance("2m")
        assert seen[3:] == [(0, 0), (0, 1)]


async def test_with_concurrency_only_the_key_of_a_message_that_waits_waits() -> None:
    seen: list[Any] = []
    engine = engine_of(handler(tried(seen, lambda msg: msg.offset == 0 and len(seen) < 10), concurrency=2,
                               retry=Retry(delays=["5m"])))  # fmt: skip
    async with EngineTest(engine) as t:
        for number in range(60):
            await t.send("in", "v", key="ab"[number % 2])
        await t.advance("4m")
        assert [offset for offset, _ in seen] == [0, *range(1, 2 * 16, 2)], "as far as the window reaches"
        assert committed(t) == 0
        await t.advance("2m")
        await t.settle()
        assert [offset for offset, _ in seen if offset % 2 == 0] == [0, *range(0, 60, 2)]
        assert committed(t) == 60


@both
async def test_a_crash_while_a_message_waits_begins_its_attempts_anew(lanes: int) -> None:
    seen: list[Any] = []
    failing = handler(
        tried(seen), concurrency=lanes, retry=Retry(attempts=3, backoff=EVERY_SECOND), dead_letter=DeadLetter()
    )
    async with EngineTest(engine_of(failing)) as t:
        await t.send("in", "bad")
        await t.advance("1.5s")
        await t.crash()
        assert seen == [(0, 1), (0, 2)]
        await t.restart()
        await t.settle()
        assert seen[2:] == [(0, 1), (0, 2), (0, 3)]
        assert [headers(dead)["attempts"] for dead in t.dead_letters("in")] == ["3"]


async def test_the_waits_are_those_that_were_declared() -> None:
    times: list[float] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        times.append(asyncio.get_running_loop().time())
        raise ValueError("bad")

    backoff = Exponential("1s", factor=3, maximum="5s", jitter=0)
    failing = handler(on_message, retry=Retry(attempts=5, backoff=backoff), dead_letter=DeadLetter())
    async with EngineTest(engine_of(failing)) as t:
        await t.send("in", "bad")
        await t.settle()
        (dead,) = t.dead_letters("in")
    waits = [after - before for before, after in pairwise(times)]
    assert waits == pytest.approx([1, 3, 5, 5], abs=0.01)
    said = headers(dead)
    assert int(said["last.failure"]) - int(said["first.failure"]) == pytest.approx(14_000, abs=20)


async def test_a_store_that_fails_in_an_error_hook_is_no_fault_of_the_message() -> None:
    asked = 0

    async def on_error(e: Exception, msg: Any, ctx: Any) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreError("the disk is full")

    seen: list[Any] = []
    engine = engine_of(handler(tried(seen), on_error=on_error, dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        await t.send("in", "bad")
        await t.settle()
        assert asked == 3
        assert len(t.dead_letters("in")) == 1
        assert engine.status().checkpoint_failures == 2


async def test_an_error_hook_that_takes_too_long_fails_as_a_hook_does() -> None:
    async def on_error(e: Exception, msg: Any, ctx: Any) -> None:
        await asyncio.sleep(3600)

    engine = engine_of(handler(tried([]), on_error=on_error, dead_letter=DeadLetter()), handler_timeout_sec=1)
    async with EngineTest(engine) as t:
        await t.send("in", "good")
        await t.send("in", "bad")
        with pytest.raises(PaperboyError, match="took longer than 1 s"):
            await t.settle()
        assert committed(t) == 1
        assert t.dead_letters("in") == []


@both
async def test_a_message_that_takes_too_long_is_tried_again_as_any_other(lanes: int) -> None:
    attempts: list[int] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            await asyncio.sleep(3600)

    failing = handler(on_message, concurrency=lanes, retry=Retry(backoff=EVERY_SECOND))
    async with EngineTest(engine_of(failing, handler_timeout_sec=1)) as t:
        await t.send("in", "v")
        await t.settle()
    assert attempts == [1, 2, 3]


@both
async def test_a_drain_in_the_midst_of_judging_leaves_nothing(lanes: int) -> None:
    asked: list[int] = []

    async def on_error(e: Exception, msg: Any, ctx: Any) -> None:
        asked.append(len(asked))
        ctx.send("out", b"from on_error")
        if len(asked) == 1:
            await asyncio.sleep(3600)

    failing = handler(tried([]), concurrency=lanes, on_error=on_error, dead_letter=DeadLetter())
    async with EngineTest(engine_of(failing, drain_timeout_sec=5), topics={"out": 1}) as t:
        await t.send("in", "bad")
        await t.advance("1s")
        await t.rebalance()
        await t.settle()
        assert asked == [0, 1]
        assert [record.value for record in t.sent("out")] == [b"from on_error"]
        assert len(t.dead_letters("in")) == 1


async def test_messages_that_lose_against_others_while_they_are_given_up_are_counted_once() -> None:
    table = Table("t")
    order: list[Any] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        order.append((msg.offset, ctx.attempt))
        if msg.key == b"bad":
            raise ValueError("bad")
        await asyncio.sleep(0.5)
        table["shared"] = msg.offset

    async def on_error(e: Exception, msg: Any, ctx: Any) -> None:
        before = table.get("shared")
        await asyncio.sleep(1)
        table["shared"] = f"bad after {before}"

    engine = engine_of(
        handler(on_message, concurrency=3, rerun_on_conflict=True, on_error=on_error, dead_letter=DeadLetter(),
                retry=Retry(attempts=2, backoff=AT_ONCE))
    )  # fmt: skip
    engine.register_table(table)
    async with EngineTest(engine) as t:
        for key in ("bad", "good"):
            await t.send("in", "v", key=key)
        await t.settle()
        assert t.table("t") == {"shared": "bad after 1"}
        (dead,) = t.dead_letters("in")
        assert headers(dead)["attempts"] == "2"
        assert engine.status().reruns == 1
        assert [each for each in order if each[0] == 0] == [(0, 1), (0, 2), (0, 2)]


@pytest.mark.parametrize("operation", ["produce", "produce_ack"])
@both
async def test_a_broker_that_takes_no_dead_letter_has_nothing_committed_past_it(operation: Any, lanes: int) -> None:
    engine = engine_of(
        handler(tried([]), concurrency=lanes, dead_letter=DeadLetter()), checkpoint_attempts=3, commit_interval_sec=1
    )
    async with EngineTest(engine) as t:
        await t.send("in", "good", key="a")
        await t.settle()
        for _ in range(3):
            t.fail_next(operation)
        for value in ("bad", "good"):
            await t.send("in", value, key="a")
        with pytest.raises(CheckpointError):
            await t.settle()
        assert committed(t) == 1
        await t.restart()
        await t.settle()
        assert committed(t) == 3
        dead = t.dead_letters("in")
        assert {headers(each)["offset"] for each in dead} == {"1"}
        assert len(dead) == (1 if operation == "produce" else 4), "at least once"


@both
async def test_a_message_that_a_drain_cuts_off_has_not_failed_whatever_its_hook_makes_of_that(lanes: int) -> None:
    begun: list[int] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        begun.append(ctx.attempt)
        if len(begun) > 1:
            return
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ConnectionError("as some clients put it") from None

    engine = engine_of(handler(on_message, concurrency=lanes, dead_letter=DeadLetter()), drain_timeout_sec=1)
    async with EngineTest(engine) as t:
        await t.send("in", "v", key="k")
        await t.advance("1s")
        await t.rebalance()
        await t.settle()
        assert begun == [1, 1]
        assert t.dead_letters("in") == []
        assert engine.status().dead_lettered == 0
        assert committed(t) == 1


async def test_a_change_to_bulk_mode_waits_for_what_waits_and_keeps_the_order_of_keys() -> None:
    seen: list[tuple[str, int]] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        seen.append(("alone", msg.offset))
        if msg.value == b"bad" and ctx.attempt == 1:
            raise ValueError("once")

    async def on_bulk(msgs: Any, ctx: Any) -> None:
        seen.extend(("bulk", msg.offset) for msg in msgs)

    failing = handler(on_message, BulkHandler, on_bulk=on_bulk, concurrency=3, retry=Retry(delays=["30s"]))
    async with EngineTest(engine_of(failing, bulk_mode_threshold=20)) as t:
        for number, value in enumerate(["bad", "good", "good"]):
            await t.send("in", value, key=f"k{number % 2}")
        await t.advance("5s")
        assert seen == [("alone", 0), ("alone", 1)]
        for number in range(60):
            await t.send("in", "good", key=f"k{number % 2}")
        await t.advance("10s")
        await t.settle()
        assert committed(t) == 63
        finished = [offset for _, offset in seen[1:]]
        assert sorted(finished) == list(range(63)), "each once, but for the first attempt"
        for key in (0, 1):
            mine = [offset for offset in finished if offset % 2 == key and offset > 2]
            assert mine == sorted(mine)
        assert finished.index(0) < finished.index(2), "of one key"
        assert any(how == "bulk" for how, _ in seen)


@both
async def test_a_bulk_that_is_handled_one_by_one_may_have_gaps_and_begins_anew_after_a_crash(lanes: int) -> None:
    lists: list[list[int]] = []

    async def on_bulk(msgs: Any, ctx: Any) -> None:
        lists.append([msg.offset for msg in msgs])
        if any(msg.value == b"bad" for msg in msgs):
            raise ValueError("bad")
        if len(lists) == 3:
            await asyncio.sleep(3600)

    failing = handler(None, BulkHandler, on_bulk=on_bulk, concurrency=lanes, dead_letter=DeadLetter())
    async with EngineTest(engine_of(failing, bulk_mode_threshold=1)) as t:
        await t.stop()
        partition = TopicPartition("in", 0)
        for number, value in enumerate(["good", "good", "bad", "good", "good"]):
            await t.send("in", value, key=str(number))
            cluster_of(t).append_marker(partition)
        await t.restart()
        await t.advance("2s")
        assert lists[:3] == [[0, 2, 4, 6, 8], [0], [2]]
        await t.crash()
        del lists[:]
        lists.append([])  # so that the third waits for nothing any more
        lists.append([])
        lists.append([])
        await t.restart()
        await t.settle()
        assert sorted(lists[3:], key=len, reverse=True)[0] == [0, 2, 4, 6, 8]
        assert sorted(lists[4:]) == [[0], [2], [4], [6], [8]]
        assert committed(t) == 10
        assert {headers(dead)["offset"] for dead in t.dead_letters("in")} == {"4"}
