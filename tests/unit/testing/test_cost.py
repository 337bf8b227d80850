"""What an EngineTest costs: about as much as the engine in it, and turns of a loop, not seconds."""

import asyncio
import gc
import time
from collections.abc import Callable

import pytest

from paperboy import Engine, Handler, Table
from paperboy.testing import EngineTest, VirtualLoop

clicks = Table("clicks")


class Clicks(Handler):
    topic = "clicks-in"

    @classmethod
    async def on_message(cls, msg, ctx):
        clicks.update(msg.key, lambda count: count + 1, default=0)


def engine() -> Engine:
    made = Engine(Clicks, bootstrap_servers="memory://", group_id="clicks")
    made.register_table(clicks)
    return made


async def with_the_kit(tested: Engine) -> None:
    async with EngineTest(tested) as t:
        await t.send("clicks-in", "x", key="a")
        await t.settle()
        assert t.table("clicks") == {b"a": 1}


async def without(alone: Engine) -> None:
    async with alone:
        await alone.send("clicks-in", b"x", key=b"a")
        await alone.caught_up()
        assert [tuple(entry) for entry in clicks.snapshot()] == [(0, b"a", 1)]


def cpu_sec(test: Callable[[], None], times: int) -> float:
    """What one of so many tests costs this process."""
    began = time.process_time()
    for _ in range(times):
        test()
    return (time.process_time() - began) / times


def test_a_test_costs_little_more_than_the_engine_in_it() -> None:
    """Both in virtual time, so that neither waits for anything."""
    tested = engine()

    def kit() -> None:
        asyncio.run(with_the_kit(tested))

    def plain() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(without(engine()))

    kit()
    plain()
    gc.collect()
    # The best of several: whatever else the machine does makes both slower, at times one of them.
    ratio = min(cpu_sec(kit, 10) for _ in range(5)) / min(cpu_sec(plain, 10) for _ in range(5))
    assert ratio < 2


class Counting(VirtualLoop):
    """Each turn of a loop costs some 20 microseconds, and their number is the same on every machine."""

    turned = 0

    def _run_once(self) -> None:
        Counting.turned += 1
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    """Counts the turns of every EngineTest."""
    monkeypatch.setattr("paperboy.testing.bench.VirtualLoop", Counting)
    monkeypatch.setattr(Counting, "turned", 0)
    return Counting


async def test_a_test_takes_few_turns(turns: type[Counting]) -> None:
    await with_the_kit(engine())
    assert 0 < turns.turned < 200


async def test_an_engine_that_has_nothing_to_do_wakes_a_few_times_a_second(turns: type[Counting]) -> None:
    async with EngineTest(engine()) as t:
        await t.settle()
        before = turns.turned
        await t.advance("1h")
        assert turns.turned - before < 5 * 3600


async def test_what_waits_in_virtual_time_costs_no_real_time() -> None:
    async with EngineTest(engine()) as t:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await t.advance("1m")
        assert loop.time() - began < 60 / 10
