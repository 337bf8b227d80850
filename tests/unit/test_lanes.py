"""Messages that are handled at the same time: who may begin, what each sees, what is committed. In virtual time."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperboy import BulkHandler, ConfigurationError, Context, Engine, Handler, Table, TableError
from paperboy.brokers.protocol import ConsumerRecord, Record, TopicSpec
from paperboy.clock import random_id
from paperboy.engine.window import Window
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.handler import Message
from paperboy.tables.isolation import History, Isolation
from paperboy.tables.layer import Undo
from paperboy.tables.locks import HolderHasEnded, Locks, WouldWaitForEver
from paperboy.tables.stores.memory import MemoryStore
from paperboy.testing import EngineTest
from tests.contract.engine.kit import Kit
from tests.unit.table_kit import Task, store_frozen

SLOW = settings(max_examples=60, deadline=None)


def record(offset: int, key: bytes | None) -> Record:
    return ConsumerRecord("in", 0, offset, 0, 0, key, b"v", None, 1, 1, ())


# Which record may begin.


@given(st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=30), st.randoms(use_true_random=False))
def test_each_key_begins_in_order_and_the_position_is_the_lowest_unfinished_offset(
    keys: list[bytes | None], chance: Any
) -> None:
    window = Window()
    offsets = [2 * number + 1 for number in range(len(keys))]  # a log has gaps
    left = [record(offset, key) for offset, key in zip(offsets, keys, strict=True)]
    key_of = {each.offset: each.key for each in left}
    running: list[Any] = []
    begun: list[int] = []
    finished: set[int] = set()
    while left or running or len(window):
        step = chance.choice(["add", "begin", "begin", "finish", "finish", "cut"])
        if step == "add" and left:
            number = chance.randint(1, len(left))
            window.add(left[:number])
            del left[:number]
        elif step == "cut":
            given_back = window.cut()
            assert [each.offset for each in given_back] == sorted(each.offset for each in given_back)
            left = given_back + left
            assert len(window) == 0 or max(begun) >= max(
                offset for offset in offsets if not left or offset < left[0].offset
            ), "nothing is left behind the last that has begun"
        elif step == "begin" or not running:
            taken = window.begin()
            if taken is not None:
                running.append(taken)
                begun.append(taken.record.offset)
                others = [each.key for each in running[:-1]]
                assert taken.key is None or taken.key not in others, "one of a key at a time"
            elif window.ready == 0 and not running and not left:
                assert len(window) == 0, "somebody may always begin"
        elif step == "finish":
            taken = running.pop(chance.randrange(len(running)))
            window.finish(taken)
            finished.add(taken.record.offset)
            unfinished = [offset for offset in offsets if offset not in finished]
            if window.position is not None:
                assert all(offset in finished for offset in offsets if offset < window.position)
                taken_and_unfinished = [offset for offset in unfinished if not left or offset < left[0].offset]
                if taken_and_unfinished:
                    assert window.position <= taken_and_unfinished[0]
    assert finished == set(offsets)
    assert window.bytes == 0
    for key in {b"a", b"b", b"c"}:
        of_key = [offset for offset in begun if key_of[offset] == key]
        assert of_key == sorted(of_key)
    if offsets:
        assert window.position == offsets[-1] + 1


def test_a_key_with_many_messages_holds_up_no_other() -> None:
    window = Window()
    window.add([record(offset, b"hot") for offset in range(50)] + [record(50, b"cold"), record(51, None)])
    assert [taken.record.offset for taken in iter(window.begin, None)] == [0, 50, 51]


# What a message has read, and others have changed.


class Beside:
    """One task's table, and messages beside each other that read and write it."""

    def __init__(self) -> None:
        self.task = Task()
        self.table = Table("t")
        self.shared = self.task.hold(self.table, MemoryStore("t"))
        self.history = History()

    def begin(self) -> "InFlight":
        undo: Undo = []
        message = InFlight(Isolation({"t": self.shared}, undo, self.history))
        message.isolation.begin()
        return message

    def checkpoint(self) -> None:
        store_frozen(self.shared, self.shared.freeze())


