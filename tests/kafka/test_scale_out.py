"""More workers, fewer workers, other workers: what a real Kafka's group does with ours."""

import asyncio
import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paperboy import Engine, Handler, Table
from paperboy.brokers.kafka.reader import KafkaReader
from paperboy.clock import random_id
from tests.chaos.group import PARTITIONS, Commits, Feed, Group
from tests.contract.engine.kit import Kit, entry, said, until

_SECOND_NS = 1_000_000_000


@pytest.fixture
def kit(kafka_bootstrap: str) -> Kit:
    return Kit(kafka_bootstrap, random_id()[:12])


async def test_a_worker_that_joins_in_the_middle_takes_its_share_and_no_worker_dies(kit: Kit, tmp_path: Path) -> None:
    """820 records over 4 partitions."""
    partitions, each = 4, 205
    topic = await kit.topic("joined", partitions)
    for partition in range(partitions):
        await kit.send(topic, [(b"%d" % (number % 7), b"") for number in range(each)], partition)
    with Group(kit, topic, tmp_path, wait_sec=0.005) as group:
        first = group.join()
        await group.until("the first is in the middle", lambda: first.handled >= 200)
        second = group.join()
        await group.until("all is handled", lambda: all_handled(group, partitions * each))
        assert second.handled > 0, "it came too late"
        assert [len(worker.tasks) for worker in (first, second)] == [2, 2]
        for worker in (first, second):
            await group.leave(worker)
    assert places(group).keys() == {(partition, offset) for partition in range(partitions) for offset in range(each)}


async def test_four_workers_that_wait_for_answers_are_at_least_three_and_a_half_times_as_fast_as_one(
    kit: Kit, tmp_path: Path
) -> None:
    """Each worker has one connection, on which an answer takes 50 ms: that is its limit, and no core is."""
    each = 200
    topic = await kit.topic("waiting", PARTITIONS)
    for partition in range(PARTITIONS):
        await kit.send(topic, [(b"%d" % number, b"") for number in range(each)], partition)
    with Group(kit, topic, tmp_path, wait_sec=0.05, commit_sec=1) as group:
        group.join()
        one = await rate(group, 80)
        for _ in range(3):
            group.join()
        await group.until("each has its share", lambda: all(len(worker.tasks) == 2 for worker in group.workers))
        four = await rate(group, 320)
        assert all(len(worker.tasks) == 2 for worker in group.workers), "the group moved while it was measured"
        for worker in group.workers:
            await group.leave(worker)
    print(f"\n{one:.0f} records/s by one worker, {four:.0f} by four: {four / one:.2f} times as fast")
    assert four >= 3.5 * one


@pytest.mark.time_limit(120)
async def test_all_workers_are_restarted_one_by_one_under_load_and_no_record_is_lost(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("rolling", PARTITIONS)
    feed, commits = Feed(kit, topic, 100, random.Random(1)), Commits(kit, topic)
    with Group(kit, topic, tmp_path) as group:
        for _ in range(3):
            group.join()
        async with commits.watched(), feed.running():
            await group.until("each has its share", lambda: all(len(worker.tasks) >= 2 for worker in group.workers))
            for worker in list(group.workers):
                await group.leave(worker)
                new = group.join()
                await group.until_handling(new)
                await group.until("every partition has an owner", lambda: len(group.owners) == PARTITIONS)
        await commits.until(feed.log)
        for worker in group.living:
            await group.leave(worker)
    handled, records = places(group), sum(map(len, feed.log))
    assert handled.keys() == {(number, offset) for number, keys in enumerate(feed.log) for offset in range(len(keys))}
    pauses = {partition: round(longest_pause(group, partition), 1) for partition in range(PARTITIONS)}
    print(f"\n3 workers restarted, {records} records, {handled.total() - records} of them again;")
    print(f"the longest pause of each partition, in seconds: {pauses}")


@pytest.mark.time_limit(120)
async def test_a_restore_that_takes_long_neither_drops_the_member_nor_starts_a_rebalance(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One worker handles its records while another restores, for several times its session."""
    caplog.set_level("INFO", "paperboy")
    session_sec, restore_sec = 1.5, 7.5
    topic = await kit.topic("restored", 4)
    changelog = await kit.changelog("counts", 4)
    for partition in range(4):
        await kit.send(changelog, [entry(b"%d" % number, number) for number in range(1_000)], partition)
    may_read = asyncio.Event()
    may_read.set()
    fetch = KafkaReader.fetch_changes

    async def slow_fetch(self: KafkaReader, *arguments: Any, **options: Any) -> Any:
        await may_read.wait()
        return await fetch(self, *arguments, **options)

    monkeypatch.setattr(KafkaReader, "fetch_changes", slow_fetch)
    options = {"session_timeout_sec": session_sec, "heartbeat_interval_sec": 0.3}
    (first, first_saw), (second, second_saw) = counting(kit, topic, options), counting(kit, topic, options)
    async with first:
        await first.caught_up()
        may_read.clear()
        async with second:
            await until(lambda: len(first.status().tasks) == len(second.status().tasks) == 2)
            await until(lambda: all(task.ready for task in first.status().tasks))
            assigned = len(said(caplog, "assigned"))
            early: list[int] = []

            def let_it_read() -> None:
                early.extend(second_saw)
                may_read.set()

            asyncio.get_running_loop().call_later(restore_sec, let_it_read)
            rounds = 0

            def first_goes_on() -> bool:
                return len(first_saw) == 2 * rounds or may_read.is_set()

            while not may_read.is_set():
                for partition in range(4):
                    await kit.send(topic, [(b"0", b"")], partition)
                rounds += 1
                await until(first_goes_on)
            assert early == [], "a handler saw a record before its tables were restored"
            assert len(said(caplog, "assigned")) == assigned
            assert said(caplog, "revoked")[1:] == [], "only the first worker's, when the second joined"
            assert said(caplog, "task lost") == []
            assert rounds > 2, "the first was held up by the restore of the second"
            await asyncio.gather(first.caught_up(), second.caught_up())
            assert sum(map(len, (first_saw, second_saw))) == 4 * rounds
            for engine in (first, second):
                assert len(engine.status().tasks) == 2


def counting(kit: Kit, source: str, options: dict[str, Any]) -> tuple[Engine, list[int]]:
    """A worker, and what it has counted."""
    counts = Table("counts")
    saw: list[int] = []

    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            counts[msg.key] = counts[msg.key] + 1  # a KeyError where it is not restored
            saw.append(msg.offset)

    engine = kit.engine(Counting, **options)
    engine.register_table(counts)
    return engine, saw


def places(group: Group) -> Counter[tuple[int, int]]:
    """How often which record was handled, by partition and offset."""
    return Counter((line.partition, line.offset) for _, line in group.handled())


def all_handled(group: Group, records: int) -> bool:
    """Whether that many different ones are."""
    return group.count_handled() >= records and len(places(group)) == records


async def rate(group: Group, records: int) -> float:
    """How many records the workers handle in a second, over the next so many."""
    begin = group.count_handled()
    await group.until("they have been measured", lambda: group.count_handled() > begin + records)
    times = sorted(line.at_ns for _, line in group.handled())[begin : begin + records + 1]
    return records * _SECOND_NS / (times[-1] - times[0])


def longest_pause(group: Group, partition: int) -> float:
    """Between one record handled and the next, by whomever, in seconds."""
    times = sorted(line.at_ns for _, line in group.handled() if line.partition == partition)
    return max(after - before for before, after in itertools.pairwise(times)) / _SECOND_NS
