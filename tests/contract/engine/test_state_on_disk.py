"""Tables on disk, on both brokers: what a start finds, what it has to read again, and what it throws away."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paperboy import Engine, Handler, Table
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from tests.contract.engine.kit import Kit, entry, said, until


def counting(source: str, *tables: Table) -> type[Handler]:
    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            for table in tables:
                table[msg.key] = table.get(msg.key, 0) + 1

        @classmethod
        async def on_tombstone(cls, msg, ctx):
            for table in tables:
                table.delete(msg.key)

    return Counting


class Worker:
    """Engines of one group whose tables are on disk, one after another."""

    def __init__(self, kit: Kit, state_dir: Path, source: str, **table_options: Any) -> None:
        self.kit = kit
        self.state_dir = state_dir
        self.source = source
        self.table_options = table_options

    def engine(self, table: Table, **options: Any) -> Engine:
        engine = self.kit.engine(counting(self.source, table), state_dir=self.state_dir, **options)
        engine.register_table(table)
        return engine

    async def run(self, while_running: Callable[[], Any] = lambda: None) -> tuple[dict[Any, Any], int]:
        """Run until all is handled; returns the table, and how many changelog records were read to restore it."""
        table = Table("counts", store="rocksdb://", **self.table_options)
        engine = self.engine(table)
        async with engine:
            await engine.caught_up()
            while_running()
            return {entry.key: entry.value for entry in table.snapshot()}, engine.status().restored

    @property
    def changelog(self) -> str:
        return f"{self.kit.group}-counts-changelog"


async def worker_of(kit: Kit, tmp_path: Path, partitions: int = 1, **table_options: Any) -> Worker:
    return Worker(kit, tmp_path / "state", await kit.topic("views", partitions), **table_options)


async def test_a_restart_reads_only_what_is_new(kit: Kit, tmp_path: Path) -> None:
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"%d" % number, b"x") for number in range(100)])
    full, read = await worker.run()
    assert (len(full), read) == (100, 0)
    assert await worker.run() == (full, 0)
    await kit.send(worker.source, [(b"7", b"x"), (b"8", None)])
    changed, read = await worker.run()
    assert (changed, read) == ({**{key: 1 for key in full if key != b"8"}, b"7": 2}, 0)
    shutil.rmtree(worker.state_dir)
    again, read = await worker.run()
    assert again == changed
    assert read >= 100


async def test_a_copy_taken_before_the_close_restores_to_the_truth(kit: Kit, tmp_path: Path) -> None:
    """What kill -9 leaves: the directory as it is on disk at some moment."""
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"%d" % (number % 10), b"x") for number in range(1_000)])
    crashed = tmp_path / "crashed"
    full, _ = await worker.run(lambda: shutil.copytree(worker.state_dir, crashed))
    shutil.rmtree(worker.state_dir)
    crashed.rename(worker.state_dir)
    assert (await worker.run())[0] == full


async def test_the_second_of_two_workers_on_one_state_dir_has_a_directory_of_its_own(kit: Kit, tmp_path: Path) -> None:
    worker = await worker_of(kit, tmp_path, partitions=2)
    for partition in range(2):
        await kit.send(worker.source, [(b"%d" % partition, b"x")] * 10, partition)
    one, two = (Table("counts", store="rocksdb://") for _ in range(2))
    async with worker.engine(one) as first:
        await first.caught_up()
        async with worker.engine(two) as second:
            await second.caught_up()
            assert sorted(path.name for path in (worker.state_dir / kit.group).iterdir()) == ["1", "2"]
            held = sorted((entry.key, entry.value) for table in (one, two) for entry in table.snapshot())
            assert held == [(b"0", 10), (b"1", 10)]
    assert (await worker.run())[0] == {b"0": 10, b"1": 10}


async def test_a_store_that_is_damaged_is_wiped_and_restored(
    kit: Kit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"%d" % number, b"x") for number in range(50)])
    full, _ = await worker.run()
    store = worker.state_dir / kit.group / "1" / "counts" / "0"
    for manifest in store.glob("MANIFEST*"):
        manifest.write_bytes(b"not a manifest")
    assert await worker.run() == (full, 50)
    [wiped] = said(caplog, "store wiped")
    assert (wiped["table"], wiped["changelog"]) == ("counts", f"{worker.changelog}[0]")
    assert "damaged" in wiped["reason"]


async def test_a_changelog_made_anew_wipes_the_store_though_its_offset_would_fit(
    kit: Kit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"old", b"x")])
    assert (await worker.run())[0] == {b"old": 1}
    async with kit.broker() as broker:
        await broker.delete_topics([worker.changelog])
        await broker.create_topics([TopicSpec(worker.changelog, 1, None, {"cleanup.policy": "compact"})])
    await kit.send(worker.changelog, [entry(b"new", 5), entry(b"newer", 6)])
    assert (await worker.run())[0] == {b"new": 5, b"newer": 6}
    [wiped] = said(caplog, "store wiped")
    assert "anew" in wiped["reason"]


async def test_a_changelog_made_anew_under_a_running_engine_wipes_the_store_which_then_belongs_to_it(
    kit: Kit, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paperboy.engine.engine._CHANGELOGS_SEC", 0.2)
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"old", b"x")])
    table = Table("counts", store="rocksdb://")
    async with worker.engine(table) as engine:
        await engine.caught_up()
        async with kit.broker() as broker:
            await broker.delete_topics([worker.changelog])
            await broker.create_topics([TopicSpec(worker.changelog, 1, None, {"cleanup.policy": "compact"})])
        await kit.send(worker.changelog, [entry(b"new", 5), entry(b"newer", 6)])
        await until(lambda: {key: value for _, key, value in table.snapshot()} == {b"new": 5, b"newer": 6})
        await kit.send(worker.source, [(b"new", b"x")])
        await engine.caught_up()
    assert "anew" in said(caplog, "store wiped")[-1]["reason"]
    caplog.clear()
    assert await worker.run() == ({b"new": 6, b"newer": 6}, 0)
    assert said(caplog, "store wiped") == []


async def test_a_changelog_cut_below_the_store_is_no_loss_and_one_cut_above_it_wipes_it(
    kit: Kit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"%d" % number, b"x") for number in range(20)])
    full, _ = await worker.run()
    early = tmp_path / "early"
    shutil.copytree(worker.state_dir, early)
    await kit.delete_records(TopicPartition(worker.changelog, 0), before=20)
    assert await worker.run() == (full, 0)
    assert said(caplog, "store wiped") == []
    await kit.send(worker.source, [(b"1", b"x"), (b"2", b"x")])
    await worker.run()
    await kit.delete_records(TopicPartition(worker.changelog, 0), before=21)
    shutil.rmtree(worker.state_dir)
    early.rename(worker.state_dir)
    table, read = await worker.run()
    assert read == 1
    assert len(table) == 1, "what is below the changelog's beginning is nowhere any more"
    [wiped] = said(caplog, "store wiped")
    assert wiped["reason"] == "it stands at offset 20, and the changelog holds 21 to 22"


async def test_a_compacted_changelog_restores_to_the_live_table(kit: Kit, tmp_path: Path) -> None:
    worker = await worker_of(
        kit,
        tmp_path,
        changelog_topic_segment_ms=100,
        changelog_topic_min_cleanable_dirty_ratio=0.01,
        changelog_topic_max_compaction_lag_ms=100,
    )
    table = Table("counts", store="rocksdb://", **worker.table_options)
    async with worker.engine(table, commit_interval_sec=0.05) as engine:
        for turn in range(30):
            await kit.send(worker.source, [(b"%d" % number, None if turn == number else b"x") for number in range(20)])
            await engine.caught_up()
        live = {entry.key: entry.value for entry in table.snapshot()}
    written = 30 * 20
    await kit.compacted(worker.changelog, fewer_than=written)
    assert len(live) == 20
    shutil.rmtree(worker.state_dir)
    restored, read = await worker.run()
    assert restored == live
    assert read < written


async def test_an_empty_changelog_is_restored_at_once(kit: Kit, tmp_path: Path) -> None:
    worker = await worker_of(kit, tmp_path, partitions=3)
    assert await worker.run() == ({}, 0)
    assert await worker.run() == ({}, 0)


async def test_a_table_that_is_gone_is_no_error_and_one_that_is_new_moves_nothing(kit: Kit, tmp_path: Path) -> None:
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"%d" % number, b"x") for number in range(30)])
    full, _ = await worker.run()
    other = await kit.topic("another")  # sorts before "views": the group gets another name by it

    for names in (["counts", "more"], ["more"], ["counts"]):
        tables = [Table(name, store="rocksdb://") for name in names]

        class Both(Handler):
            topic = other

            @classmethod
            async def on_message(cls, msg, ctx): ...

        engine = kit.engine(counting(worker.source, *tables), Both, state_dir=worker.state_dir)
        for table in tables:
            engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert engine.status().restored == 0
            for table in tables:
                assert len(list(table.snapshot())) == (30 if table.name == "counts" else 0)
    assert await worker.run() == (full, 0)


async def test_a_table_written_under_another_definition_is_restored(
    kit: Kit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await worker_of(kit, tmp_path)
    await kit.send(worker.source, [(b"%d" % number, b"x") for number in range(10)])
    full, _ = await worker.run()
    worker.table_options["schema_version"] = 2
    assert await worker.run() == (full, 10)
    [wiped] = said(caplog, "store wiped")
    assert "definition" in wiped["reason"]


async def test_a_store_somewhere_else_is_where_it_was_said_to_be(kit: Kit, tmp_path: Path) -> None:
    source = await kit.topic("views")
    await kit.send(source, [(b"a", b"x")])
    table = Table("counts", store=f"rocksdb://{tmp_path / 'elsewhere'}")
    engine = kit.engine(counting(source, table), state_dir=tmp_path / "unused", stop_at_end=True)
    engine.register_table(table)
    await engine.start()
    assert (tmp_path / "elsewhere" / kit.group / "1" / "counts" / "0" / "CURRENT").exists()
    assert not (tmp_path / "unused").exists()


async def test_memory_tables_leave_no_directory(kit: Kit, tmp_path: Path) -> None:
    source, table = await kit.topic("views"), Table("counts")
    await kit.send(source, [(b"a", b"x")])
    engine = kit.engine(counting(source, table), state_dir=tmp_path / "unused", stop_at_end=True)
    engine.register_table(table)
    await engine.start()
    assert not (tmp_path / "unused").exists()


async def test_a_state_dir_that_cannot_be_written_to_refuses_the_start(kit: Kit, tmp_path: Path) -> None:
    worker = await worker_of(kit, tmp_path)
    worker.state_dir.write_text("a file")
    table = Table("counts", store="rocksdb://")
    with pytest.raises(Exception, match="state_dir") as raised:
        await worker.engine(table).start()
    assert type(raised.value).__name__ == "StoreError"