@dataclass
class InFlight:
    isolation: Isolation

    @property
    def t(self) -> Any:
        return self.isolation.tables["t"]

    def finish(self) -> bool:
        """Whether it could: it has lost, otherwise, and left nothing."""
        won = self.isolation.conflict() is None
        if won:
            self.isolation.merge()
        self.isolation.end()
        return won


@pytest.fixture
def beside() -> Beside:
    beside = Beside()
    beside.shared.set_many([("a", 1), ("b", 2), ("d", 4)])
    beside.task.finish()
    return beside


def test_what_a_message_writes_shows_to_others_when_it_has_finished(beside: Beside) -> None:
    one, two = beside.begin(), beside.begin()
    one.t.set("a", 10)
    one.t.delete("b")
    assert (two.t.get("a"), two.t.get("b"), one.t.get("a"), one.t.get("b")) == (1, 2, 10, None)
    assert one.finish()
    three = beside.begin()
    assert (three.t.get("a"), three.t.get("b")) == (10, None)


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.get("a"),
        lambda t: t.get_many(["b", "a"]),
        lambda t: "a" in t,
        lambda t: list(t.items()),
        lambda t: list(t.keys(t.range(prefix="a"))),
        lambda t: list(t.items(t.range(start="a", stop="c"), reverse=True)),
        lambda t: next(t.items(limit=1)),
    ],
)
@pytest.mark.parametrize("change", [lambda t: t.set("a", 10), lambda t: t.delete("a"), lambda t: t.set("a", 1)])
def test_a_message_conflicts_with_what_changed_since_it_was_read(
    beside: Beside, read: Callable[[Any], object], change: Callable[[Any], object]
) -> None:
    one, two = beside.begin(), beside.begin()
    read(one.t)
    change(two.t)
    assert one.isolation.conflict() is None, "it has not finished"
    assert two.finish()
    conflict = one.isolation.conflict()
    assert conflict is not None
    assert conflict == ("t", "'a'")


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.set("a", 11),
        lambda t: t.get("b"),
        lambda t: list(t.keys(t.range(start="b"))),
        lambda t: list(t.items(t.range(stop="a"))),
        lambda t: list(t.items(limit=1, reverse=True)),
        lambda t: (t.set("a", 12), t.get("a")),
    ],
)
def test_a_message_does_not_conflict_over_what_it_has_not_read(beside: Beside, read: Callable[[Any], object]) -> None:
    one, two = beside.begin(), beside.begin()
    read(one.t)
    two.t.set("a", 10)
    assert two.finish()
    assert one.finish()


def test_a_key_that_appears_in_a_range_that_was_scanned_is_a_conflict(beside: Beside) -> None:
    one, two = beside.begin(), beside.begin()
    assert list(one.t.keys()) == ["a", "b", "d"]
    two.t.set("c", 3)
    assert two.finish()
    assert not one.finish()


def test_a_key_that_appears_beyond_where_a_scan_has_come_is_none(beside: Beside) -> None:
    one, two = beside.begin(), beside.begin()
    assert next(one.t.keys(limit=1)) == "a"
    two.t.set("c", 3)
    assert two.finish()
    assert one.finish()


def test_what_changed_before_it_was_read_is_no_conflict(beside: Beside) -> None:
    one, two = beside.begin(), beside.begin()
    two.t.set("a", 10)
    assert two.finish()
    assert one.t.get("a") == 10
    assert list(one.t.values()) == [10, 2, 4]
    assert one.finish()


def test_a_scan_stays_as_it_was_while_others_finish_and_checkpoints_pass(beside: Beside) -> None:
    beside.checkpoint()
    first = beside.begin()
    first.t.set_many([("c", 3), ("e", 5)])
    assert first.finish()
    one = beside.begin()
    scan = one.t.items()
    assert next(scan) == ("a", 1)
    two = beside.begin()
    two.t.set_many([("b", 20), ("bb", 21), ("c", 30), ("e", 50)])
    two.t.delete("d")
    assert two.finish()
    beside.checkpoint()
    assert list(scan) == [("b", 2), ("c", 3), ("d", 4), ("e", 5)]


