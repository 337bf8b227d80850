"""Who watches the event loop, what is said when it stands still, and when an engine calls itself unwell."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from paperboy import Handler, Table
from paperboy.brokers.memory import memory_cluster
from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import LoopWatch, _Question, random_id
from paperboy.engine import watchdog as module
from paperboy.engine.health import Health, health_of
from paperboy.engine.modes import Mode
from paperboy.engine.restoring import Restoring
from paperboy.engine.source import Source
from paperboy.engine.standstill import Standstill
from paperboy.engine.status import Counters, GlobalTableStatus, Status, TaskStatus
from paperboy.engine.watchdog import Watchdog, watched
from paperboy.errors import BrokerError
from paperboy.handlers.dispatch import Dispatch
from paperboy.testing.virtual_time import VirtualLoop
from tests.contract.engine.kit import Kit, said, until

pytestmark = pytest.mark.time_limit(20)

LIMIT_SEC = 0.1


class Told:
    """What a watch has told."""

    def __init__(self) -> None:
        self.blocked: list[tuple[float, str]] = []
        self.turned: list[float] = []

    def watch(self, limit_sec: float = LIMIT_SEC) -> LoopWatch:
        def on_blocked(seconds: float, stack: str) -> None:
            self.blocked.append((seconds, stack))

        return LoopWatch(asyncio.get_running_loop(), limit_sec, on_blocked, self.turned.append)


def block_for_a_while(watch: LoopWatch | Watchdog, seconds: float) -> None:
    """The other thread is let in meanwhile."""
    never, gives_up = threading.Event(), time.monotonic() + 10
    while watch.blocked_sec() < seconds and time.monotonic() < gives_up:
        never.wait(0.001)


def watching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "paperboy watchdog"]


# One loop and its thread.


async def test_a_blocked_loop_is_told_with_the_stack_of_what_blocks_it() -> None:
    told = Told()
    watch = told.watch()
    watch.start()
    block_for_a_while(watch, 2 * LIMIT_SEC)
    await until(lambda: bool(told.turned))
    watch.end()
    [(so_far, stack)] = told.blocked
    assert LIMIT_SEC < so_far < 10
    assert "block_for_a_while" in stack


async def test_a_blockage_is_told_once_and_its_whole_length_when_it_has_ended() -> None:
    told = Told()
    watch = told.watch()
    watch.start()
    block_for_a_while(watch, 6 * LIMIT_SEC)
    await until(lambda: bool(told.turned))
    assert len(told.blocked) == 1
    assert told.turned[0] >= 6 * LIMIT_SEC > told.blocked[0][0]
    block_for_a_while(watch, 2 * LIMIT_SEC)
    await until(lambda: len(told.turned) == 2)
    watch.end()
    assert len(told.blocked) == 2, "the next one is told again"


async def test_the_end_of_a_blockage_is_told_though_the_watch_ends_with_it() -> None:
    told = threading.Event()
    turned: list[float] = []

    def on_blocked(seconds: float, stack: str) -> None:
        told.set()
        watch._ended.wait(10)  # the thread is just telling of it when it is ended

    watch = LoopWatch(asyncio.get_running_loop(), LIMIT_SEC, on_blocked, turned.append)
    watch.start()
    assert told.wait(10)
    watch.end()
    assert len(turned) == 1


async def test_a_loop_that_turns_is_left_alone() -> None:
    told = Told()
    watch = told.watch(limit_sec=2.0)
    watch.start()
    questions: set[int] = set()
    kept: list[object] = []  # so that no id comes twice

    def asked_again() -> bool:
        if id(watch._question) not in questions:
            questions.add(id(watch._question))
            kept.append(watch._question)
        return len(questions) > 5

    await until(asked_again)
    assert watch.blocked_sec() == 0.0
    watch.end()
    assert (told.blocked, told.turned) == ([], [])


def test_a_loop_that_nobody_runs_is_not_blocked_and_ends_its_thread_when_it_is_closed() -> None:
    loop, told = asyncio.new_event_loop(), Told()

    async def begin() -> LoopWatch:
        watch = told.watch()
        watch.start()
        return watch

    watch = loop.run_until_complete(begin())
    gives_up = time.monotonic() + 10
    while watch._question is None:
        assert time.monotonic() < gives_up
    began = watch._question.asked_at
    while watch._question.asked_at < began + 4 * LIMIT_SEC:  # it goes on being looked at
        assert watch.blocked_sec() == 0.0
        assert time.monotonic() < gives_up
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    watch._thread.join(10)
    assert not watch._thread.is_alive()
    assert (told.blocked, told.turned) == ([], [])


async def test_a_process_that_stood_still_as_a_whole_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 107.0])
    told = Told()
    watch = told.watch(limit_sec=1.0)
    watch._ended.set()  # its wait returns at once
    monkeypatch.setattr("paperboy.clock.time.monotonic", lambda: next(times))
    question = _Question(asked_at=99.99, answered_at=99.995)
    assert watch._look(question)
    monkeypatch.undo()
    [(seconds, stack)] = told.blocked
    assert seconds == pytest.approx(6.9)
    assert stack == ""
    assert told.turned == [pytest.approx(6.9)]


# The watchdog that engines share.


async def test_what_blocks_the_loop_stands_in_the_log_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    with watched(LIMIT_SEC, counters) as watchdog:
        block_for_a_while(watchdog, 2 * LIMIT_SEC)
        await until(lambda: counters.blocked == 1)
    [blocked], [turns] = said(caplog, "event loop blocked"), said(caplog, "event loop turns again")
    assert "test_what_blocks_the_loop_stands_in_the_log_and_is_counted" in blocked["stack"]
    assert blocked["seconds"] > LIMIT_SEC
    assert turns["seconds"] >= 2 * LIMIT_SEC
    assert {record.levelname for record in caplog.records if record.name == "paperboy.watchdog"} == {"WARNING"}


async def test_engines_on_one_loop_share_a_watchdog_and_the_last_one_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strict, lax = Counters(), Counters()
    with ExitStack() as first, watched(5.0, lax) as watchdog:
        assert first.enter_context(watched(LIMIT_SEC, strict)) is watchdog
        assert len(watching_threads()) == 1
        block_for_a_while(watchdog, 2 * LIMIT_SEC)
        await until(lambda: strict.blocked == 1)
        first.close()
        assert len(watching_threads()) == 1, "one engine is left"
        assert watchdog._watch is not None
        assert watchdog._watch.limit_sec == 5.0
    assert len(said(caplog, "event loop blocked")) == 1, "the lowest limit counts, and it is said once"
    assert lax.blocked == 0, "it was not longer than this engine's"
    assert (watching_threads(), module._watchdogs) == ([], {})


def test_a_loop_with_virtual_time_has_no_thread() -> None:
    async def run() -> None:
        with watched(LIMIT_SEC, Counters()) as watchdog:
            assert watching_threads() == []
            assert watchdog.blocked_sec() == 0.0
            await asyncio.sleep(3600)

    loop = VirtualLoop()
    loop.run(run())
    loop.close()


# The decision over a status.

TASK = TaskStatus(
    name="views[0]",
    mode=Mode.SINGLE,
    ready=True,
    lag=0,
    positions={"views[0]": 7},
    buffered=0,
    restoring=None,
    standing_sec=0.0,
    failures=0,
)
TABLE = GlobalTableStatus(
    name="customers", topic="people", ready=True, lag=0, offsets={}, keyless=0, failing=None, restoring=None
)
WELL = Status(
    running=True,
    ready=True,
    failure=None,
    mode=Mode.SINGLE,
    step=None,
    lag=0,
    tasks=(TASK,),
    global_tables=(TABLE,),
    unassigned_sec=None,
    blocked_sec=0.0,
    **dataclasses.asdict(Counters()),
)


def task(**changes: Any) -> dict[str, Any]:
    return {"tasks": (TASK, dataclasses.replace(TASK, name="views[1]", positions={"views[1]": 7}, **changes))}


def table(**changes: Any) -> dict[str, Any]:
    return {"global_tables": (dataclasses.replace(TABLE, **changes),)}


STANDS = "Task views[1] has been standing at views[1] offset 7 for {} s, with a lag of 3."
FATAL, PASSING = False, True


def cases() -> Iterator[Any]:
    for name, changes, alive, reason in (
        ("stopped by an error", {"running": False, "failure": "ValueError('x')"}, FATAL, "ValueError('x')"),
        ("not running yet", {"running": False}, PASSING, "The engine is not running."),
        ("blocked", {"blocked_sec": 3.21}, PASSING, "The event loop has been blocked for 3.2 s."),
        ("blocked for long", {"blocked_sec": 60.0}, FATAL, "The event loop has been blocked for 60.0 s."),
        ("joining", {"unassigned_sec": 2.0}, PASSING, "The group has given this worker no assignment for 2 s."),
        ("left out", {"unassigned_sec": 60.0}, FATAL, "The group has given this worker no assignment for 60 s."),
        (
            "restoring",
            task(ready=False, restoring=Restoring(90, 100, 400, 1.0)),
            PASSING,
            "Task views[1] is being restored: 100 of 400 offsets.",
        ),
        ("stalled", task(lag=3, standing_sec=60.0), FATAL, STANDS.format(60)),
        ("failing", task(failures=2), PASSING, "Task views[1] has failed 2 times in a row to make its work durable."),
        ("table restoring", table(ready=False), PASSING, "Global table 'customers' is being restored."),
        (
            "table failing",
            table(failing="gone"),
            PASSING,
            "Global table 'customers' cannot follow topic 'people': gone",
        ),
    ):
        yield pytest.param(changes, alive, reason, id=name)


@pytest.mark.parametrize(("changes", "alive", "reason"), list(cases()))
def test_what_is_wrong_is_a_reason(changes: dict[str, Any], alive: bool, reason: str) -> None:
    health = health_of(dataclasses.replace(WELL, **changes), stalled_sec=60.0)
    assert len(health.reasons) == 1
    assert health.reasons[0].endswith(reason)
    assert (health.ok, health.alive) == (False, alive)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        task(lag=3, standing_sec=59.9),
        task(lag=None),
        {"tasks": ()},  # there are more workers than tasks
        {"global_tables": ()},
        {"handled": 9, "passed_over": 9, "checkpoint_failures": 9, "lost": 9, "blocked": 9},  # what is over is over
    ],
)
def test_an_engine_that_does_its_work_is_well(changes: dict[str, Any]) -> None:
    assert health_of(dataclasses.replace(WELL, **changes), stalled_sec=60.0) == Health(True, True, ())


def test_everything_that_is_wrong_is_said() -> None:
    health = health_of(
        dataclasses.replace(WELL, blocked_sec=2.0, **task(lag=3, standing_sec=99.0, failures=1), **table(ready=False)),
        stalled_sec=60.0,
    )
    assert [reason.split()[1] for reason in health.reasons] == ["event", "views[1]", "views[1]", "table"]
    assert (health.ok, health.alive) == (False, False)


# What stands still.


class Views(Handler):
    topic = "views"


class Stand:
    """What is looked at, and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.name, self.ready = "views[0]", True
        self.sources = [
            Source(TopicPartition("views", number), Dispatch(Views, fail_on_exception=True)) for number in range(2)
        ]
        self.standstill = Standstill(lambda: self.now)
        self.assigned = True

    def after(self, seconds: float, *positions: int, end: int | None = None, limit: int | None = None) -> float:
        """So long after the last look: how long it has been standing."""
        self.now += seconds
        for source, position in zip(self.sources, positions, strict=False):
            source.position = position
        if end is not None:
            self.sources[0].end_offset = end
        self.sources[0].limit = limit
        self.standstill.look([self], self.assigned)  # type: ignore[list-item]
        return self.standstill.standing_sec(self)  # type: ignore[arg-type]


