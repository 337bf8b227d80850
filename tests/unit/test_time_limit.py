"""Hooks that take too long, in virtual time: who is cancelled, when, and what becomes of it."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from paperboy import BulkHandler, ConfigurationError, Engine, Handler, HandlerTimeout, Table
from paperboy.clock import random_id
from paperboy.handlers.dispatch import Dispatch
from paperboy.testing.virtual_time import VirtualLoop
from tests.contract.engine.kit import Kit, said, until

LIMIT_SEC = 10.0


class Job:
    """An input, a table, and the engine of a handler of this test's."""

    def __init__(self, kit: Kit, source: str, target: str) -> None:
        self.kit, self.source, self.target = kit, source, target
        self.table = Table("seen")
        self.did: list[tuple[Any, int, float]] = []
        self.never = asyncio.Event()

    def note(self, what: Any, offset: int) -> None:
        self.did.append((what, offset, asyncio.get_running_loop().time() - self.began))

    async def engine(self, handler: type[Handler], *values: bytes, with_table: bool = True, **options: Any) -> Engine:
        """With these values sent; the values are also their keys."""
        handler.topic = self.source
        await self.kit.send(self.source, [(value, value) for value in values])
        engine = self.kit.engine(handler, **{"handler_timeout_sec": LIMIT_SEC, "drain_timeout_sec": 100.0, **options})
        if with_table:
            engine.register_table(self.table)
        self.began = asyncio.get_running_loop().time()
        return engine

    async def to_the_end(self, engine: Engine) -> dict[Any, Any]:
        """The table, when all is handled."""
        async with engine:
            await engine.caught_up()
            return {entry.key: entry.value for entry in self.table.snapshot()} if engine._tables else {}


def turned(test: Callable[[Job], Coroutine[Any, Any, None]]) -> None:
    """Run it in a loop with virtual time."""

    async def run() -> None:
        unique = random_id()[:12]
        kit = Kit(f"memory://{unique}", unique)
        await test(Job(kit, await kit.topic("in"), await kit.topic("out")))

    loop = VirtualLoop()
    try:
        loop.run(run())
    finally:
        loop.close()


def waiting(job: Job, **body: Any) -> type[Handler]:
    """Writes each message to the table and sends it, and waits for ever on those that say ``wait``."""

    class Waits(Handler):
        @classmethod
        async def on_message(cls, msg: Any, ctx: Any) -> None:
            job.note("began", msg.offset)
            if engine_has_table(cls):
                job.table[msg.key] = msg.value
            await ctx.send(job.target, msg.value, partition=0)
            if msg.value == b"wait":
                await job.never.wait()

    def engine_has_table(cls: Any) -> bool:
        return getattr(cls, "writes", True)

    return type("Waits", (Waits,), body)


def passing_over(job: Job) -> Any:
    async def on_error(cls: Any, e: Exception, msg: Any, ctx: Any) -> None:
        job.note(e, msg.offset)

    return classmethod(on_error)


async def outputs(job: Job) -> list[bytes | None]:
    return [record.value for record in await job.kit.read(job.target)]


def test_a_message_that_takes_too_long_stops_the_engine_with_a_sentence() -> None:
    async def test(job: Job) -> None:
        engine = await job.engine(waiting(job), b"a", b"wait", b"b")
        with pytest.raises(HandlerTimeout) as caught:
            await engine.start()
        error = caught.value
        assert str(error).startswith(f"{job.source}[0] offset 1 took longer than 10 s (handler_timeout_sec)")
        assert (error.topic, error.partition, error.offset) == (job.source, 0, 1)
        assert await job.kit.committed(job.source) == 1, "not committed: the next start begins with it"

    turned(test)