def test_changes_are_remembered_only_while_somebody_is_in_flight_who_may_ask(beside: Beside) -> None:
    old = beside.begin()
    for number in range(100):
        other = beside.begin()
        other.t.set(number, 1)
        assert other.finish()
    assert len(beside.history.changed("t")) == 100
    young = beside.begin()
    assert old.finish()
    assert len(beside.history.changed("t")) == 0, "the young one began after all of them"
    assert young.finish()
    alone = beside.begin()
    alone.t.set("a", 1)
    assert alone.finish()
    assert len(beside.history.changed("t")) == 0


# Locks.


async def test_a_lock_is_handed_on_in_the_order_of_asking() -> None:
    locks, order = Locks(), list[str]()

    async def hold(name: str) -> None:
        await locks.take(name, [("t", b"k")])
        order.append(name)

    await hold("one")
    waiting = [asyncio.create_task(hold(name)) for name in ("two", "three")]
    await asyncio.sleep(0)
    assert order == ["one"]
    locks.release("one")
    await waiting[0]
    assert order == ["one", "two"]
    locks.release("two")
    await waiting[1]
    locks.release("three")
    assert order == ["one", "two", "three"]


async def test_who_is_cancelled_while_it_waits_is_passed_over() -> None:
    locks = Locks()
    await locks.take("one", [("t", b"k")])
    two = asyncio.create_task(locks.take("two", [("t", b"k")]))
    three = asyncio.create_task(locks.take("three", [("t", b"k")]))
    await asyncio.sleep(0)
    two.cancel()
    await asyncio.wait([two])
    locks.release("one")
    await three
    locks.release("three")
    await locks.take("four", [("t", b"k")])


async def test_two_that_would_wait_for_each_other_are_told_and_not_hung() -> None:
    locks = Locks()
    await locks.take("one", [("t", b"a")])
    await locks.take("two", [("t", b"b")])
    waiting = asyncio.create_task(locks.take("one", [("t", b"b")]))
    await asyncio.sleep(0)
    with pytest.raises(WouldWaitForEver):
        await locks.take("two", [("t", b"a")])
    locks.release("two")
    await waiting


async def test_who_waits_for_a_holder_that_has_ended_waits_in_vain() -> None:
    locks = Locks()
    await locks.take("one", [("t", b"k")])
    left_behind = asyncio.create_task(locks.take("two", [("t", b"k")]))
    await asyncio.sleep(0)
    locks.release("two")
    with pytest.raises(HolderHasEnded):
        await left_behind
    locks.release("one")
    await locks.take("three", [("t", b"k")])


async def test_keys_of_one_call_are_taken_in_one_order_so_that_nobody_waits_for_ever() -> None:
    locks = Locks()
    await locks.take("zero", [("t", b"a"), ("t", b"b")])
    one = asyncio.create_task(locks.take("one", [("t", b"b"), ("t", b"a")]))
    two = asyncio.create_task(locks.take("two", [("t", b"a"), ("t", b"b")]))
    await asyncio.sleep(0)
    locks.release("zero")
    await one
    locks.release("one")
    await two


# What a handler may say.


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "8", True, None])
def test_a_concurrency_that_is_no_number_of_messages_is_refused(wrong: Any) -> None:
    handler = type("Views", (Handler,), {"topic": "views", "concurrency": wrong})
    with pytest.raises(ConfigurationError, match=r"Views\.concurrency is .*: it must be a whole number above 0"):
        Dispatch(handler, fail_on_exception=True)


def test_a_rerun_on_conflict_that_is_no_bool_is_refused() -> None:
    handler = type("Views", (Handler,), {"topic": "views", "rerun_on_conflict": 3})
    with pytest.raises(ConfigurationError, match=r"Views\.rerun_on_conflict is 3: it must be True or False"):
        Dispatch(handler, fail_on_exception=True)


