"""What handlers keep in tables, and what is left of it after failures and restarts."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from paperboy import (
    BulkHandler,
    ConfigurationError,
    DeserializationError,
    Handler,
    SerializationError,
    Table,
    TableError,
)
from paperboy.brokers.protocol import TopicSpec
from paperboy.serializers import Json, String
from paperboy.tables.keys import encode_key
from tests.contract.engine.kit import Kit, until


def counting(source: str, table: Table, *, fail_at: int = -1) -> type[Handler]:
    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            await table.set(msg.key, table.get(msg.key, 0) + 1)
            if msg.offset == fail_at:
                raise ValueError("after writing")

        @classmethod
        async def on_tombstone(cls, msg, ctx):
            await table.delete(msg.key)

    return Counting


def entries(table: Table) -> dict[Any, Any]:
    return {key: value for _, key, value in table.snapshot()}


async def test_a_table_counts_and_a_restart_finds_it_full(kit: Kit) -> None:
    source, table = await kit.topic("views"), Table("views")
    await kit.send(source, [(b"a", b"1"), (b"b", b"1"), (b"a", b"1"), (b"c", b"1"), (b"c", None)])
    engine = kit.engine(counting(source, table))
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {b"a": 2, b"b": 1}

    again = Table("views")
    engine = kit.engine(counting(source, again))
    engine.register_table(again)
    async with engine:
        await engine.caught_up()
        assert entries(again) == {b"a": 2, b"b": 1}
        assert engine.status().handled == 0
        await kit.send(source, [(b"b", b"1")])
        await engine.caught_up()
        assert entries(again) == {b"a": 2, b"b": 2}


async def test_a_handler_sees_no_record_before_its_tables_are_restored(kit: Kit) -> None:
    source, table = await kit.topic("restored"), Table("restored")
    await kit.send(source, [(b"%d" % number, b"1") for number in range(500)])
    engine = kit.engine(counting(source, table), stop_at_end=True)
    engine.register_table(table)
    await engine.start()

    await kit.send(source, [(b"499", b"1")])
    seen = []

    class Looking(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append((table.get(msg.key), table.get(b"0")))

    engine = kit.engine(Looking, stop_at_end=True)
    engine.register_table(table)
    await engine.start()
    assert seen == [(1, 1)]


async def test_a_message_that_fails_leaves_no_write_behind(kit: Kit) -> None:
    source, table = await kit.topic("failing"), Table("failing")
    await kit.send(source, [(b"a", b"1"), (b"a", b"1"), (b"b", b"1"), (b"a", b"1")])
    engine = kit.engine(counting(source, table, fail_at=1), fail_on_exception=False)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {b"a": 2, b"b": 1}


async def test_a_bulk_that_fails_leaves_no_write_behind_and_only_its_culprit_is_passed_over(kit: Kit) -> None:
    source, table = await kit.topic("bulk"), Table("bulk")
    await kit.send(source, [(b"a", b"1")] * 30)

    class Bulk(BulkHandler):
        topic = source

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            table.set_many([(msg.offset, "seen") for msg in msgs])
            table["count"] = table.get("count", 0) + len(msgs)
            if msgs[0].offset == 10:
                raise ValueError("after writing")

    engine = kit.engine(Bulk, bulk_mode_threshold=5, bulk_mode_max_records=10, fail_on_exception=False)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {"count": 29, **dict.fromkeys([*range(10), *range(11, 30)], "seen")}
        assert engine.status().passed_over == 1


async def test_in_bulk_a_failing_message_of_a_plain_handler_takes_back_its_own_writes_only(kit: Kit) -> None:
    source, table = await kit.topic("plain"), Table("plain")
    await kit.send(source, [(b"a", b"1")] * 30)
    engine = kit.engine(
        counting(source, table, fail_at=7), bulk_mode_threshold=5, bulk_mode_max_records=10, fail_on_exception=False
    )
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {b"a": 29}


async def test_values_and_keys_come_back_equal_in_value_and_type(kit: Kit) -> None:
    source, table = await kit.topic("types"), Table("types")
    await kit.send_values(source, b"write", b"read")
    moment = datetime(2026, 11, 21, 13, 0, tzinfo=UTC)
    things: list[tuple[Any, Any]] = [
        ("str", "ü"), (b"bytes", b"\x00"), (1, 2**80), (1.0, 0.5), (True, False), (None, None),
        (("a", 1), [1, (2, {"x": {3}})]), ("dict", {1: "a", "b": [None]}), ("moment", moment),
        ("decimal", Decimal("1.50")), ("uuid", UUID(int=7)),
    ]  # fmt: skip
    read: list[Any] = []

    class Types(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"write":
                for key, value in things:
                    table[key] = value
                with pytest.raises(SerializationError):
                    table["object"] = object()
            else:
                read.extend(table[key] for key, _ in things)
                read.extend(table.get_many([key for key, _ in things]))

    for _ in range(2):  # from the layer, then from the restored store
        engine = kit.engine(Types)
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert [(repr(value), type(value)) for value in read] == [
                (repr(value), type(value)) for _, value in things
            ] * 2
            assert [(repr(key), repr(value)) for _, key, value in table.snapshot()] == sorted(
                [(repr(key), repr(value)) for key, value in things],
                key=lambda pair: [repr(key) for _, key, _ in table.snapshot()].index(pair[0]),
            )
        read.clear()
        await kit.send_values(source, b"read")


async def test_a_value_mutated_after_get_or_set_changes_nothing(kit: Kit) -> None:
    source, table = await kit.topic("mutation"), Table("mutation")
    await kit.send_values(source, b"one", b"two")
    read: list[Any] = []

    class Mutation(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"one":
                value = [1]
                table["key"] = value
                value.append(2)
                table["key"].append(3)
            read.append(table["key"])

    engine = kit.engine(Mutation)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
    assert read == [[1], [1]]


async def test_the_mapping_forms(kit: Kit) -> None:
    source, table = await kit.topic("mapping"), Table("mapping")
    await kit.send_values(source, b"x")
    seen: list[Any] = []

    class Mapping(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append("a" in table)
            table["a"] = 1
            seen.append(("a" in table, table["a"]))
            seen.append(table.update("a", lambda value: value + 1))
            seen.append(table.update("b", lambda value: value + 1, default=10))
            del table["a"]
            seen.append(("a" in table, table.get("a"), table.get("a", "gone"), table.get_many(["a", "b"], 0)))
            seen.append(dict(table))
            with pytest.raises(KeyError):
                table["a"]
            with pytest.raises(KeyError):
                del table["a"]
            await table.delete("a")
            await table.set_many({"c": 3, "d": 4, "e": 5})
            await table.delete_many(["d", "e", "missing"])
            with pytest.raises(SerializationError):
                table.set_many([("f", 1), ("g", object())])

    engine = kit.engine(Mapping)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {"b": 11, "c": 3}
    assert seen == [False, (True, 1), 2, 11, (False, None, "gone", [0, 11]), {"b": 11}]


async def test_a_handler_scans_its_partition_in_the_order_of_keys(kit: Kit) -> None:
    source, table = await kit.topic("scanned", partitions=2), Table("scanned")
    for partition in range(2):
        await kit.send(source, [(b"%d" % number, b"write") for number in (300, 7, 20, 1)], partition)
    seen: dict[int, list[Any]] = {}

    class Scanned(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"write":
                table["day", int(msg.key)] = ctx.partition
                table["night", int(msg.key)] = ctx.partition
                return
            seen[ctx.partition] = [
                list(table.keys(prefix=("day",))),
                list(table.items(start=("day", 7), stop=("night", 7), limit=4)),
                list(table.values(reverse=True, limit=2)),
            ]
            for kind, number in table.keys(prefix=("night",)):
                table.delete((kind, number))
                table["seen", number] = None
                await asyncio.sleep(0)
            seen[ctx.partition].append(list(table.keys(start=("day", 300))))

    for run in (1, 2):  # from the layers, then from the restored store
        engine = kit.engine(Scanned)
        engine.register_table(table)
        async with engine:
            for partition in range(2):
                await kit.send(source, [(b"", b"read")], partition)
            await engine.caught_up()
        left = [("day", 300), *(("seen", number) for number in (1, 7, 20, 300))]
        for partition in range(2):
            in_order, between, last, after = seen[partition]
            assert in_order == [("day", number) for number in (1, 7, 20, 300)]
            nights = [("night", 1)] if run == 1 else []
            assert between == [(key, partition) for key in [*(("day", number) for number in (7, 20, 300)), *nights]]
            assert last == ([partition] * 2 if run == 1 else [None] * 2)
            assert after == left


@pytest.mark.parametrize("mode", ["single", "bulk"])
async def test_a_scan_that_is_kept_past_its_message_raises(kit: Kit, mode: str) -> None:
    source, table = await kit.topic("kept"), Table("kept")
    await kit.send_values(source, *[b"x"] * 3)
    kept: list[Any] = []
    raised: list[str] = []

    class Kept(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            for scan in kept:
                with pytest.raises(TableError) as caught:
                    next(scan)
                raised.append(str(caught.value))
            table[msg.offset] = 1
            kept.append(table.items())

        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            """With this hook, a bulk is more than its messages."""

    engine = kit.engine(Kept, bulk_mode_threshold=1 if mode == "bulk" else 1_000)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
    assert len(raised) == 3
    assert all(rf"'kept': a scan was read on in {source}[0] after its message had ended" in text for text in raised)


async def test_a_scan_of_a_message_that_was_taken_back_is_at_its_end(kit: Kit) -> None:
    source, table = await kit.topic("back"), Table("back")
    await kit.send_values(source, b"fails", b"x")
    raised: list[str] = []
    scans: list[Any] = []

    class Back(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table[msg.value] = 1
            scans.append(table.items())
            if msg.value == b"fails":
                raise ValueError("after writing")

        @classmethod
        async def on_error(cls, e, msg, ctx):
            with pytest.raises(TableError) as caught:
                next(scans[0])
            raised.append(str(caught.value))
            table["failed"] = len(list(table.items()))

    engine = kit.engine(Back)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {b"x": 1, "failed": 0}
    assert len(raised) == 1
    assert "'back': a scan was read on after its message had failed" in raised[0]


async def test_what_a_serializer_makes_stands_in_the_changelog_as_it_is_and_is_restored(kit: Kit) -> None:
    source = await kit.topic("plain-bytes")
    await kit.send(source, [(b"anna", b"1"), (b"bert", b"2"), (b"bert", None)])

    def users() -> Table:
        return Table("users", key_serializer=String(), value_serializer=Json(), default=dict)

    def adding(table: Table) -> type[Handler]:
        class Adding(Handler):
            topic = source
            key_serializer = bytes.decode

            @classmethod
            async def on_message(cls, msg, ctx):
                table[msg.key] |= {"last": int(msg.value)}
                with pytest.raises(SerializationError, match=rf"'users', partition 0, key '{msg.key}': .*JSON"):
                    table[msg.key] = {"last": (1, 2)}

            @classmethod
            async def on_tombstone(cls, msg, ctx):
                await table.delete(msg.key)

        return Adding

    for run in (1, 2):
        table = users()
        engine = kit.engine(adding(table), commit_interval_sec=30)
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert entries(table) == {"anna": {"last": 1}}
            assert engine.status().handled == (3 if run == 1 else 0)
    changelog = {record.key: record.value for record in await kit.read(f"{kit.group}-users-changelog")}
    assert changelog == {b"anna": b'{"last":1}', b"bert": None}


async def test_a_changelog_record_that_cannot_be_read_is_named_when_it_is(kit: Kit) -> None:
    source, table = await kit.topic("unreadable"), Table("unreadable")
    engine = kit.engine(counting(source, table))
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
    await kit.send(f"{kit.group}-unreadable-changelog", [(encode_key(b"a"), b"\x02from the future")])
    await kit.send(source, [(b"b", b"1"), (b"a", b"1")])
    table = Table("unreadable")
    engine = kit.engine(counting(source, table))
    engine.register_table(table)
    with pytest.raises(DeserializationError, match=r"Table 'unreadable', partition 0, key b'a': .* format 1"):
        await engine.start()


async def test_a_snapshot_is_read_beside_the_handlers(kit: Kit) -> None:
    source, table = await kit.topic("beside", partitions=2), Table("beside", default=0)
    await kit.send(source, [(b"a", b"1"), (b"b", b"1"), (b"both", b"1")], 0)
    await kit.send(source, [(b"both", b"1"), (b"c", b"1")], 1)
    engine = kit.engine(counting(source, table))
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        with table.snapshot() as snapshot:
            assert [entry.key for entry in snapshot.items(prefix=b"b")] == [b"b", b"both", b"both"]
            assert [tuple(entry) for entry in snapshot.items(reverse=True, limit=2)] == [(1, b"c", 1), (1, b"both", 1)]
            assert (snapshot.get(b"c"), snapshot.get(b"c", "none", partition=0), snapshot.get(b"missing")) == (
                1,
                "none",
                0,
            )
            await kit.send(source, [(b"both", b"1")], 1)
            await engine.caught_up()
            assert table.snapshot().get(b"both", partition=1) == 2
        with pytest.raises(TableError, match="'beside': this snapshot was closed"):
            snapshot.get(b"c")
        begun = iter(table.snapshot())
        next(begun)
    with pytest.raises(TableError, match="'beside'"):
        next(begun)
    with pytest.raises(TableError, match="'beside' has no snapshot"):
        table.snapshot()


async def test_a_table_used_outside_a_message_says_what_to_use(kit: Kit) -> None:
    with pytest.raises(TableError, match=r"outside a message.*snapshot"):
        Table("outside").get("key")


@pytest.mark.parametrize("mode", ["single", "bulk"])
@pytest.mark.parametrize("access", ["get", "set", "item"])
async def test_a_table_used_after_its_message_has_ended_raises(kit: Kit, mode: str, access: str) -> None:
    """Even while a later message of the same task, or of the same bulk, is in hand."""
    source, table = await kit.topic("straggler"), Table("straggler")
    await kit.send_values(source, b"first", b"second")
    raised: list[Any] = []
    second, wrote = asyncio.Event(), asyncio.Event()
    stragglers = []

    class Straggler(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            async def later():
                await second.wait()
                try:
                    if access == "get":
                        table.get("late")
                    elif access == "set":
                        table.set("late", 1)
                    else:
                        table["late"] = 1
                except TableError as error:
                    raised.append(str(error))
                wrote.set()

            if msg.value == b"first":
                stragglers.append(asyncio.create_task(later()))
                await asyncio.gather(*[asyncio.create_task(cls.within()) for _ in range(2)])
            else:
                second.set()
                await wrote.wait()

        @classmethod
        async def within(cls):
            table.update("within", lambda value: value + 1, default=0)

        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            """With this hook, a bulk is more than its messages."""

    engine = kit.engine(Straggler, bulk_mode_threshold=1 if mode == "bulk" else 1_000)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert entries(table) == {"within": 2}
    assert len(raised) == 1
    assert "after its message had ended" in raised[0]


async def test_a_table_of_another_topic_group_names_both_and_the_way_out(kit: Kit) -> None:
    one, two = await kit.topic("one"), await kit.topic("two", partitions=2)
    mine, other = Table("mine"), Table("other")
    await kit.send_values(one, b"x")

    class One(Handler):
        topic = one
        tables = (mine,)

        @classmethod
        async def on_message(cls, msg, ctx):
            other.get("key")

    class Two(Handler):
        topic = two
        tables = (other,)

    engine = kit.engine(One, Two)
    engine.register_table(mine)
    engine.register_table(other)
    with pytest.raises(TableError, match=rf"'other' was used in {one}\[0\].*tables="):
        await engine.start()


async def test_a_table_is_partitioned_as_its_input(kit: Kit) -> None:
    source, table = await kit.topic("partitioned", partitions=3), Table("partitioned")
    for partition in range(3):
        await kit.send(source, [(b"same", b"1")] * (partition + 1), partition)
    engine = kit.engine(counting(source, table))
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert [tuple(entry) for entry in table.snapshot()] == [(0, b"same", 1), (1, b"same", 2), (2, b"same", 3)]
    changelog = await kit.read(f"{kit.group}-partitioned-changelog")
    assert {record.partition for record in changelog} == {0, 1, 2}


async def test_only_the_last_value_per_key_and_checkpoint_reaches_the_changelog(kit: Kit) -> None:
    source, table = await kit.topic("last"), Table("last")
    await kit.send(source, [(b"a", b"1")] * 100)
    engine = kit.engine(counting(source, table), commit_interval_sec=30, stop_at_end=True)
    engine.register_table(table)
    await engine.start()
    assert len(await kit.read(f"{kit.group}-last-changelog")) == 1


async def test_a_value_larger_than_the_changelog_takes_fails_its_message(kit: Kit) -> None:
    source, table = await kit.topic("large"), Table("large")
    await kit.send_values(source, b"x")

    class Large(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            table["key"] = b"x" * 1_100_000

    engine = kit.engine(Large)
    engine.register_table(table)
    with pytest.raises(TableError, match=r"1100\d+ bytes for key 'key' does not fit .* 'large'.*max.message.bytes"):
        await engine.start()


async def test_a_changelog_that_is_not_compacted_refuses_the_start(kit: Kit) -> None:
    source, table = await kit.topic("policy"), Table("policy")
    await kit.topic("policy-changelog", cleanup_policy="delete")
    table.changelog_topic_name = f"policy-changelog-{kit.unique}"
    engine = kit.engine(counting(source, table))
    engine.register_table(table)
    with pytest.raises(ConfigurationError, match=r"cleanup.policy='delete'.*'compact'"):
        await engine.start()


async def test_a_changelog_with_another_partition_count_refuses_the_start(kit: Kit) -> None:
    source, table = await kit.topic("count", partitions=2), Table("count")
    async with kit.broker() as broker:
        await broker.create_topics([TopicSpec(f"{kit.group}-count-changelog", 3, None, {"cleanup.policy": "compact"})])
    engine = kit.engine(counting(source, table))
    engine.register_table(table)
    with pytest.raises(ConfigurationError, match=r"has 3 partitions, but the input topics have 2"):
        await engine.start()


async def test_create_topics_never_lists_what_is_missing(kit: Kit) -> None:
    source = await kit.topic("never", partitions=2)
    table = Table("never", changelog_topic_segment_ms=60_000)
    engine = kit.engine(counting(source, table), create_topics="never")
    engine.register_table(table)
    expected = rf"'{kit.group}-never-changelog' \(2 partitions, cleanup.policy=compact, segment.ms=60000\)"
    with pytest.raises(ConfigurationError, match=expected):
        await engine.start()
    async with kit.broker() as broker:
        assert await broker.describe_topics([f"{kit.group}-never-changelog"]) == {}


async def test_create_topics_never_lists_changelogs_beside_missing_inputs(kit: Kit) -> None:
    source, table = f"absent-{kit.unique}", Table("never", changelog_topic_replication_factor=1)
    engine = kit.engine(counting(source, table), create_topics="never")
    engine.register_table(table)
    expected = (
        rf"'{source}' to consume: not found .*missing as well: '{kit.group}-never-changelog'"
        r" \(as its input, replication factor 1, cleanup.policy=compact\)"
    )
    with pytest.raises(ConfigurationError, match=expected):
        await engine.start()


async def test_topics_that_share_a_table_need_one_partition_count(kit: Kit) -> None:
    one, two = await kit.topic("one", partitions=1), await kit.topic("two", partitions=2)
    table = Table("shared")

    class Both(Handler):
        topic = (one, two)

    engine = kit.engine(Both)
    engine.register_table(table)
    with pytest.raises(ConfigurationError, match=rf"'{one}' has 1, '{two}' has 2 \(they share 'shared'\)"):
        await engine.start()


async def test_a_large_job_checkpoints_by_changed_keys(kit: Kit) -> None:
    source, table = await kit.topic("large-job"), Table("large-job")
    await kit.send(source, [(b"%d" % number, b"1") for number in range(5_000)])

    class Bulks(counting(source, table)):  # type: ignore[misc]
        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            assert len(msgs) <= 100

    engine = kit.engine(
        Bulks,
        max_overlay_keys=500,
        commit_interval_sec=60,
        bulk_mode_threshold=10,
        bulk_mode_max_records=100,
    )
    engine.register_table(table)
    async with engine:
        await until(lambda: engine.status().handled == 5_000)
        assert engine.status().checkpoints >= 5
        await engine.caught_up()
        assert len(list(table.snapshot())) == 5_000
