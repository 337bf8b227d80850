"""Whose turn it is in a simulation."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from paperboy.clock import Chance
from paperboy.testing.loop import Process, current_process
from paperboy.testing.simulation.loop import SimulationLoop


@pytest.fixture
def loop() -> Iterator[SimulationLoop]:
    made = SimulationLoop(Chance("test"), stays=0.0)
    yield made
    made.close()


def order(seed: str, turns: int = 20) -> list[tuple[int, int]]:
    """In which order three processes, each with two tasks, get their turns: process and task."""
    loop = SimulationLoop(Chance(seed), stays=0.0)
    ran: list[tuple[int, int]] = []

    async def work(process: int, task: int) -> None:
        for _ in range(turns):
            ran.append((process, task))
            await asyncio.sleep(0)

    async def main() -> None:
        processes = [Process() for _ in range(3)]
        tasks = [loop.spawn(each, work(number, task)) for number, each in enumerate(processes) for task in range(2)]
        await asyncio.gather(*tasks)

    try:
        loop.run(main())
    finally:
        loop.close()
    return ran


def test_the_seed_says_whose_turn_it_is_between_processes() -> None:
    assert order("a") == order("a")
    assert order("a") != order("b")
    processes = [process for process, _ in order("a")]
    assert processes != sorted(processes)


def test_within_a_process_callbacks_run_in_the_order_in_which_they_became_ready() -> None:
    for process in range(3):
        tasks = [task for each, task in order("a") if each == process]
        assert tasks == [0, 1] * 20


def test_a_frozen_process_stands_still_and_goes_on_where_it_was(loop: SimulationLoop) -> None:
    async def main() -> list[float]:
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                await asyncio.sleep(1)
                ticks.append(loop.time())

        process = Process()
        loop.spawn(process, tick())
        await asyncio.sleep(2.5)
        loop.freeze(process)
        await asyncio.sleep(10)
        assert ticks == [1, 2]
        loop.thaw(process)
        await asyncio.sleep(1.2)
        return ticks

    assert loop.run(main()) == [1, 2, 12.5, 13.5]


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_process_is_struck_between_any_two_callbacks(loop: SimulationLoop, steps: int) -> None:
    async def main() -> tuple[int, list[str]]:
        turns, left = 0, []

        async def work() -> None:
            nonlocal turns
            try:
                while True:
                    turns += 1
                    await asyncio.sleep(0)
            finally:
                left.append("finally")

        process = Process()
        loop.spawn(process, work())
        loop.strike_after(process, steps, lambda: loop.kill(process))
        await asyncio.sleep(1)
        return turns, left

    assert loop.run(main()) == (steps, [])


def test_tasks_are_hashed_by_the_order_of_their_creation(loop: SimulationLoop) -> None:
    async def main() -> list[str]:
        cancelled: list[str] = []

        async def wait(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(name)

        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(wait(str(number)))
                await asyncio.sleep(0)
                group.create_task(_fail())

        with pytest.raises(ExceptionGroup):
            await together()
        return cancelled

    assert loop.run(main()) == [str(number) for number in range(50)]


def test_what_would_go_to_a_thread_is_done_when_the_disk_has_done_it(loop: SimulationLoop) -> None:
    loop.work_seconds = lambda: 2.0

    async def main() -> float:
        done_at: float = await loop.run_in_executor(None, loop.time)
        return done_at

    assert loop.run(main()) == 2


def test_a_task_knows_its_process(loop: SimulationLoop) -> None:
    async def main() -> None:
        process = Process()
        ask: Callable[[], Awaitable[Process | None]] = _own
        assert await loop.spawn(process, _own()) is process
        assert await ask() is None

    loop.run(main())


async def _own() -> Process | None:
    await asyncio.sleep(0)
    return current_process()


async def _fail() -> None:
    raise ValueError
