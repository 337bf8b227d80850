"""Looking into what real engines leave on disk and on each broker."""

import shutil
from pathlib import Path

from paperboy import Handler, Table
from paperboy.brokers.protocol import TopicPartition
from paperboy.cli.spool import Spool, spooled
from paperboy.cli.verify import Difference, Equal, Verdict, verify
from paperboy.engine import Engine
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.rocksdb import RocksDBStore
from tests.contract.engine.kit import Kit, entry


def counting(kit: Kit, topic: str, state_dir: Path) -> Engine:
    counts = Table("counts", store="rocksdb://")
    input_topic = topic

    class Counter(Handler):
        topic = input_topic

        @classmethod
        async def on_message(cls, msg, ctx):
            counts.update(msg.key, lambda count: count + 1, default=0)

        @classmethod
        async def on_tombstone(cls, msg, ctx):
            await counts.delete(msg.key)

    engine = kit.engine(Counter, state_dir=state_dir)
    engine.register_table(counts)
    return engine


async def handle(kit: Kit, topic: str, state_dir: Path, *records: tuple[bytes, bytes | None]) -> None:
    await kit.send(topic, records)
    async with counting(kit, topic, state_dir) as engine:
        await engine.caught_up()


async def verdict_on(kit: Kit, store_path: Path) -> Verdict:
    store = RocksDBStore.look(store_path)
    try:
        async with kit.broker() as broker:
            return await verify(store, store.identity, broker)
    finally:
        store.close()


def where(kit: Kit, state_dir: Path) -> Path:
    return state_dir / kit.group / "1" / "counts" / "0"


async def test_a_store_equals_its_changelog_before_and_after_compaction(kit: Kit, tmp_path: Path) -> None:
    changelog = await kit.changelog(
        "counts", 1, segment_ms="100", min_cleanable_dirty_ratio="0.01", min_compaction_lag_ms="0"
    )
    topic = await kit.topic("clicks")
    await handle(kit, topic, tmp_path, (b"a", b""), (b"b", b""), (b"gone", b""))
    await handle(kit, topic, tmp_path, (b"gone", None))
    assert await verdict_on(kit, where(kit, tmp_path)) == Equal(compared=2, gone=0)
    earlier = tmp_path / "earlier"
    shutil.copytree(where(kit, tmp_path), earlier)
    await handle(kit, topic, tmp_path, (b"a", b""))
    await kit.compacted(changelog, fewer_than=5)
    assert await verdict_on(kit, where(kit, tmp_path)) == Equal(compared=2, gone=0)
    verdict = await verdict_on(kit, earlier)
    assert isinstance(verdict, Equal)
    assert verdict.compared + verdict.gone == 2


async def test_a_store_that_was_tampered_with_differs(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("clicks")
    await handle(kit, topic, tmp_path, (b"a", b""), (b"b", b""))
    path = where(kit, tmp_path)
    looked = RocksDBStore.look(path)
    identity, offset, in_step_ms = looked.identity, looked.changelog_offset or 0, looked.in_step_ms or 0
    looked.close()
    store, _ = RocksDBStore.open(path, identity, RocksDBOptions())
    key, value = entry(b"b", 7)
    store.write({key: value}, offset, in_step_ms)
    store.close()
    assert await verdict_on(kit, path) == Difference(key, value, entry(b"b", 1)[1], offset=1)


async def test_a_store_is_verified_while_its_worker_runs(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("clicks")
    await handle(kit, topic, tmp_path, (b"a", b""), (b"b", b""))
    async with counting(kit, topic, tmp_path) as engine:
        await kit.send(topic, [(b"a", b"")])
        await engine.caught_up()
        verdict = await verdict_on(kit, where(kit, tmp_path))
        assert isinstance(verdict, Equal)
        await kit.send(topic, [(b"a", b"")])
        await engine.caught_up()
    assert await verdict_on(kit, where(kit, tmp_path)) == Equal(compared=2, gone=0)


async def test_a_changelog_says_the_last_of_each_key(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("clicks")
    await handle(kit, topic, tmp_path, (b"a", b""), (b"b", b""))
    await handle(kit, topic, tmp_path, (b"a", None), (b"b", b""), (b"c", b""))
    changelog = TopicPartition(f"{kit.group}-counts-changelog", 0)
    async with kit.broker() as broker:
        async with spooled(changelog, broker) as spool:
            assert values(spool) == {b"b": entry(b"b", 2)[1], b"c": entry(b"c", 1)[1]}
            assert (spool.records, spool.end) == (5, 5)
        async with spooled(changelog, broker, up_to=2) as spool:
            assert values(spool) == {b"a": entry(b"a", 1)[1], b"b": entry(b"b", 1)[1]}
            assert {key: said.is_known for key, said in spool}[entry(b"c", 1)[0]] is False


def values(spool: Spool) -> dict[bytes, bytes]:
    """Of the keys that have one, by the bytes they are in a handler."""
    return {key[2:]: said.value for key, said in spool if said.value is not None}