@pytest.mark.parametrize("bulk_mode_threshold", [1, 1000], ids=["bulk", "single"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_on_error_has_its_say_and_nothing_of_the_message_is_left(bulk_mode_threshold: int, concurrency: int) -> None:
    async def test(job: Job) -> None:
        handler = waiting(job, on_error=passing_over(job), concurrency=concurrency)
        engine = await job.engine(handler, b"a", b"wait", b"b", bulk_mode_threshold=bulk_mode_threshold)
        assert await job.to_the_end(engine) == {b"a": b"a", b"b": b"b"}
        assert sorted(value for value in await outputs(job) if value) == [b"a", b"b"]
        [(error, offset, at)] = [did for did in job.did if did[0] != "began"]
        assert isinstance(error, HandlerTimeout)
        assert offset == 1
        assert LIMIT_SEC <= at <= 1.1 * LIMIT_SEC + 2  # the bulk was filled before
        assert engine.status().passed_over == 1
        assert engine.status().handled == 3

    turned(test)


def test_a_message_of_a_bulk_without_tables_fails_alone() -> None:
    async def test(job: Job) -> None:
        handler = waiting(job, on_error=passing_over(job), writes=False)
        engine = await job.engine(handler, b"a", b"wait", b"b", with_table=False, bulk_mode_threshold=1)
        await job.to_the_end(engine)
        assert [offset for what, offset, _ in job.did if what != "began"] == [1]
        assert await outputs(job) == [b"a", b"b"]

    turned(test)


def test_without_on_error_fail_on_exception_decides() -> None:
    async def test(job: Job) -> None:
        engine = await job.engine(waiting(job), b"a", b"wait", b"b", fail_on_exception=False)
        assert await job.to_the_end(engine) == {b"a": b"a", b"b": b"b"}
        assert engine.status().passed_over == 1

    turned(test)


def test_a_bulk_that_takes_too_long_fails_as_a_whole() -> None:
    async def test(job: Job) -> None:
        asked: list[Any] = []

        class Bulks(BulkHandler):
            @classmethod
            async def on_bulk(cls, msgs: Any, ctx: Any) -> None:
                for msg in msgs:
                    job.table[msg.key] = msg.value
                await job.never.wait()

            @classmethod
            async def on_bulk_error(cls, e: Exception, msgs: Any, ctx: Any) -> None:
                asked.append((type(e), [msg.offset for msg in msgs]))

        engine = await job.engine(Bulks, b"a", b"b", b"c", bulk_mode_threshold=1)
        assert await job.to_the_end(engine) == {}
        assert asked == [(HandlerTimeout, [0, 1, 2])]

    turned(test)


def test_many_messages_under_the_limit_are_left_alone() -> None:
    async def test(job: Job) -> None:
        class Slow(Handler):
            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                await asyncio.sleep(0.99 * LIMIT_SEC)
                job.note("done", msg.offset)

        await job.to_the_end(await job.engine(Slow, *[b"x"] * 9))
        assert [offset for _, offset, _ in job.did] == list(range(9))

    turned(test)


def test_a_handlers_own_limit_goes_over_the_engines() -> None:
    async def test(job: Job) -> None:
        handler = waiting(job, on_error=passing_over(job), handler_timeout_sec=100)
        await job.to_the_end(await job.engine(handler, b"wait"))
        [(error, _, at)] = [did for did in job.did if did[0] != "began"]
        assert isinstance(error, HandlerTimeout)
        assert 100 <= at <= 110

    turned(test)


def test_a_handler_may_have_for_ever() -> None:
    async def test(job: Job) -> None:
        class Long(Handler):
            handler_timeout_sec = math.inf

            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                await asyncio.sleep(100 * LIMIT_SEC)
                job.note("done", msg.offset)

        await job.to_the_end(await job.engine(Long, b"x"))
        assert len(job.did) == 1

    turned(test)


@pytest.mark.parametrize("given", [0, -1, "5", True, math.nan])
def test_a_limit_is_a_number_of_seconds(given: Any) -> None:
    handler = type("Views", (Handler,), {"topic": "views", "handler_timeout_sec": given})
    with pytest.raises(ConfigurationError, match=r"Views\.handler_timeout_sec is .*: it must be a number of seconds"):
        Dispatch(handler, fail_on_exception=True)
    with pytest.raises(ConfigurationError, match=r"handler_timeout_sec=.* must be a number above 0"):
        Engine(Handler, bootstrap_servers="memory://", group_id="x", handler_timeout_sec=given)


def test_an_error_hook_has_as_long_again_and_no_longer() -> None:
    async def test(job: Job) -> None:
        async def on_error(cls: Any, e: Exception, msg: Any, ctx: Any) -> None:
            job.note(e, msg.offset)
            await asyncio.sleep(0.9 * LIMIT_SEC if msg.offset == 0 else 10 * LIMIT_SEC)
            job.note("answered", msg.offset)

        engine = await job.engine(waiting(job, on_error=classmethod(on_error)), b"wait", b"wait")
        with pytest.raises(HandlerTimeout):
            await engine.start()
        assert [(what, offset) for what, offset, _ in job.did if isinstance(what, str)] == [
            ("began", 0), ("answered", 0), ("began", 1),
        ]  # fmt: skip
        assert await job.kit.committed(job.source) == 1

    turned(test)


def test_an_error_hook_has_as_long_again_after_a_failure_that_came_late() -> None:
    async def test(job: Job) -> None:
        class Fails(Handler):
            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                await asyncio.sleep(0.8 * LIMIT_SEC)
                raise ValueError("late")

            @classmethod
            async def on_error(cls, e: Exception, msg: Any, ctx: Any) -> None:
                await asyncio.sleep(0.8 * LIMIT_SEC)
                job.note(repr(e), msg.offset)

        await job.to_the_end(await job.engine(Fails, b"a"))
        assert [what for what, _, _ in job.did] == ["ValueError('late')"]

    turned(test)


@pytest.mark.parametrize("error", [ValueError("gave up"), asyncio.CancelledError()], ids=repr)
def test_what_a_hook_makes_of_its_cancellation_is_the_cause(error: BaseException) -> None:
    async def test(job: Job) -> None:
        class Converts(Handler):
            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                try:
                    await job.never.wait()
                except asyncio.CancelledError:
                    raise error from None

            on_error = passing_over(job)

        await job.to_the_end(await job.engine(Converts, b"x"))
        [(raised, _, _)] = job.did
        assert isinstance(raised, HandlerTimeout)
        assert raised.__cause__ is error

    turned(test)


def test_a_hook_that_ignores_its_cancellation_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test(job: Job) -> None:
        class Ignores(Handler):
            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                job.table[msg.key] = msg.value
                if msg.value == b"a":
                    try:
                        await job.never.wait()
                    except asyncio.CancelledError:
                        await asyncio.sleep(5 * LIMIT_SEC)
                else:
                    await asyncio.sleep(1)

        engine = await job.engine(Ignores, b"a", b"b")
        assert await job.to_the_end(engine) == {b"a": b"a", b"b": b"b"}, "it has finished, late, and so has the next"
        assert engine.status().passed_over == 0

    turned(test)
    lines = said(caplog, "handler ignores its cancellation")
    assert [(line["offset"], line["meaning"]) for line in lines] == [
        (0, "it is waited for"),
        (0, "it has finished all the same"),
    ]


def test_a_cancellation_that_was_ignored_is_not_laid_at_the_next_messages_door(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(job: Job) -> None:
        class Ignores(Handler):
            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                if msg.value == b"a":
                    try:
                        await job.never.wait()
                    except asyncio.CancelledError:
                        return
                raise ValueError("its own")

            on_error = passing_over(job)

        await job.to_the_end(await job.engine(Ignores, b"a", b"b"))
        assert [(repr(error), offset) for error, offset, _ in job.did] == [("ValueError('its own')", 1)]

    turned(test)
    assert [line["offset"] for line in said(caplog, "handler ignores its cancellation")] == [0]


def test_a_drain_that_cancels_a_message_is_no_time_out() -> None:
    async def test(job: Job) -> None:
        handler = waiting(job, on_error=passing_over(job))
        engine = await job.engine(handler, b"a", b"wait", drain_timeout_sec=1.0)
        async with engine:
            await until(lambda: len(job.did) == 2)
        assert [what for what, _, _ in job.did] == ["began", "began"]
        assert await job.kit.committed(job.source) == 1

    turned(test)


def test_a_drain_that_cancels_what_its_limit_has_cancelled_already_comes_first() -> None:
    async def test(job: Job) -> None:
        class CleansUp(Handler):
            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                job.note("began", msg.offset)
                try:
                    await job.never.wait()
                finally:
                    await asyncio.sleep(0.5 * LIMIT_SEC)

            on_error = passing_over(job)

        async with await job.engine(CleansUp, b"a", drain_timeout_sec=0.3 * LIMIT_SEC):
            await until(lambda: len(job.did) == 1)
            await asyncio.sleep(0.9 * LIMIT_SEC)
        assert [what for what, _, _ in job.did] == ["began"], "it is no failure: it is handled again"

    turned(test)


def test_without_a_limit_there_is_no_timer() -> None:
    async def test(job: Job) -> None:
        handler = waiting(job)
        async with await job.engine(handler, b"a", handler_timeout_sec=None) as engine:
            await engine.caught_up()
            [task] = engine._tasks()
            assert task._work.time_limit._timer is None

    turned(test)
