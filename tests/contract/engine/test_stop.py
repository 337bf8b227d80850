"""How it ends: stops, signals, and what is durable then."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from paperboy import Handler, PaperboyError, Table
from tests.contract.engine.kit import Kit, until


async def test_stop_finishes_the_message_in_hand_and_commits_it(kit: Kit) -> None:
    source = await kit.topic("stopping")
    await kit.send_values(source, b"in hand", b"never")
    begun, release, handled = asyncio.Event(), asyncio.Event(), []

    class Stopping(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            begun.set()
            await release.wait()
            handled.append(msg.value)

    engine = kit.engine(Stopping)
    running = asyncio.create_task(engine.start())
    await begun.wait()
    await engine.stop()
    release.set()
    await running
    assert handled == [b"in hand"]
    assert await kit.committed(source) == 1


async def test_a_message_that_takes_too_long_is_cancelled_and_not_committed(kit: Kit) -> None:
    source, table = await kit.topic("stuck"), Table("stuck")
    await kit.send_values(source, b"fine", b"stuck")
    begun, cancelled = asyncio.Event(), []

    class Stuck(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table[msg.value] = "seen"
            if msg.value == b"stuck":
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(msg.value)
                    raise

    engine = kit.engine(Stuck, drain_timeout_sec=0.2)
    engine.register_table(table)
    running = asyncio.create_task(engine.start())
    await begun.wait()
    await engine.shutdown()
    await running
    assert cancelled == [b"stuck"]
    assert await kit.committed(source) == 1
    changelog = await kit.read(f"{kit.group}-stuck-changelog")
    assert len(changelog) == 1


async def test_an_engine_starts_once(kit: Kit) -> None:
    source = await kit.topic("once")

    class Once(Handler):
        topic = source

    engine = kit.engine(Once, stop_at_end=True)
    await engine.start()
    with pytest.raises(PaperboyError, match="was started before"):
        await engine.start()


async def test_a_handlers_exception_leaves_the_async_with_block_as_it_is(kit: Kit) -> None:
    source = await kit.topic("as-it-is")
    await kit.send_values(source, b"x")

    class Fails(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            raise LookupError("as it is")

    with pytest.raises(LookupError, match="as it is"):
        async with kit.engine(Fails) as engine:
            await engine.caught_up()


async def test_engine_send_answers_with_partition_and_offset_after_the_ack(kit: Kit) -> None:
    source = await kit.topic("publish", partitions=2)

    class Publish(Handler):
        topic = source

    engine = kit.engine(Publish)
    with pytest.raises(PaperboyError, match="the engine is not running"):
        await engine.send(source, b"too early")
    async with engine:
        assert await engine.send(source, b"one", partition=1) == (1, 0)
        assert await engine.send(source, b"two", partition=1, headers=[("h", b"v")]) == (1, 1)
        by_key = {await engine.send(source, b"x", key=b"same") for _ in range(3)}
        assert len({partition for partition, _ in by_key}) == 1
    records = await kit.read(source)
    assert [record.value for record in records if record.headers] == [b"two"]


async def test_signal_handlers_are_taken_in_start_and_given_back(kit: Kit) -> None:
    source = await kit.topic("signals")

    class Signals(Handler):
        topic = source

    before = signal.getsignal(signal.SIGTERM)
    engine = kit.engine(Signals)
    running = asyncio.create_task(engine.start())
    await until(lambda: engine.status().running)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert signal.getsignal(signal.SIGTERM) is before

    mine = lambda number, frame: None  # noqa: E731
    signal.signal(signal.SIGTERM, mine)
    try:
        engine = kit.engine(Signals)
        running = asyncio.create_task(engine.start())
        await until(lambda: engine.status().running)
        assert signal.getsignal(signal.SIGTERM) is mine
        await engine.stop()
        await running
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_exit_code_0(sent: signal.Signals) -> None:
    program = textwrap.dedent("""
        import asyncio
        from paperboy import Engine, Handler
        class V(Handler):
            topic = "views"
            @classmethod
            async def on_finished_handling(cls, msgs, ctx):
                pass
        engine = Engine(V, bootstrap_servers="memory://", group_id="g")
        async def main():
            running = asyncio.create_task(engine.start())
            while not engine.status().running:
                await asyncio.sleep(0.01)
            print("running", flush=True)
            await running
        asyncio.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        child.send_signal(sent)
        _, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (0, b"")
