"""Resetting a group: offsets, changelogs and local stores together, on each broker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from paperboy import BrokerError, DeadLetter, Engine, GlobalTable, Handler, Table
from paperboy.brokers.memory import memory_cluster
from paperboy.brokers.protocol import RESETTING, TopicPartition, TopicSpec
from paperboy.cli.administration import Administration, open_administration
from paperboy.cli.loading import definition_of
from paperboy.cli.reset import Reset, Start, carry_out, described, plan
from paperboy.engine.home import take_home
from paperboy.errors import ConfigurationError, StoreError
from paperboy.serializers import Bytes
from tests.contract.engine.kit import Kit


class Counting:
    """An engine that counts keys, as often as it is made."""

    def __init__(self, kit: Kit, topic: str, state_dir: Path, **table: Any) -> None:
        self.kit = kit
        self.topic = topic
        self.state_dir = state_dir
        self.table = table
        self.changelog = f"{kit.group}-counts-changelog"

    def engine(self, **options: Any) -> tuple[Engine, Table]:
        counts = Table("counts", store="rocksdb://", **self.table)

        class Counter(Handler):
            topic = self.topic

            @classmethod
            async def on_message(cls, msg, ctx):
                counts.update(msg.key, lambda count: count + 1, default=0)

        engine = self.kit.engine(Counter, state_dir=self.state_dir, **options)
        engine.register_table(counts)
        return engine, counts

    async def run(self, **options: Any) -> dict[bytes, int]:
        """Handle all there is; returns the counts, which no key may have in two partitions."""
        engine, counts = self.engine(**options)
        async with engine:
            await engine.caught_up()
            entries = list(counts.snapshot())
        assert len({entry.key for entry in entries}) == len(entries)
        return {entry.key: entry.value for entry in entries}

    async def plan(self, broker: Administration, start: Start = "earliest", **options: Any) -> Reset:
        return await plan(definition_of(self.engine(**options)[0]), broker, start)

    async def reset(self, start: Start = "earliest", report: Callable[[str], None] = lambda done: None) -> None:
        async with administration(self.kit) as broker:
            await carry_out(await self.plan(broker, start), broker, report)

    def stores(self) -> list[str]:
        """Where there are stores, below the group's directory."""
        group = self.state_dir / self.kit.group
        return sorted(str(path.parent.relative_to(group)) for path in group.rglob("CURRENT"))

    async def committed(self, partitions: int) -> list[int | None]:
        return [await self.kit.committed(self.topic, number) for number in range(partitions)]


@asynccontextmanager
async def administration(kit: Kit) -> AsyncIterator[Administration]:
    broker = open_administration(kit.bootstrap)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@pytest.fixture
def counting(kit: Kit, tmp_path: Path) -> Callable[..., Awaitable[Counting]]:
    """Makes the input topic, with two records of each key, in the partition of the key's number."""

    async def make(partitions: int = 2, **table: Any) -> Counting:
        topic = await kit.topic("clicks", partitions)
        for number in range(partitions):
            await kit.send(topic, [(b"%d" % number, b"a"), (b"%d" % number, b"b")], number)
        return Counting(kit, topic, tmp_path, **table)

    return make


async def grow(kit: Kit, topic: str, partitions: int) -> None:
    if kit.bootstrap.startswith("memory:"):
        memory_cluster(kit.unique).create_partitions(topic, partitions)
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=kit.bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions)})
        async with kit.broker() as broker:
            while (await broker.describe_topics([topic]))[topic].partitions < partitions:
                pass
    finally:
        await admin.close()


Make = Callable[..., Awaitable[Counting]]


async def test_after_a_reset_everything_is_handled_again_from_nothing(counting: Make) -> None:
    job = await counting()
    assert await job.run() == {b"0": 2, b"1": 2}
    assert job.stores() == ["1/counts/0", "1/counts/1"]
    await job.reset()
    assert job.stores() == []
    assert await job.kit.read(job.changelog) == []
    assert await job.committed(2) == [0, 0]
    assert await job.run() == {b"0": 2, b"1": 2}


