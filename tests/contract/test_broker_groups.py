"""The contract of every broker: how a group shares partitions, and what its members are told."""

import asyncio
import dataclasses
from contextlib import suppress

import pytest

from paperboy.brokers.protocol import TopicPartition
from paperboy.errors import NotOwner
from tests.contract.conftest import (
    OPTIONS,
    PATIENCE_SEC,
    OpenBroker,
    connected,
    member,
    new_topic,
    read,
    unique,
    write,
)
from tests.contract.engine.kit import until


async def test_a_lone_member_gets_every_partition_of_its_topics_sorted(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topics = [await new_topic(connection, partitions=2), await new_topic(connection, partitions=1)]
        async with member(connection, unique("group"), *topics) as one:
            await one.until_assigned(3)
            expected = [TopicPartition(topics[0], 0), TopicPartition(topics[0], 1), TopicPartition(topics[1], 0)]
            assert one.partitions == tuple(sorted(expected))
            assert one.told == ["assigned"], "the first assignment takes nothing away"


async def test_start_returns_before_the_first_assignment(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        async with member(connection, unique("group"), topic) as one:
            assert one.told == []
            await one.until_assigned(1)


async def test_two_members_share_and_nobody_shares_a_partition(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=4), unique("group")
        async with member(connection, group, topic) as one:
            await one.until_assigned(4)
            async with member(connection, group, topic) as two:
                await one.until_assigned(2)
                await two.until_assigned(2)
                assert sorted(one.partitions + two.partitions) == [TopicPartition(topic, n) for n in range(4)]


async def test_a_join_takes_everything_away_before_it_gives_anything(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic) as one:
            await one.until_assigned(2)
            before = one.partitions
            async with member(connection, group, topic) as two:
                await one.until_assigned(1)
                await two.until_assigned(1)
                assert one.told[:3] == ["assigned", "revoked", "assigned"]
                assert sorted(one.revoked[0]) == sorted(before)
                assert two.told[0] == "assigned"


async def test_nobody_is_assigned_while_somebody_still_gives_up_its_own(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic) as one:
            await one.until_assigned(2)
            assigned_meanwhile: list[bool] = []
            async with member(connection, group, topic) as two:

                async def give_up_slowly() -> None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.3):
                            await two.until(lambda: bool(two.assignments))
                    assigned_meanwhile.append(bool(two.assignments))

                one.while_revoked = give_up_slowly
                await two.until_assigned(1)
                assert assigned_meanwhile[0] is False


async def test_a_member_that_leaves_hands_its_partitions_to_the_rest(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic) as one:
            async with member(connection, group, topic) as two:
                await one.until_assigned(1)
                await two.until_assigned(1)
            await one.until_assigned(2)


async def test_stopping_tells_the_listener_nothing(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
        assert one.told == ["assigned"]
        assert not one.consumer.owns(one.generation)


async def test_our_generation_grows_with_every_assignment(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 3)
            first, second, third = (assignment.generation for assignment in one.assignments)
            assert first < second < third


async def test_rejoin_brings_a_rebalance(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            assert one.told == ["assigned", "revoked", "assigned"]


async def test_a_rejoin_of_the_leader_rebalances_everybody(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic) as one, member(connection, group, topic) as two:
            await one.until_assigned(1)
            await two.until_assigned(1)
            leader, other = (one, two) if one.assignor.seen else (two, one)
            assignments = len(other.assignments)
            leader.consumer.rejoin()
            await other.until(lambda: len(other.assignments) > assignments)


async def test_a_rejoin_with_something_new_to_say_rebalances_everybody(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic, user_data=b"1") as one, member(connection, group, topic) as two:
            await one.until_assigned(1)
            await two.until_assigned(1)
            for each in (one, two):
                counts = len(one.assignments), len(two.assignments)
                each.assignor.about_me = b"new " + each.assignor.about_me
                each.consumer.rejoin()
                await one.until(lambda: len(one.assignments) > counts[0])  # noqa: B023 - awaited before it changes
                await two.until(lambda: len(two.assignments) > counts[1])  # noqa: B023 - as above
            seen = max(one.assignor.seen, two.assignor.seen, key=len)[-1]
            assert sorted(each.user_data for each in seen.values()) == [b"new ", b"new 1"]


async def test_a_rejoin_of_another_with_nothing_new_to_say_disturbs_nobody_else(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic) as one, member(connection, group, topic) as two:
            await one.until_assigned(1)
            await two.until_assigned(1)
            leader, other = (one, two) if one.assignor.seen else (two, one)
            told, had, assignments = list(leader.told), other.partitions, len(other.assignments)
            other.consumer.rejoin()
            await other.until(lambda: len(other.assignments) > assignments)
            assert other.partitions == had
            await leader.consumer.commit(dict.fromkeys(leader.partitions, 0), leader.generation)
            assert leader.told == told


async def test_the_assignor_hears_what_every_member_says_of_itself(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        first, second, group = await new_topic(connection), await new_topic(connection), unique("group")
        async with member(connection, group, first, user_data=b"one") as one:
            await one.until_assigned(1)
            async with member(connection, group, first, second, user_data=b"two") as two:
                await two.until_assigned(1)
                seen = (one.assignor.seen + two.assignor.seen)[-1]
                said = sorted((each.user_data, sorted(each.topics)) for each in seen.values())
                assert said == [(b"one", [first]), (b"two", sorted([first, second]))]


async def test_a_member_owns_its_generation_until_it_is_over(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            first = one.generation
            owned_while_revoked: list[bool] = []

            async def look() -> None:
                owned_while_revoked.append(one.consumer.owns(first))

            one.while_revoked = look
            assert one.consumer.owns(first)
            assert not one.consumer.owns(first + 1)
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            assert owned_while_revoked == [True]
            assert not one.consumer.owns(first)
            assert one.consumer.owns(one.generation)


async def test_what_is_assigned_is_held_until_it_is_released(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        partition = TopicPartition(topic, 0)
        await write(connection, partition, b"a", b"b")
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            assert await one.consumer.fetch([partition], 0.3) == {}
            assert one.consumer.position(partition) is None
            assert one.consumer.watermark(partition) is None
            one.release(offset=1)
            assert one.consumer.position(partition) == 1
            assert [record.value for record in await read(one.consumer, partition, 1)] == [b"b"]
            assert one.consumer.position(partition) == 2


async def test_one_partition_can_be_released_while_another_is_held(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2)
        held, released = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await write(connection, held, b"a")
        await write(connection, released, b"b")
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(2)
            one.consumer.release({released: 0}, one.generation)
            async with asyncio.timeout(PATIENCE_SEC):
                while not (chunks := await one.consumer.fetch([held, released], 1.0)):
                    pass
            assert list(chunks) == [released]
            assert await one.consumer.fetch([held, released], 0.2) == {}


async def test_everything_is_held_again_after_a_rebalance(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        partition = TopicPartition(topic, 0)
        await write(connection, partition, b"a")
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            one.release()
            await read(one.consumer, partition, 1)
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            await write(connection, partition, b"b")
            assert await one.consumer.fetch([partition], 0.3) == {}
            assert one.consumer.position(partition) is None


async def test_a_release_of_an_older_generation_does_nothing(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        partition = TopicPartition(topic, 0)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            over = one.generation
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            one.consumer.release({partition: 0}, over)
            assert one.consumer.position(partition) is None


async def test_a_seek_moves_and_drops_what_was_fetched_ahead(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        partition = TopicPartition(topic, 0)
        await write(connection, partition, *[b"%d" % number for number in range(10)])
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            one.release()
            first = await one.consumer.fetch([partition], PATIENCE_SEC, max_records=2)
            assert [record.offset for record in first[partition]] == [0, 1]
            for offset in (7, 4):
                one.consumer.seek({partition: offset}, one.generation)
                assert one.consumer.position(partition) == offset
                async with asyncio.timeout(PATIENCE_SEC):
                    while not (chunks := await one.consumer.fetch([partition], 1.0, max_records=1)):
                        pass
                assert [record.offset for record in chunks[partition]] == [offset]


async def test_a_seek_of_an_older_generation_does_nothing(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        partition = TopicPartition(topic, 0)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            over = one.generation
            one.consumer.rejoin()
            await one.until(lambda: len(one.assignments) == 2)
            one.release()
            one.consumer.seek({partition: 5}, over)
            assert one.consumer.position(partition) == 0


async def test_a_seek_does_not_release(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        partition = TopicPartition(topic, 0)
        await write(connection, partition, b"a")
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            one.consumer.seek({partition: 0}, one.generation)
            assert one.consumer.position(partition) is None
            assert await one.consumer.fetch([partition], 0.2) == {}


async def test_a_fetch_tells_the_end_of_the_partition(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2)
        full, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await write(connection, full, *[b"x"] * 5)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(2)
            one.release()
            await one.consumer.fetch([full], PATIENCE_SEC, max_records=1)
            watermark = one.consumer.watermark(full)
            assert watermark is not None
            assert watermark.end_offset == 5
            assert 0 <= watermark.age_sec < PATIENCE_SEC
            async with asyncio.timeout(PATIENCE_SEC):
                while (nothing := one.consumer.watermark(empty)) is None:
                    await one.consumer.fetch([empty], 0.1)
            assert nothing.end_offset == 0


async def test_a_fetch_that_waits_returns_when_it_is_woken_and_the_next_one_waits_again(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        partition = TopicPartition(topic, 0)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            one.release()
            one.consumer.wake()  # nobody is there to be woken
            fetch = asyncio.create_task(one.consumer.fetch([partition], 10 * PATIENCE_SEC))
            await until(lambda: one.consumer.watermark(partition) is not None)  # it is under way
            assert not fetch.done()
            one.consumer.wake()
            async with asyncio.timeout(PATIENCE_SEC):
                assert await fetch == {}
            fetch = asyncio.create_task(one.consumer.fetch([partition], 10 * PATIENCE_SEC))
            await write(connection, partition, b"a")
            async with asyncio.timeout(PATIENCE_SEC):
                assert [record.value for record in (await fetch)[partition]] == [b"a"]


async def test_partitions_of_others_have_no_position(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection)
        async with member(connection, unique("group"), topic) as one:
            await one.until_assigned(1)
            one.release()
            stranger = TopicPartition(topic, 1)
            assert one.consumer.position(stranger) is None
            assert one.consumer.watermark(stranger) is None


async def test_a_listener_that_fails_does_not_stop_the_group(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic) as one:
            await one.until_assigned(2)

            async def fail() -> None:
                raise RuntimeError("as a listener may")

            one.while_revoked = fail
            async with member(connection, group, topic) as two:
                await one.until_assigned(1)
                await two.until_assigned(1)


async def test_who_does_not_come_back_in_time_loses_its_place(broker: OpenBroker) -> None:
    options = dataclasses.replace(OPTIONS, rebalance_timeout_sec=1.0)
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic, options=options) as slow:
            await slow.until_assigned(2)
            over = slow.generation
            finished = asyncio.Event()
            slow.while_revoked = finished.wait
            async with member(connection, group, topic, options=options) as quick:
                await quick.until_assigned(2)
                with pytest.raises(NotOwner):
                    await slow.consumer.commit({TopicPartition(topic, 0): 1}, over)
                finished.set()
                await slow.until_assigned(1)
                await quick.until_assigned(1)


async def test_a_static_member_comes_back_to_what_it_had_and_nobody_is_disturbed(broker: OpenBroker) -> None:
    static = {name: dataclasses.replace(OPTIONS, group_instance_id=name) for name in ("first", "second")}
    async with connected(broker) as connection:
        topic, group = await new_topic(connection, partitions=2), unique("group")
        async with member(connection, group, topic, options=static["first"]) as one:
            async with member(connection, group, topic, options=static["second"]) as two:
                await one.until_assigned(1)
                await two.until_assigned(1)
                told, had = len(one.told), two.partitions
            async with member(connection, group, topic, options=static["second"]) as two_again:
                await two_again.until_assigned(1)
                assert two_again.partitions == had
                await one.consumer.commit(dict.fromkeys(one.partitions, 0), one.generation)
                await two_again.consumer.commit(dict.fromkeys(had, 0), two_again.generation)
                assert len(one.told) == told
