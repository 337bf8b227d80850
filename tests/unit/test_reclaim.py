"""The owner's own word: whatever somebody else writes to a changelog, table, store and changelog agree in the end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.memory.producer import MemoryProducer
from paperboy.brokers.protocol import Ack, Consumer, Outgoing, TopicPartition, TopicSpec
from paperboy.engine.checkpoint import Checkpoint
from paperboy.engine.reclaim import ForeignWrite, reclaim
from paperboy.engine.restore import restore
from paperboy.engine.restoring import RestoreProgress
from paperboy.engine.stores import TaskTable
from paperboy.errors import BrokerError, NotOwner, OffsetOutOfRange
from paperboy.serializers.values import decode_value, encode_value
from paperboy.tables.keys import decode_key, encode_key
from tests.unit.test_checkpoint import GENERATION, POSITIONS, Group
from tests.unit.test_held_stores import said, task_table
from tests.unit.test_memory_broker_time import run

pytestmark = pytest.mark.time_limit(10)

CHANGELOG = TopicPartition("clicks-log", 0)
OTHER = TopicPartition("users-log", 0)


class Owner:
    """A task that owns two tables, on a broker to which others write as well."""

    def __init__(self, cluster: MemoryCluster, producer: MemoryProducer, clicks: TaskTable, users: TaskTable) -> None:
        self.cluster = cluster
        self.broker = MemoryBroker(cluster)
        self.producer = producer
        self.group = Group([])
        self.clicks, self.users = clicks, users

    def set(self, **values: int) -> None:
        for key, value in values.items():
            self.clicks.partition.set(key, value)

    def delete(self, key: str) -> None:
        self.clicks.partition.delete(key)

    async def checkpoint(self) -> None:
        tables = [self.clicks, self.users]
        consumer = cast(Consumer, self.group)
        await Checkpoint(tables, POSITIONS, [], self.broker, consumer, self.producer, GENERATION).run()

    async def reclaim(self) -> int:
        """What a task does that goes back to what is durable, and has had its stores in step before."""
        consumer = cast(Consumer, self.group)
        return await reclaim(self.clicks, {}, self.broker, consumer, self.producer, GENERATION)

    async def believe_failed(self, **values: int | None) -> None:
        """A checkpoint of one's own reaches the changelog, and is told that it has failed."""
        await write(self.producer, CHANGELOG, **values)

    @property
    def table(self) -> dict[Any, Any]:
        """What the task's store holds."""
        return {decode_key(key): decode_value(value) for key, value in self.clicks.partition.store.scan()}

    @property
    def offset(self) -> int | None:
        return self.clicks.partition.store.changelog_offset

    @property
    def end(self) -> int:
        return self.cluster.log(CHANGELOG).end_offset

    async def restored(self) -> dict[Any, Any]:
        """What the next owner will find in the changelog."""
        table = await task_table(CHANGELOG)
        await restore([table], self.broker, RestoreProgress(asyncio.get_running_loop().time))
        return {decode_key(key): decode_value(value) for key, value in table.partition.store.scan()}

    async def agrees_on(self, **values: int) -> None:
        """Store and changelog hold just this, and the store stands at the changelog's end."""
        assert (self.table, await self.restored()) == (values, values)
        assert self.offset == self.end


@asynccontextmanager
async def owning() -> AsyncIterator[Owner]:
    cluster = MemoryCluster()
    cluster.create_topics([TopicSpec(log.topic, 1, config={"cleanup.policy": "compact"}) for log in (CHANGELOG, OTHER)])
    owner = Owner(cluster, MemoryProducer(cluster), await task_table(CHANGELOG), await task_table(OTHER))
    await owner.broker.start()
    await owner.producer.start()
    yield owner
    await owner.producer.stop()


async def write(producer: MemoryProducer, changelog: TopicPartition = CHANGELOG, /, **values: int | None) -> None:
    now_ms = 1_700_000_000_000
    records: list[Outgoing] = [
        (encode_key(key), None if value is None else encode_value(value), (), now_ms) for key, value in values.items()
    ]
    await asyncio.gather(*await producer.send(changelog, records))


