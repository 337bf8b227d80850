"""Handlers that a circuit breaker pauses, in every mode."""

import asyncio
from typing import Any

import pytest

from paperboy import BulkHandler, CircuitBreaker, DeadLetter, Handler, Retry, Table
from paperboy.testing import EngineTest
from tests.unit.failing_kit import AT_ONCE, committed, engine_of, handler, headers

pytestmark = pytest.mark.time_limit(30)


AWAY = CircuitBreaker(failures=1, within="10s", pause="30s", on=(ConnectionError,))


async def test_a_probe_that_is_given_up_does_not_close_the_breaker_of_lanes() -> None:
    running = 0
    most: list[int] = []
    is_away = True

    async def on_message(msg: Any, ctx: Any) -> None:
        nonlocal running
        running += 1
        most.append(running)
        await asyncio.sleep(0.01)
        running -= 1
        if len(most) == 3:
            raise ValueError("it is no fault of what is away")
        if is_away:
            raise ConnectionError("away")

    engine = engine_of(handler(on_message, concurrency=2, circuit_breaker=AWAY, dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        for number in range(6):
            await t.send("in", "v", key=str(number))
        await t.advance("29s")
        assert most == [1, 2]
        await t.advance("5s")
        assert most == [1, 2, 1, 1], "one probe after the other"
        assert [headers(dead)["error.class"] for dead in t.dead_letters("in")] == ["ValueError"]
        is_away = False
        await t.settle()
        assert engine.status().dead_lettered == 1


@pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])
@pytest.mark.parametrize("hooks", ["on_bulk", "on_finished_handling"])
async def test_a_breaker_pauses_a_handler_of_bulks_that_declares_nothing_else(threshold: int, hooks: str) -> None:
    calls = 0
    is_away = True

    async def hook(msgs: Any, ctx: Any) -> None:
        nonlocal calls
        calls += 1
        if is_away:
            raise ConnectionError("away")

    failing = handler(
        None, BulkHandler, circuit_breaker=CircuitBreaker(failures=1, on=(ConnectionError,)), **{hooks: hook}
    )
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    async with EngineTest(engine) as t:
        await t.stop()
        for _ in range(4):
            await t.send("in", "v")
        await t.restart()
        await t.advance("5s")
        assert (calls, engine.status().paused) == (1, 1)
        await t.advance("30s")
        assert (calls, engine.status().paused) == (2, 2)
        assert engine.health().ok
        is_away = False
        await t.advance("30s")
        await t.settle()
        assert engine.status().handled == 4


@pytest.mark.parametrize("lanes", [1, 3])
async def test_a_task_that_is_held_by_the_breaker_of_another_is_not_stalled(lanes: int) -> None:
    async def on_message(msg: Any, ctx: Any) -> None:
        if msg.partition == 0:
            raise ConnectionError("away")
        await asyncio.sleep(0.5)

    breaker = CircuitBreaker(failures=1, pause="5m", on=(ConnectionError,))
    engine = engine_of(handler(on_message, concurrency=lanes, circuit_breaker=breaker))
    async with EngineTest(engine, partitions=2) as t:
        for _ in range(20):
            await t.send("in", "v", key="same", partition=1)
        await t.advance("1s")
        await t.send("in", "v", key="same", partition=0)
        await t.advance("4m")
        assert engine.health().reasons == ()
        assert 0 < engine.status().handled < 10
        await t.crash()


class Downstream:
    """What a handler needs: away until the test says otherwise. It notes who asked it when."""

    def __init__(self) -> None:
        self.is_away = True
        self.asked: list[tuple[int, int, float]] = []
        self.running = self.most = 0

    async def ask(self, messages: list[Any]) -> None:
        self.asked.append((messages[0].partition, messages[0].offset, asyncio.get_running_loop().time()))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.01)
            if self.is_away:
                raise ConnectionError("away")
        finally:
            self.running -= 1

    def handler(self, kind: str, lanes: int, **body: Any) -> type[Handler]:
        async def on_message(msg: Any, ctx: Any) -> None:
            await self.ask([msg])

        async def on_bulk(msgs: Any, ctx: Any) -> None:
            await self.ask(msgs)

        hooks: dict[str, Any] = {"on_message": on_message} if kind == "messages" else {"on_bulk": on_bulk}
        breaker = CircuitBreaker(failures=3, within="1m", pause="30s", on=(ConnectionError,))
        given = {"concurrency": lanes, "circuit_breaker": breaker, "dead_letter": DeadLetter(), **hooks, **body}
        return handler(None, BulkHandler if kind == "lists" else Handler, **given)


both = pytest.mark.parametrize("lanes", [1, 3])
kinds = pytest.mark.parametrize("kind", ["messages", "lists"])
modes = pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])


