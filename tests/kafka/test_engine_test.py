"""The same tests on a real Kafka: one switch takes them there."""

import asyncio
from typing import Any

import pytest

from paperboy import Engine, Handler, Table
from paperboy.brokers import open_broker
from paperboy.errors import ConfigurationError, PaperboyError, TopicNotFound
from paperboy.testing import EngineTest


class Bad(Exception):
    """What a handler raises."""


class Counting:
    """Counts clicks by key, and sends each count on."""

    def __init__(self, **options: Any) -> None:
        clicks = self.clicks = Table("clicks")
        handled = self.handled = list[bytes]()

        class Clicks(Handler):
            topic = "clicks-in"
            key_deserializer = bytes.decode

            @classmethod
            async def on_message(cls, msg, ctx):
                if msg.value == b"bad":
                    raise Bad("no")
                handled.append(msg.value)
                count = clicks.update(msg.key, lambda count: count + 1, default=0)
                await ctx.send("counts", str(count).encode(), key=msg.key.encode())

        self.engine = Engine(Clicks, bootstrap_servers="kafka.example:9092", group_id="clicks", **options)
        self.engine.register_table(clicks)

    def test(self, bootstrap: str, **options: Any) -> EngineTest:
        return EngineTest(self.engine, topics={"counts": 1}, bootstrap_servers=bootstrap, **options)


async def test_what_is_sent_is_handled_and_can_be_looked_at_on_kafka(kafka_bootstrap: str) -> None:
    counting = Counting()
    async with counting.test(kafka_bootstrap, partitions=2) as t:
        assert await t.send("clicks-in", "1", key="a", partition=1) == (1, 0)
        await t.send("clicks-in", "2", key="a", partition=1)
        await t.settle()
        assert t.table("clicks") == {"a": 2}
        assert [(record.topic, record.key, record.value) for record in t.sent("counts")] == [
            ("counts", b"a", b"1"),
            ("counts", b"a", b"2"),
        ]
        assert t.dead_letters("clicks-in") == []
        with pytest.raises(TopicNotFound, match="'count' does not exist in this test"):
            t.sent("count")
        await t.rebalance()
        await t.send("clicks-in", "3", key="a", partition=1)
        await t.settle()
        assert t.table("clicks") == {"a": 3}
        with pytest.raises(PaperboyError, match="does not fail on demand"):
            t.fail_next("commit")
        with pytest.raises(ConfigurationError, match="time is real"):
            await t.advance("1h")


async def test_two_tests_on_one_kafka_do_not_meet_and_leave_no_topics(kafka_bootstrap: str) -> None:
    created: list[str] = []
    for _ in range(2):
        counting = Counting()
        async with counting.test(kafka_bootstrap) as t:
            assert t.table("clicks") == {}
            assert t.sent("clicks-in") == []
            await t.send("clicks-in", "1", key="a")
            await t.settle()
            assert counting.handled == [b"1"]
            prefix = t._open.backdoor.prefix
            created += [f"{prefix}{name}" for name in ("clicks-in", "counts", "clicks-clicks-changelog")]
    broker = open_broker(kafka_bootstrap)
    await broker.start()
    try:
        assert await broker.describe_topics(created) == {}
    finally:
        await broker.stop()


async def test_what_a_handler_raises_comes_out_of_settle_on_kafka(kafka_bootstrap: str) -> None:
    async with Counting().test(kafka_bootstrap) as t:
        await t.send("clicks-in", "bad", key="a")
        with pytest.raises(Bad):
            await t.settle()


async def test_a_crash_on_kafka_loses_what_was_not_checkpointed(kafka_bootstrap: str) -> None:
    counting = Counting(session_timeout_sec=6, heartbeat_interval_sec=1, commit_interval_sec=60)
    async with counting.test(kafka_bootstrap) as t:
        await t.send("clicks-in", "1", key="a")
        await t.settle()
        await t.send("clicks-in", "2", key="a")
        while len(counting.handled) < 2:
            await t.advance("50ms")
        await t.crash()
        began = asyncio.get_running_loop().time()
        await t.restart()
        assert asyncio.get_running_loop().time() - began > 3, "the session had to end"
        await t.settle()
        assert t.table("clicks") == {"a": 2}
        assert counting.handled == [b"1", b"2", b"2"]