async def somebody_writes(owner: Owner, changelog: TopicPartition = CHANGELOG, /, **values: int | None) -> None:
    """A worker that has lost this task, and does not know it yet, writes what it holds for true."""
    zombie = MemoryProducer(owner.cluster)
    await zombie.start()
    await write(zombie, changelog, **values)
    await zombie.stop()


# A woken zombie.


@pytest.mark.parametrize(
    "theirs",
    [
        {"touched": 90},
        {"touched": None},
        {"untouched": 90},
        {"untouched": None},
        {"new": 90},
        {"touched": 90, "untouched": 91, "new": 92, "again": 93},
    ],
    ids=str,
)
async def test_what_a_woken_zombie_has_written_is_taken_back_at_the_next_checkpoint(
    theirs: dict[str, int | None],
) -> None:
    async with owning() as owner:
        owner.set(touched=1, untouched=2)
        await owner.checkpoint()
        await somebody_writes(owner, **theirs)
        owner.set(touched=3)
        await owner.checkpoint()
        await owner.agrees_on(touched=3, untouched=2)
        assert owner.group.committed == POSITIONS


async def test_what_the_owner_has_deleted_stays_deleted() -> None:
    async with owning() as owner:
        owner.set(before=1, now=1, other=1)
        await owner.checkpoint()
        owner.delete("before")
        await owner.checkpoint()
        await somebody_writes(owner, before=90, now=90)
        owner.delete("now")
        await owner.checkpoint()
        await owner.agrees_on(other=1)


class Disturbed:
    """The owner's producer, beside which something happens, by turns, just before or after each batch lands."""

    def __init__(
        self, owner: Owner, *, before: Sequence[Callable[[], Any]] = (), after: Sequence[Callable[[], Any]] = ()
    ) -> None:
        self._producer = owner.producer
        self._before, self._after = list(before), list(after)

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        acks: list[asyncio.Future[Ack]] = []
        for record in records:
            if self._before:
                await self._before.pop(0)()
            acks.extend(await self._producer.send(partition, [record]))
            await asyncio.wait(acks)
            if self._after:
                await self._after.pop(0)()
        return acks


@asynccontextmanager
async def disturbed(owner: Owner, **happenings: Sequence[Callable[[], Any]]) -> AsyncIterator[None]:
    producer = owner.producer
    owner.producer = cast(MemoryProducer, Disturbed(owner, **happenings))
    yield
    owner.producer = producer


async def nothing() -> None: ...


async def test_a_write_between_two_batches_of_one_checkpoint_is_taken_back() -> None:
    async with owning() as owner:
        async with disturbed(owner, before=[nothing, lambda: somebody_writes(owner, a=90, b=90, c=90)]):
            owner.set(a=1, b=1)
            await owner.checkpoint()
        await owner.agrees_on(a=1, b=1)


async def test_a_write_right_behind_a_checkpoint_is_taken_back_at_the_next() -> None:
    async with owning() as owner:
        async with disturbed(owner, after=[lambda: somebody_writes(owner, a=90, b=90)]):
            owner.set(a=1)
            await owner.checkpoint()
        assert owner.offset == 1, "nobody has noticed"
        owner.set(c=1)
        await owner.checkpoint()
        await owner.agrees_on(a=1, c=1)


async def test_a_key_that_says_the_same_is_not_written_again() -> None:
    async with owning() as owner:
        owner.set(a=1, b=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=1, b=90)
        owner.set(c=1)
        await owner.checkpoint()
        assert owner.end == 2 + 2 + 1 + 1, "b alone is written again"
        await owner.agrees_on(a=1, b=1, c=1)


async def test_a_long_gap_is_read_to_its_end() -> None:
    async with owning() as owner:
        owner.set(mine=1)
        await owner.checkpoint()
        zombie = MemoryProducer(owner.cluster)
        await zombie.start()
        large = [(encode_key(number), encode_value("x" * 200_000), (), 1) for number in range(12)]
        await asyncio.gather(*await zombie.send(CHANGELOG, large))
        await zombie.stop()
        owner.set(mine=2)
        await owner.checkpoint()
        await owner.agrees_on(mine=2)


