"""A task's way to durability: when a checkpoint is due, one after another, and what a failure leaves to do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.memory.producer import MemoryProducer
from paperboy.brokers.protocol import Consumer, TopicPartition, TopicSpec
from paperboy.engine.checkpoints import BackToDurable, Checkpoints
from paperboy.engine.inputs import Inputs
from paperboy.engine.options import Options
from paperboy.engine.outbox import FLUSH_BYTES, Outbox, Topics
from paperboy.engine.source import Source
from paperboy.engine.stores import TaskTable
from paperboy.engine.wiring import Wiring
from paperboy.errors import BrokerError, CheckpointError, NotOwner, StoreError
from paperboy.handlers.dispatch import Dispatch
from tests.unit.test_checkpoint import GENERATION, Group, Store, turns
from tests.unit.test_held_stores import said, task_table

pytestmark = pytest.mark.time_limit(10)

VIEWS = TopicPartition("views", 0)
CHANGELOG = TopicPartition("clicks-log", 0)
OUT = TopicPartition("out", 0)


class DueStore(Store):
    """A store that is always due to be flushed, which is done on the loop's thread by turns."""

    flush_due = True
    flushed = 0
    flush_fails: StoreError | None = None

    def flush(self) -> None:
        if self.flush_fails is not None:
            raise self.flush_fails
        self.flushed += 1


class Work:
    """A task as its checkpoints see it: one input, one table, an outbox, on a broker that others share."""

    def __init__(self, producer: MemoryProducer, table: TaskTable, options: Mapping[str, Any]) -> None:
        self.cluster = producer._cluster
        self.broker = MemoryBroker(self.cluster)
        self.group = Group([])
        self.source = Source(VIEWS, cast(Dispatch, None))
        self.source.start_at(0)
        self.table = table
        self.ended = asyncio.Event()
        self.moved = 0
        self.wiring = Wiring(
            options=Options.of(
                {"bootstrap_servers": "memory://", "group_id": "g", "commit_interval_sec": 60, **options}
            ),
            broker=self.broker,
            consumer=cast(Consumer, self.group),
            producer=producer,
            topics=Topics(self.broker),
            in_step=lambda: False,
            moved=self._moved,
            room=lambda: None,
        )
        self.outbox = Outbox(producer, self.wiring.topics, self.broker.clock, max_unacked_bytes=1 << 20)
        self.checkpoints = Checkpoints(
            "views[0]",
            {"clicks": table},
            Inputs([self.source], bulk_records=1, bulk_timeout_sec=1, room_bytes=1),
            self.outbox,
            GENERATION,
            self.wiring,
            self.ended.set,
        )
        self.checkpoints.wait_an_interval()

    @property
    def store(self) -> DueStore:
        return cast(DueStore, self.table.partition.store)

    def finish(self, value: int = 1) -> None:
        """A message has been handled: it wrote to the table and sent something."""
        self.table.partition.set("a", value)
        self.outbox.put([(OUT.topic, None, None, b"%d" % value, (), None)])
        self.source.position += 1

    # Methods, because a type checker takes a property for what it was.

    def dirty(self) -> bool:
        return self.checkpoints.dirty

    def due(self) -> bool:
        return self.checkpoints.is_due

    def running(self) -> bool:
        return self.checkpoints.is_running

    def end(self, partition: TopicPartition) -> int:
        return self.cluster.log(partition).end_offset

    async def one_checkpoint(self) -> None:
        """Begin one, wait for its end, and collect it, as a task does between two messages."""
        self.ended.clear()
        self.checkpoints.request()
        await self.checkpoints.tend()
        await self.ended.wait()
        await self.checkpoints.tend()

    def _moved(self) -> None:
        self.moved += 1


@asynccontextmanager
async def working(**options: Any) -> AsyncIterator[Work]:
    cluster = MemoryCluster()
    cluster.create_topics(
        [TopicSpec(OUT.topic, 1), TopicSpec(CHANGELOG.topic, 1, config={"cleanup.policy": "compact"})]
    )
    producer = MemoryProducer(cluster)
    await producer.start()
    work = Work(producer, await task_table(CHANGELOG, DueStore("clicks", [])), options)
    await work.broker.start()
    await work.wiring.topics.learn([OUT.topic])
    yield work
    await work.checkpoints.discard()
    await producer.stop()


# What is due.


async def test_what_has_finished_or_was_written_is_to_be_made_durable() -> None:
    async with working() as work:
        assert not work.dirty()
        work.source.position = 1
        assert work.dirty()
        work.source.position = 0
        work.table.partition.set("a", 1)
        assert work.dirty()


async def test_nothing_is_due_before_the_interval_has_passed_or_somebody_asks() -> None:
    async with working() as work:
        work.finish()
        assert not work.due()
        work.checkpoints.request()
        assert work.due()
        work.checkpoints.wait_an_interval()
        assert not work.due()
        work.checkpoints.due_at = asyncio.get_running_loop().time()
        assert work.due()


