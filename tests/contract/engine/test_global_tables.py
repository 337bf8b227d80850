"""Global tables: a topic that every worker sees whole, before its first record and ever after."""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from paperboy import ConfigurationError, DeserializationError, Engine, GlobalTable, Handler, Table, TableError
from paperboy.brokers.kafka.reader import KafkaReader
from paperboy.brokers.memory import memory_cluster
from paperboy.brokers.memory.reader import MemoryReader
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Changes, Reader, TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.engine import globals as following
from paperboy.serializers import Bytes, String
from tests.contract.engine.kit import Kit, entry, said, until

Pair = tuple[bytes | None, bytes | None]


def text_table(topic: str, **options: Any) -> GlobalTable:
    """Of a topic with keys and values in UTF-8."""
    return GlobalTable("texts", topic, key_serializer=String(), value_serializer=String(), **options)


async def compacted(kit: Kit, name: str, *records: Pair, partitions: int = 1, **config: str) -> str:
    """A new compacted topic with these records in its first partition."""
    topic = await kit.topic(name, partitions, cleanup_policy="compact", **config)
    await kit.send(topic, records)
    return topic


def looking(source: str, look: Callable[[], Any], seen: list[Any]) -> type[Handler]:
    """Notes what it sees with each message."""

    class Looking(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(look())

    return Looking


def following_engine(kit: Kit, table: GlobalTable, *handlers: type[Handler], **options: Any) -> Engine:
    engine = kit.engine(*handlers, **options)
    engine.register_table(table)
    return engine


@pytest.fixture
def looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LOOK_SEC", 0.05)


async def test_it_is_complete_before_the_first_record_is_handled(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    source = await kit.topic("views", partitions=2)
    table = text_table(await kit.topic("texts", 3, cleanup_policy="compact"))
    for partition in range(3):
        numbers = range(partition, 10_000, 3)
        await kit.send(table.topic, [(b"%d" % number, b"x") for number in numbers], partition)
    await kit.send_values(source, b"x", partition=0)
    await kit.send_values(source, b"x", partition=1)
    gate = slow_readers(monkeypatch)
    seen: list[int] = []
    engine = following_engine(kit, table, looking(source, lambda: len(list(table.keys())), seen))
    async with engine:
        await until(lambda: len(engine.status().tasks) == 2)
        await until(
            lambda: (restoring := engine.status().global_tables[0].restoring) is not None and restoring.records > 0
        )
        [status] = engine.status().global_tables
        assert not status.ready
        assert not engine.status().ready
        assert not any(task.ready for task in engine.status().tasks)
        with pytest.raises(TableError, match=r"'texts' is being restored from topic .*caught_up"):
            table.get("1")
        assert seen == []
        gate.set()
        await engine.caught_up()
        assert engine.status().ready
        assert seen == [10_000, 10_000]
        assert engine.status().restored == 10_000


def slow_readers(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Every reader's first fetch brings 100 records; the next one waits for the event."""
    gate = asyncio.Event()
    fetched: set[Any] = set()

    async def fetch_slowly(
        self: Reader, partitions: Collection[TopicPartition], timeout_sec: float
    ) -> dict[TopicPartition, list[Changes]]:
        if self in fetched:
            await gate.wait()
        chunks = await self.fetch(partitions, timeout_sec, 100)
        if chunks:
            fetched.add(self)
        return {partition: Changes.of(records) for partition, records in chunks.items()}

    for kind in (KafkaReader, MemoryReader):
        monkeypatch.setattr(kind, "fetch_changes", fetch_slowly)
    return gate


async def test_it_follows_new_entries_updates_and_tombstones(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1"), (b"b", b"1")))
    seen: list[Any] = []
    engine = following_engine(kit, table, looking(source, lambda: dict(table.items()), seen))
    async with engine:
        await kit.send_values(source, b"x")
        await engine.caught_up()
        await kit.send(table.topic, [(b"a", b"2"), (b"b", None), (b"c", b"1")])
        await until(lambda: table.get("c") is not None)
        await kit.send_values(source, b"x")
        await engine.caught_up()
        assert seen == [{"a": "1", "b": "1"}, {"a": "2", "c": "1"}]
        [status] = engine.status().global_tables
        assert status.offsets == {f"{table.topic}[0]": 5}


async def test_a_tail_of_transaction_markers_is_passed_at_the_start_and_while_following(
    kit: Kit, looked_at_often: None
) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1")))
    await write_marker(kit, table.topic)
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        assert table["a"] == "1"
        await write_marker(kit, table.topic)
        end = await end_of(kit, table.topic)
        await until(lambda: engine.status().global_tables[0].offsets == {f"{table.topic}[0]": end})
        await until(lambda: engine.status().global_tables[0].lag == 0)
        await kit.send(table.topic, [(b"a", b"2")])
        await engine.caught_up()
        assert dict(table.items()) == {"a": "2"}


async def write_marker(kit: Kit, topic: str) -> None:
    """A transaction that is aborted: offsets for which no record ever comes."""
    if kit.bootstrap.startswith("memory:"):
        memory_cluster(kit.unique).append_marker(TopicPartition(topic, 0))
        return
    producer = AIOKafkaProducer(bootstrap_servers=kit.bootstrap, transactional_id=f"writer-{random_id()}")
    await producer.start()
    try:
        await producer.begin_transaction()
        await (await producer.send(topic, b"never", key=b"a", partition=0))
        await producer.abort_transaction()
    finally:
        await producer.stop()


async def end_of(kit: Kit, topic: str) -> int:
    async with kit.broker() as broker:
        return (await broker.end_offsets([TopicPartition(topic, 0)]))[TopicPartition(topic, 0)]


async def test_caught_up_waits_for_what_was_written_to_its_topic(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"0")))
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        for number in range(20):
            await engine.send(table.topic, b"%d" % number, key=b"a")
            await engine.caught_up()
            assert table["a"] == str(number)


async def test_it_can_be_read_inside_handlers_outside_and_in_other_tasks(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1")))
    stray: list[asyncio.Task[Any]] = []
    seen: list[Any] = []

    async def later() -> None:
        await asyncio.sleep(0)
        seen.append(table["a"])

    class Views(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(table["a"])
            stray.append(asyncio.create_task(later()))

    async with following_engine(kit, table, Views) as engine:
        await kit.send_values(source, b"x")
        await engine.caught_up()
        await asyncio.gather(*stray)
        seen.append(table["a"])
        assert seen == ["1", "1", "1"]


async def test_every_worker_sees_all_partitions(kit: Kit) -> None:
    source = await kit.topic("views", partitions=2)
    topic = await kit.topic("texts", 4, cleanup_policy="compact")
    keys = [f"key-{number}" for number in range(40)]
    for key in keys:
        await kit.send(topic, [(key.encode(), key.upper().encode())], partition_for_key(key.encode(), 4))
    tables = [text_table(topic), text_table(topic)]
    engines = [following_engine(kit, table, looking(source, lambda: None, [])) for table in tables]
    async with engines[0], engines[1]:
        await until(lambda: all(len(engine.status().tasks) == 1 for engine in engines))
        await asyncio.gather(*(engine.caught_up() for engine in engines))
        for table in tables:
            assert table.get_many(keys) == [key.upper() for key in keys]
            assert dict(table.items()) == {key: key.upper() for key in keys}
            assert table.len_estimate() == 40


async def test_a_rebalance_leaves_it_as_it_is(kit: Kit) -> None:
    source = await kit.topic("views", partitions=2)
    topic = await compacted(kit, "texts", (b"a", b"1"))
    table, other = text_table(topic), text_table(topic)
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        async with following_engine(kit, other, looking(source, lambda: None, [])) as second:
            await until(lambda: len(engine.status().tasks) == 1)
            await asyncio.gather(engine.caught_up(), second.caught_up())
            await kit.send(topic, [(b"a", b"2")])
            await until(lambda: table["a"] == other["a"] == "2")
            assert engine.status().restored == 1


async def test_it_never_makes_topics_share_a_task(kit: Kit) -> None:
    one, two = await kit.topic("one", partitions=1), await kit.topic("two", partitions=3)
    table = text_table(await compacted(kit, "texts", (b"a", b"1"), partitions=2))
    own = Table("own")
    seen: list[Any] = []

    class One(Handler):
        topic = one
        tables = (table, own)

        @classmethod
        async def on_message(cls, msg, ctx):
            own["a"] = table["a"]
            seen.append(own["a"])

    class Two(Handler):
        topic = two
        tables = (table,)

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(table["a"])

    engine = following_engine(kit, table, One, Two)
    engine.register_table(own)
    async with engine:
        await kit.send_values(one, b"x")
        await kit.send_values(two, b"x", partition=2)
        await engine.caught_up()
        assert len(engine.status().tasks) == 4
    assert seen == ["1", "1"]


async def test_a_handler_that_names_a_table_that_is_not_registered_refuses_the_start(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts"))

    class Views(Handler):
        topic = source
        tables = (table,)

    with pytest.raises(ConfigurationError, match="uses table 'texts', which is not registered"):
        await kit.engine(Views).start()


async def test_the_changelog_of_another_engines_table_is_read_without_serializers(kit: Kit) -> None:
    source, other = await kit.topic("views", partitions=2), await kit.topic("other")
    table = Table("counts")

    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table.update(("total", msg.key), lambda count: count + 1, default=0)

        @classmethod
        async def on_tombstone(cls, msg, ctx):
            table.delete(("total", msg.key))

    counting = kit.engine(Counting)
    counting.register_table(table)
    await kit.send(source, [(b"a", b"x"), (b"a", b"x"), (b"b", b"x"), (b"gone", b"x")], partition=0)
    await kit.send(source, [(b"a", b"x")], partition=1)
    async with counting:
        await counting.caught_up()
        all_counts = GlobalTable("all-counts", f"{kit.group}-counts-changelog")
        engine = following_engine(kit, all_counts, looking(other, lambda: None, []), group_id=f"{kit.group}-other")
        async with engine:
            await engine.caught_up()
            assert list(all_counts.items()) == [
                (("total", b"a"), 2), (("total", b"a"), 1), (("total", b"b"), 1), (("total", b"gone"), 1),
            ]  # fmt: skip
            await kit.send(source, [(b"gone", None), (b"b", b"x")], partition=0)
            await counting.caught_up()
            await engine.caught_up()
            assert all_counts[("total", b"b")] == 2
            assert ("total", b"gone") not in all_counts
            # The key stands in both partitions; which one is asked first is what Kafka's own partitioner says.
            own = partition_for_key(entry(("total", b"a"), None)[0], 2)
            assert all_counts[("total", b"a")] == (2 if own == 0 else 1)


async def test_it_may_show_a_table_of_its_own_engine(kit: Kit) -> None:
    source = await kit.topic("views", partitions=3)
    table, everywhere = Table("counts"), GlobalTable("everywhere", f"{kit.group}-counts-changelog")

    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table.update(msg.key, lambda count: count + 1, default=0)

    engine = following_engine(kit, everywhere, Counting)
    engine.register_table(table)
    async with engine:
        for partition in range(3):
            await kit.send(source, [(b"key-%d" % partition, b"x")] * 2, partition)
        await engine.caught_up()
        assert list(everywhere.items()) == [(b"key-0", 2), (b"key-1", 2), (b"key-2", 2)]


async def test_its_topic_may_be_an_input_as_well(kit: Kit) -> None:
    topic = await compacted(kit, "texts", (b"a", b"1"), (b"b", b"2"))
    table = text_table(topic)
    seen: list[Any] = []
    async with following_engine(kit, table, looking(topic, lambda: dict(table.items()), seen)) as engine:
        await engine.caught_up()
        assert seen == [{"a": "1", "b": "2"}] * 2


async def test_writing_is_refused_and_names_the_way(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1")))

    class Views(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table["a"] = "2"

    await kit.send_values(source, b"x")
    with pytest.raises(TableError, match=rf"'texts' is read-only: write to its topic, .*ctx.send\('{table.topic}'"):
        await following_engine(kit, table, Views).start()


async def test_a_record_that_cannot_be_read_fails_its_own_key_only(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1"), (b"bad", b"\xff"), (b"\xfe", b"1"), (b"z", b"1")))
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        assert (table["a"], table["z"]) == ("1", "1")
        where = rf"'texts', {table.topic}\[0\], the value of key 'bad': .*not UTF-8.*value_serializer"
        with pytest.raises(DeserializationError, match=where):
            table.get("bad")
        items = table.items()
        assert next(items) == ("a", "1")
        with pytest.raises(DeserializationError, match=where):
            next(items)
        assert next(items) == ("z", "1")
        with pytest.raises(DeserializationError, match=rf"'texts', {table.topic}\[0\], the key b'\\xfe': .*key_seria"):
            next(items)
        with pytest.raises(StopIteration):
            next(items)
        await engine.send(table.topic, b"good", key=b"bad")
        await engine.caught_up()
        assert table["bad"] == "good"


async def test_a_foreign_topic_without_a_serializer_says_which_one_is_needed(kit: Kit) -> None:
    source = await kit.topic("views")
    topic = await compacted(kit, "texts", (b"a", b"text"))
    table = GlobalTable("texts", topic, key_serializer=Bytes())
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        with pytest.raises(
            DeserializationError, match=r"the value of key b'a': .*Give the table the value_serializer=…"
        ):
            table.get(b"a")


async def test_a_record_with_an_empty_key_is_passed_over_and_said(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1"), (b"", b"x"), (b"b", b"1")))
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        await engine.send(table.topic, b"x", key=b"")
        await engine.send(table.topic, b"2", key=b"b")
        await engine.caught_up()
        assert dict(table.items()) == {"a": "1", "b": "2"}
        assert engine.status().global_tables[0].keyless == 2
    lines = said(caplog, "records without a key passed over")
    assert [(line["table"], line["topic"], line["first_offset"]) for line in lines] == [
        ("texts", f"{table.topic}[0]", 1), ("texts", f"{table.topic}[0]", 3),
    ]  # fmt: skip


async def test_a_missing_topic_refuses_the_start(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(f"absent-{kit.unique}")
    engine = following_engine(kit, table, looking(source, lambda: None, []), create_topics="never")
    with pytest.raises(ConfigurationError, match=rf"'absent-{kit.unique}' of global table 'texts': not found .*create"):
        await engine.start()


async def test_a_topic_that_is_not_compacted_refuses_the_start(kit: Kit) -> None:
    source, topic = await kit.topic("views"), await kit.topic("texts")
    engine = following_engine(kit, text_table(topic), looking(source, lambda: None, []))
    with pytest.raises(ConfigurationError, match=r"'texts' has cleanup.policy='delete'.*set it to 'compact'"):
        await engine.start()
    assert await kit.committed(source) is None


async def test_a_topic_that_is_compacted_and_deleted_is_taken(kit: Kit) -> None:
    source = await kit.topic("views")
    topic = await kit.topic("texts", cleanup_policy="compact,delete")
    table = text_table(topic)
    await kit.send(topic, [(b"a", b"1")])
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        assert table["a"] == "1"


async def test_partitions_that_are_added_are_picked_up(kit: Kit, looked_at_often: None) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1")))
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        await add_partitions(kit, table.topic, 3)
        await kit.send(table.topic, [(b"new", b"1")], partition=2)
        await until(lambda: "new" in table)
        assert dict(table.items()) == {"a": "1", "new": "1"}
        await kit.send(table.topic, [(b"a", b"2")], partition=0)
        await until(lambda: dict(table.items()) == {"a": "2", "new": "1"})


async def add_partitions(kit: Kit, topic: str, partitions: int) -> None:
    if kit.bootstrap.startswith("memory:"):
        memory_cluster(kit.unique).create_partitions(topic, partitions)
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=kit.bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions)})
    finally:
        await admin.close()


async def test_a_topic_made_anew_is_read_from_its_beginning_and_the_table_is_never_seen_empty(
    kit: Kit, looked_at_often: None, caplog: pytest.LogCaptureFixture
) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", *[(b"%d" % number, b"old") for number in range(2_000)]))
    sizes: set[int] = set()
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()

        async def watch() -> None:
            while True:
                sizes.add(len(list(table.keys(limit=10))))
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        async with kit.broker() as broker:
            await broker.delete_topics([table.topic])
            await broker.create_topics([TopicSpec(table.topic, 1, None, {"cleanup.policy": "compact"})])
        await kit.send(table.topic, [(b"%d" % number, b"new") for number in range(1_000, 3_000)])
        await until(lambda: table.get("1") is None and table.get("2999") == "new")
        await kit.send(table.topic, [(b"last", b"new")])
        await until(lambda: "last" in table)
        watching.cancel()
        await asyncio.wait([watching])
        assert dict(table.items()) == {str(number): "new" for number in range(1_000, 3_000)} | {"last": "new"}
    assert sizes == {10}
    assert said(caplog, "global table restored anew")


async def test_the_same_table_in_two_running_engines_is_refused(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1")))
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        with pytest.raises(ConfigurationError, match="'texts' is in use by another running engine"):
            await following_engine(kit, table, looking(source, lambda: None, [])).start()
        assert table["a"] == "1"
    async with following_engine(kit, table, looking(source, lambda: None, [])) as engine:
        await engine.caught_up()
        assert table["a"] == "1"


async def test_outside_a_running_engine_it_says_so(kit: Kit) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", (b"a", b"1")))
    for _ in range(2):
        with pytest.raises(TableError, match="'texts' cannot be read: no engine that it is registered with is running"):
            table.get("a")
        await following_engine(kit, table, looking(source, lambda: None, []), stop_at_end=True).start()


async def test_a_restart_from_disk_reads_only_what_is_new(kit: Kit, tmp_path: Path) -> None:
    source = await kit.topic("views")
    topic = await kit.topic("texts", 2, cleanup_policy="compact")
    await kit.send(topic, [(b"%d" % number, b"1") for number in range(300)], 0)
    await kit.send(topic, [(b"%d" % number, b"1") for number in range(300, 500)], 1)
    restored: list[int] = []

    async def run_once() -> dict[str, str]:
        table = text_table(topic, store="rocksdb://")
        engine = following_engine(kit, table, looking(source, lambda: None, []), state_dir=tmp_path)
        async with engine:
            await engine.caught_up()
            restored.append(engine.status().restored)
            return dict(table.items())

    assert len(await run_once()) == 500
    await kit.send(topic, [(b"1", b"2"), (b"2", None)], 0)
    after = await run_once()
    assert restored == [500, 2]
    assert (after["1"], len(after)) == ("2", 499)


async def test_two_workers_of_one_machine_keep_their_own_copies_on_disk(kit: Kit, tmp_path: Path) -> None:
    source = await kit.topic("views", partitions=2)
    topic = await compacted(kit, "texts", (b"a", b"1"))
    tables = [text_table(topic, store="rocksdb://") for _ in range(2)]
    engines = [following_engine(kit, table, looking(source, lambda: None, []), state_dir=tmp_path) for table in tables]
    async with engines[0], engines[1]:
        await asyncio.gather(*(engine.caught_up() for engine in engines))
        assert [table["a"] for table in tables] == ["1", "1"]


async def test_a_stop_in_the_middle_of_a_restore_ends_at_once(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    source = await kit.topic("views")
    table = text_table(await compacted(kit, "texts", *[(b"%d" % number, b"x") for number in range(1_000)]))
    await kit.send_values(source, b"x")
    slow_readers(monkeypatch)
    seen: list[Any] = []
    async with asyncio.timeout(20):
        async with following_engine(kit, table, looking(source, lambda: None, seen)) as engine:
            await until(lambda: len(engine.status().tasks) == 1)
    assert seen == []