# Whole engines.


def engine_of(*handlers: Any, table: Table | None = None, **options: Any) -> Engine:
    engine = Engine(*handlers, **{"bootstrap_servers": "kafka.example:9092", "group_id": "g", **options})
    if table is not None:
        engine.register_table(table)
    return engine


@asynccontextmanager
async def memory_cluster_of(topic: str, values: Sequence[bytes]) -> AsyncIterator[str]:
    """A broker in memory, in the time of this loop, with these values in a topic."""
    kit = Kit(f"memory://{random_id()}", "lanes")
    async with kit.broker() as broker:
        await broker.create_topics([TopicSpec(topic, 1)])
        await kit.send_values(topic, *values)
        yield kit.bootstrap


@dataclass
class Plan:
    """What one message does: waits, adds its number to some keys of a table, waits again, perhaps fails."""

    key: bytes | None
    waits: tuple[float, float]
    adds_to: list[str]
    fails: bool = False


@dataclass
class Seen:
    begun: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)


PLANS = st.lists(
    st.builds(
        Plan,
        key=st.sampled_from([None, b"a", b"b", b"c", b"d"]),
        waits=st.tuples(*[st.sampled_from([0.0, 0.0, 0.001, 0.1, 0.7])] * 2),
        adds_to=st.lists(st.sampled_from(["x", "y", "z"]), max_size=2, unique=True),
        fails=st.integers(0, 9).map(lambda number: number == 0),
    ),
    min_size=1,
    max_size=40,
)


def performing(plans: list[Plan], table: Table, seen: Seen, lanes: int) -> type[Handler]:
    class Performing(Handler):
        topic = "in"
        concurrency = lanes
        rerun_on_conflict = True

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            plan = plans[msg.offset]
            seen.begun.append(msg.offset)
            await asyncio.sleep(plan.waits[0])
            for key in plan.adds_to:
                done = table.get(key, [])
                await asyncio.sleep(plan.waits[1])
                table.set(key, [*done, msg.offset])
            ctx.send("out", b"%d" % msg.offset)
            if plan.fails:
                raise ValueError("as planned")
            seen.finished.append(msg.offset)

    return Performing


@SLOW
@given(PLANS, st.sampled_from([2, 4, 16]), st.sampled_from([0.3, 5.0]))
def test_tables_outputs_and_offsets_are_those_of_one_message_after_another(
    plans: list[Plan], lanes: int, interval: float
) -> None:
    asyncio.run(_handled_as_planned(plans, lanes, interval))


async def _handled_as_planned(plans: list[Plan], lanes: int, interval: float) -> None:
    table, seen = Table("sums"), Seen()
    engine = engine_of(
        performing(plans, table, seen, lanes), table=table, fail_on_exception=False, commit_interval_sec=interval
    )
    async with EngineTest(engine, topics={"out": 1}) as t:
        for plan in plans:
            await t.send("in", b"x", key=plan.key)
        await t.settle()
        wanted: dict[str, list[int]] = defaultdict(list)
        for offset, plan in enumerate(plans):
            if not plan.fails:
                for key in plan.adds_to:
                    wanted[key].append(offset)
        found = dict(t.table("sums").items())
        assert {key: sorted(values) for key, values in found.items()} == wanted
        for key, values in found.items():
            for message_key in (b"a", b"b", b"c", b"d"):
                of_key = [offset for offset in values if plans[offset].key == message_key]
                assert of_key == sorted(of_key), f"{key}: in the order of each message key"
        sent = [int(each.value) for each in t.sent("out")]
        assert sorted(sent) == [offset for offset, plan in enumerate(plans) if not plan.fails], "each once"
        status = engine.status()
        assert status.handled == len(plans)
        assert status.passed_over == sum(plan.fails for plan in plans)
        assert status.tasks[0].positions == {"in[0]": len(plans)}
        for message_key in (b"a", b"b", b"c", b"d"):
            begun = [offset for offset in seen.begun if plans[offset].key == message_key]
            assert begun == sorted(begun), "one of a key after another, reruns included"


