"""What an engine says about hooks that block it, that do not end, and about itself when it does not get on."""

import asyncio
import threading
import time

import pytest

from paperboy import Handler, HandlerTimeout
from tests.contract.engine.kit import Kit, said, until


async def test_a_hook_that_blocks_the_loop_is_reported_by_name(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    source = await kit.topic("in")

    class Blocks(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            gives_up = time.monotonic() + 10
            while engine.status().blocked_sec < 0.2 and time.monotonic() < gives_up:
                pass

    engine = kit.engine(Blocks, blocked_loop_sec=0.1)
    async with engine:
        await kit.send_values(source, b"x")
        await engine.caught_up()
        await until(lambda: engine.status().blocked >= 1)  # a busy machine may block it once more
        assert engine.health().ok
    [blocked] = [line for line in said(caplog, "event loop blocked") if "on_message" in line["stack"]]
    assert blocked["seconds"] > 0.1
    assert said(caplog, "event loop turns again")
    assert "paperboy watchdog" not in {thread.name for thread in threading.enumerate()}, "it has ended with the engine"


async def test_another_thread_finds_the_engine_unwell_while_its_loop_is_blocked(kit: Kit) -> None:
    source = await kit.topic("in")
    found: list[str] = []
    begun, asked, given_up = threading.Event(), threading.Event(), threading.Event()

    class Blocks(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            begun.set()
            if not asked.wait(10):
                given_up.set()

    engine = kit.engine(Blocks, blocked_loop_sec=0.1)

    def ask() -> None:
        begun.wait(30)
        while not found and begun.is_set() and not given_up.wait(0.001):
            found.extend(reason for reason in engine.health().reasons if "event loop" in reason)
        asked.set()

    async with engine:
        asker = threading.Thread(target=ask)
        asker.start()
        await kit.send_values(source, b"x")
        await engine.caught_up()
        await until(lambda: not asker.is_alive())
    assert "The event loop has been blocked for" in found[-1]


async def test_a_task_that_does_not_get_on_is_stalled_until_it_does(kit: Kit) -> None:
    source = await kit.topic("in")
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Waits(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            begun.set()
            await go_on.wait()

    engine = kit.engine(Waits, stalled_sec=0.3, max_buffer_bytes=1)  # what comes later is not fetched
    async with engine:
        await until(lambda: engine.health().ok)
        await kit.send_values(source, b"x")
        await begun.wait()
        await kit.send_values(source, b"y", b"z")
        await until(lambda: engine.status().lag == 3)
        await until(lambda: not engine.health().alive)
        [reason] = engine.health().reasons
        assert reason.startswith(f"Task {source}[0] has been standing at {source}[0] offset 0 for")
        assert engine.status().tasks[0].standing_sec >= 0.3
        go_on.set()
        await engine.caught_up()
        assert engine.health().ok


async def test_an_engine_that_an_error_has_stopped_is_not_alive(kit: Kit) -> None:
    source = await kit.topic("in")

    class Fails(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            raise ValueError("broken")

    engine = kit.engine(Fails)
    assert engine.health().reasons == ("The engine is not running.",)
    await kit.send_values(source, b"x")
    with pytest.raises(ValueError, match="broken"):
        await engine.start()
    assert not engine.health().alive
    assert engine.health().reasons == ("The engine stopped: ValueError('broken')",)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_message_that_takes_too_long_is_cancelled_and_passed_over(kit: Kit, concurrency: int) -> None:
    source, target, never = await kit.topic("in"), await kit.topic("out"), asyncio.Event()
    asked: list[Exception] = []

    class Waits(Handler):
        topic = source
        handler_timeout_sec = 0.2

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(target, msg.value)
            if msg.value == b"wait":
                await never.wait()

        @classmethod
        async def on_error(cls, e, msg, ctx):
            asked.append(e)

    Waits.concurrency = concurrency
    await kit.send_values(source, b"a", b"wait", b"b")
    engine = kit.engine(Waits)
    async with engine:
        await engine.caught_up()
    [error] = asked
    assert isinstance(error, HandlerTimeout)
    assert (error.topic, error.partition, error.offset) == (source, 0, 1)
    assert sorted(record.value for record in await kit.read(target)) == [b"a", b"b"]
    assert await kit.committed(source) == 3
