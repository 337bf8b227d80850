"""What becomes of messages that fail, with an engine around them: on a broker in memory, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from paperboy import (
    BulkHandler,
    CircuitBreaker,
    DeadLetter,
    Engine,
    Exponential,
    Handler,
    Retry,
    Table,
)
from paperboy.brokers.memory import MemoryCluster
from paperboy.brokers.protocol import Record, TopicPartition, TopicSpec
from paperboy.errors import TopicNotFound
from paperboy.testing import EngineTest

Hook = Callable[..., Awaitable[Any]]

pytestmark = pytest.mark.time_limit(30)

AT_ONCE = Exponential("1ms", factor=1, jitter=0)
EVERY_SECOND = Exponential("1s", factor=1, jitter=0)


def engine_of(*handlers: Any, **options: Any) -> Engine:
    return Engine(*handlers, **{"bootstrap_servers": "kafka.example:9092", "group_id": "g", **options})


def handler(on_message: Hook | None = None, base: type[Handler] = Handler, /, **body: Any) -> type[Handler]:
    """A handler of topic "in" with these hooks, given as plain async functions of what their names say."""
    hooks = {name: staticmethod(given) if asyncio.iscoroutinefunction(given) else given for name, given in body.items()}
    if on_message is not None:
        hooks["on_message"] = staticmethod(on_message)
    return type("Failing", (base,), {"topic": "in", **hooks})


def tried(seen: list[Any], fails: Callable[[Any], bool] = lambda msg: msg.value == b"bad") -> Hook:
    """An on_message that notes offset and attempt, and raises where it is told to."""

    async def on_message(msg: Any, ctx: Any) -> None:
        seen.append((msg.offset, ctx.attempt))
        if fails(msg):
            raise ValueError(f"offset {msg.offset}")

    return on_message


def cluster_of(t: EngineTest) -> MemoryCluster:
    cluster: MemoryCluster = t._open.backdoor._cluster  # type: ignore[attr-defined]
    return cluster


def make_anew(t: EngineTest, topic: str, partitions: int = 1, **config: str) -> None:
    cluster = cluster_of(t)
    cluster.delete_topics([topic])
    settings = {setting.replace("_", "."): value for setting, value in config.items()}
    cluster.create_topics([TopicSpec(topic, partitions, None, settings)])


def committed(t: EngineTest, topic: str = "in", partition: int = 0) -> int | None:
    where = TopicPartition(topic, partition)
    return cluster_of(t).committed("g", [where])[where]


def headers(record: Record) -> dict[str, str]:
    """Ours, without their prefix."""
    return {
        name.removeprefix("paperboy."): data.decode() for name, data in record.headers if name.startswith("paperboy.")
    }


# Dead letters.


async def test_a_handler_of_lists_gets_its_message_again_as_it_was() -> None:
    seen: list[Any] = []

    async def on_bulk(msgs: Any, ctx: Any) -> None:
        (msg,) = msgs
        seen.append((msg.topic, msg.partition, msg.offset, msg.key, msg.value, list(msg.headers), ctx.attempt))
        raise ValueError("never")

    engine = engine_of(
        handler(None, BulkHandler, on_bulk=on_bulk, retry=Retry(delays=["1s"], via="topics"), dead_letter=DeadLetter())
    )
    async with EngineTest(engine) as t:
        await t.send("in", "v", key="k", headers=[("h", b"1")])
        await t.advance("5s")
        original = ("in", 0, 0, b"k", b"v", [("h", b"1")])
        assert seen == [(*original, 1), (*original, 2)]
        (dead,) = t.dead_letters("in")
        assert (dead.key, dead.value, dead.headers[0]) == (b"k", b"v", ("h", b"1"))
        assert (headers(dead)["topic"], headers(dead)["attempts"]) == ("in", "2")
        assert sum(name == "paperboy.failed" for name, _ in dead.headers) == 1


async def test_on_error_is_told_the_attempt_that_failed_last() -> None:
    told: list[int] = []

    async def on_error(e: Exception, msg: Any, ctx: Any) -> None:
        told.append(ctx.attempt)

    seen: list[Any] = []
    engine = engine_of(handler(tried(seen), on_error=on_error, retry=Retry(attempts=3, backoff=AT_ONCE)))
    async with EngineTest(engine) as t:
        await t.send("in", "bad")
        await t.settle()
    assert seen == [(0, 1), (0, 2), (0, 3)]
    assert told == [3]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])
async def test_a_dead_letter_that_cannot_be_written_is_waited_for_and_takes_nothing_from_others(
    lanes: int, threshold: int
) -> None:
    table, handled = Table("t"), list[bytes]()

    async def on_message(msg: Any, ctx: Any) -> None:
        handled.append(msg.value)
        table[msg.key] = len(msg.value)
        if msg.value.startswith(b"bad"):
            raise ValueError("bad")

    async def on_error(e: Exception, msg: Any, ctx: Any) -> None:
        table["errors"] = table.get("errors", 0) + 1

    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        pass

    failing = handler(
        on_message,
        on_error=on_error,
        on_finished_handling=on_finished_handling,
        concurrency=lanes,
        dead_letter=DeadLetter(config={"max.message.bytes": "500"}, unwritable="wait"),
    )
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    engine.register_table(table)
    async with EngineTest(engine) as t:
        await t.stop()
        await t.send("in", "first", key="a")
        await t.send("in", "bad" + "d" * 600, key="b")
        await t.send("in", "last", key="c")
        await t.restart()
        await t.advance("25s")
        others = [value for value in handled if not value.startswith(b"bad")]
        assert others == ([b"first"] if lanes == 1 else [b"first", b"last"])
        assert len(handled) - len(others) == 3, "at 0, 10 and 20 s"
        assert t.table("t")[b"a"] == 5, "what was handled before it stays, and is committed"
        assert "errors" not in t.table("t")
        assert t.dead_letters("in") == []
        make_anew(t, "in-dlt", max_message_bytes="100000")
        await t.advance("10s")
        await t.settle()
        assert [len(dead.value) for dead in t.dead_letters("in")] == [603]
        assert t.table("t") == {b"a": 5, b"c": 4, "errors": 1}


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("via", ["waiting", "topics"])
async def test_the_time_limit_of_hooks_is_not_that_of_a_broker_that_has_to_take_the_message(
    lanes: int, via: Any
) -> None:
    seen: list[Any] = []
    retry = Retry(delays=["1s"], via=via)
    engine = engine_of(
        handler(tried(seen), concurrency=lanes, retry=retry, dead_letter=DeadLetter()), handler_timeout_sec=0.2
    )
    async with EngineTest(engine) as t:
        await t.send("in", "bad", key="a")
        await t.send("in", "good", key="a")
        for _ in range(5):  # the broker takes three seconds to tell of the topic
            t.fail_next("describe")
        await t.advance("1m")
        assert [offset for offset, _ in seen] == ([0, 0, 1] if via == "waiting" else [0, 1, 0])
        assert [headers(dead)["error.class"] for dead in t.dead_letters("in")] == ["ValueError"]


async def test_a_dead_letter_topic_that_is_deleted_is_waited_for_until_it_is_back() -> None:
    seen: list[Any] = []
    engine = engine_of(handler(tried(seen), dead_letter=DeadLetter(unwritable="wait")))
    async with EngineTest(engine) as t:
        await t.send("in", "bad")
        await t.settle()
        cluster_of(t).delete_topics(["in-dlt"])
        await t.send("in", "bad")
        await t.send("in", "good")
        await t.advance("5m")
        assert committed(t) == 1
        make_anew(t, "in-dlt")
        await t.settle()
        assert [headers(dead)["offset"] for dead in t.dead_letters("in")] == ["1"]
        assert committed(t) == 3


async def test_a_dead_letter_topic_that_is_deleted_stops_the_engine_where_nothing_else_is_said() -> None:
    engine = engine_of(handler(tried([]), dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        await t.send("in", "bad")
        await t.settle()
        cluster_of(t).delete_topics(["in-dlt"])
        await t.send("in", "good")
        await t.send("in", "bad")
        with pytest.raises(TopicNotFound, match="'in-dlt', to which a record was sent, does not exist") as raised:
            await t.settle()
        assert isinstance(raised.value.__cause__, ValueError)
        assert any("put with the dead letters in 'in-dlt'" in note for note in raised.value.__notes__)
        assert committed(t) == 2, "what came before it"


# Waiting.


async def test_a_message_that_is_tried_again_at_once_lets_the_event_loop_turn() -> None:
    turned = asyncio.Event()
    attempts = 0

    async def on_message(msg: Any, ctx: Any) -> None:
        nonlocal attempts
        attempts = ctx.attempt
        if attempts == 1:
            asyncio.get_running_loop().call_soon(turned.set)
        if not turned.is_set() and attempts < 1_000:
            ctx.retry_later(0)

    async with EngineTest(engine_of(handler(on_message))) as t:
        await t.send("in", "v")
        await t.settle()
    assert 1 < attempts < 10


async def test_what_a_bulk_did_behind_a_message_that_waits_does_not_count_it_anew() -> None:
    seen: list[Any] = []

    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        if msgs[0].offset == 0:
            ctx.skip("nothing of it is needed")

    engine = engine_of(
        handler(
            tried(seen),
            on_finished_handling=on_finished_handling,
            retry=Retry(attempts=3, backoff=EVERY_SECOND),
            dead_letter=DeadLetter(),
        ),
        bulk_mode_threshold=1,
    )
    async with EngineTest(engine) as t:
        await t.stop()
        for value in ("good", "good", "bad", "good"):
            await t.send("in", value)
        await t.restart()
        await t.settle()
        assert seen == [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]
        assert [headers(dead)["offset"] for dead in t.dead_letters("in")] == ["2"]


async def test_a_dead_letter_is_not_lost_with_the_bulk_that_it_stood_in() -> None:
    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        ctx.skip("of those that it is given")

    failing = handler(tried([]), on_finished_handling=on_finished_handling, dead_letter=DeadLetter())
    engine = engine_of(failing, bulk_mode_threshold=1)
    async with EngineTest(engine) as t:
        await t.stop()
        for value in ("good", "bad", "good"):
            await t.send("in", value)
        await t.restart()
        await t.settle()
        assert [headers(dead)["offset"] for dead in t.dead_letters("in")] == ["1"]
        assert (engine.status().passed_over, engine.status().dead_lettered) == (2, 1)


async def test_other_topics_of_a_task_go_on_while_a_message_of_lanes_waits() -> None:
    seen: list[Any] = []
    others: list[int] = []
    table = Table("t")

    async def count(msg: Any, ctx: Any) -> None:
        others.append(msg.offset)
        table["others"] = len(others)

    engine = engine_of(
        handler(tried(seen), concurrency=3, retry=Retry(delays=["1h"])),
        handler(count, topic="other"),
        fail_on_exception=False,
    )
    engine.register_table(table)
    async with EngineTest(engine) as t:
        await t.send("in", "bad", key="a")
        await t.advance("1s")
        for _ in range(3):
            await t.send("other", "v")
            await t.send("in", "good", key="b")
        await t.send("in", "good", key="a")
        await t.advance("10s")
        assert others == [0, 1, 2]
        assert seen == [(0, 1), (1, 1), (2, 1), (3, 1)]
        assert t.table("t") == {"others": 3}
        await t.advance("1h")
        assert seen[4:] == [(0, 2), (4, 1)]
        await t.send("other", "v")
        await t.settle()
        assert others == [0, 1, 2, 3]


async def test_nothing_of_a_task_that_was_given_back_is_handled_again_there() -> None:
    running = 0
    most = 0

    async def on_message(msg: Any, ctx: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ConnectionError("as some clients put it") from None
        finally:
            running -= 1

    engine = engine_of(handler(on_message, concurrency=3, retry=Retry(backoff=EVERY_SECOND)), drain_timeout_sec=1)
    async with EngineTest(engine) as t:
        await t.send("in", "v", key="k")
        await t.advance("1s")
        await t.rebalance()
        await t.advance("10s")
        assert (running, most) == (1, 1)
        await t.crash()


# The circuit breaker.

AWAY = CircuitBreaker(failures=1, within="10s", pause="30s", on=(ConnectionError,))


async def test_a_probe_that_is_given_up_does_not_close_the_breaker_of_lanes() -> None:
    running = 0
    most: list[int] = []
    is_away = True

    async def on_message(msg: Any, ctx: Any) -> None:
        nonlocal running
        running += 1
        most.append(running)
        await asyncio.sleep(0.01)
        running -= 1
        if msg.offset == 0 and len(most) > 2:
            raise ValueError("it is no fault of what is away")
        if is_away:
            raise ConnectionError("away")

    engine = engine_of(handler(on_message, concurrency=2, circuit_breaker=AWAY, dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        for number in range(6):
            await t.send("in", "v", key=str(number))
        await t.advance("29s")
        assert most == [1, 2]
        await t.advance("5s")
        assert most == [1, 2, 1, 1], "one probe after the other"
        assert [headers(dead)["error.class"] for dead in t.dead_letters("in")] == ["ValueError"]
        is_away = False
        await t.settle()
        assert engine.status().dead_lettered == 1


@pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])
@pytest.mark.parametrize("hooks", ["on_bulk", "on_finished_handling"])
async def test_a_breaker_pauses_a_handler_of_bulks_that_declares_nothing_else(threshold: int, hooks: str) -> None:
    calls = 0
    is_away = True

    async def hook(msgs: Any, ctx: Any) -> None:
        nonlocal calls
        calls += 1
        if is_away:
            raise ConnectionError("away")

    failing = handler(
        None, BulkHandler, circuit_breaker=CircuitBreaker(failures=1, on=(ConnectionError,)), **{hooks: hook}
    )
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    async with EngineTest(engine) as t:
        await t.stop()
        for _ in range(4):
            await t.send("in", "v")
        await t.restart()
        await t.advance("5s")
        assert (calls, engine.status().paused) == (1, 1)
        await t.advance("30s")
        assert (calls, engine.status().paused) == (2, 2)
        assert engine.health().ok
        is_away = False
        await t.advance("30s")
        await t.settle()
        assert engine.status().handled == 4


@pytest.mark.parametrize("lanes", [1, 3])
async def test_a_task_that_is_held_by_the_breaker_of_another_is_not_stalled(lanes: int) -> None:
    async def on_message(msg: Any, ctx: Any) -> None:
        if msg.partition == 0:
            raise ConnectionError("away")
        await asyncio.sleep(0.5)

    breaker = CircuitBreaker(failures=1, pause="5m", on=(ConnectionError,))
    engine = engine_of(handler(on_message, concurrency=lanes, circuit_breaker=breaker))
    async with EngineTest(engine, partitions=2) as t:
        for _ in range(20):
            await t.send("in", "v", key="same", partition=1)
        await t.advance("1s")
        await t.send("in", "v", key="same", partition=0)
        await t.advance("4m")
        assert engine.health().reasons == ()
        assert 0 < engine.status().handled < 10
        await t.crash()


# Hostile messages, and hostile errors.


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it cannot be said")

    __repr__ = __str__


@pytest.mark.parametrize("lanes", [1, 3])
async def test_an_error_that_cannot_be_said_is_one_all_the_same(lanes: int) -> None:
    async def on_message(msg: Any, ctx: Any) -> None:
        raise Unspeakable

    failing = handler(on_message, concurrency=lanes, retry=Retry(attempts=2, backoff=AT_ONCE), dead_letter=DeadLetter())
    async with EngineTest(engine_of(failing)) as t:
        await t.send("in", "bad")
        await t.settle()
        (dead,) = t.dead_letters("in")
        assert (headers(dead)["error.class"], headers(dead)["error.message"]) == (
            f"{__name__}.Unspeakable",
            "Unspeakable",
        )


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])
@pytest.mark.parametrize("verdict", ["skip", "dead_letter", "retry_later"])
async def test_a_verdict_counts_out_of_a_group_of_tasks_as_well(verdict: str, threshold: int, lanes: int) -> None:
    handled: list[int] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        handled.append(ctx.attempt)

        async def ask() -> None:
            if verdict == "retry_later":
                if ctx.attempt < 3:
                    ctx.retry_later("1s")
            else:
                getattr(ctx, verdict)("as the service said")

        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(10))
            group.create_task(ask())

    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        pass

    engine = engine_of(
        handler(on_message, on_finished_handling=on_finished_handling, concurrency=lanes, dead_letter=DeadLetter()),
        bulk_mode_threshold=threshold,
    )
    async with EngineTest(engine) as t:
        await t.stop()
        for _ in range(3):
            await t.send("in", "v", key="k")
        await t.restart()
        await t.settle()
        status = engine.status()
        assert handled == ([1, 2, 3] * 3 if verdict == "retry_later" else [1] * 3)
        assert (status.passed_over, status.dead_lettered, status.retried) == {
            "skip": (3, 0, 0), "dead_letter": (0, 3, 0), "retry_later": (0, 0, 6)
        }[verdict]  # fmt: skip


async def test_a_header_without_a_value_goes_with_the_dead_letter() -> None:
    engine = engine_of(handler(tried([]), dead_letter=DeadLetter()))
    async with EngineTest(engine) as t:
        nothing: Any = None
        await t.send("in", "bad", headers=[("empty", b""), ("null", nothing)])
        await t.settle()
        (dead,) = t.dead_letters("in")
        assert list(dead.headers[:3]) == [("empty", b""), ("null", None), ("paperboy.failed", b"1")]


@pytest.mark.parametrize("via", ["waiting", "topics"])
async def test_where_the_stack_makes_it_too_large_it_goes_without(via: Any) -> None:
    async def on_message(msg: Any, ctx: Any) -> None:
        raise ValueError("文" * 20_000)  # of characters so many are kept, and each is three bytes

    retry = Retry(delays=["1s"], via=via)
    async with EngineTest(engine_of(handler(on_message, retry=retry, dead_letter=DeadLetter()))) as t:
        await t.send("in", b"v" * 1_048_000)
        await t.advance("2s")
        (dead,) = t.dead_letters("in")
        assert len(dead.value) == 1_048_000
        assert headers(dead)["error.stack"] == ""
        assert headers(dead)["error.message"] == "文" * 100
        assert headers(dead)["attempts"] == "2"


@pytest.mark.parametrize("hours", [-1_000_000, 5])
async def test_a_message_of_any_time_that_its_topic_took_can_be_a_dead_letter(hours: int) -> None:
    engine = engine_of(handler(tried([]), dead_letter=DeadLetter()))
    test = EngineTest(engine)
    async with test as t:
        await t.stop()
        cluster_of(t).delete_topics(["in-dlt"])
        make_anew(t, "in", message_timestamp_after_max_ms="36000000")
        await t.restart()
        timestamp_ms = max(0, t.time_ms() + hours * 3_600_000)
        await t.send("in", "bad", timestamp_ms=timestamp_ms)
        await t.settle()
        assert [dead.timestamp for dead in t.dead_letters("in")] == [timestamp_ms]


@pytest.mark.parametrize(
    "hostile",
    [
        [("paperboy.topic", None)],
        [("paperboy.due", b"9" * 400)],
        [("paperboy.attempts", b"-7")],
        [("paperboy.topic", b"of-somebody-else"), ("paperboy.partition", b"99")],
        [("paperboy.topic", b"in"), ("paperboy.partition", b"99"), ("paperboy.offset", b"7")],
    ],
)
@pytest.mark.parametrize("lanes", [1, 3])
async def test_hostile_headers_in_a_retry_topic_do_no_harm(hostile: Any, lanes: int) -> None:
    seen: list[Any] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        seen.append((msg.topic, msg.partition, ctx.attempt))
        raise ValueError("bad")

    failing = handler(
        on_message, concurrency=lanes, retry=Retry(delays=["1s", "2s"], via="topics"), dead_letter=DeadLetter()
    )
    whole = [
        ("paperboy.failed", b"1"), ("paperboy.timestamp", b"1"), ("paperboy.group", b"g"), ("paperboy.handler", b"H"),
        ("paperboy.error.class", b"E"), ("paperboy.error.message", b""), ("paperboy.error.stack", b""),
        ("paperboy.first.failure", b"1"), ("paperboy.last.failure", b"1"), ("paperboy.partition", b"0"),
        ("paperboy.offset", b"0"), ("paperboy.topic", b"in"), ("paperboy.attempts", b"1"),
    ]  # fmt: skip
    async with EngineTest(engine_of(failing)) as t:
        await t.send("in", "first")
        await t.advance("10s")
        cluster = cluster_of(t)
        record: Any = (b"k", b"by hand", [*whole, *hostile], t.time_ms())
        cluster.topic("g-in-retry-1s").append(0, ([record], [200]), t.time_ms())
        await t.advance("20s")
        assert {place[:2] for place in seen} == {("in", 0)}
        assert [dead.value for dead in t.dead_letters("in")] == [b"first", b"by hand"]