def test_a_task_stands_from_when_it_had_something_to_do_and_did_not_move() -> None:
    stand = Stand()
    assert stand.after(1) == 0
    assert stand.after(100) == 0, "it knows of nothing"
    assert stand.after(100, end=0) == 0, "there is nothing"
    assert stand.after(1, end=5) == 1, "records have come, at most that long ago"
    assert stand.after(8) == 9
    assert stand.after(1, 3) == 0, "it has moved"
    assert stand.after(9) == 9
    assert stand.after(1, 3, 1) == 0, "in its other partition"
    assert stand.after(9, 5) == 0
    assert stand.after(100) == 0, "it has done all"


def test_a_task_that_a_step_holds_back_does_not_stand() -> None:
    stand = Stand()
    stand.after(0, 2, end=5, limit=2)
    assert stand.after(100, limit=2) == 0
    assert stand.after(1, limit=3) == 1


def test_a_task_that_is_being_restored_does_not_stand() -> None:
    stand = Stand()
    stand.ready = False
    stand.after(0, end=5)
    assert stand.after(100) == 0
    stand.ready = True
    assert stand.after(1) == 1


def test_a_worker_without_an_assignment_says_for_how_long() -> None:
    stand = Stand()
    stand.assigned = False
    stand.after(5)
    assert stand.standstill.unassigned_sec() == 5
    stand.assigned = True
    stand.after(5)
    assert stand.standstill.unassigned_sec() is None
    stand.assigned = False
    stand.after(5)
    stand.after(3)
    assert stand.standstill.unassigned_sec() == 3


