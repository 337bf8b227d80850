"""An event loop whose time costs nothing."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from paperboy.errors import PaperboyError
from paperboy.testing import VirtualLoop
from paperboy.testing.virtual_time import Stuck


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


def test_time_begins_at_0_and_a_sleep_takes_what_it_says() -> None:
    async def main() -> list[float]:
        times = [now()]
        for seconds in (10, 0.25, 86_400 * 365):
            await asyncio.sleep(seconds)
            times.append(now())
        return times

    assert run(main()) == [0, 10, 10.25, 86_400 * 365 + 10.25]


def test_many_small_sleeps_add_up() -> None:
    async def main() -> float:
        for _ in range(1_000):
            await asyncio.sleep(0.1)
        return now()

    assert run(main()) == 100


def test_time_stands_still_while_anything_is_ready() -> None:
    async def main() -> float:
        timer = asyncio.create_task(asyncio.sleep(1))
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert not timer.done()
        before = now()
        await timer
        return before

    assert run(main()) == 0


def test_timers_ring_in_their_order() -> None:
    async def main() -> list[tuple[float, str]]:
        rang: list[tuple[float, str]] = []
        for seconds, name in ((3, "c"), (1, "a"), (2, "b"), (1, "a too")):
            asyncio.get_running_loop().call_later(seconds, lambda name=name: rang.append((now(), name)))  # type: ignore[misc]
        await asyncio.sleep(5)
        return rang

    assert run(main()) == [(1, "a"), (1, "a too"), (2, "b"), (3, "c")]


def test_quiet_comes_when_nothing_is_ready_and_before_time_moves() -> None:
    async def main() -> None:
        async def work() -> None:
            for _ in range(100):
                await asyncio.sleep(0)
            done.append(now())

        done: list[float] = []
        working, sleeping = asyncio.create_task(work()), asyncio.create_task(asyncio.sleep(1))
        await loop().quiet()
        assert done == [0]
        assert not sleeping.done()
        await asyncio.gather(working, sleeping)
        await loop().quiet()

    run(main())


def test_a_condition_is_met_in_the_turn_in_which_it_comes_to_hold() -> None:
    async def main() -> None:
        async def count_up() -> None:
            while len(turns) < 100:
                turns.append(now())
                await asyncio.sleep(0.001 if len(turns) > 50 else 0)

        turns: list[float] = []
        counting = asyncio.create_task(count_up())
        for number in (10, 60):
            await loop().until(lambda number=number: len(turns) >= number)  # type: ignore[misc]
            assert number <= len(turns) <= number + 1
        await loop().until(lambda: True)
        await counting

    run(main())


def test_what_goes_to_a_thread_is_done_in_this_one_in_the_next_turn() -> None:
    async def main() -> None:
        order: list[str] = []

        def work(name: str) -> threading.Thread:
            order.append(name)
            return threading.current_thread()

        first = asyncio.get_running_loop().run_in_executor(None, work, "first")
        order.append("asked")
        second = asyncio.create_task(asyncio.to_thread(work, "second"))
        assert await first is await second is threading.main_thread()
        assert order == ["asked", "first", "second"]
        assert now() == 0

    run(main())


def test_what_fails_in_the_place_of_a_thread_fails_where_it_is_awaited() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    run(main())


def test_what_is_cancelled_before_its_turn_is_not_done() -> None:
    async def main() -> None:
        done: list[int] = []
        asyncio.get_running_loop().run_in_executor(None, done.append, 1).cancel()
        await loop().quiet()
        assert done == []

    run(main())


def test_a_thread_of_somebodys_is_heard() -> None:
    async def main() -> float:
        heard = asyncio.Event()
        here = asyncio.get_running_loop()
        other = threading.Thread(target=lambda: here.call_soon_threadsafe(heard.set))
        other.start()
        other.join()
        await asyncio.wait_for(heard.wait(), 1)
        return now()

    assert run(main()) == 0


def test_an_endless_wait_is_told_of() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    runner = VirtualLoop()
    with pytest.raises(Stuck, match="Nothing is left that could ever happen"):
        runner.run(main())
    runner.close()


def test_an_endless_moment_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperboy.testing.virtual_time._MOST_TURNS", 1_000)

    async def turn(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def with_pauses() -> None:
        for _ in range(10):
            await turn(900)
            await asyncio.sleep(1)

    runner = VirtualLoop()
    runner.run(with_pauses())
    with pytest.raises(Stuck, match="turned 1000 times without letting time pass"):
        runner.run(turn(2_000))
    runner.run(turn(100))
    runner.close()


async def connect() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def listen() -> None:
    await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)


async def start_a_process() -> None:
    await asyncio.create_subprocess_exec("true")


async def wait_for_a_file() -> None:
    with socket.socket() as waited_for:
        asyncio.get_running_loop().add_reader(waited_for, lambda: None)


@pytest.mark.parametrize("opening", [connect, listen, start_a_process, wait_for_a_file])
def test_nothing_real_can_be_opened(opening: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(PaperboyError, match="opened in virtual time, where nothing real is waited for"):
        run(opening())


def test_who_is_rung_a_rounding_error_early_and_sets_the_alarm_again_is_not_rung_for_ever() -> None:
    async def main() -> int:
        await asyncio.sleep(34.001)
        due, done, rung = now() + 7.2e-15, asyncio.Event(), 0

        def ring() -> None:
            nonlocal rung
            rung += 1
            if now() < due and rung < 1_000:
                loop().call_at(due, ring)
            else:
                done.set()

        ring()
        await done.wait()
        return rung

    assert run(main()) == 2


def test_some_that_wait_for_one_moment_in_turns_do_not_keep_time_from_reaching_it() -> None:
    async def main() -> list[float]:
        moment = 1 / 3  # which no count of microseconds is

        async def wait(turns: int) -> float:
            while now() < moment:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(moment):
                        await asyncio.Event().wait()
                for _ in range(turns):  # from the first ring on they are not rung together any more
                    await asyncio.sleep(0)
                turns = 0
            return now()

        return await asyncio.gather(*(wait(turns) for turns in range(8)))

    assert run(main()) == [1 / 3] * 8