@SLOW
@given(PLANS, st.sampled_from([2, 8]), st.floats(0.0, 3.0), st.booleans())
def test_after_a_crash_or_a_stop_everything_is_handled_and_nothing_below_the_position_is_unfinished(
    plans: list[Plan], lanes: int, when: float, crashes: bool
) -> None:
    asyncio.run(_interrupted(plans, lanes, when, crashes))


async def _interrupted(plans: list[Plan], lanes: int, when: float, crashes: bool) -> None:
    for plan in plans:
        plan.fails = False
    table, seen = Table("sums"), Seen()
    engine = engine_of(performing(plans, table, seen, lanes), table=table, commit_interval_sec=0.4)
    async with EngineTest(engine, topics={"out": 1}) as t:
        for plan in plans:
            await t.send("in", b"x", key=plan.key)
        await t.advance(when)
        position = engine.status().tasks[0].positions["in[0]"]
        assert set(range(position)) <= set(seen.finished), "nothing below the position is unfinished"
        await (t.crash() if crashes else t.stop())
        before = len(seen.finished)
        finished_before = set(seen.finished)
        await t.restart()
        await t.settle()
        assert set(seen.finished) == set(range(len(plans)))
        if not crashes:
            again = finished_before & set(seen.finished[before:])
            assert not again, "a stop lets what has begun finish, and commits it"
            found = {key: sorted(values) for key, values in t.table("sums").items()}
            for key, values in found.items():
                assert values == [offset for offset, plan in enumerate(plans) if key in plan.adds_to]


async def test_messages_of_different_keys_wait_at_the_same_time_and_of_one_key_one_after_another() -> None:
    class Waiting(Handler):
        topic = "in"
        concurrency = 3

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            await asyncio.sleep(1.0)
            finished.append(int(msg.value))

    finished: list[int] = []
    async with EngineTest(engine_of(Waiting)) as t:
        for number, key in enumerate([b"a", b"a", b"b", None, None]):
            await t.send("in", b"%d" % number, key=key)
        await t.advance(1.5)
        assert sorted(finished) == [0, 2, 3]
        await t.advance(1.0)
        assert sorted(finished) == [0, 1, 2, 3, 4]


async def test_a_message_that_takes_long_holds_up_neither_the_others_nor_their_checkpoint() -> None:
    table = Table("done")
    begun: list[int] = []

    class Waiting(Handler):
        topic = "in"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            begun.append(msg.offset)
            table.set(msg.offset, True)
            await asyncio.sleep(100.0 if msg.offset == 3 else 0.1)

    engine = engine_of(Waiting, table=table, commit_interval_sec=5.0)
    async with EngineTest(engine) as t:
        for _ in range(20):
            await t.send("in", b"x", key=None)
        await t.advance(10.0)
        assert engine.status().tasks[0].positions == {"in[0]": 3}
        assert sorted(table_keys(table)) == [0, 1, 2, *range(4, 20)], "the one in flight has written nothing yet"
        await t.crash()
        begun.clear()
        await t.restart()
        await t.advance(200.0)
        assert sorted(begun) == list(range(3, 20)), "what had finished above it is handled again"


def table_keys(table: Table) -> list[Any]:
    """The keys that are checkpointed."""
    with table.snapshot() as snapshot:
        return [key for _, key, _ in snapshot]


async def test_a_window_is_bounded() -> None:
    begun: list[int] = []

    class Waiting(Handler):
        topic = "in"
        concurrency = 2

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            begun.append(msg.offset)
            await asyncio.sleep(1000.0 if msg.offset == 0 else 0.001)

    async with EngineTest(engine_of(Waiting, drain_timeout_sec=1.0)) as t:
        for _ in range(100):
            await t.send("in", b"x")
            await t.advance(0.5)
        assert max(begun) == 31, "16 records for each lane, from the first that has not finished"