@pytest.mark.parametrize("limit", [{"max_overlay_keys": 3}, {"max_overlay_bytes": 3 * 256}], ids=str)
async def test_a_large_layer_is_due_whatever_the_time(limit: dict[str, int]) -> None:
    async with working(**limit) as work:
        for key in (1, 2):
            work.table.partition.set(key, 1)
        assert not work.due()
        work.table.partition.set(3, 1)
        assert work.due()


async def test_nothing_is_begun_that_is_not_due() -> None:
    async with working() as work:
        work.finish()
        await work.checkpoints.tend()
        assert not work.running()
        assert work.end(CHANGELOG) == work.end(OUT) == 0


async def test_where_nothing_has_finished_nothing_is_begun() -> None:
    async with working() as work:
        work.checkpoints.request()
        await work.checkpoints.tend()
        assert not work.running()
        assert not work.due(), "the next one is due an interval from now"


# One after another.


async def test_a_checkpoint_flushes_writes_stores_and_commits_and_the_task_goes_on_beside_it() -> None:
    async with working() as work:
        work.finish()
        work.checkpoints.request()
        await work.checkpoints.tend()
        assert work.running()
        work.finish(2)
        await work.ended.wait()
        await work.checkpoints.tend()
        assert not work.running()
        assert (work.end(OUT), work.end(CHANGELOG)) == (1, 1)
        assert work.group.committed == {VIEWS: 1}
        assert (work.source.committed, work.source.position) == (1, 2)
        assert work.table.partition.get("a") == 2
        assert (work.wiring.counters.checkpoints, work.moved) == (1, 1)


async def test_a_second_checkpoint_waits_for_the_first() -> None:
    async with working() as work:
        work.finish()
        work.checkpoints.request()
        await work.checkpoints.tend()
        work.finish(2)
        work.checkpoints.request()
        work.cluster.hold("produce")
        second = asyncio.ensure_future(work.checkpoints.tend())
        await turns()
        assert not second.done()
        work.cluster.release("produce")
        await second
        await work.checkpoints.the_rest()
        assert (work.end(OUT), work.end(CHANGELOG), work.source.committed) == (2, 2, 2)
        assert work.wiring.counters.checkpoints == 2


async def test_the_rest_is_everything_that_has_finished() -> None:
    async with working() as work:
        for value in range(3):
            work.finish(value)
        await work.checkpoints.the_rest()
        assert not work.dirty()
        assert (work.end(OUT), work.end(CHANGELOG), work.group.committed) == (3, 1, {VIEWS: 3})


async def test_the_rest_includes_what_came_after_the_checkpoint_under_way() -> None:
    async with working() as work:
        work.finish()
        work.checkpoints.request()
        await work.checkpoints.tend()
        work.finish(2)
        await work.checkpoints.the_rest()
        assert work.group.committed == {VIEWS: 2}


async def test_a_store_that_is_due_is_flushed_after_the_commit() -> None:
    async with working() as work:
        work.finish()
        await work.checkpoints.the_rest()
        assert work.store.flushed == 1
        work.store.flush_due = False
        work.finish()
        await work.checkpoints.the_rest()
        assert work.store.flushed == 1


async def test_an_outbox_is_flushed_when_it_is_full() -> None:
    async with working() as work:
        work.finish()
        await work.checkpoints.flush_if_full()
        assert work.outbox.bytes
        work.outbox.put([(OUT.topic, None, None, b"x" * FLUSH_BYTES, (), None)])
        await work.checkpoints.flush_if_full()
        assert work.outbox.bytes == 0


