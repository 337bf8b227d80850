"""The contract of every broker: offsets that a group commits."""

import asyncio

import pytest

from paperboy.brokers.protocol import Broker, TopicPartition, TopicSpec
from paperboy.errors import BrokerError, NotOwner
from tests.contract.conftest import PATIENCE_SEC, OpenBroker, connected, member, new_topic, unique


async def test_a_group_that_never_committed_has_no_offsets(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = TopicPartition(await new_topic(connection), 0)
        assert await connection.committed(unique("group"), [partition]) == {partition: None}
        assert await connection.committed(unique("group"), []) == {}


async def test_what_was_committed_is_what_is_committed(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=3), unique("group")
        first, second, third = (TopicPartition(topic, number) for number in range(3))
        async with member(connection, group, topic) as one:
            await one.until_assigned(3)
            await one.consumer.commit({first: 5, second: 0}, one.generation)
            await one.consumer.commit({first: 7}, one.generation)
            assert await connection.committed(group, [third, second, first]) == {third: None, second: 0, first: 7}


async def test_a_committed_offset_may_go_back(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        partition = TopicPartition(topic, 0)
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
            await one.consumer.commit({partition: 7}, one.generation)
            await one.consumer.commit({partition: 3}, one.generation)
            assert await committed(connection, group, partition) == 3


async def test_groups_have_offsets_of_their_own(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, mine, yours = await new_topic(connection), unique("group"), unique("group")
        partition = TopicPartition(topic, 0)
        async with member(connection, mine, topic) as one:
            await one.until_assigned(1)
            await one.consumer.commit({partition: 7}, one.generation)
        assert await committed(connection, yours, partition) is None


async def test_offsets_outlive_the_members_that_committed_them(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        partition = TopicPartition(topic, 0)
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
            await one.consumer.commit({partition: 7}, one.generation)
    async with connected(broker) as connection:
        assert await committed(connection, group, partition) == 7


async def test_stopping_commits_nothing(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        partition = TopicPartition(topic, 0)
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
            one.release(offset=0)
        assert await committed(connection, group, partition) is None


async def test_a_commit_while_partitions_are_being_revoked_still_counts(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        partition = TopicPartition(topic, 0)
        async with member(connection, group, topic) as one:
            await one.until_assigned(2)
            generation = one.generation

            async def commit_last() -> None:
                one.while_revoked = None
                await one.consumer.commit({partition: 11}, generation)

            one.while_revoked = commit_last
            async with member(connection, group, topic) as two:
                await two.until_assigned(1)
                assert await committed(connection, group, partition) == 11


async def test_a_commit_from_an_older_generation_is_refused(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        partition = TopicPartition(topic, 0)
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
            over = one.generation
            await one.consumer.commit({partition: 5}, over)
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            with pytest.raises(NotOwner):
                await one.consumer.commit({partition: 9}, over)
            assert await committed(connection, group, partition) == 5
            await one.consumer.commit({partition: 6}, one.generation)
            assert await committed(connection, group, partition) == 6


async def test_the_group_confirms_the_assignment_that_is_current_and_no_other(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
            over = one.generation
            await one.consumer.confirm(over)
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            with pytest.raises(NotOwner):
                await one.consumer.confirm(over)
            await one.consumer.confirm(one.generation)


async def test_a_commit_before_the_first_assignment_is_refused(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        async with member(connection, group, topic) as one:
            with pytest.raises(NotOwner):
                await one.consumer.commit({TopicPartition(topic, 0): 1}, 0)
            await one.until_assigned(1)


async def test_a_commit_after_stopping_is_refused(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
        with pytest.raises(NotOwner):
            await one.consumer.commit({TopicPartition(topic, 0): 1}, one.generation)


async def test_a_group_without_members_is_reset_to_any_offsets(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=3), unique("group")
        first, second, third = (TopicPartition(topic, number) for number in range(3))
        async with member(connection, group, topic) as one:
            await one.until_assigned(3)
            await one.consumer.commit({first: 5, second: 6}, one.generation)
        await connection.reset_committed(group, {first: 0, third: 9})
        assert await connection.committed(group, [first, second, third]) == {first: 0, second: 6, third: 9}
        await connection.reset_committed(group, {})
        assert await connection.committed(group, [first, second, third]) == {first: 0, second: 6, third: 9}


async def test_a_group_that_never_was_is_reset_as_well(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        partition = TopicPartition(topic, 0)
        await connection.reset_committed(group, {partition: 4})
        assert await committed(connection, group, partition) == 4
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
            await one.consumer.commit({partition: 5}, one.generation)
        assert await committed(connection, group, partition) == 5


async def test_a_group_with_members_is_not_reset(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection), unique("group")
        partition = TopicPartition(topic, 0)
        async with member(connection, group, topic) as one:
            await one.until_assigned(1)
            await one.consumer.commit({partition: 5}, one.generation)
            with pytest.raises(BrokerError, match=f"'{group}' has members.*stop its workers") as caught:
                await connection.reset_committed(group, {partition: 0})
            assert type(caught.value) is BrokerError
            assert await committed(connection, group, partition) == 5
            await one.consumer.commit({partition: 6}, one.generation)
        await connection.reset_committed(group, {partition: 0})
        assert await committed(connection, group, partition) == 0


async def test_what_was_committed_for_a_topic_goes_with_it(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        deleted, stays, group = await new_topic(connection), await new_topic(connection), unique("group")
        await connection.reset_committed(group, {TopicPartition(deleted, 0): 5, TopicPartition(stays, 0): 6})
        await connection.delete_topics([deleted])
        await connection.create_topics([TopicSpec(deleted, 1)])
        async with asyncio.timeout(PATIENCE_SEC):
            while await committed(connection, group, TopicPartition(deleted, 0)) is not None:
                pass
        assert await committed(connection, group, TopicPartition(stays, 0)) == 6


async def committed(connection: Broker, group: str, partition: TopicPartition) -> int | None:
    return (await connection.committed(group, [partition]))[partition]