async def test_what_a_lost_attempt_wrote_and_sent_is_gone_and_the_loss_is_counted() -> None:
    table, attempts = Table("sum"), list[int]()

    class Adding(Handler):
        topic = "in"
        concurrency = 2
        rerun_on_conflict = True
        value_deserializer = json.loads

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            attempts.append(msg.value)
            before = table.get("sum", 0)
            table.set(("seen", before), msg.value)
            await ctx.send("out", b"%d" % (before + msg.value))
            await asyncio.sleep(float(msg.value))
            table.set("sum", before + msg.value)

    engine = engine_of(Adding, table=table)
    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.send("in", b"1")
        await t.send("in", b"2")
        await t.settle()
        assert attempts == [1, 2, 2], "decoded anew"
        assert t.table("sum") == {"sum": 3, ("seen", 0): 1, ("seen", 1): 2}
        assert [each.value for each in t.sent("out")] == [b"1", b"3"]
        assert engine.status().reruns == 1


async def test_who_loses_five_times_runs_alone() -> None:
    table, beside, finished = Table("sum"), list[set[int]](), list[int]()
    running: set[int] = set()

    class Adding(Handler):
        topic = "in"
        concurrency = 8
        rerun_on_conflict = True

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            running.add(msg.offset)
            before = table.get("sum", 0)
            if msg.offset == 0:
                beside.append(running - {0})
                finished.append(before)
                await asyncio.sleep(0.1)
                beside[-1] |= running - {0}
            else:
                await asyncio.sleep(0.01)
            table.set("sum", before + 1)
            running.remove(msg.offset)

    engine = engine_of(Adding, table=table)
    async with EngineTest(engine) as t:
        await t.send("in", b"x", key="slow")
        for _ in range(100):
            await t.send("in", b"x", key="quick")
        await t.settle()
        assert t.table("sum") == {"sum": 101}
        assert engine.status().reruns == 5
    assert [bool(others) for others in beside] == [True] * 5 + [False]
    assert finished[5] <= 55, "it is let in as soon as nobody is beside it, and the others wait"


async def test_without_a_rerun_a_conflict_is_an_error_that_names_the_ways_out() -> None:
    table, asked = Table("sum"), list[Exception]()

    class Adding(Handler):
        topic = "in"
        concurrency = 2

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            before = table.get("sum", 0)
            await asyncio.sleep(1.0 + msg.offset)
            table.set("sum", before + 1)

        @classmethod
        async def on_error(cls, e: Exception, msg: Message, ctx: Context) -> None:
            asked.append(e)

    engine = engine_of(Adding, table=table)
    async with EngineTest(engine) as t:
        await t.send("in", b"x")
        await t.send("in", b"x")
        await t.settle()
        assert t.table("sum") == {"sum": 1}
        assert engine.status().passed_over == 1
    assert [type(error) for error in asked] == [TableError]
    assert str(asked[0]) == (
        "Adding has read key 'sum' of table 'sum', which another message changed before this one had finished: set"
        " rerun_on_conflict = True on the handler, hold the key with 'async with table.lock(key)' before it is read, or"
        " write under keys that belong to the message's own key."
    )


async def test_a_conflict_stops_the_engine_as_any_error_does() -> None:
    table = Table("sum")

    class Adding(Handler):
        topic = "in"
        concurrency = 2

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            before = table.get("sum", 0)
            await asyncio.sleep(1.0 + msg.offset)
            table.set("sum", before + 1)

    t = EngineTest(engine_of(Adding, table=table))
    await t.__aenter__()
    await t.send("in", b"x")
    await t.send("in", b"x")
    with pytest.raises(TableError, match="Adding has read key 'sum'"):
        await t.settle()
    await t.__aexit__(None, None, None)


async def test_who_has_only_read_does_not_conflict() -> None:
    table, read = Table("sum"), list[Any]()

    class Adding(Handler):
        topic = "in"
        concurrency = 2

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            found = table.get("sum", 0)
            await asyncio.sleep(1.0 + msg.offset)
            if msg.offset == 0:
                table.set("sum", found + 1)
            read.append(found)

    async with EngineTest(engine_of(Adding, table=table)) as t:
        await t.send("in", b"x")
        await t.send("in", b"x")
        await t.settle()
    assert read == [0, 0]


