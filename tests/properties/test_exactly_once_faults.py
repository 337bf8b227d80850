"""Exactly once on a broker that fails on demand: whatever fails, and wherever a worker dies, is as a replay."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from paperboy import BulkHandler, DeadLetter, Engine, Handler, Retry, Table
from paperboy.brokers.memory.faults import Faults, Operation
from paperboy.testing import EngineTest
from paperboy.testing.backdoor import MemoryBackdoor

KEYS = [b"a", b"b", b"c"]
MESSAGES = 40
EVERY_FIFTH = 5
"""Where messages fail, those whose value this divides."""

Sides = tuple[list[type[Handler]], dict[str, Any]]


def one_after_another(counts: Table) -> Sides:
    class Counting(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await count(counts, msg, ctx)

    return [Counting], {}


def side_by_side(counts: Table) -> Sides:
    class Counting(Handler):
        topic = "in"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg, ctx):
            await asyncio.sleep(0.001 * (msg.offset % 3))
            await count(counts, msg, ctx)

    return [Counting], {}


def in_bulk(counts: Table) -> Sides:
    class Counting(BulkHandler):
        topic = "in"

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            for msg in msgs:
                await count(counts, msg, ctx)

    return [Counting], {"bulk_mode_threshold": 10, "bulk_mode_max_records": 7}


def in_steps(counts: Table) -> Sides:
    class Counting(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await count(counts, msg, ctx)

    return [Counting], {"steps": [[Counting]]}


def with_dead_letters(counts: Table) -> Sides:
    class Counting(Handler):
        topic = "in"
        dead_letter = DeadLetter()

        @classmethod
        async def on_message(cls, msg, ctx):
            await count(counts, msg, ctx)
            fail_every_fifth(msg)

    return [Counting], {}


def with_retry_topics(counts: Table) -> Sides:
    class Counting(Handler):
        topic = "in"
        retry = Retry(delays=["2s", "5s"], via="topics")
        dead_letter = DeadLetter()

        @classmethod
        async def on_message(cls, msg, ctx):
            await count(counts, msg, ctx)
            fail_every_fifth(msg)

    return [Counting], {}


FAILING = [with_dead_letters, with_retry_topics]
SIDES = [one_after_another, side_by_side, in_bulk, in_steps, *FAILING]


async def count(counts: Table, msg: Any, ctx: Any) -> None:
    number = counts.update(msg.key, lambda before: before + 1, default=0)
    await ctx.send("out", b"%d" % number, key=msg.key)


def fail_every_fifth(msg: Any) -> None:
    if int(msg.value) % EVERY_FIFTH == 0:
        raise ValueError(msg.value)


class Oracle:
    """What a replay of the input gives."""

    def __init__(self, side: Callable[[Table], Sides]) -> None:
        self._fails = side in FAILING
        self._sent = 0
        self.counts: Counter[str] = Counter()
        self.given_up = 0

    async def send(self, test: EngineTest) -> None:
        for _ in range(MESSAGES):
            self._sent += 1
            key = KEYS[self._sent % len(KEYS)]
            await test.send("in", str(self._sent), key=key)
            if self._fails and self._sent % EVERY_FIFTH == 0:
                self.given_up += 1
            else:
                self.counts[key.decode()] += 1

    def check(self, test: EngineTest) -> None:
        sent: dict[str, list[int]] = defaultdict(list)
        for record in test.sent("out"):
            sent[record.key.decode()].append(int(record.value))
        assert sent == {key: list(range(1, counted + 1)) for key, counted in self.counts.items()}
        assert {key.decode(): value for key, value in dict(test.table("counts").items()).items()} == self.counts
        assert len({letter.value for letter in test.dead_letters("in")}) == self.given_up
        assert len(test.dead_letters("in")) == self.given_up


def exact(side: Callable[[Table], Sides], **options: Any) -> Engine:
    counts = Table("counts")
    handlers, of_its_own = side(counts)
    engine = Engine(
        *handlers,
        bootstrap_servers="memory://",
        group_id="exact",
        processing_guarantee="exactly_once",
        **of_its_own,
        **options,
    )
    engine.register_table(counts)
    return engine


def faults_of(test: EngineTest) -> Faults:
    backdoor = test._open.backdoor
    assert isinstance(backdoor, MemoryBackdoor)
    return backdoor._cluster.faults


AT_WORK: list[Operation] = ["produce", "produce_ack", "commit", "commit_ack", "end_transaction", "end_transaction_ack"]
OPENING: list[Operation] = ["fence", "committed", "offsets"]


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("operation", AT_WORK)
@pytest.mark.parametrize("side", SIDES)
async def test_whatever_fails_is_done_again_as_if_it_had_never_begun(
    side: Callable[[Table], Sides], operation: Operation, times: int
) -> None:
    oracle, engine = Oracle(side), exact(side)
    async with EngineTest(engine, topics={"out": 1}) as t:
        await oracle.send(t)
        await t.settle()
        for _ in range(times):
            t.fail_next(operation)
        await oracle.send(t)
        await t.settle()
        await t.advance("1m")
        assert 1 <= engine.status().checkpoint_failures <= times
        assert len(faults_of(t)._failures[operation]) < times, "it has hit"
        oracle.check(t)
        await oracle.send(t)
        await t.settle()
        await t.advance("1m")
        oracle.check(t)


@pytest.mark.parametrize("operation", OPENING)
@pytest.mark.parametrize("side", SIDES)
async def test_what_fails_while_a_task_goes_back_is_tried_again(
    side: Callable[[Table], Sides], operation: Operation
) -> None:
    oracle, engine = Oracle(side), exact(side)
    async with EngineTest(engine, topics={"out": 1}) as t:
        await oracle.send(t)
        await t.settle()
        t.fail_next("end_transaction_ack")
        t.fail_next(operation)
        await oracle.send(t)
        await t.settle()
        await t.advance("1m")
        assert engine.status().checkpoint_failures >= 1
        assert not faults_of(t)._failures[operation], "the fault has hit"
        oracle.check(t)


@pytest.mark.parametrize("operation", [*AT_WORK, *OPENING])
@pytest.mark.parametrize("side", SIDES)
async def test_a_worker_that_dies_at_any_step_leaves_nothing_half_done(
    side: Callable[[Table], Sides], operation: Operation
) -> None:
    oracle, engine = Oracle(side), exact(side)
    async with EngineTest(engine, topics={"out": 1}) as t:
        faults = faults_of(t)
        await oracle.send(t)
        await t.settle()
        if operation in OPENING:
            t.fail_next("end_transaction_ack")  # so that it goes back, and comes to this
        await oracle.send(t)
        faults.hold(operation)
        await t.advance("10s")
        await t.crash()
        faults.release(operation)
        await t.restart()
        await oracle.send(t)
        await t.settle()
        await t.advance("1m")
        oracle.check(t)
