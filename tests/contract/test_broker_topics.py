"""The contract of every broker: creating topics, and saying how they are."""

import asyncio

import pytest

from paperboy.brokers.protocol import Broker, TopicPartition, TopicSpec
from paperboy.errors import BrokerError
from tests.contract.conftest import (
    PATIENCE_SEC,
    OpenBroker,
    connected,
    new_partition,
    new_topic,
    read_all,
    reading,
    unique,
    write,
)

DEFAULTS = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "retention.ms": "604800000",
    "delete.retention.ms": "86400000",
    "segment.ms": "604800000",
    "min.cleanable.dirty.ratio": "0.5",
    "max.compaction.lag.ms": "9223372036854775807",
    "min.insync.replicas": "1",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": "3600000",
}


async def test_a_topic_that_does_not_exist_is_not_described_and_not_created(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        missing = unique("topic")
        existing = await new_topic(connection)
        assert list(await connection.describe_topics([missing, existing])) == [existing]
        assert await connection.describe_topics([missing]) == {}
        assert await connection.describe_topics([]) == {}


async def test_a_topic_has_the_partitions_it_was_created_with(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=5)
        assert await partitions_of(connection, topic) == 5


async def test_a_created_topic_can_be_used_at_once(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2)
        await write(connection, TopicPartition(topic, 1), b"a")
        assert await connection.end_offsets([TopicPartition(topic, 1)]) == {TopicPartition(topic, 1): 1}


async def test_creating_a_topic_again_leaves_it_as_it_is(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2, config={"retention.ms": "1000000"})
        await write(connection, TopicPartition(topic, 0), b"a")
        await connection.create_topics([TopicSpec(topic, 3, config={"retention.ms": "2000000"})])
        assert await partitions_of(connection, topic) == 2
        assert (await connection.describe_topics([topic]))[topic].config["retention.ms"] == "1000000"
        assert await connection.end_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 1}


async def test_one_topic_that_exists_does_not_keep_others_from_being_created(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        existing, new = await new_topic(connection), unique("topic")
        await connection.create_topics([TopicSpec(existing, 1), TopicSpec(new, 1)])
        assert sorted(await connection.describe_topics([existing, new])) == sorted([existing, new])


async def test_a_topic_is_described_with_its_effective_settings(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        kept = {"retention.ms": DEFAULTS["retention.ms"]}  # the tests' Kafka keeps everything for ever
        plain = await new_topic(connection, config=kept)
        config = (await connection.describe_topics([plain]))[plain].config
        assert {name: config.get(name) for name in DEFAULTS} == DEFAULTS
        given = {**kept, "cleanup.policy": "compact", "max.message.bytes": "5000", "segment.ms": "100000"}
        other = await new_topic(connection, config=given)
        config = (await connection.describe_topics([other]))[other].config
        assert {name: config.get(name) for name in DEFAULTS} == DEFAULTS | given


async def test_a_topic_tells_how_many_brokers_have_it(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        assert (await connection.describe_topics([topic]))[topic].replication_factor == 1


async def test_a_topic_has_an_id_of_its_own_that_stays(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        one, other = await new_topic(connection), await new_topic(connection)
        described = await connection.describe_topics([one, other])
        assert described[one].id
        assert described[one].id != described[other].id
        await connection.create_topics([TopicSpec(one, 1)])
    async with connected(broker) as connection:
        assert (await connection.describe_topics([one]))[one].id == described[one].id


async def test_a_topic_that_is_deleted_and_made_anew_has_another_id_and_no_records(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2)
        await write(connection, TopicPartition(topic, 0), b"a", b"b")
        before = (await connection.describe_topics([topic]))[topic]
        await connection.delete_topics([topic])
        assert await connection.describe_topics([topic]) == {}
        await connection.create_topics([TopicSpec(topic, 3, config={"cleanup.policy": "compact"})])
        after = (await connection.describe_topics([topic]))[topic]
        assert after.id not in ("", before.id)
        assert (after.partitions, after.config["cleanup.policy"]) == (3, "compact")
        assert await connection.end_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 0}


async def test_deleting_topics_leaves_others_alone_and_does_not_mind_missing_ones(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        deleted, stays = await new_topic(connection), await new_topic(connection)
        await write(connection, TopicPartition(stays, 0), b"a")
        await connection.delete_topics([deleted, unique("topic")])
        await connection.delete_topics([deleted])
        await connection.delete_topics([])
        assert list(await connection.describe_topics([deleted, stays])) == [stays]
        assert [record.value for record in await read_all(connection, TopicPartition(stays, 0))] == [b"a"]


async def test_a_topic_can_be_deleted_and_made_anew_again_and_again(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, ids = unique("topic"), set()
        for partitions in (1, 2, 3, 4):
            await connection.create_topics([TopicSpec(topic, partitions)])
            described = (await connection.describe_topics([topic]))[topic]
            assert described.partitions == partitions
            ids.add(described.id)
            await connection.delete_topics([topic])
        assert len(ids) == 4


async def test_whoever_waits_for_records_of_a_topic_is_not_disturbed_by_its_deletion(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        deleted, stays = await new_partition(connection), await new_partition(connection)
        async with reading(connection, {deleted: 0, stays: 0}) as reader:
            waiting = asyncio.create_task(reader.fetch([deleted, stays], PATIENCE_SEC))
            await connection.delete_topics([deleted.topic])
            await write(connection, stays, b"a")
            assert [record.value for record in (await waiting)[stays]] == [b"a"]
            assert await reader.fetch([deleted], 0.1) == {}


@pytest.mark.parametrize(
    ("partitions", "config"),
    [
        (0, {}),
        (1, {"no.such.setting": "1"}),
        (1, {"retention.ms": "a week"}),
        (1, {"cleanup.policy": "burn"}),
    ],
    ids=["no-partitions", "unknown-setting", "no-number", "no-choice"],
)
async def test_a_topic_that_cannot_be_is_refused_by_name(
    broker: OpenBroker, partitions: int, config: dict[str, str]
) -> None:
    async with connected(broker) as connection:
        name = unique("topic")
        with pytest.raises(BrokerError, match=name):
            await connection.create_topics([TopicSpec(name, partitions, config=config)])
        assert await connection.describe_topics([name]) == {}


async def test_one_topic_that_is_refused_does_not_keep_others_from_being_created(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        refused, created = unique("topic"), unique("topic")
        with pytest.raises(BrokerError, match=refused):
            await connection.create_topics([TopicSpec(refused, 0), TopicSpec(created, 1)])
        async with asyncio.timeout(PATIENCE_SEC):
            while not await connection.describe_topics([created]):
                pass


async def partitions_of(connection: Broker, topic: str) -> int:
    return (await connection.describe_topics([topic]))[topic].partitions