async def test_the_other_tables_of_the_task_are_left_alone() -> None:
    async with owning() as owner:
        owner.users.partition.set("u", 1)
        owner.set(a=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90)
        owner.users.partition.set("u", 2)
        owner.set(b=1)
        await owner.checkpoint()
        await owner.agrees_on(a=1, b=1)
        assert owner.users.partition.store.changelog_offset == owner.cluster.log(OTHER).end_offset == 2


async def test_the_task_goes_on_with_its_own_values_meanwhile() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90)
        owner.set(b=1)
        checkpoint = asyncio.ensure_future(owner.checkpoint())
        await asyncio.sleep(0)
        owner.set(a=2)
        await checkpoint
        assert owner.clicks.partition.get("a") == 2
        assert owner.table == {"a": 1, "b": 1}
        await owner.checkpoint()
        await owner.agrees_on(a=2, b=1)


async def test_what_is_reclaimed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with owning() as owner:
        owner.set(a=1, b=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90, b=1)
        owner.set(c=1)
        await owner.checkpoint()
    assert said(caplog, "changelog reclaimed") == [
        {
            "event": "changelog reclaimed",
            "table": "clicks",
            "changelog": "clicks-log[0]",
            "from_offset": 2,
            "to_offset": 5,
            "keys": 1,
        }
    ]


# A batch of one's own that was believed to have failed.


async def test_a_batch_that_was_believed_to_have_failed_never_happened() -> None:
    async with owning() as owner:
        owner.set(a=1, gone=1)
        await owner.checkpoint()
        await owner.believe_failed(a=2, gone=None, new=2)
        assert await owner.reclaim() == owner.end == 8
        assert await owner.restored() == owner.table == {"a": 1, "gone": 1}


async def test_a_batch_that_was_believed_to_have_failed_is_not_in_the_way_of_the_next_checkpoint() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        await owner.believe_failed(a=2, b=2)
        owner.set(b=3)
        await owner.checkpoint()
        await owner.agrees_on(a=1, b=3)


async def test_where_nothing_was_written_nothing_is_read_or_written() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        owner.cluster.fail_next("fetch", BrokerError("fetched"))
        assert await owner.reclaim() == owner.end == 1


# Where the broker does not know where a batch stands.


class Forgetful:
    """The owner's producer, of a broker that knows each batch and not where it stands."""

    def __init__(self, owner: Owner) -> None:
        self._producer = owner.producer

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        acks: list[asyncio.Future[Ack]] = []
        for ack in await self._producer.send(partition, records):
            acks.append(asyncio.get_running_loop().create_future())
            acks[-1].set_result(Ack(-1, (await ack).records))
        return acks


async def test_a_batch_of_which_nobody_knows_where_it_stands_is_found_in_the_log() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        producer, owner.producer = owner.producer, cast(MemoryProducer, Forgetful(owner))
        owner.set(a=2, b=2)
        await owner.checkpoint()
        owner.producer = producer
        assert owner.end == 3, "nothing is written again"
        await owner.agrees_on(a=2, b=2)
        owner.set(c=1)
        await owner.checkpoint()
        await owner.agrees_on(a=2, b=2, c=1)


async def test_a_batch_of_which_nobody_knows_where_it_stands_says_nothing_of_others() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90)
        producer, owner.producer = owner.producer, cast(MemoryProducer, Forgetful(owner))
        owner.set(b=1)
        with pytest.raises(ForeignWrite, match="landed at an unknown offset"):
            await owner.checkpoint()
        owner.producer = producer
        assert owner.table == {"a": 1}
        assert await owner.reclaim() == owner.end
        assert await owner.restored() == {"a": 1}


# Gaps of every kind.


async def test_a_gap_of_transaction_markers_alone_is_passed_over_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        for _ in range(3):
            owner.cluster.append_marker(CHANGELOG)
        assert await owner.reclaim() == 4
        assert said(caplog, "changelog reclaimed") == []
        owner.set(b=1)
        await owner.checkpoint()
        assert owner.end == 5
        await owner.agrees_on(a=1, b=1)


async def test_markers_before_and_behind_somebodys_records_are_passed_over() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        owner.cluster.append_marker(CHANGELOG)
        await somebody_writes(owner, a=90)
        owner.cluster.append_marker(CHANGELOG)
        async with disturbed(owner, after=[lambda: asyncio.sleep(0, owner.cluster.append_marker(CHANGELOG))]):
            owner.set(b=1)
            await owner.checkpoint()
        await owner.agrees_on(a=1, b=1)