async def test_a_plan_says_what_would_be_done_and_does_nothing(counting: Make) -> None:
    job = await counting()
    await job.run()
    before = await job.kit.read(job.changelog), await job.committed(2), job.stores()
    async with administration(job.kit) as broker:
        reset = await job.plan(broker)
    assert described(reset) == [
        "Input offsets of the group:",
        f"  {job.topic}[0]: 2 -> 0",
        f"  {job.topic}[1]: 2 -> 0",
        "Changelogs, deleted and made anew:",
        f"  {job.changelog}: 2 partitions, cleanup.policy=compact",
        "Local stores, removed:",
        f"  {job.state_dir}/{job.kit.group}/1/counts/0",
        f"  {job.state_dir}/{job.kit.group}/1/counts/1",
    ]
    assert (await job.kit.read(job.changelog), await job.committed(2), job.stores()) == before


async def test_an_input_that_has_grown_gets_changelogs_that_have_grown_with_it(counting: Make) -> None:
    job = await counting(partitions=2)
    await job.run()
    await grow(job.kit, job.topic, 4)
    await job.kit.send(job.topic, [(b"3", b"a")], 3)
    with pytest.raises(ConfigurationError, match="has 2 partitions, but the input topics have 4"):
        await job.run()
    async with administration(job.kit) as broker:
        lines = described(await job.plan(broker))
    assert f"  {job.topic}[3]: none -> 0" in lines
    assert f"  {job.changelog}: 2 -> 4 partitions, cleanup.policy=compact" in lines
    await job.reset()
    assert await job.committed(4) == [0, 0, 0, 0]
    assert await job.run() == {b"0": 2, b"1": 2, b"3": 1}


async def test_a_changelog_keeps_its_own_settings_under_those_of_its_table(counting: Make) -> None:
    job = await counting(changelog_topic_segment_ms=200_000)
    own = {"max_message_bytes": "500000", "segment_ms": "100000"}
    await job.kit.changelog("counts", 2, **own)
    async with job.kit.broker() as broker:
        before = (await broker.describe_topics([job.changelog]))[job.changelog]
        await job.reset()
        after = (await broker.describe_topics([job.changelog]))[job.changelog]
    assert after.id != before.id
    changed = {name: value for name, value in after.config.items() if before.config[name] != value}
    assert changed == {"segment.ms": "200000"}
    assert after.max_message_bytes == 500_000


async def test_a_changelog_that_does_not_exist_is_made(counting: Make) -> None:
    job = await counting()
    async with administration(job.kit) as broker:
        lines = described(await job.plan(broker))
    assert f"  {job.changelog}: does not exist -> 2 partitions, cleanup.policy=compact" in lines
    assert f"  {job.topic}[0]: none -> 0" in lines
    await job.reset()
    assert await job.run() == {b"0": 2, b"1": 2}


async def test_a_group_can_begin_at_the_end_of_its_input(counting: Make) -> None:
    job = await counting()
    await job.run()
    await job.reset("latest")
    await job.kit.send(job.topic, [(b"1", b"c")], 1)
    assert await job.run() == {b"1": 1}


