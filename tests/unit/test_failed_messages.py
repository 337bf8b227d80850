"""Messages that are given up: what becomes of them, of dead letters that cannot be written, and of hostile ones."""

import asyncio
from typing import Any

import pytest

from paperboy import BulkHandler, DeadLetter, Retry, Table
from paperboy.errors import TopicNotFound
from paperboy.testing import EngineTest
from tests.unit.failing_kit import (
    AT_ONCE,
    cluster_of,
    committed,
    engine_of,
    handler,
    headers,
    make_anew,
    tried,
)

pytestmark = pytest.mark.time_limit(30)


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
