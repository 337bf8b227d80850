"""A partition of a changelog, read whole and sorted by key, in a store of its own that is thrown away afterwards."""

import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from paperboy.brokers.protocol import Broker, Record, TopicPartition
from paperboy.clock import in_thread
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import StoreIdentity
from paperboy.tables.stores.rocksdb import RocksDBStore

_FETCH_TIMEOUT_SEC = 0.1
_HEAD = struct.Struct(">qc")
_VALUE, _TOMBSTONE, _LATER = b"v", b"t", b"l"


class Said(NamedTuple):
    """What a changelog says of a key, below the offset up to which it was asked."""

    offset: int
    """Of the key's last record there; of its first one beyond, where there is none."""
    value: bytes | None
    """None: a tombstone, or nothing is known."""
    is_known: bool
    """False: there is a record beyond, and one below may have been compacted away."""


class Spool:
    """What a partition of a changelog says of each key."""

    def __init__(self, store: RocksDBStore, records: int, keyless: int, end: int) -> None:
        self.records = records
        """How many records were read."""
        self.keyless = keyless
        """How many of them have no key, and so belong to no entry."""
        self.end = end
        """The offset behind the last of them."""
        self._store = store

    def get(self, key: bytes) -> Said | None:
        data = self._store.get(key)
        return None if data is None else _said(data)

    def __iter__(self) -> Iterator[tuple[bytes, Said]]:
        """In the order of the keys' bytes."""
        for key, data in self._store.scan():
            yield key, _said(data)


async def records_of(
    partition: TopicPartition, broker: Broker, passed: Callable[[int], object] = lambda offsets: None
) -> AsyncGenerator[list[Record], None]:
    """All records of a partition, in chunks, up to the end that it has when it is reached.

    Whatever compaction removes meanwhile, before it was read here, has left a later record of its key behind, which is
    read.

    Args:
        passed: told by how many offsets each chunk has come on.
    """
    position = (await broker.beginning_offsets([partition]))[partition]
    end = (await broker.end_offsets([partition]))[partition]
    if position >= end:
        return
    reader = broker.reader()
    try:
        await reader.start({partition: position})
        while position < end:
            records = (await reader.fetch([partition], _FETCH_TIMEOUT_SEC)).get(partition, [])
            before, position = position, reader.position(partition)
            passed(position - before)
            if records:
                yield records
            if position >= end:
                end = (await broker.end_offsets([partition]))[partition]
    finally:
        await reader.stop()


@asynccontextmanager
async def spooled(
    partition: TopicPartition,
    broker: Broker,
    up_to: int | None = None,
    passed: Callable[[int], object] = lambda offsets: None,
) -> AsyncIterator[Spool]:
    """A partition, read whole.

    Args:
        up_to: what a key is said to be, is what it is below this offset; None: at the end.
        passed: as in `records_of`.

    Raises:
        BrokerError: it cannot be read.
    """
    with TemporaryDirectory(prefix="paperboy-") as directory:
        identity = StoreIdentity(partition.topic, partition.partition, partition.topic, "", "")
        store, _ = await in_thread(lambda: RocksDBStore.open(Path(directory), identity, RocksDBOptions()))
        try:
            read = keyless = 0
            async with aclosing(records_of(partition, broker, passed)) as chunks:
                async for records in chunks:
                    read += len(records)
                    keyless += sum(not record.key for record in records)
                    store.write(_changes(records, up_to, store), records[-1].offset + 1, 0)
                    if store.flush_due:
                        await in_thread(store.flush)
            yield Spool(store, read, keyless, store.changelog_offset or 0)
        finally:
            await in_thread(store.close)


def _said(data: bytes) -> Said:
    offset, kind = _HEAD.unpack_from(data)
    return Said(offset, data[_HEAD.size :] if kind == _VALUE else None, kind != _LATER)


def _changes(records: list[Record], up_to: int | None, store: RocksDBStore) -> dict[bytes, bytes | None]:
    changes: dict[bytes, bytes | None] = {}
    later: dict[bytes, int] = {}
    for record in records:
        key = record.key
        if not key:
            continue
        if up_to is not None and record.offset >= up_to:
            later.setdefault(key, record.offset)
        elif record.value is None:
            changes[key] = _HEAD.pack(record.offset, _TOMBSTONE)
        else:
            changes[key] = _HEAD.pack(record.offset, _VALUE) + record.value
    unsaid = [key for key in later if key not in changes]
    for key, data in zip(unsaid, store.get_many(unsaid), strict=True):
        if data is None:
            changes[key] = _HEAD.pack(later[key], _LATER)
    return changes
