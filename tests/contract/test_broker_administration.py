"""The contract of every broker: what the `paperboy` command asks of it beyond what an engine does."""

from typing import cast

import pytest

from paperboy.brokers.protocol import Broker, TopicPartition, TopicSpec
from paperboy.cli.administration import Administration
from paperboy.errors import BrokerError, TopicNotFound
from tests.contract.conftest import (
    OpenBroker,
    connected,
    new_partition,
    new_topic,
    read_all,
    truncate,
    unique,
    write,
    write_records,
)


def administration(connection: Broker) -> Administration:
    return cast(Administration, connection)


async def test_every_topic_is_listed(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topics = sorted([await new_topic(connection), await new_topic(connection)])
        names = await administration(connection).topic_names()
        assert [name for name in names if name in topics] == topics
        assert unique("topic") not in names


async def test_a_topic_can_be_made_again_with_settings_of_its_own_as_it_was(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        own = {"cleanup.policy": "compact", "max.message.bytes": "5000", "segment.ms": "604800000"}
        topic = await new_topic(connection, partitions=3, config=own)
        specs = await administration(connection).topic_specs([topic])
        assert specs == {topic: TopicSpec(topic, 3, replication_factor=1, config=own)}
        described = (await connection.describe_topics([topic]))[topic]
        await connection.delete_topics([topic])
        await connection.create_topics([specs[topic]])
        again = (await connection.describe_topics([topic]))[topic]
        assert (again.partitions, again.config) == (described.partitions, described.config)


async def test_a_topic_without_settings_of_its_own_has_none(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        specs = await administration(connection).topic_specs([unique("topic"), topic])
        assert specs == {topic: TopicSpec(topic, 1, replication_factor=1)}
        assert await administration(connection).topic_specs([]) == {}


async def test_offsets_are_found_by_time(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition, empty = await new_partition(connection), await new_partition(connection)
        now = connection.clock.time_ms()
        await write_records(
            connection, partition, [(None, b"", (), now + after) for after in (-5000, -3000, -4000, -1000)]
        )
        for ago_ms, offset in ((5000, 0), (4999, 1), (3000, 1), (2999, 3), (1000, 3), (0, 4), (now, 0), (now + 1, 0)):
            found = await administration(connection).offsets_since([partition, empty], now - ago_ms)
            assert found == {partition: offset, empty: 0}, ago_ms


async def test_what_was_deleted_is_not_found_by_its_time(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        await write_records(connection, partition, [(None, b"", (), now - 1000 + number) for number in range(4)])
        await truncate(connection, partition, before=2)
        found: dict[TopicPartition, int] = await administration(connection).offsets_since([partition], now - 1000)
        assert found == {partition: 2}


async def test_records_below_an_offset_are_deleted_and_what_is_written_next_comes_behind_those_that_stay(
    broker: OpenBroker,
) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2)
        first, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
        for partition in (first, other):
            await write(connection, partition, b"a", b"b", b"c")
        await administration(connection).delete_records({first: 2})
        assert await connection.beginning_offsets([first, other]) == {first: 2, other: 0}
        await administration(connection).delete_records({first: 3, other: 1})
        await administration(connection).delete_records({first: 1})
        await administration(connection).delete_records({})
        assert await connection.beginning_offsets([first, other]) == {first: 3, other: 1}
        await write(connection, first, b"d")
        assert [(record.offset, record.value) for record in await read_all(connection, first)] == [(3, b"d")]


async def test_records_of_a_topic_that_is_compacted_and_nothing_else_are_not_deleted(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        for policy, deletes in (("compact", False), ("compact,delete", True)):
            partition = await new_partition(connection, {"cleanup.policy": policy})
            await write_records(connection, partition, [(b"key", b"a", (), connection.clock.time_ms())])
            if deletes:
                await administration(connection).delete_records({partition: 1})
            else:
                with pytest.raises(BrokerError, match=r"Records of|Deleting records"):
                    await administration(connection).delete_records({partition: 1})
            begins = await connection.beginning_offsets([partition])
            assert begins == {partition: int(deletes)}


async def test_records_beyond_the_end_and_of_topics_that_do_not_exist_are_not_deleted(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a")
        with pytest.raises(BrokerError):
            await administration(connection).delete_records({partition: 2})
        assert await connection.beginning_offsets([partition]) == {partition: 0}
        with pytest.raises(TopicNotFound):
            await administration(connection).delete_records({TopicPartition(unique("topic"), 0): 1})
