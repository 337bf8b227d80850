"""An event loop in which part of what runs can die, and which another loop's task may turn."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import AsyncGenerator, Iterator
from contextvars import Context

import pytest

from paperboy.testing import VirtualLoop
from paperboy.testing.loop import Process, ProcessLoop


@pytest.fixture(params=[ProcessLoop, VirtualLoop])
def loop(request: pytest.FixtureRequest) -> Iterator[ProcessLoop]:
    made: ProcessLoop = request.param()
    yield made
    made.close()


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_it_runs_inside_a_loop_that_runs_and_leaves_that_as_it_was(loop: ProcessLoop) -> None:
    async def inside() -> tuple[object, object]:
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop(), asyncio.current_task()

    async def outside() -> None:
        before = asyncio.get_running_loop(), asyncio.current_task()
        running, task = loop.run(inside())
        assert running is loop
        assert task is not before[1]
        assert (asyncio.get_running_loop(), asyncio.current_task()) == before
        await asyncio.sleep(0)

    asyncio.run(outside())


def test_it_runs_where_no_loop_does(loop: ProcessLoop) -> None:
    async def inside() -> int:
        await asyncio.sleep(0.001)
        return 1

    assert loop.run(inside()) == 1
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_what_is_raised_inside_is_raised_outside(loop: ProcessLoop) -> None:
    async def inside() -> None:
        raise ZeroDivisionError

    async def outside() -> None:
        with pytest.raises(ZeroDivisionError):
            loop.run(inside())
        await asyncio.sleep(0)

    asyncio.run(outside())


def test_what_is_at_once_lets_nothing_else_run(loop: ProcessLoop) -> None:
    ran: list[int] = []
    heard = asyncio.Event()

    async def wait() -> None:
        await heard.wait()
        ran.append(1)

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(wait())
        await turns()
        return task

    async def set_it() -> object:
        heard.set()
        return asyncio.get_running_loop()

    async def join(task: asyncio.Task[None]) -> None:
        await task

    waiting = loop.run(begin())
    assert loop.at_once(set_it()) is loop
    assert ran == []
    loop.run(join(waiting))
    assert ran == [1]
    with pytest.raises(RuntimeError, match="waits for something"):
        loop.at_once(turns())


def test_a_killed_process_never_runs_again(loop: ProcessLoop) -> None:
    ran: list[str] = []
    gates = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
    rang: list[str] = []

    async def child(gate: asyncio.Event) -> None:
        try:
            await gate.wait()
            ran.append("child")
        finally:
            ran.append("finally")

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            ran.append("generator")

    async def iterate() -> None:
        async for _ in numbers():
            await gates[0].wait()

    async def parent() -> None:
        running = asyncio.get_running_loop()
        children = [asyncio.create_task(child(gates[0])), asyncio.create_task(child(gates[1]))]
        running.call_later(0.01, ran.append, "timer")
        running.call_later(0.01, rang.append, "the broker's alarm", context=Context())
        children[0].add_done_callback(lambda _: ran.append("callback"))
        await asyncio.gather(iterate(), *children)

    async def innocent() -> None:
        await gates[2].wait()
        ran.append("innocent")

    async def begin() -> asyncio.Task[None]:
        other = asyncio.create_task(innocent())
        loop.spawn(process, parent())
        await turns()
        return other

    async def later(other: asyncio.Task[None]) -> None:
        gates[1].set()  # it becomes due when it is dead
        gates[2].set()
        await other
        await asyncio.sleep(0.05)

    process = Process()
    other = loop.run(begin())
    gates[0].set()  # it is due when it dies
    loop.kill(process)
    loop.run(later(other))
    gc.collect()
    assert ran == ["innocent"]
    assert rang == ["the broker's alarm"]
    loop.close()
    gc.collect()
    gates[0].set()
    assert ran == ["innocent"]


def test_a_task_that_only_its_next_turn_holds_does_not_run_its_finally_when_it_is_killed(loop: ProcessLoop) -> None:
    ran: list[str] = []

    async def work() -> None:
        try:
            while True:  # noqa: ASYNC110 - nothing but its next turn holds it
                await asyncio.sleep(0)
        finally:
            ran.append("finally")

    async def begin() -> None:
        loop.spawn(process, work())
        await turns()

    process = Process()
    loop.run(begin())
    loop.kill(process)
    gc.collect()
    assert ran == []


def test_one_of_two_processes_lives_on(loop: ProcessLoop) -> None:
    ran: list[str] = []

    async def work(name: str) -> None:
        await asyncio.sleep(0.01)
        ran.append(name)

    async def begin() -> None:
        for name, process in processes.items():
            loop.spawn(process, work(name))
        await turns()

    async def later() -> None:
        await asyncio.sleep(0.05)

    processes = {"dead": Process(), "alive": Process()}
    loop.run(begin())
    loop.kill(processes["dead"])
    loop.run(later())
    assert ran == ["alive"]


def test_closing_ends_what_is_alive_and_lets_the_dead_rest(loop: ProcessLoop) -> None:
    ran: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ran.append(name)

    async def begin() -> None:
        loop.spawn(process, work("dead"))
        tasks.append(asyncio.create_task(work("alive")))
        await turns()

    process, tasks = Process(), list[asyncio.Task[None]]()
    loop.run(begin())
    loop.kill(process)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.close()
        loop.close()
    assert tasks[0].cancelled()
    assert ran == ["alive"]


def test_the_connections_of_a_killed_process_are_closed() -> None:
    loop = ProcessLoop()
    here, there = socket.socketpair()
    here.settimeout(5)

    async def hold() -> None:
        reader, writer = await asyncio.open_connection(sock=there)
        writer.write(b"alive")
        await reader.read()

    async def begin() -> None:
        loop.spawn(process, hold())
        await asyncio.get_running_loop().run_in_executor(None, lambda: heard.append(here.recv(5)))

    process, heard = Process(), list[bytes]()
    with here:
        loop.run(begin())
        assert heard == [b"alive"]
        loop.kill(process)
        assert here.recv(5) == b""
    loop.close()


DIES = """
import asyncio, gc
from paperboy.testing.loop import Process
from paperboy.testing import VirtualLoop

async def work():
    try:
        await asyncio.Event().wait()
    finally:
        print("finally")
        await asyncio.sleep(0)

async def begin():
    loop.spawn(process, work())
    await asyncio.sleep(0)

loop, process = VirtualLoop(), Process()
loop.run(begin())
loop.kill(process)
loop.close()
del loop, process
gc.collect()
"""


def test_not_even_the_end_of_python_wakes_the_dead() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", DIES], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
