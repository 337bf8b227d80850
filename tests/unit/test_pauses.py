"""Handlers that a circuit breaker pauses, in every mode."""

import asyncio
from typing import Any

import pytest

from paperboy import BulkHandler, CircuitBreaker, DeadLetter
from paperboy.testing import EngineTest
from tests.unit.failing_kit import (
    engine_of,
    handler,
    headers,
)

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
        if msg.offset == 0 and len(most) > 2:
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
