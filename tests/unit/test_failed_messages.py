"""What becomes of messages that fail, with an engine around them: on a broker in memory, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from paperboy import (
    BulkHandler,
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