async def test_a_group_can_begin_at_a_time(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("clicks", 2)
    async with kit.broker() as broker:
        now = broker.clock.time_ms()
    noon = datetime.fromtimestamp((now - 60_000) // 1000, UTC)
    noon_ms = int(noon.timestamp() * 1000)
    await kit.send(topic, [(b"0", b""), (b"0", b""), (b"0", b"")], 0, [noon_ms - 1, noon_ms, noon_ms + 1])
    await kit.send(topic, [(b"1", b"")], 1, [noon_ms - 1])
    job = Counting(kit, topic, tmp_path)
    await job.run()
    await job.reset(noon)
    assert await job.committed(2) == [1, 1]
    assert await job.run() == {b"0": 2}


async def test_a_group_with_members_is_not_reset_and_goes_on(counting: Make) -> None:
    job = await counting()
    engine, counts = job.engine()
    async with engine:
        await engine.caught_up()
        with pytest.raises(StoreError, match="in use by a running worker: stop it first"):
            await job.reset()
        elsewhere = Counting(job.kit, job.topic, job.state_dir / "elsewhere")
        with pytest.raises(BrokerError, match=f"'{job.kit.group}' has members.*stop its workers first"):
            await elsewhere.reset()
        await job.kit.send(job.topic, [(b"0", b"c")], 0)
        await engine.caught_up()
        assert {entry.key: entry.value for entry in counts.snapshot()} == {b"0": 3, b"1": 2}
    assert await job.committed(2) == [3, 2]


async def test_a_home_that_a_worker_holds_is_left_alone(counting: Make) -> None:
    """One that was expelled from its group, and does not know it yet, still has its stores open."""
    job = await counting()
    await job.run()
    first = take_home(job.state_dir, job.kit.group)
    second = take_home(job.state_dir, job.kit.group)
    first.release()
    try:
        with pytest.raises(StoreError, match=r"group-[^/]*/2' is in use by a running worker"):
            await job.reset()
    finally:
        second.release()
    assert await job.committed(2) == [2, 2]
    assert job.stores() == ["1/counts/0", "1/counts/1"]
    await job.reset()
    assert job.stores() == []


async def test_stores_of_every_worker_of_this_machine_are_removed_and_those_of_other_groups_are_not(
    counting: Make,
) -> None:
    job = await counting()
    first = take_home(job.state_dir, job.kit.group)
    await job.run()
    first.release()
    await job.run()
    another = job.state_dir / "another group" / "1" / "counts" / "0"
    another.mkdir(parents=True)
    assert job.stores() == ["1/counts/0", "1/counts/1", "2/counts/0", "2/counts/1"]
    await job.reset()
    assert job.stores() == []
    assert another.exists()


async def test_what_a_global_table_shows_is_not_the_groups_and_stays(kit: Kit, tmp_path: Path) -> None:
    names = await kit.topic("names", cleanup_policy="compact")
    await kit.send(names, [(b"a", b"Anna")])
    clicks = await kit.topic("clicks")
    await kit.send(clicks, [(b"a", b"")])
    shown = GlobalTable("names", topic=names, store="rocksdb://", key_serializer=Bytes(), value_serializer=Bytes())
    counts = Table("counts", store="rocksdb://")

    class Counter(Handler):
        topic = clicks
        tables = (counts, shown)

        @classmethod
        async def on_message(cls, msg, ctx):
            counts[shown[msg.key]] = 1

    engine = kit.engine(Counter, state_dir=tmp_path)
    engine.register_table(counts)
    engine.register_table(shown)
    async with engine:
        await engine.caught_up()
    async with administration(kit) as broker:
        reset = await plan(definition_of(engine), broker, "earliest")
        assert [changelog.anew.name for changelog in reset.changelogs] == [f"{kit.group}-counts-changelog"]
        assert reset.stores == [tmp_path / kit.group / "1" / "counts" / "0"]
        await carry_out(reset, broker)
    assert [record.value for record in await kit.read(names)] == [b"Anna"]
    assert (tmp_path / kit.group / "1" / "names" / "0" / "CURRENT").exists()


async def test_a_missing_input_is_named(kit: Kit, tmp_path: Path) -> None:
    job = Counting(kit, "nowhere", tmp_path)
    with pytest.raises(ConfigurationError, match=r"Topic 'nowhere' to consume: not found on .*; create it"):
        await job.reset()


class Interrupted(Exception):
    """Somebody has ended the command."""


class InterruptedBroker:
    """A broker to which a command speaks until it is ended: a question to it is the last thing it does."""

    def __init__(self, broker: Administration, questions: int) -> None:
        self._broker = broker
        self._left = questions

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._broker, name)

        async def asked(*arguments: Any) -> Any:
            if self._left == 0:
                raise Interrupted
            self._left -= 1
            return await method(*arguments)

        return asked


QUESTIONS = 6
"""How often a reset of one changelog asks the broker for something."""


@pytest.mark.parametrize("asked", range(QUESTIONS))
async def test_whenever_a_reset_is_interrupted_nobody_works_on_the_rest_and_the_next_one_ends_it(
    counting: Make, asked: int
) -> None:
    job = await counting()
    assert await job.run() == {b"0": 2, b"1": 2}
    async with administration(job.kit) as broker:
        reset = await job.plan(broker)
        with pytest.raises(Interrupted):
            await carry_out(reset, cast(Administration, InterruptedBroker(broker, asked)))
        lines = described(await job.plan(broker))
    if asked == 0:
        assert await job.run() == {b"0": 2, b"1": 2}  # as if nothing had been
    else:
        assert f"  {job.topic}[0]: in the middle of a reset -> 0" in lines
        with pytest.raises(ConfigurationError, match="in the middle of a reset"):
            await job.run()
    await job.reset()
    assert await job.committed(2) == [0, 0]
    assert await job.run() == {b"0": 2, b"1": 2}


async def test_a_reset_asks_no_more_than_that(counting: Make) -> None:
    job = await counting()
    async with administration(job.kit) as broker:
        reset = await job.plan(broker)
        await carry_out(reset, cast(Administration, InterruptedBroker(broker, QUESTIONS)))
        with pytest.raises(Interrupted):
            await carry_out(reset, cast(Administration, InterruptedBroker(broker, QUESTIONS - 1)))


async def test_a_reset_that_is_interrupted_between_two_stores_is_ended_by_the_next(counting: Make) -> None:
    job = await counting()
    await job.run()

    def interrupt(done: str) -> None:
        if "counts/0 is removed" in done:
            raise Interrupted

    with pytest.raises(Interrupted):
        await job.reset(report=interrupt)
    assert job.stores() == ["1/counts/1"]
    with pytest.raises(ConfigurationError, match="in the middle of a reset"):
        await job.run()
    await job.reset()
    assert await job.run() == {b"0": 2, b"1": 2}


async def test_somebody_who_worked_during_a_reset_is_noticed(counting: Make) -> None:
    job = await counting()
    await job.run()

    async with administration(job.kit) as broker:

        class Meanwhile(InterruptedBroker):
            def __getattr__(self, name: str) -> Any:
                if name == "committed":  # the last question before the offsets are put where they are to be
                    return self._others_commit
                return getattr(broker, name)

            async def _others_commit(self, group: str, partitions: Any) -> Any:
                await broker.reset_committed(group, {TopicPartition(job.topic, 0): 1})
                return await broker.committed(group, partitions)

        reset = await job.plan(broker)
        with pytest.raises(BrokerError, match=r"Somebody has worked in group .* stop its workers, and reset it again"):
            await carry_out(reset, cast(Administration, Meanwhile(broker, -1)))
    await job.reset()
    assert await job.run() == {b"0": 2, b"1": 2}


async def test_what_is_done_is_reported_as_often_as_was_said(counting: Make) -> None:
    job = await counting()
    await job.run()
    done: list[str] = []
    async with administration(job.kit) as broker:
        reset = await job.plan(broker)
        await carry_out(reset, broker, done.append)
    assert len(done) == reset.steps == 5
    assert done[-1] == f"group '{job.kit.group}' stands where it is to begin"


async def test_a_group_in_the_middle_of_a_reset_stands_where_no_log_is(counting: Make) -> None:
    job = await counting()

    def interrupt(done: str) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        await job.reset(report=interrupt)
    assert await job.committed(2) == [RESETTING, RESETTING]


async def test_a_changelog_that_somebody_else_makes_meanwhile_has_to_be_one(counting: Make) -> None:
    job = await counting()
    async with administration(job.kit) as broker:

        class Meanwhile(InterruptedBroker):
            def __getattr__(self, name: str) -> Any:
                return self._others_create if name == "create_topics" else getattr(broker, name)

            async def _others_create(self, specs: Any) -> None:
                await broker.create_topics([TopicSpec(job.changelog, 2, config={"cleanup.policy": "delete"})])
                await broker.create_topics(specs)

        reset = await job.plan(broker)
        with pytest.raises(ConfigurationError, match=r"cleanup\.policy='delete'"):
            await carry_out(reset, cast(Administration, Meanwhile(broker, -1)))


async def test_what_waits_to_be_handled_again_is_not_handled_beside_what_is_read_anew(
    kit: Kit, counting: Callable[..., Awaitable[Counting]]
) -> None:
    counted = await counting()
    waiting = f"{kit.group}-{counted.topic}-retry"
    policy: dict[str, Any] = {"dead_letter": DeadLetter()}
    async with administration(kit) as broker:
        begin = await counted.plan(broker, **policy)  # before the first start: its retry topic is not there
        assert {each.partition.topic for each in begin.inputs} == {counted.topic}
    await counted.run(**policy)
    await kit.send(waiting, [(b"0", b"a")], 0)
    async with administration(kit) as broker:
        reset = await counted.plan(broker, **policy)
        assert {each.partition: each.begins_at for each in reset.inputs if each.partition.topic == waiting} == {
            TopicPartition(waiting, 0): 1,
            TopicPartition(waiting, 1): 0,
        }
        await carry_out(reset, broker)
    assert await counted.run(**policy) == {b"0": 2, b"1": 2}