async def test_a_gap_that_compaction_has_thinned_is_taken_back_as_well() -> None:
    async with owning() as owner:
        owner.set(a=1, b=1, c=1)
        await owner.checkpoint()
        for value in (90, 91):
            await somebody_writes(owner, a=value, b=None, new=value)
        owner.cluster.compact(CHANGELOG.topic)
        owner.set(c=2)
        await owner.checkpoint()
        owner.cluster.compact(CHANGELOG.topic)
        await owner.agrees_on(a=1, b=1, c=2)


async def test_a_gap_whose_own_records_were_compacted_away_is_taken_back_as_well() -> None:
    """Our batch lands, somebody writes its keys again, and the cleaner runs before we have looked."""
    async with owning() as owner:

        async def write_and_compact() -> None:
            await somebody_writes(owner, a=90)
            owner.cluster.compact(CHANGELOG.topic)

        async with disturbed(owner, after=[write_and_compact]):
            owner.set(a=1, b=1)
            await owner.checkpoint()
        await owner.agrees_on(a=1, b=1)


async def test_a_record_without_a_key_is_passed_over() -> None:
    """No table writes one; the next restore refuses it by name."""
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        zombie = MemoryProducer(owner.cluster)
        await zombie.start()
        await asyncio.gather(*await zombie.send(CHANGELOG, [(b"", b"x", (), 1)]))
        await zombie.stop()
        owner.set(b=1)
        await owner.checkpoint()
        assert (owner.table, owner.offset) == ({"a": 1, "b": 1}, 3)


# Who is not the owner any more, and who cannot.


async def test_who_is_not_the_owner_any_more_writes_nothing_back() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90)
        owner.group.lost = NotOwner("another worker has it")
        with pytest.raises(NotOwner, match="another worker has it"):
            await owner.reclaim()
        assert (owner.end, owner.offset) == (2, 1)
        assert await owner.restored() == {"a": 90}


async def test_who_loses_the_task_while_the_changelog_is_read_writes_nothing_back() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90)
        owner.cluster.hold("fetch")
        reclaiming = asyncio.ensure_future(owner.reclaim())
        for _ in range(20):
            await asyncio.sleep(0)
        owner.group.lost = NotOwner("another worker has it")
        owner.cluster.release("fetch")
        with pytest.raises(NotOwner):
            await reclaiming
        assert (owner.end, owner.offset) == (2, 1)


async def test_a_checkpoint_of_one_who_is_not_the_owner_any_more_leaves_the_store_alone() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90)

        async def lose() -> None:
            owner.group.lost = NotOwner("another worker has it")

        async with disturbed(owner, before=[lose]):
            owner.set(b=1)
            with pytest.raises(NotOwner):
                await owner.checkpoint()
        assert (owner.table, owner.offset, owner.end) == ({"a": 1}, 1, 3)


async def test_somebody_who_goes_on_writing_is_said_and_nothing_is_durable() -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        owner.group.committed = {}
        again = [lambda: somebody_writes(owner, a=90), lambda: somebody_writes(owner, a=91)]
        async with disturbed(owner, before=again):
            owner.set(b=1)
            with pytest.raises(ForeignWrite) as caught:
                await owner.checkpoint()
        assert str(caught.value) == (
            "A batch of changelog clicks-log[0] landed at offset 4, where table 'clicks' expected 3:"
            " somebody else goes on writing to it, or a retry hid where it stands."
        )
        assert (owner.table, owner.offset) == ({"a": 1}, 1)
        assert not owner.group.committed
        assert await owner.reclaim() == owner.end, "once they are quiet"
        assert await owner.restored() == {"a": 1}