async def test_a_flush_that_is_cancelled_goes_on_and_the_next_one_waits_for_it() -> None:
    async with working() as work:
        room = asyncio.Event()
        send = work.wiring.producer.send

        async def wait_for_room(partition: TopicPartition, records: Any) -> Any:
            await room.wait()
            return await send(partition, records)

        cast(Any, work.wiring.producer).send = wait_for_room
        work.finish()
        flushing = asyncio.ensure_future(work.checkpoints.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
        room.set()
        await work.checkpoints.the_rest()
        assert work.end(OUT) == 1, "once, and not lost"


async def test_a_checkpoint_goes_on_though_who_waits_for_it_is_cancelled() -> None:
    async with working() as work:
        work.finish()
        work.cluster.hold("produce")
        resting = asyncio.ensure_future(work.checkpoints.the_rest())
        await turns()
        resting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await resting
        assert work.running()
        work.cluster.release("produce")
        await work.checkpoints.the_rest()
        assert (work.end(CHANGELOG), work.group.committed) == (1, {VIEWS: 1})


# What fails.


async def test_a_flush_that_fails_takes_the_task_back_to_what_is_durable() -> None:
    async with working() as work:
        cast(Any, work.wiring.producer).send = refuse
        for flush in (work.checkpoints.flush, work.checkpoints.the_rest):
            work.finish()
            with pytest.raises(BackToDurable, match="closed") as caught:
                await flush()
            assert isinstance(caught.value.error, BrokerError)
        assert not work.group.committed


async def refuse(partition: TopicPartition, records: Any) -> Any:
    raise BrokerError("closed")


@pytest.mark.parametrize("where", ["changelog", "store", "flush of the store"])
async def test_a_checkpoint_that_fails_takes_the_task_back_to_what_is_durable(where: str) -> None:
    async with working() as work:
        if where == "changelog":
            work.cluster.fail_next("produce", BrokerError("the log is full"))
        elif where == "store":
            work.store.fails = StoreError("the disk is full")
        else:
            work.store.flush_fails = StoreError("the disk is full")
        work.table.partition.set("a", 1)
        work.source.position += 1
        with pytest.raises(BackToDurable, match="is full") as caught:
            await work.checkpoints.the_rest()
        assert isinstance(caught.value.error, BrokerError if where == "changelog" else StoreError)
        assert not work.running()


async def test_a_task_that_is_lost_is_told_so() -> None:
    async with working() as work:
        work.group.lost = NotOwner("another worker has it")
        work.finish()
        with pytest.raises(NotOwner, match="another worker has it"):
            await work.checkpoints.the_rest()


async def test_what_is_discarded_leaves_nothing_behind() -> None:
    async with working() as work:
        work.finish()
        work.cluster.hold("produce")
        work.checkpoints.request()
        await work.checkpoints.tend()
        work.finish(2)
        await work.checkpoints.discard()
        assert not work.running()
        assert work.outbox.bytes == 0
        work.cluster.release("produce")
        await turns()
        assert work.end(OUT) == 1, "what was handed over goes out"
        assert not work.group.committed


async def test_failures_in_a_row_are_counted_and_end_with_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    async with working(checkpoint_attempts=3) as work:
        error = BrokerError("the disk is full")
        assert [work.checkpoints.failed(error), work.checkpoints.failed(error)] == [1, 2]
        with pytest.raises(CheckpointError) as caught:
            work.checkpoints.failed(error)
        assert str(caught.value) == (
            "Task views[0] failed 3 times in a row (checkpoint_attempts) to make its work durable, or to go back to"
            " what is; the last time: the disk is full"
        )
        assert caught.value.__cause__ is error
        assert work.wiring.counters.checkpoint_failures == 3
        warned = said(caplog, "back to what is durable")
        assert [(each["task"], each["attempt"], each["error"]) for each in warned] == [
            ("views[0]", 1, "the disk is full"),
            ("views[0]", 2, "the disk is full"),
        ]


async def test_a_checkpoint_that_passes_ends_a_row_of_failures() -> None:
    async with working(checkpoint_attempts=2) as work:
        for _ in range(3):
            assert work.checkpoints.failed(BrokerError("away")) == 1
            work.finish()
            await work.checkpoints.the_rest()


async def test_a_store_that_cannot_be_flushed_does_not_end_a_row_of_failures() -> None:
    """Else it would be reopened and restored for ever, each time that it is due."""
    async with working(checkpoint_attempts=3) as work:
        work.store.flush_fails = StoreError("the disk is full")

        async def fail() -> int:
            work.finish()
            with pytest.raises(BackToDurable) as caught:
                await work.checkpoints.the_rest()
            return work.checkpoints.failed(caught.value.error)

        assert [await fail(), await fail()] == [1, 2]
        with pytest.raises(CheckpointError, match=r"failed 3 times in a row .*the disk is full"):
            await fail()


async def test_a_commit_that_fails_is_made_up_for_by_the_next_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    async with working(checkpoint_attempts=3) as work:
        work.group.refuses = BrokerError("no coordinator")
        work.finish()
        await work.one_checkpoint()
        assert (work.source.committed, work.end(CHANGELOG)) == (0, 1)
        assert work.dirty()
        work.group.refuses = None
        await work.checkpoints.the_rest()
        assert (work.source.committed, work.end(CHANGELOG)) == (1, 1), "the table is durable since the first"
        warned = said(caplog, "commit failed")
        assert [(each["task"], each["attempt"], each["error"]) for each in warned] == [
            ("views[0]", 1, "no coordinator")
        ]


async def test_commits_that_go_on_failing_end_with_a_sentence() -> None:
    async with working(checkpoint_attempts=3) as work:
        work.group.refuses = BrokerError("no coordinator")
        work.finish()
        with pytest.raises(CheckpointError) as caught:
            await work.checkpoints.the_rest()
        assert str(caught.value) == (
            "The commit of task views[0] failed 3 times in a row (checkpoint_attempts); the last time: no coordinator"
        )
        assert caught.value.__cause__ is work.group.refuses


async def test_a_commit_that_passes_ends_a_row_of_failed_commits() -> None:
    async with working(checkpoint_attempts=2) as work:
        for _ in range(3):
            work.group.refuses = BrokerError("no coordinator")
            work.finish()
            await work.one_checkpoint()
            assert work.dirty(), "the commit has failed"
            work.group.refuses = None
            await work.checkpoints.the_rest()
        assert work.source.committed == 3


async def test_what_a_checkpoint_has_done_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with working() as work:
        work.finish()
        await work.checkpoints.the_rest()
    assert said(caplog, "checkpoint") == [
        {"event": "checkpoint", "task": "views[0]", "changed_keys": 1, "positions": {"views[0]": 1}}
    ]
