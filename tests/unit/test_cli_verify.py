"""Comparing a store with its changelog, whatever compaction has left of it."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.memory.batches import batches
from paperboy.brokers.memory.reader import MemoryReader
from paperboy.brokers.protocol import Outgoing, Record, TopicPartition, TopicSpec
from paperboy.cli.spool import Said
from paperboy.cli.verify import Difference, Equal, Outdated, Verdict, Wrong, compared, verify
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.protocol import StoreIdentity
from paperboy.testing.virtual_time import VirtualLoop

CHANGELOG = TopicPartition("clicks-changelog", 0)
IDENTITY = StoreIdentity("clicks", 0, CHANGELOG.topic, "", "keys: format 1; values: format 1; schema version: 1")
HOUR_MS = 3_600_000

Writes = Sequence[tuple[bytes, bytes | None]]


class OneByOne(MemoryReader):
    """A reader whose every chunk is one record: what a chunk brings knows nothing of those before it."""

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        return await super().fetch(partitions, timeout_sec, 1)


class Broker(MemoryBroker):
    def reader(self) -> MemoryReader:
        return OneByOne(self.cluster)


class Log:
    """A changelog on a broker of this process, and stores that were made from it."""

    def __init__(self, **config: str) -> None:
        self.cluster = MemoryCluster(epoch_ms=1_000 * HOUR_MS)
        self.broker = Broker(self.cluster)
        spec = TopicSpec(CHANGELOG.topic, 1, config={"cleanup.policy": "compact", **config})
        self.cluster.create_topics([spec])
        self.written: list[tuple[bytes, bytes | None]] = []

    async def write(self, *writes: tuple[bytes | None, bytes | None]) -> None:
        self.written += writes  # type: ignore[arg-type]  # a test writes one without a key
        producer = self.broker.producer()
        await producer.start()
        now_ms = self.broker.clock.time_ms()
        await asyncio.gather(*await producer.send(CHANGELOG, [(key, value, (), now_ms) for key, value in writes]))
        await producer.stop()

    def store(self, offset: int | None = None, **changes: bytes | None) -> MemoryStore:
        """What the log says below `offset` (None: at its end), and changes that are not in it."""
        offset = len(self.written) if offset is None else offset
        store = MemoryStore("clicks")
        store.write(dict(self.written[:offset]), offset, self.broker.clock.time_ms())
        store.write({key.encode(): value for key, value in changes.items()}, offset, self.broker.clock.time_ms())
        return store

    async def verify(self, store: MemoryStore, identity: StoreIdentity = IDENTITY) -> Verdict:
        await self.broker.start()
        return await verify(store, identity, self.broker)


async def test_a_store_that_its_changelog_gives_is_equal() -> None:
    log = Log()
    await log.write((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"), (b"c", None))
    assert await log.verify(log.store()) == Equal(compared=2, gone=0)
    assert await Log().verify(Log().store()) == Equal(0, 0)


async def test_the_first_difference_is_named() -> None:
    log = Log()
    await log.write((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4"), (b"d", None))
    assert await log.verify(log.store(b=b"7", c=b"8")) == Difference(b"b", b"7", b"2", offset=1)
    assert await log.verify(log.store(c=None)) == Difference(b"c", None, b"3", offset=2)
    assert await log.verify(log.store(d=b"4")) == Difference(b"d", b"4", None, offset=4)
    assert await log.verify(log.store(aa=b"1")) == Difference(b"aa", b"1", None, offset=None)
    assert await log.verify(log.store(e=b"")) == Difference(b"e", b"", None, offset=None)


async def test_a_store_is_compared_up_to_its_own_offset() -> None:
    log = Log()
    await log.write((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"))
    assert await log.verify(log.store(offset=2)) == Equal(compared=2, gone=0)
    assert await log.verify(log.store(offset=2, a=b"3")) == Difference(b"a", b"3", b"1", offset=0)
    assert await log.verify(log.store(offset=3, b=None)) == Difference(b"b", None, b"2", offset=1)


async def test_what_was_compacted_away_under_a_store_is_no_difference() -> None:
    log = Log()
    await log.write((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
    store = log.store(offset=2)
    log.cluster.compact(CHANGELOG.topic)
    assert await log.verify(store) == Equal(compared=1, gone=1)
    assert await log.verify(log.store(offset=2, b=b"7")) == Difference(b"b", b"7", b"2", offset=1)


async def test_what_is_compacted_away_while_it_is_read_is_no_difference() -> None:
    log = Log()
    await log.write((b"a", b"1"), (b"b", b"2"))
    store = log.store()

    class Busy(Broker):
        """A worker goes on writing, and the cleaner runs, after it was asked where the changelog ends."""

        def reader(self) -> MemoryReader:
            records: list[Outgoing] = [(b"a", b"3", (), self.clock.time_ms())]
            for batch in batches(records):
                self.cluster.topic(CHANGELOG.topic).append(0, batch, self.clock.time_ms())
            self.cluster.compact(CHANGELOG.topic)
            return super().reader()

    busy = Busy(log.cluster)
    await busy.start()
    assert await verify(store, IDENTITY, busy) == Equal(compared=1, gone=1)


async def test_a_store_that_was_away_for_longer_than_tombstones_are_kept_is_outdated() -> None:
    log = Log(**{"delete.retention.ms": "1000"})
    await log.write((b"a", b"1"), (b"a", None))
    store = log.store(offset=1)
    store.write({}, 1, log.broker.clock.time_ms() - HOUR_MS)
    verdict = await log.verify(store)
    assert isinstance(verdict, Outdated)
    assert "the changelog keeps tombstones for" in verdict.why


async def test_a_store_of_a_changelog_that_was_made_anew_is_outdated() -> None:
    log = Log()
    await log.write((b"a", b"1"))
    verdict = await log.verify(log.store(), replace(IDENTITY, changelog_id="another"))
    assert verdict == Outdated("it is of an earlier changelog of this name: 'clicks-changelog' was made anew")
    same = replace(IDENTITY, changelog_id=log.cluster.topic(CHANGELOG.topic).id)
    assert await log.verify(log.store(), same) == Equal(1, 0)


async def test_a_store_that_is_ahead_of_its_changelog_is_wrong() -> None:
    log = Log()
    await log.write((b"a", b"1"))
    store = log.store()
    store.write({}, 2, log.broker.clock.time_ms())
    assert await log.verify(store) == Wrong("it stands at offset 2, and the changelog holds 0 to 1")


async def test_a_store_without_its_changelog_is_wrong() -> None:
    log = Log()
    missing = replace(IDENTITY, changelog="nowhere")
    assert await log.verify(log.store(), missing) == Wrong("its changelog 'nowhere' does not exist on memory://")
    beyond = replace(IDENTITY, partition=1)
    assert await log.verify(log.store(), beyond) == Wrong("its changelog 'clicks-changelog' has 1 partition")


async def test_a_changelog_that_ends_in_markers_is_read_to_its_end() -> None:
    log = Log()
    await log.write((b"a", b"1"))
    log.cluster.append_marker(CHANGELOG)
    store = log.store()
    store.write({}, 2, log.broker.clock.time_ms())
    assert await log.verify(store) == Equal(1, 0)


async def test_a_record_without_a_key_belongs_to_no_entry() -> None:
    log = Log()
    await log.write((b"a", b"1"), (b"", b"2"))
    store = log.store(offset=1)
    store.write({}, 2, log.broker.clock.time_ms())
    assert await log.verify(store) == Equal(1, 0)


async def test_a_copy_that_is_of_no_use_any_more_is_outdated() -> None:
    log = Log()
    await log.write((b"a", b"1"))
    store = log.store(a=b"7")
    store.write({}, -1, log.broker.clock.time_ms())
    assert await log.verify(store) == Outdated("it could not be brought up to date any more")


async def test_what_a_topic_has_forgotten_by_its_age_is_no_difference() -> None:
    log = Log(**{"cleanup.policy": "compact,delete"})
    await log.write((b"a", b"1"), (b"b", b"2"))
    store = log.store()
    log.cluster.delete_records(CHANGELOG, before=1)
    assert await log.verify(store) == Equal(compared=1, gone=1)
    assert await log.verify(log.store(b=b"7")) == Difference(b"b", b"7", b"2", offset=1)


def test_listings_are_compared_key_by_key() -> None:
    def known(offset: int, value: bytes | None) -> Said:
        return Said(offset, value, True)

    later = Said(9, None, False)
    assert compared([], []) == Equal(0, 0)
    assert compared([], [(b"a", later), (b"b", known(1, None))]) == Equal(0, 0)
    assert compared([(b"a", b"1")], [(b"a", later)]) == Equal(0, 1)
    assert compared([(b"a", b"1"), (b"b", b"")], [(b"a", known(0, b"1")), (b"b", known(1, b""))]) == Equal(2, 0)
    assert compared([(b"b", b"1")], [(b"a", known(0, b"1")), (b"b", known(1, b"1"))]) == Difference(b"a", None, b"1", 0)
    assert compared([(b"a", b"1"), (b"b", b"1")], [(b"b", known(1, b"1"))]) == Difference(b"a", b"1", None, None)
    assert compared([(b"a", b"")], [(b"a", known(3, None))]) == Difference(b"a", b"", None, 3)


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
values = st.none() | st.sampled_from([b"", b"1", b"2"])
steps = st.lists(st.tuples(keys, values) | st.integers(0, 12), max_size=12)
"""A write, or a compaction of what lies below an offset."""


@settings(max_examples=50, deadline=None)
@given(below=steps, above=steps, tampering=st.none() | st.tuples(keys, values))
def test_no_compaction_makes_a_difference_and_none_hides_one_that_can_be_known(
    below: Sequence[tuple[bytes, bytes | None] | int],
    above: Sequence[tuple[bytes, bytes | None] | int],
    tampering: tuple[bytes, bytes | None] | None,
) -> None:
    async def run() -> None:
        log = Log()
        for step in below:
            await take(log, step)
        store = log.store()
        for step in above:
            await take(log, step)
        true = dict(store.scan())
        if tampering is not None:
            store.write(dict([tampering]), store.changelog_offset or 0, store.in_step_ms or 0)
        tampered = [key for key in {**true, **dict(store.scan())} if true.get(key) != store.get(key)]
        written_above = {step[0] for step in above if isinstance(step, tuple)}
        verdict = await log.verify(store)
        if not tampered:
            assert isinstance(verdict, Equal)
        elif tampered[0] not in written_above:
            assert isinstance(verdict, Difference)
            assert (verdict.key, verdict.stored, verdict.said) == (
                tampered[0], store.get(tampered[0]), true.get(tampered[0]),
            )  # fmt: skip

    loop = VirtualLoop()
    loop.run(run())
    loop.close()


async def take(log: Log, step: tuple[bytes, bytes | None] | int) -> None:
    if isinstance(step, tuple):
        await log.write(step)
    else:
        log.cluster.compact(CHANGELOG.topic, before=step)