async def test_a_locked_key_is_held_until_the_message_has_finished() -> None:
    table = Table("sum")

    class Adding(Handler):
        topic = "in"
        concurrency = 8

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            async with table.lock("sum", "count"):
                before = table.get("sum", 0)
                await asyncio.sleep(0.1)
                table.set("sum", before + 1)
            await asyncio.sleep(0.1)
            async with table.lock("count"):
                table.update("count", lambda count: count + 1, 0)

    engine = engine_of(Adding, table=table)
    async with EngineTest(engine) as t:
        for _ in range(10):
            await t.send("in", b"x")
        await t.settle()
        assert t.table("sum") == {"sum": 10, "count": 10}
        assert engine.status().reruns == 0


async def test_messages_that_would_wait_for_each_other_are_run_again() -> None:
    table = Table("sum")

    class Adding(Handler):
        topic = "in"
        concurrency = 2
        rerun_on_conflict = True

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            keys = ["a", "b"] if msg.offset % 2 else ["b", "a"]
            for key in keys:
                async with table.lock(key):
                    await asyncio.sleep(0.1)
                    table.update(key, lambda count: count + 1, 0)

    engine = engine_of(Adding, table=table)
    async with EngineTest(engine) as t:
        for _ in range(6):
            await t.send("in", b"x")
        await t.settle()
        assert t.table("sum") == {"a": 6, "b": 6}
        assert engine.status().reruns > 0