@pytest.mark.parametrize("operation", ["offsets", "fetch", "produce"])
async def test_a_broker_that_fails_meanwhile_leaves_nothing_durable(operation: Any) -> None:
    async with owning() as owner:
        owner.set(a=1)
        await owner.checkpoint()
        owner.group.committed = {}
        await somebody_writes(owner, a=90)

        async def fail() -> None:
            owner.cluster.fail_next(operation, BrokerError("away"))

        happens: dict[str, Any] = {"before": [nothing, fail]} if operation == "produce" else {"after": [fail]}
        async with disturbed(owner, **happens):
            owner.set(b=1)
            with pytest.raises(BrokerError, match="away"):
                await owner.checkpoint()
        assert (owner.table, owner.offset) == ({"a": 1}, 1)
        assert not owner.group.committed
        assert await owner.reclaim() == owner.end
        assert await owner.restored() == {"a": 1}


async def test_the_reader_is_closed_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    async with owning() as owner:
        opened: list[Any] = []
        reader_as_before = owner.broker.reader

        def reader() -> Any:
            opened.append(reader_as_before())
            return opened[-1]

        monkeypatch.setattr(owner.broker, "reader", reader)
        await somebody_writes(owner, a=90)
        await owner.reclaim()
        owner.cluster.fail_next("fetch", BrokerError("away"))
        with pytest.raises(BrokerError, match="away"):
            await owner.reclaim()
        assert len(opened) == 2
        for each in opened:
            with pytest.raises(BrokerError, match="not open"):
                each.position(CHANGELOG)


@pytest.mark.parametrize("records", [0, 1])
async def test_a_changelog_that_was_made_anew_is_not_taken_for_the_tables_own(records: int) -> None:
    """It holds less than the store has read: what the store says cannot be restored from it any more."""
    async with owning() as owner:
        owner.set(a=1, b=1)
        await owner.checkpoint()
        owner.cluster.delete_topics([CHANGELOG.topic])
        owner.cluster.create_topics([TopicSpec(CHANGELOG.topic, 1, config={"cleanup.policy": "compact"})])
        await write(owner.producer, **dict.fromkeys("a"[:records], 1))
        with pytest.raises(OffsetOutOfRange) as caught:
            await owner.reclaim()
        assert (caught.value.topic, caught.value.partition, caught.value.offset) == (*CHANGELOG, 2)
        assert str(caught.value) == (
            f"Table 'clicks' stands at offset 2 of changelog clicks-log[0], which ends at {records}: records were"
            " deleted from it, or it was made anew."
        )


async def test_a_changelog_that_was_cut_is_not_taken_for_the_tables_own() -> None:
    async with owning() as owner:
        owner.set(a=1, b=1)
        await owner.checkpoint()
        await somebody_writes(owner, a=90, b=91)
        owner.cluster.delete_records(CHANGELOG, before=3)
        with pytest.raises(OffsetOutOfRange):
            await owner.reclaim()
        assert owner.end == 4


# Whatever happens.

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.none() | st.integers(0, 3)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["owner", "zombie", "failed"]), KEYS, VALUES)
    | st.tuples(st.sampled_from(["checkpoint", "go back", "marker", "compact"]), st.none(), st.none()),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_table_store_and_changelog_agree_whatever_others_write(
    events: list[tuple[str, str | None, int | None]],
) -> None:
    async def scenario() -> None:
        async with owning() as owner:
            live: dict[str, int] = {}
            unchecked: dict[str, int | None] = {}
            for what, key, value in events:
                if what == "owner" and key is not None:
                    owner.delete(key) if value is None else owner.set(**{key: value})
                    unchecked[key] = value
                elif what == "zombie" and key is not None:
                    await somebody_writes(owner, **{key: value})
                elif what == "failed" and key is not None:
                    await owner.believe_failed(**{key: value})
                elif what == "marker":
                    owner.cluster.append_marker(CHANGELOG)
                elif what == "compact":
                    owner.cluster.compact(CHANGELOG.topic)
                elif what == "checkpoint":
                    await owner.checkpoint()
                    live.update({key: value for key, value in unchecked.items() if value is not None})
                    for key in [key for key, value in unchecked.items() if value is None]:
                        live.pop(key, None)
                    unchecked.clear()
                else:
                    owner.clicks.partition.discard()
                    unchecked.clear()
                    offset = await owner.reclaim()
                    owner.clicks.partition.store.write({}, offset, 0)
            owner.set(last=1)
            await owner.checkpoint()
            for key, value in unchecked.items():
                live.pop(key, None)
                if value is not None:
                    live[key] = value
            await owner.agrees_on(**live, last=1)

    run(scenario())