@both
@kinds
@modes
async def test_it_opens_lets_one_probe_begin_and_closes(kind: str, lanes: int, threshold: int) -> None:
    downstream = Downstream()
    failing = downstream.handler(kind, lanes, retry=Retry(delays=["1s"] * 9))
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    async with EngineTest(engine) as t:
        await t.stop()
        for number in range(9):
            await t.send("in", "v", key=str(number))
        await t.restart()
        await t.advance("20s")
        opened = len(downstream.asked)
        assert 3 <= opened <= 5, "those that had begun by then may end"
        await t.advance("15s")
        for turn in range(1, 4):
            assert len(downstream.asked) == opened + turn
            await t.advance("30s")
        assert t.dead_letters("in") == []
        assert engine.health().reasons == ()
        assert engine.status().paused >= 4
        downstream.is_away = False
        downstream.most = 0
        await t.settle()
        status = engine.status()
        assert (status.handled, status.dead_lettered, status.passed_over) == (9, 0, 0)
        assert committed(t) == 9


@both
async def test_what_fails_while_it_is_open_uses_up_no_attempts(lanes: int) -> None:
    downstream = Downstream()
    attempts: list[int] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        attempts.append(ctx.attempt)
        await downstream.ask([msg])

    failing = downstream.handler("messages", lanes, on_message=on_message, retry=Retry(attempts=4, backoff=AT_ONCE))
    async with EngineTest(engine_of(failing)) as t:
        await t.send("in", "v")
        await t.advance("10m")
        assert attempts[:3] == [1, 2, 3], "the third opens it"
        assert len(attempts) >= 20
        assert set(attempts[3:]) == {3}
        assert t.dead_letters("in") == []
        downstream.is_away = False
        await t.settle()


@both
async def test_all_tasks_of_the_worker_are_held_and_one_of_them_probes(lanes: int) -> None:
    downstream = Downstream()
    engine = engine_of(downstream.handler("messages", lanes, retry=Retry(delays=["1s"] * 9)))
    async with EngineTest(engine, partitions=4) as t:
        for partition in range(4):
            for number in range(3):
                await t.send("in", "v", key=str(number), partition=partition)
        await t.advance("20s")
        opened = len(downstream.asked)
        assert opened <= 12
        for turn in range(1, 5):
            downstream.most = 0
            await t.advance("30s")
            assert (len(downstream.asked), downstream.most) == (opened + turn, 1)
        downstream.is_away = False
        await t.settle()
        assert engine.status().handled == 12
        assert [committed(t, partition=partition) for partition in range(4)] == [3] * 4


@both
async def test_a_probe_that_a_rebalance_cuts_off_is_followed_by_another(lanes: int) -> None:
    begun: list[float] = []
    is_away = True

    async def on_message(msg: Any, ctx: Any) -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) == 2:
            await asyncio.sleep(3600)
        if is_away:
            raise ConnectionError("away")

    failing = handler(on_message, concurrency=lanes, circuit_breaker=AWAY, dead_letter=DeadLetter())
    async with EngineTest(engine_of(failing, drain_timeout_sec=1), partitions=2) as t:
        for partition in range(2):
            await t.send("in", "v", partition=partition)
        await t.advance("31s")
        probing = len(begun)
        await t.rebalance()
        await t.advance("40s")
        assert len(begun) > probing
        is_away = False
        await t.settle()
        assert t.dead_letters("in") == []


@both
async def test_while_it_is_open_a_stop_is_prompt_and_a_rebalance_too(lanes: int) -> None:
    downstream = Downstream()
    async with EngineTest(engine_of(downstream.handler("messages", lanes)), partitions=2) as t:
        for partition in range(2):
            for number in range(5):
                await t.send("in", "v", key=str(number), partition=partition)
        await t.advance("5s")
        before = t.time_ms()
        await t.rebalance()
        await t.stop()
        assert t.time_ms() - before < 6_000


async def test_messages_out_of_retry_topics_are_held_as_well() -> None:
    downstream = Downstream()
    retry = Retry(delays=["5s"], via="topics")
    async with EngineTest(engine_of(downstream.handler("messages", 1, retry=retry))) as t:
        for _ in range(4):
            await t.send("in", "v")
        await t.advance("25s")
        assert len(downstream.asked) == 3
        assert len(t.sent("g-in-retry-5s")) == 2
        downstream.is_away = False
        await t.advance("1m")
        assert t.dead_letters("in") == []
        assert len(downstream.asked) == 3 + 2 + 2


async def test_one_handler_that_is_paused_holds_no_other() -> None:
    downstream = Downstream()
    others: list[int] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        others.append(msg.offset)

    table = Table("t")
    engine = engine_of(downstream.handler("messages", 1, retry=Retry()), handler(on_message, topic="other"))
    engine.register_table(table)
    async with EngineTest(engine) as t:
        for _ in range(4):
            await t.send("in", "v")
            await t.send("other", "v")
        await t.advance("20s")
        assert others == [0, 1, 2, 3]
        await t.crash()
