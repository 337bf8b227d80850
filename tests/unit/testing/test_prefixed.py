"""Topics and groups with a prefix that their user does not see."""

import pytest

from paperboy import Engine, Handler, Table
from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.errors import OffsetOutOfRange
from paperboy.testing import VirtualLoop
from paperboy.testing.prefixed import Prefix, PrefixedBroker

clicks = Table("clicks")
seen: list[str] = []


class Clicks(Handler):
    topic = ("in", "in-too")
    key_deserializer = bytes.decode

    @classmethod
    async def on_message(cls, msg, ctx):
        seen.append(msg.topic)
        clicks.update(msg.key, lambda count: count + 1, default=0)
        await ctx.send("out", msg.value)


@pytest.fixture
def cluster() -> MemoryCluster:
    cluster = MemoryCluster(partitions=1)
    for prefix in ("one.", "two."):
        cluster.create_topics([TopicSpec(prefix + name, 1) for name in ("in", "in-too", "out")])
    return cluster


def prefixed(cluster: MemoryCluster, prefix: str) -> PrefixedBroker:
    return PrefixedBroker(MemoryBroker(cluster), Prefix(prefix))


async def count_clicks(cluster: MemoryCluster, prefix: str, number: int) -> None:
    engine = Engine(Clicks, bootstrap_servers="memory://", group_id="g")
    engine.register_table(clicks)
    engine._open_broker = lambda _: prefixed(cluster, prefix)
    async with engine:
        for _ in range(number):
            await engine.send("in", b"x", key=b"a")
        await engine.caught_up()
        assert [tuple(entry) for entry in clicks.snapshot()] == [(0, "a", number)]


def run(main) -> None:
    loop = VirtualLoop()
    try:
        loop.run(main)
    finally:
        loop.close()


def test_an_engine_sees_its_own_names_and_the_broker_the_others(cluster: MemoryCluster) -> None:
    seen.clear()
    run(count_clicks(cluster, "one.", 3))
    assert seen == ["in"] * 3
    assert "one.g-clicks-changelog" in cluster.topics
    assert cluster.committed("one.g", [TopicPartition("one.in", 0)]) == {TopicPartition("one.in", 0): 3}
    assert cluster.log(TopicPartition("one.out", 0)).end_offset == 3


def test_two_prefixes_do_not_meet(cluster: MemoryCluster) -> None:
    run(count_clicks(cluster, "one.", 3))
    run(count_clicks(cluster, "two.", 2))
    assert cluster.log(TopicPartition("one.in", 0)).end_offset == 3
    assert cluster.log(TopicPartition("two.in", 0)).end_offset == 2


def test_what_was_created_is_known_and_can_be_deleted(cluster: MemoryCluster) -> None:
    async def main() -> None:
        broker = PrefixedBroker(MemoryBroker(cluster), prefix)
        await broker.start()
        await broker.create_topics([TopicSpec("new", 2)])
        described = await broker.describe_topics(["new", "none"])
        assert {name: (topic.name, topic.partitions) for name, topic in described.items()} == {"new": ("new", 2)}
        assert list(prefix.created) == ["new"]
        await broker.reset_committed("g", {TopicPartition("new", 1): 0})
        assert await broker.committed("g", [TopicPartition("new", 1)]) == {TopicPartition("new", 1): 0}
        await broker.delete_topics(["new"])
        assert "three.new" not in cluster.topics
        await broker.stop()

    prefix = Prefix("three.")
    run(main())


def test_an_offset_out_of_range_names_the_topic_that_was_asked_for(cluster: MemoryCluster) -> None:
    async def main() -> None:
        reader = prefixed(cluster, "one.").reader()
        await reader.start({TopicPartition("in", 0): 7})
        with pytest.raises(OffsetOutOfRange) as raised:
            await reader.fetch([TopicPartition("in", 0)], 0)
        assert (raised.value.topic, raised.value.partition, raised.value.offset) == ("in", 0, 7)

    run(main())
