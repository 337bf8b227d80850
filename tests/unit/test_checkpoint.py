"""Making finished work durable: the numbered steps in their order, and what each failure leaves behind.

What becomes of a changelog that somebody else has written to stands in `test_reclaim`.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import pytest

from paperboy.brokers.protocol import Ack, Broker, Consumer, Outgoing, TopicPartition
from paperboy.engine.checkpoint import Checkpoint
from paperboy.engine.stores import TaskTable
from paperboy.errors import BrokerError, NotOwner, StoreError
from paperboy.serializers.values import decode_value, encode_value
from paperboy.tables.keys import decode_key, encode_key
from paperboy.tables.stores.memory import MemoryStore
from tests.unit.test_held_stores import task_table

pytestmark = pytest.mark.time_limit(10)

GENERATION = 3
NOW_MS = 1_700_000_000_000
VIEWS = TopicPartition("views", 0)
POSITIONS = {VIEWS: 17}


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def time_ms(self) -> int:
        return self.now_ms


class Door:
    """The broker, of which a checkpoint that nobody disturbs needs the clock."""

    def __init__(self) -> None:
        self.clock = Clock()


class Group:
    """The consumer, as a checkpoint sees it; the assignment can end after so many questions."""

    def __init__(self, did: list[str]) -> None:
        self.did = did
        self.asked = 0
        self.owned_for: int | None = None
        self.lost: NotOwner | None = None
        self.refuses: Exception | None = None
        self.committed: Mapping[TopicPartition, int] = {}

    async def confirm(self, generation: int) -> None:
        """What the group says; `owns` is what was heard."""
        assert generation == GENERATION
        self.did.append("confirmed?")
        await asyncio.sleep(0)
        if self.lost is not None:
            raise self.lost

    def owns(self, generation: int) -> bool:
        assert generation == GENERATION
        self.asked += 1
        self.did.append("owned?")
        return self.owned_for is None or self.asked <= self.owned_for

    async def commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        assert generation == GENERATION
        self.did.append("commit")
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        self.committed = offsets


class Log:
    """The producer, and the changelogs it writes to. Batches are acknowledged when told to, or at once."""

    def __init__(self, did: list[str]) -> None:
        self.did = did
        self.records: dict[TopicPartition, list[Outgoing]] = {}
        self.waiting: list[tuple[asyncio.Future[Ack], Ack]] = []
        self.at_once = True
        self.batch = 100
        self.refuses: dict[TopicPartition, Exception] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        self.did.append(f"send {partition}")
        await asyncio.sleep(0)
        if partition in self.refuses:
            raise self.refuses[partition]
        log = self.records.setdefault(partition, [])
        acks: list[asyncio.Future[Ack]] = []
        for start in range(0, len(records), self.batch):
            batch = records[start : start + self.batch]
            ack = asyncio.get_running_loop().create_future()
            self.waiting.append((ack, Ack(len(log), len(batch))))
            log.extend(batch)
            acks.append(ack)
        if self.at_once:
            self.acknowledge()
        return acks

    def acknowledge(self) -> None:
        for future, ack in self.waiting:
            self.did.append("ack")
            future.set_result(ack)
        self.waiting.clear()


class Store(MemoryStore):
    def __init__(self, name: str, did: list[str]) -> None:
        super().__init__(name)
        self.fails: StoreError | None = None
        self._did = did
        self._name = name

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
        self._did.append(f"store {self._name}")
        if self.fails is not None:
            raise self.fails
        super().write(changes, changelog_offset, in_step_ms)


class World:
    """Two tables, the log and the group, and what was done in which order."""

    def __init__(self, clicks: TaskTable, users: TaskTable, did: list[str]) -> None:
        self.did = did
        self.door = Door()
        self.group = Group(did)
        self.log = Log(did)
        self.clicks, self.users = clicks, users
        self.outputs: list[asyncio.Future[Ack]] = []

    @classmethod
    async def new(cls) -> "World":
        did: list[str] = []
        clicks, users = [
            await task_table(TopicPartition(f"{name}-log", 0), Store(name, did)) for name in ("clicks", "users")
        ]
        return cls(clicks, users, did)

    def checkpoint(self, positions: Mapping[TopicPartition, int] = POSITIONS) -> Checkpoint:
        return Checkpoint(
            [self.clicks, self.users],
            positions,
            self.outputs,
            cast(Broker, self.door),
            cast(Consumer, self.group),
            self.log,
            GENERATION,
        )

    def output(self) -> "asyncio.Future[Ack]":
        """Something that a message sent, under way."""
        self.outputs.append(asyncio.get_running_loop().create_future())
        return self.outputs[-1]

    @property
    def stored(self) -> list[tuple[dict[Any, Any], int | None]]:
        return [
            (
                {decode_key(key): decode_value(value) for key, value in table.partition.store.scan()},
                table.partition.store.changelog_offset,
            )
            for table in (self.clicks, self.users)
        ]

    def nothing_is_durable(self) -> bool:
        return self.stored == [({}, None), ({}, None)] and not self.group.committed


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(50):
        await asyncio.sleep(0)


def count(did: Iterable[str], what: str) -> int:
    return sum(each.startswith(what) for each in did)


async def test_the_steps_come_in_their_order() -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    world.users.partition.set("b", 2)
    checkpoint = world.checkpoint()
    await checkpoint.run()
    assert world.did == [
        "confirmed?",
        "owned?",
        "send clicks-log[0]",
        "ack",
        "send users-log[0]",
        "ack",
        "owned?",
        "store clicks",
        "store users",
        "owned?",
        "commit",
    ]
    assert world.stored == [({"a": 1}, 1), ({"b": 2}, 1)]
    assert world.group.committed == POSITIONS
    assert (checkpoint.commit_error, checkpoint.changed_keys) == (None, 2)


async def test_the_changelog_gets_the_last_value_of_each_changed_key_and_tombstones() -> None:
    world = await World.new()
    for value in (1, 2, [3]):
        world.clicks.partition.set("a", value)
    world.clicks.partition.set("b", 1)
    world.clicks.partition.delete("b")
    world.clicks.partition.set("c", None)
    await world.checkpoint().run()
    assert world.log.records == {
        world.clicks.changelog: [
            (encode_key("a"), encode_value([3]), (), NOW_MS),
            (encode_key("b"), None, (), NOW_MS),
            (encode_key("c"), encode_value(None), (), NOW_MS),
        ]
    }
    assert world.stored[0] == ({"a": [3], "c": None}, 3)


async def test_the_task_goes_on_over_the_layer_that_is_being_checkpointed() -> None:
    world = await World.new()
    world.log.at_once = False
    world.clicks.partition.set("a", 1)
    running = asyncio.ensure_future(world.checkpoint().run())
    await turns()
    assert world.clicks.partition.get("a") == 1
    world.clicks.partition.set("a", 2)
    world.log.acknowledge()
    await running
    world.log.at_once = True
    assert world.clicks.partition.get("a") == 2
    assert world.stored[0] == ({"a": 1}, 1)
    await world.checkpoint().run()
    assert world.log.records[world.clicks.changelog][1][1] == encode_value(2)


async def test_the_layers_are_swapped_when_the_checkpoint_is_made_not_when_it_runs() -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    checkpoint = world.checkpoint()
    world.clicks.partition.set("a", 2)
    await checkpoint.run()
    assert world.stored[0] == ({"a": 1}, 1)
    assert world.clicks.partition.get("a") == 2


async def test_neither_store_nor_commit_before_every_changelog_ack() -> None:
    world = await World.new()
    world.log.at_once = False
    world.log.batch = 10
    for key in range(25):
        world.clicks.partition.set(key, key)
    running = asyncio.ensure_future(world.checkpoint().run())
    await turns()
    assert len(world.log.waiting) == 3
    for future, ack in reversed(world.log.waiting):
        assert world.nothing_is_durable()
        assert count(world.did, "store") == count(world.did, "commit") == 0
        future.set_result(ack)
        await turns()
    await running
    assert world.stored[0] == ({key: key for key in range(25)}, 25)
    assert world.group.committed == POSITIONS


async def test_neither_store_nor_commit_before_every_outputs_ack() -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    outputs = [world.output(), world.output()]
    running = asyncio.ensure_future(world.checkpoint().run())
    for output in outputs:
        await turns()
        assert world.nothing_is_durable()
        output.set_result(Ack(0, 1))
    await running
    assert world.group.committed == POSITIONS


async def test_without_changes_and_outputs_the_positions_are_committed_all_the_same() -> None:
    world = await World.new()
    await world.checkpoint().run()
    assert world.did == ["owned?", "owned?", "owned?", "commit"]
    assert world.group.committed == POSITIONS


async def test_without_new_positions_the_tables_are_written_and_nothing_is_committed() -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    await world.checkpoint({}).run()
    assert world.stored[0] == ({"a": 1}, 1)
    assert "commit" not in world.did


async def test_a_table_without_changes_is_left_alone() -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    await world.checkpoint().run()
    assert "send users-log[0]" not in world.did
    assert "store users" not in world.did


@pytest.mark.parametrize("failing", [0, 1])
async def test_an_output_that_was_not_taken_leaves_nothing_durable(failing: int) -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    outputs = [world.output(), world.output()]
    outputs[failing].set_exception(BrokerError("refused"))
    outputs[1 - failing].set_result(Ack(0, 1))
    with pytest.raises(BrokerError, match="refused"):
        await world.checkpoint().run()
    assert world.nothing_is_durable()


async def test_a_changelog_batch_that_was_not_taken_leaves_nothing_durable() -> None:
    world = await World.new()
    world.log.at_once = False
    world.clicks.partition.set("a", 1)
    world.users.partition.set("a", 1)
    running = asyncio.ensure_future(world.checkpoint().run())
    await turns()
    (clicks, ack), (users, _) = world.log.waiting
    clicks.set_result(ack)
    users.set_exception(BrokerError("refused"))
    with pytest.raises(BrokerError, match="refused"):
        await running
    assert world.nothing_is_durable()


async def test_a_changelog_that_takes_no_batch_leaves_nothing_durable() -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    world.users.partition.set("a", 1)
    world.log.refuses[world.users.changelog] = BrokerError("closed")
    with pytest.raises(BrokerError, match="closed"):
        await world.checkpoint().run()
    assert world.nothing_is_durable()


async def test_offsets_go_on_from_where_the_store_stands() -> None:
    world = await World.new()
    world.log.records[world.clicks.changelog] = [(b"before", b"", (), 0)] * 40
    world.clicks.partition.store.write({}, 40, 0)
    for round_ in range(3):
        for key in range(5):
            world.clicks.partition.set(key, round_)
        await world.checkpoint({VIEWS: round_ + 1}).run()
        assert world.clicks.partition.store.changelog_offset == 40 + 5 * (round_ + 1)


async def test_the_store_is_in_step_with_the_changelog_as_of_before_it_was_written() -> None:
    world = await World.new()
    world.log.at_once = False
    world.clicks.partition.set("a", 1)
    running = asyncio.ensure_future(world.checkpoint().run())
    await turns()
    world.door.clock.now_ms += 60_000
    world.log.acknowledge()
    await running
    assert world.clicks.partition.store.in_step_ms == NOW_MS


@pytest.mark.parametrize("failing", ["clicks", "users"])
async def test_a_store_that_fails_is_told_and_nothing_is_committed(failing: str) -> None:
    world = await World.new()
    for table in (world.clicks, world.users):
        table.partition.set("a", 1)
        if table.partition.table == failing:
            cast(Store, table.partition.store).fails = StoreError("the disk is full")
    with pytest.raises(StoreError, match="the disk is full"):
        await world.checkpoint().run()
    assert "commit" not in world.did


async def test_a_tables_own_ear_hears_of_what_has_become_durable_and_of_nothing_else() -> None:
    world = await World.new()
    heard: list[tuple[Any, ...]] = []
    world.clicks.partition.on_change = lambda change: heard.append((len(world.did), *change))
    world.users.partition.set("b", 2)
    for value in (1, 2):
        world.clicks.partition.set("a", value)
    world.clicks.partition.delete("gone")
    world.group.refuses = BrokerError("no coordinator")
    await world.checkpoint().run()
    done = len(world.did)
    assert heard == [(done, 0, "a", 2, False), (done, 0, "gone", None, True)], "after the last step, the last value"
    world.group.refuses = None
    world.clicks.partition.set("a", 3)
    cast(Store, world.clicks.partition.store).fails = StoreError("the disk is full")
    with pytest.raises(StoreError):
        await world.checkpoint().run()
    assert len(heard) == 2


async def test_the_group_itself_is_asked_before_anything_is_written_to_a_changelog() -> None:
    """A process that stood still has heard nothing: it would believe that it owns the task."""
    world = await World.new()
    world.clicks.partition.set("a", 1)
    world.group.lost = NotOwner("another worker has it")
    with pytest.raises(NotOwner, match="another worker has it"):
        await world.checkpoint().run()
    assert world.did == ["confirmed?"]
    assert world.nothing_is_durable()


async def test_who_has_nothing_to_write_to_a_changelog_does_not_bother_the_group() -> None:
    world = await World.new()
    await world.checkpoint().run()
    assert "confirmed?" not in world.did


CHECKS = [
    (0, {"owned?": 1, "send": 0, "store": 0, "commit": 0}),
    (1, {"owned?": 2, "send": 2, "store": 0, "commit": 0}),
    (2, {"owned?": 3, "send": 2, "store": 2, "commit": 0}),
]


@pytest.mark.parametrize(
    ("owned_for", "done"), CHECKS, ids=["before the changelog", "before the store", "before the commit"]
)
async def test_who_is_not_the_owner_any_more_goes_no_further(owned_for: int, done: dict[str, int]) -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    world.users.partition.set("a", 1)
    world.group.owned_for = owned_for
    with pytest.raises(NotOwner):
        await world.checkpoint().run()
    assert {what: count(world.did, what) for what in done} == done
    assert not world.group.committed


async def test_ownership_is_asked_for_again_after_the_wait_for_acks() -> None:
    world = await World.new()
    world.log.at_once = False
    world.clicks.partition.set("a", 1)
    running = asyncio.ensure_future(world.checkpoint().run())
    await turns()
    world.group.owned_for = world.group.asked
    world.log.acknowledge()
    with pytest.raises(NotOwner):
        await running
    assert world.nothing_is_durable()


async def test_when_only_the_commit_fails_the_tables_are_durable_and_the_next_checkpoint_commits() -> None:
    world = await World.new()
    world.clicks.partition.set("a", 1)
    world.group.refuses = BrokerError("no coordinator")
    failed = world.checkpoint()
    await failed.run()
    assert failed.commit_error is world.group.refuses
    assert world.stored[0] == ({"a": 1}, 1)
    assert not world.group.committed
    world.group.refuses = None
    world.clicks.partition.set("a", 2)
    await world.checkpoint({VIEWS: 20}).run()
    assert world.stored[0] == ({"a": 2}, 2)
    assert world.group.committed == {VIEWS: 20}


async def test_a_commit_that_comes_too_late_says_that_the_task_is_lost() -> None:
    world = await World.new()
    world.group.refuses = NotOwner("the group has moved on")
    with pytest.raises(NotOwner, match="moved on"):
        await world.checkpoint().run()


async def test_what_was_written_can_be_frozen_again_after_a_checkpoint() -> None:
    world = await World.new()
    for value in range(3):
        world.clicks.partition.set("a", value)
        await world.checkpoint().run()
    assert world.stored[0] == ({"a": 2}, 3)


async def test_a_large_layer_is_encoded_with_turns_for_the_others_in_between() -> None:
    world = await World.new()
    world.log.batch = 100_000
    for key in range(10_000):
        world.clicks.partition.set(key, key)
    running = asyncio.ensure_future(world.checkpoint().run())
    passed = 0
    while not count(world.did, "send"):
        await asyncio.sleep(0)
        passed += 1
    assert passed >= 3
    await running
    assert world.stored[0] == ({key: key for key in range(10_000)}, 10_000)


def test_the_fakes_are_what_a_checkpoint_asks_for() -> None:
    """A fake that grew apart from the protocol would prove nothing."""
    asked: Collection[str] = [name for name in vars(Group) if not name.startswith("_")]
    assert all(hasattr(Consumer, name) for name in asked)