# An engine, in virtual time.


def test_a_task_is_stalled_after_a_minute_and_not_before() -> None:
    async def run() -> None:
        unique = random_id()[:12]
        kit = Kit(f"memory://{unique}", unique)
        source, go_on = await kit.topic("in"), asyncio.Event()

        class Waits(Handler):
            topic = source

            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                await go_on.wait()

        engine = kit.engine(Waits)
        async with engine:
            await asyncio.sleep(3600)  # nothing to do: that is no standstill
            await kit.send_values(source, b"x")
            await asyncio.sleep(58)
            assert engine.health().ok
            await asyncio.sleep(3)
            assert not engine.health().alive
            go_on.set()
            await engine.caught_up()
            assert engine.health() == Health(True, True, ())

    loop = VirtualLoop()
    loop.run(run())
    loop.close()


def test_checkpoints_that_fail_make_it_unwell_until_one_succeeds() -> None:
    async def run() -> None:
        unique = random_id()[:12]
        kit = Kit(f"memory://{unique}", unique)
        source, table = await kit.topic("in"), Table("views")

        class Counts(Handler):
            topic = source

            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                table.update(msg.key, lambda count: count + 1, default=0)

        engine = kit.engine(Counts)
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            await kit.send(source, [(b"a", b"x")])
            for _ in range(3):
                memory_cluster(unique).faults.fail_next("produce", BrokerError("the disk is full"))
            seen: list[Health] = []
            memory_cluster(unique).faults.fail_next("commit", BrokerError("timed out"))
            while not (seen and engine.status().checkpoints):
                if not (health := engine.health()).ok:
                    seen.append(health)
                await asyncio.sleep(0.05)
            assert {reason.split(" to make")[0] for health in seen for reason in health.reasons} >= {
                f"Task {source}[0] has failed {times} times in a row" for times in (1, 2, 3)
            }
            assert all(health.alive for health in seen)
            await engine.caught_up()
            assert engine.health().ok

    loop = VirtualLoop()
    loop.run(run())
    loop.close()