async def test_a_lock_costs_nothing_where_messages_run_one_after_another() -> None:
    table = Table("sum")

    class Adding(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            async with table.lock("a"), table.lock("a", "b"):
                table.update("a", lambda count: count + 1, 0)

    async with EngineTest(engine_of(Adding, table=table)) as t:
        await t.send("in", b"x")
        await t.settle()
        assert t.table("sum") == {"a": 1}


async def test_what_a_message_leaves_running_is_told_from_its_lanes_next() -> None:
    table, told = Table("sum"), list[str]()
    stragglers: list[asyncio.Task[None]] = []

    class Leaving(Handler):
        topic = "in"
        concurrency = 2

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            async def late() -> None:
                await asyncio.sleep(0.5)
                try:
                    table.set("late", 1)
                except TableError as error:
                    told.append(str(error))

            if msg.offset < 2:
                stragglers.append(asyncio.create_task(late()))
            else:
                await asyncio.sleep(1.0)

    async with EngineTest(engine_of(Leaving, table=table)) as t:
        for _ in range(4):
            await t.send("in", b"x")
        await t.settle()
        assert t.table("sum") == {}
    assert len(told) == 2
    assert "after its message had ended" in told[0]


async def test_a_failed_message_stops_the_engine_when_those_beside_it_have_finished() -> None:
    finished: list[int] = []

    class Failing(Handler):
        topic = "in"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            ctx.send("out", b"%d" % msg.offset)
            await asyncio.sleep(1.0 if msg.offset != 1 else 0.5)
            if msg.offset == 1:
                raise ValueError("no")
            finished.append(msg.offset)

    engine = engine_of(Failing)
    t = EngineTest(engine, topics={"out": 1})
    await t.__aenter__()
    for _ in range(10):
        await t.send("in", b"x")
    with pytest.raises(ValueError, match="no") as failure:
        await t.advance(3.0)
    await t.__aexit__(None, None, None)
    assert failure.value.__notes__ == ["While handling in[0] offset 1."]
    assert sorted(finished) == [0, 2, 3], "nothing new has begun"


async def test_topics_of_a_handler_without_concurrency_wait_until_the_lanes_are_empty() -> None:
    table, running, seen = Table("sum"), list[str](), list[tuple[str, ...]]()

    class Beside(Handler):
        topic = "beside"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            running.append("beside")
            await asyncio.sleep(0.1)
            table.update(msg.offset, lambda count: count + 1, 0)
            running.remove("beside")

    class Single(Handler):
        topic = "single"

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            seen.append(tuple(running))
            running.append("single")
            table.update("single", lambda count: count + 1, 0)
            await asyncio.sleep(0.1)
            seen.append(tuple(running))
            running.remove("single")

    async with EngineTest(engine_of(Beside, Single, table=table)) as t:
        for _ in range(5):
            await t.send("beside", b"x")
            await t.send("single", b"x")
            await t.send("beside", b"x")
        await t.settle()
        assert t.table("sum") == {"single": 5} | dict.fromkeys(range(10), 1)
    assert seen == [(), ("single",)] * 5


async def test_in_bulk_mode_a_bulk_waits_for_the_lanes_and_order_holds_for_each_key() -> None:
    order: dict[bytes, list[int]] = defaultdict(list)
    modes: list[str] = []

    class Both(BulkHandler):
        topic = "in"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            await asyncio.sleep(0.001 * (msg.offset % 7))
            order[msg.key].append(msg.offset)
            modes.append("single")

        @classmethod
        async def on_bulk(cls, msgs: list[Message], ctx: Context) -> None:
            for msg in msgs:
                order[msg.key].append(msg.offset)
            modes.append("bulk")

    engine = engine_of(Both, bulk_mode_threshold=50, bulk_mode_max_records=30)
    async with EngineTest(engine) as t:
        for _ in range(3):
            for number in range(20):
                await t.send("in", b"x", key=b"%d" % (number % 5))
            await t.settle()
            for number in range(200):
                await t.send("in", b"x", key=b"%d" % (number % 5))
            await t.settle()
    assert {"single", "bulk"} == set(modes)
    assert sum(map(len, order.values())) == 660
    for offsets in order.values():
        assert offsets == sorted(offsets)


async def test_messages_that_never_wait_let_the_loop_turn() -> None:
    """In real time, which is what a turn is measured in."""
    loop = asyncio.get_running_loop()
    turn, turns = 0, list[int]()

    class Busy(Handler):
        topic = "in"
        concurrency = 64

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            turns.append(turn)
            until = loop.time() + 0.005
            while loop.time() < until:
                pass

    async with memory_cluster_of("in", [b"x"] * 100) as bootstrap:
        engine = engine_of(Busy, bootstrap_servers=bootstrap, stop_at_end=True)
        running = asyncio.create_task(engine.start())
        while not running.done():
            turn += 1
            await asyncio.sleep(0)
        await running
    assert len(turns) == 100
    assert max(Counter(turns).values()) <= 8, "20 ms at a time, for all lanes together"


async def test_a_checkpoint_waits_for_what_finishes_soon_so_that_a_crash_after_it_repeats_nothing() -> None:
    table = Table("done")

    class Waiting(Handler):
        topic = "in"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            await asyncio.sleep((0.01, 0.3, 0.07)[msg.offset % 3])
            table.set(msg.offset, True)

    engine = engine_of(Waiting, table=table, commit_interval_sec=5.0)
    async with EngineTest(engine) as t:
        for _ in range(400):
            await t.send("in", b"x")
        checkpointed = list[int]()
        for _ in range(40):
            await t.advance(0.5)
            if len(keys := table_keys(table)) > len(checkpointed):
                checkpointed = keys
                assert keys == list(range(len(keys))), "no hole"
        assert len(checkpointed) > 0


async def test_a_handler_of_messages_is_handed_each_in_every_mode_and_its_last_hook_too() -> None:
    running, most = 0, 0
    finished: list[Any] = []

    class Waiting(Handler):
        topic = "in"
        concurrency = 4

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        @classmethod
        async def on_finished_handling(cls, msgs: Any, ctx: Context) -> None:
            finished.append(msgs.offset)

    engine = engine_of(Waiting, bulk_mode_threshold=10, bulk_mode_max_records=100)
    async with EngineTest(engine) as t:
        for _ in range(150):
            await t.send("in", b"x")
        await t.settle()
    assert sorted(finished) == list(range(150))
    assert most == 4
