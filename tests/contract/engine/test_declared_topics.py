"""Topics that are declared: created where they are to be, compared with what is there, and used for their name."""

from dataclasses import dataclass
from typing import Any

import pytest

from paperboy import ConfigurationError, GlobalTable, Handler, SerializationError, Table, Topic
from paperboy.brokers.protocol import TopicDescription
from paperboy.serializers import Integer, Json
from tests.contract.engine.kit import Kit, said


@dataclass
class Order:
    id: str
    amount: int


ORDER = b'{"id":"o-1","amount":3}'


async def described(kit: Kit, name: str) -> TopicDescription | None:
    async with kit.broker() as broker:
        return (await broker.describe_topics([name])).get(name)


async def test_an_order_goes_from_topic_to_topic_by_what_they_are_declared_as(kit: Kit) -> None:
    source = Topic(await kit.topic("orders"), key=str, value=Order)
    target = Topic(await kit.topic("amounts"), key=str, value=Integer())

    class Orders(Handler[Order]):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(target, msg.value.amount, key=msg.key)
            await ctx.send(target, None, key=msg.key)
            await ctx.send(target, msg.value, key=1, serializer=Json(Order), key_serializer=Integer())
            with pytest.raises(
                SerializationError, match=rf"value sent to topic {target.name!r} could not be .*Integer"
            ):
                await ctx.send(target, "3")

    async with kit.engine(Orders) as engine:
        await engine.send(source, Order("o-1", 3), key="anna")
        await engine.caught_up()
    assert [(record.key, record.value) for record in await kit.read(source.name)] == [(b"anna", ORDER)]
    assert [(record.key, record.value) for record in await kit.read(target.name)] == [
        (b"anna", b"\0\0\0\3"),
        (b"anna", None),
        (b"\0\0\0\1", ORDER),
    ]


async def test_headers_are_str_or_bytes_and_keep_their_order_and_duplicates(kit: Kit) -> None:
    source, target = await kit.topic("in"), await kit.topic("out")
    given: list[tuple[str, str | bytes]] = [("b", "é"), ("a", b"\xff"), ("b", "é"), ("b", ""), ("é", b"")]
    seen: list[Any] = []

    class Forward(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(tuple(msg.headers))
            await ctx.send(target, msg.value, headers=[*msg.headers, ("via", "paperboy")])

    async with kit.engine(Forward) as engine:
        await engine.send(source, b"x", headers=given)
        await engine.caught_up()
    expected = (("b", "é".encode()), ("a", b"\xff"), ("b", "é".encode()), ("b", b""), ("é", b""))
    assert seen == [expected]
    assert [tuple(record.headers) for record in await kit.read(target)] == [(*expected, ("via", b"paperboy"))]


async def test_what_is_to_be_there_is_created_as_declared(kit: Kit) -> None:
    source = Topic(f"in-{kit.unique}", partitions=3, config={"retention.ms": 1_000_000}, ensure=True)
    target = Topic(f"out-{kit.unique}", partitions=2, replication_factor=1, ensure=True)
    shown = Topic(f"shown-{kit.unique}", key=str, value=str, partitions=2, ensure=True)

    class Forward(Handler):
        topic = source
        outputs = (target,)

    engine = kit.engine(Forward)
    engine.register_table(GlobalTable("shown", shown))
    engine.register_table(Table("counts"))
    async with engine:
        await engine.caught_up()
    made = {name: await described(kit, name) for name in (source.name, target.name, shown.name)}
    assert {name: topic and topic.partitions for name, topic in made.items()} == {
        source.name: 3, target.name: 2, shown.name: 2,
    }  # fmt: skip
    assert made[source.name].config["retention.ms"] == "1000000"  # type: ignore[union-attr]
    assert made[shown.name].config["cleanup.policy"] == "compact"  # type: ignore[union-attr]


async def test_what_is_not_as_declared_is_reported_with_both_values_and_left_as_it_is(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    name = await kit.topic("in", partitions=2, retention_ms="2000000")
    declared = {"retention.ms": 1_000_000, "cleanup.policy": "delete"}
    source = Topic(name, partitions=3, replication_factor=2, config=declared, ensure=True)

    class Nothing(Handler):
        topic = source

    async with kit.engine(Nothing) as engine:
        await engine.caught_up()
    assert [
        (each["topic"], each["setting"], each["declared"], each["found"]) for each in said(caplog, "topic not")
    ] == [
        (name, "partitions", "3", "2"),
        (name, "replication factor", "2", "1"),
        (name, "retention.ms", "1000000", "2000000"),
    ]
    found = await described(kit, name)
    assert found is not None
    assert (found.partitions, found.config["retention.ms"]) == (2, "2000000")


async def test_a_changelog_that_is_not_as_its_table_says_is_reported(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    source = await kit.topic("in")
    changelog = await kit.changelog("counts", 1, segment_ms="2000000")

    class Nothing(Handler):
        topic = source

    engine = kit.engine(Nothing)
    engine.register_table(Table("counts", changelog_topic_segment_ms=1_000_000))
    async with engine:
        await engine.caught_up()
    [line] = said(caplog, "topic not as declared")
    assert (line["topic"], line["setting"], line["declared"], line["found"]) == (
        changelog, "segment.ms", "1000000", "2000000",
    )  # fmt: skip


async def test_what_is_as_declared_is_not_spoken_of(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    source = Topic(await kit.topic("in", partitions=2, retention_ms="1000000"), partitions=2, replication_factor=1)

    class Nothing(Handler):
        topic = source

    async with kit.engine(Nothing) as engine:
        await engine.caught_up()
    assert said(caplog, "topic not as declared") == []


async def test_an_engine_that_may_not_create_lists_what_is_missing(kit: Kit) -> None:
    source = Topic(await kit.topic("in"))
    target = Topic(f"out-{kit.unique}", partitions=2, config={"retention.ms": 1_000}, ensure=True)

    class Forward(Handler):
        topic = source
        outputs = (target,)

    with pytest.raises(
        ConfigurationError,
        match=rf"create_topics='never'.* missing: '{target.name}' \(2 partitions, retention.ms=1000\)",
    ):
        await kit.engine(Forward, create_topics="never").start()
    assert await described(kit, target.name) is None


async def test_an_output_that_is_not_there_stops_the_start_where_topics_are_not_ours_to_create(kit: Kit) -> None:
    source, target = await kit.topic("in"), f"out-{kit.unique}"

    class Forward(Handler):
        topic = source
        outputs = (target,)

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(target, msg.value)

    if kit.bootstrap.startswith("memory:"):
        await kit.send_values(source, b"x")
        async with kit.engine(Forward) as engine:
            await engine.caught_up()
        assert [record.value for record in await kit.read(target)] == [b"x"]
        return
    with pytest.raises(ConfigurationError, match=rf"Topic '{target}', which handlers name in outputs=\[…\]: not found"):
        await kit.engine(Forward).start()
