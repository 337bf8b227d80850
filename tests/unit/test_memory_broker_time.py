"""The memory broker in time: its clock, sessions that end, members that are gone, and one event loop after another."""

import asyncio
import dataclasses
from collections.abc import Coroutine
from typing import Any

import pytest

from paperboy.brokers.memory import MemoryBroker, MemoryClock, MemoryCluster, MemoryConsumer
from paperboy.brokers.memory.clock import Alarm
from paperboy.brokers.memory.group import RebalanceUnderWay
from paperboy.brokers.memory.waiting import Signal
from paperboy.brokers.protocol import Member, MembershipOptions, TopicPartition, TopicSpec
from paperboy.errors import BrokerError, NotOwner
from paperboy.testing import VirtualLoop
from tests.contract.conftest import GroupMember, InTurn, write

OPTIONS = MembershipOptions(session_timeout_sec=10.0, heartbeat_interval_sec=3.0, rebalance_timeout_sec=60.0)
PARTITIONS = [TopicPartition("t", 0), TopicPartition("t", 1)]


def run(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run` in a loop of its own whose time begins at 0 and costs nothing. No callback may fail in it."""
    failures: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: failures.append(context))
        runner.run(main)
    assert failures == []


@pytest.fixture
def cluster() -> MemoryCluster:
    cluster = MemoryCluster(epoch_ms=1_000_000)
    cluster.create_topics([TopicSpec("t", 2)])
    return cluster


async def join(
    cluster: MemoryCluster, options: MembershipOptions = OPTIONS, topics: tuple[str, ...] = ("t",)
) -> "Joined":
    assignor = InTurn()
    joined = Joined(MemoryBroker(cluster).consumer("g", topics, assignor, options), assignor)
    await joined.consumer.start(joined)
    return joined


class Joined(GroupMember):
    """A group member that a test may freeze and crash."""

    patience_sec = 1000.0

    def __init__(self, consumer: MemoryConsumer, assignor: InTurn) -> None:
        super().__init__(consumer, assignor)
        self.memory = consumer

    async def until_first_assigned(self) -> None:
        await self.until(lambda: bool(self.assignments))


def elapsed() -> float:
    return asyncio.get_running_loop().time()


def test_the_clock_is_turned_by_the_loop_and_stands_still_without_one() -> None:
    clock = MemoryClock(epoch_ms=5_000)

    async def one_and_a_half_seconds() -> None:
        before = clock.time_ms()
        await asyncio.sleep(1.5)
        assert clock.time_ms() - before == 1_500

    assert clock.time_ms() == 5_000
    run(one_and_a_half_seconds())
    assert clock.time_ms() == 6_500


def test_the_clock_never_goes_back_from_loop_to_loop() -> None:
    clock = MemoryClock(epoch_ms=0)
    seen: list[int] = []

    async def look_twice() -> None:
        seen.append(clock.time_ms())
        await asyncio.sleep(10)
        seen.append(clock.time_ms())

    run(look_twice())
    run(look_twice())
    assert seen == [0, 10_000, 10_000, 20_000]


def test_what_a_watermark_says_grows_old(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        one.release()
        assert await one.consumer.fetch(PARTITIONS, 2.0) == {}
        await asyncio.sleep(5.0)
        watermark = one.consumer.watermark(PARTITIONS[0])
        assert watermark is not None
        assert watermark.age_sec == pytest.approx(5.0)
        await one.consumer.stop()

    run(main())


def test_a_fetch_takes_its_time_out_and_not_more(cluster: MemoryCluster) -> None:
    async def main() -> None:
        reader = MemoryBroker(cluster).reader()
        await reader.start(dict.fromkeys(PARTITIONS, 0))
        assert await reader.fetch(PARTITIONS, 30.0) == {}
        assert elapsed() == pytest.approx(30.0)
        assert await reader.fetch(PARTITIONS, 0.0) == {}
        assert elapsed() == pytest.approx(30.0)

    run(main())


def test_a_session_lasts_for_as_long_as_the_loop_turns(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        await asyncio.sleep(100_000)
        assert one.told == ["assigned"]
        await one.consumer.commit({PARTITIONS[0]: 1}, one.generation)
        await one.consumer.stop()

    run(main())


def test_the_session_of_a_crashed_member_ends_by_time_out(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one, two = await join(cluster), await join(cluster)
        await one.until_assigned(1)
        await two.until_assigned(1)
        crashed_at = elapsed()
        two.memory.crash()
        await one.until_assigned(2)
        # The last heartbeat came up to 3 s before the crash, and the other hears of the end up to 3 s after it.
        assert 7.0 <= elapsed() - crashed_at <= 13.0
        assert two.told.count("revoked") == 0
        await one.consumer.stop()

    run(main())


def test_a_zombie_believes_until_it_commits_and_then_joins_again(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one, zombie = await join(cluster), await join(cluster)
        await one.until_assigned(1)
        await zombie.until_assigned(1)
        generation, lost = zombie.generation, zombie.partitions[0]
        zombie.release()
        zombie.memory.freeze()
        await one.until_assigned(2)
        assert zombie.consumer.owns(generation)
        assert zombie.consumer.position(lost) == 0
        with pytest.raises(NotOwner):
            await zombie.consumer.commit({lost: 99}, generation)
        assert cluster.committed("g", [lost]) == {lost: None}
        assert not zombie.consumer.owns(generation)
        assert zombie.consumer.position(lost) is None
        await zombie.until(lambda: len(zombie.assignments) == 2)
        assert zombie.told == ["assigned", "revoked", "assigned"]
        await one.until_assigned(1)
        await zombie.consumer.stop()
        await one.consumer.stop()

    run(main())


def test_a_zombie_that_wakes_hears_by_its_heartbeat(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one, zombie = await join(cluster), await join(cluster)
        await zombie.until_assigned(1)
        await one.until_assigned(1)
        generation = zombie.generation
        zombie.memory.freeze()
        await one.until_assigned(2)
        zombie.memory.thaw()
        assert not zombie.consumer.owns(generation)
        await zombie.until(lambda: len(zombie.assignments) == 2)
        await zombie.consumer.stop()
        await one.consumer.stop()

    run(main())


def test_a_short_freeze_harms_nobody(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        for _ in range(10):
            one.memory.freeze()
            await asyncio.sleep(6.9)
            one.memory.thaw()
        assert one.told == ["assigned"]
        await one.consumer.stop()

    run(main())


def test_a_session_can_be_ended_by_hand_and_its_member_hears_later(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        generation, expired_at = one.generation, elapsed()
        one.memory.expire()
        assert one.consumer.owns(generation)
        await one.until(lambda: one.told == ["assigned", "revoked", "assigned"])
        assert 0 < elapsed() - expired_at <= 3.0
        await one.consumer.stop()

    run(main())


def test_a_member_that_revokes_for_too_long_is_out_after_the_rebalance_time_out(cluster: MemoryCluster) -> None:
    async def main() -> None:
        slow = await join(cluster)
        await slow.until_assigned(2)
        finished = asyncio.Event()
        slow.while_revoked = finished.wait
        began = elapsed()
        quick = await join(cluster)
        await quick.until_assigned(2)
        assert elapsed() - began == pytest.approx(60.0)
        finished.set()
        await slow.until_assigned(1)
        await slow.consumer.stop()
        await quick.consumer.stop()

    run(main())


def test_stopping_waits_for_a_listener_that_is_giving_up_its_partitions(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        done: list[float] = []

        async def take_five_seconds() -> None:
            await asyncio.sleep(5)
            done.append(elapsed())

        one.while_revoked = take_five_seconds
        one.consumer.rejoin()
        await one.until(lambda: "revoked" in one.told)
        await one.consumer.stop()
        assert done == [elapsed()]
        assert one.told == ["assigned", "revoked"]

    run(main())


def test_a_static_member_that_does_not_come_back_loses_its_place_with_its_session(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        static = await join(cluster, dataclasses.replace(OPTIONS, group_instance_id="s"))
        await one.until_assigned(1)
        await static.until_assigned(1)
        stopped_at = elapsed()
        await static.consumer.stop()
        await one.until_assigned(2)
        assert 7.0 <= elapsed() - stopped_at <= 13.0
        await one.consumer.stop()

    run(main())


def test_static_members_that_all_come_back_late_share_what_there_is(cluster: MemoryCluster) -> None:
    def named(name: str) -> MembershipOptions:
        return dataclasses.replace(OPTIONS, session_timeout_sec=500.0, group_instance_id=name)

    async def main() -> None:
        static = [await join(cluster, named("a")), await join(cluster, named("b"))]
        leaver = await join(cluster)
        for each in (*static, leaver):
            await each.until_first_assigned()
        await asyncio.sleep(10)
        for each in static:
            await each.consumer.stop()
        await leaver.consumer.stop()
        await asyncio.sleep(100)
        again = [await join(cluster, named("a")), await join(cluster, named("b"))]
        for each in again:
            await each.until_assigned(1)
        assert sorted(again[0].partitions + again[1].partitions) == PARTITIONS
        for each in again:
            await each.consumer.stop()

    run(main())


def test_a_static_member_that_is_away_keeps_its_share_while_others_rebalance(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        away = await join(cluster, dataclasses.replace(OPTIONS, session_timeout_sec=500.0, group_instance_id="s"))
        await one.until_assigned(1)
        await away.until_assigned(1)
        await away.consumer.stop()
        began = elapsed()
        two = await join(cluster)
        await two.until_first_assigned()
        assert elapsed() - began == pytest.approx(60.0)
        assert len(one.assignor.seen[-1]) == 3
        await one.consumer.stop()
        await two.consumer.stop()

    run(main())


def test_a_commit_that_was_under_way_when_the_group_moved_on_is_refused(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        cluster.hold("commit")
        commit = asyncio.create_task(one.consumer.commit({PARTITIONS[0]: 9}, one.generation))
        await asyncio.wait([commit], timeout=1.0)
        one.consumer.rejoin()
        await one.until(lambda: len(one.assignments) == 2)
        cluster.release("commit")
        with pytest.raises(NotOwner, match="Generation 1"):
            await commit
        assert cluster.committed("g", PARTITIONS[:1]) == {PARTITIONS[0]: None}
        assert one.consumer.owns(one.generation), "old news is no news of the new generation"
        await one.consumer.stop()

    run(main())


def test_nothing_is_committed_between_a_join_and_its_assignment(cluster: MemoryCluster) -> None:
    async def main() -> None:
        group = cluster.group("g")
        member_id, answer = group.join(None, OPTIONS, Member(frozenset("t"), b""))
        generation = (await answer).generation
        with pytest.raises(RebalanceUnderWay):
            group.commit(member_id, generation, {PARTITIONS[0]: 1})
        await group.sync(member_id, generation, {})
        group.commit(member_id, generation, {PARTITIONS[0]: 1})

    run(main())


def test_nothing_is_fetched_while_partitions_are_being_revoked(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        one.release()
        fetched: list[object] = []

        async def write_and_fetch() -> None:
            await write(MemoryBroker(cluster), PARTITIONS[0], b"x")
            fetched.append(await one.consumer.fetch(PARTITIONS, 2.0))

        one.while_revoked = write_and_fetch
        one.consumer.rejoin()
        await one.until(lambda: len(one.assignments) == 2)
        assert fetched == [{}]
        await one.consumer.stop()

    run(main())


def test_a_topic_that_grows_brings_a_rebalance(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        cluster.create_partitions("t", 3)
        await one.until_assigned(3)
        await one.consumer.stop()

    run(main())


def test_a_topic_that_appears_brings_a_rebalance_to_those_who_read_it(cluster: MemoryCluster) -> None:
    async def main() -> None:
        one = await join(cluster, topics=("t", "later"))
        await one.until_assigned(2)
        cluster.create_topics([TopicSpec("later", 1), TopicSpec("other", 1)])
        await one.until_assigned(3)
        assert len(one.assignments) == 2
        await one.consumer.stop()

    run(main())


def test_an_assignor_that_fails_fails_the_leaders_fetch(cluster: MemoryCluster) -> None:
    class Broken(InTurn):
        def assign(self, *_: object) -> Any:
            raise ValueError("cannot deal")

    async def main() -> None:
        assignor = Broken()
        one = Joined(MemoryBroker(cluster).consumer("g", ["t"], assignor, OPTIONS), assignor)
        await one.consumer.start(one)
        assert await one.consumer.fetch(PARTITIONS, 0.1) == {}
        with pytest.raises(BrokerError, match="cannot deal"):
            await one.consumer.fetch(PARTITIONS, 0.1)
        await one.consumer.stop()
        two = await join(cluster)
        await two.until_assigned(2)
        await two.consumer.stop()

    run(main())


def test_a_member_whose_loop_has_ended_leaves_its_session_behind(cluster: MemoryCluster) -> None:
    async def crash() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        await one.consumer.commit({PARTITIONS[0]: 5}, one.generation)

    async def come_after() -> None:
        two = await join(cluster)
        assert two.told == []
        await two.until_assigned(2)
        assert 9.0 <= elapsed() <= 10.0
        assert cluster.committed("g", PARTITIONS) == {PARTITIONS[0]: 5, PARTITIONS[1]: None}
        await two.consumer.stop()

    run(crash())
    run(come_after())


def test_a_loop_that_ends_amid_a_rebalance_does_not_block_the_group_for_ever(cluster: MemoryCluster) -> None:
    async def crash() -> None:
        one = await join(cluster)
        await one.until_assigned(2)
        never = asyncio.Event()
        one.while_revoked = never.wait
        await join(cluster)  # and waits for the first one, in vain
        await one.until(lambda: "revoked" in one.told)

    async def come_after() -> None:
        two = await join(cluster)
        await two.until_assigned(2)
        assert elapsed() <= 60.0 + 2 * 10.0
        await two.consumer.stop()

    run(crash())
    run(come_after())


def test_a_waiter_of_a_loop_that_is_gone_is_dropped() -> None:
    signal = Signal()
    gone = VirtualLoop()
    waiter = gone.create_future()
    signal.add(waiter)
    gone.close()

    async def notify() -> None:
        signal.notify()

    run(notify())
    assert not waiter.done()


def test_a_fetch_whose_loop_has_ended_is_forgotten(cluster: MemoryCluster) -> None:
    async def wait_in_vain() -> None:
        reader = MemoryBroker(cluster).reader()
        await reader.start(dict.fromkeys(PARTITIONS, 0))
        waiting = asyncio.create_task(reader.fetch(PARTITIONS, 100.0))
        await asyncio.wait([waiting], timeout=1.0)

    async def write() -> None:
        producer = MemoryBroker(cluster).producer()
        await producer.start()
        (ack,) = await producer.send(PARTITIONS[0], [(None, b"x", (), 0)])
        assert (await ack).base_offset == 0
        await producer.stop()

    loop = VirtualLoop()
    loop.run_until_complete(wait_in_vain())
    asyncio.set_event_loop(None)
    left = asyncio.all_tasks(loop)  # not even cancelled, as where a process is killed
    run(write())
    asyncio.run(write_again(cluster))
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()


async def write_again(cluster: MemoryCluster) -> None:
    """In a loop of real time."""
    producer = MemoryBroker(cluster).producer()
    await producer.start()
    (ack,) = await producer.send(PARTITIONS[0], [(None, b"y", (), 0)])
    assert (await ack).base_offset == 1
    await producer.stop()


def test_an_alarm_that_rings_a_rounding_error_early_rings_again_when_it_is_due() -> None:
    async def main() -> None:
        for number in range(200):
            await asyncio.sleep(0.0137 * number)
            clock, done, rung = MemoryClock(epoch_ms=0), asyncio.Event(), 0
            due = clock.elapsed() + number / 7

            def ring() -> None:
                nonlocal rung
                rung += 1
                if clock.elapsed() < due and rung < 100:  # noqa: B023 - it rings before the next one is made
                    alarm.set(due)  # noqa: B023
                else:
                    done.set()  # noqa: B023

            alarm = Alarm(clock, ring)
            alarm.set(due)
            await done.wait()
            assert rung < 4

    run(main())
