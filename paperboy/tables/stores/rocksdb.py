"""A store on disk: a RocksDB of its own in a directory of its own. The changelog is the truth, this a copy at hand."""

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from rocksdict import DbClosedError, Rdict, RdictIter, ReadOptions, WriteBatch

from paperboy.errors import StoreError
from paperboy.tables.stores.database import (
    SharedMemory,
    begin_database,
    failed,
    is_blank,
    look_into_database,
    not_opened,
    open_database,
    wipe,
)
from paperboy.tables.stores.errors import EmptyStore, OfNoUse, empty_key, scan_ended
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Scan, StoreIdentity, StoreSnapshot
from paperboy.tables.stores.record import StoreRecord, mismatch, with_known_id

_OWN_KEY: Final = b""
"""Where the store's own record stands."""

_FIRST_KEY: Final = b"\x00"
"""The least key that an entry can have."""

_BUFFERED_OVERHEAD_BYTES: Final = 50
"""What a change takes of the write buffers beside its bytes in a batch, about."""


class RocksDBStore:
    """See `Store`. Made by `open`.

    Each write is one batch with the store's own record in it. So whatever prefix of the batches a crash leaves on the
    disk, data and changelog offset agree. There is no write-ahead log: what was not flushed is read from the changelog
    again.
    """

    def __init__(
        self, path: Path, identity: StoreIdentity, options: RocksDBOptions, database: Rdict, record: StoreRecord | None
    ) -> None:
        self._path = path
        self._identity = identity
        self._options = options
        self._memory = SharedMemory.of(options)
        self._database = database
        self._record = record
        self._closed = False
        self._scans: WeakSet[_RocksDBScan | _RocksDBSnapshot] = WeakSet()
        self._written = _Amount(0, 0, 0)
        """Set by the event loop alone."""
        self._flushed = self._written
        """How much was written when the last flush began: set by the thread that flushes alone."""
        self._memory.stores.add(self)

    @classmethod
    def open(cls, path: Path, identity: StoreIdentity, options: RocksDBOptions) -> tuple["RocksDBStore", str | None]:
        """Open the store in this directory, or begin one. Blocks: call it in a thread.

        A crash at any moment of this leaves what the next call can open or wipe.

            store, why_wiped = RocksDBStore.open(state_dir / "clicks" / "0", identity, RocksDBOptions())

        Returns:
            The store; and where what was there was of no use to this identity, why, as in "the store was …": it was
            wiped, and the store is empty.

        Raises:
            StoreError: another process has it open, or the machine does not let us; the sentence says what to do.
        """
        why_wiped = None
        if not is_blank(path):
            try:
                database, record = _found(path, identity, options)
            except OfNoUse as error:
                why_wiped = str(error)
                wipe(path)
            else:
                if record is not None:
                    identity = with_known_id(identity, record.identity)
                return cls(path, identity, options, database, record), None
        return cls(path, identity, options, begin_database(path, options), None), why_wiped

    @classmethod
    def look(cls, path: Path) -> "RocksDBStore":
        """The store in this directory as it was flushed last, for reading only; a worker may have it open. Blocks.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        options = RocksDBOptions()
        try:
            database = look_into_database(path, options)
            record = _own_record(path, database)
        except OfNoUse as error:
            raise StoreError(
                f"The store in {path} is {error}: the worker that it belongs to restores it when it is started."
            ) from error
        if record is None:
            database.close()
            raise EmptyStore(f"The store in {path} is empty: its worker has flushed nothing yet.")
        return cls(path, record.identity, options, database, record)

    @property
    def identity(self) -> StoreIdentity:
        """Whose bytes these are."""
        return self._identity

    @property
    def changelog_offset(self) -> int | None:
        return None if self._record is None else self._record.changelog_offset

    @property
    def in_step_ms(self) -> int | None:
        return None if self._record is None else self._record.in_step_ms

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise self._failed("be read", error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            found: Any = self._database.get(list(keys))
        except Exception as error:
            raise self._failed("be read", error) from error
        values: list[bytes | None] = found
        return values

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
        if _OWN_KEY in changes:
            raise empty_key(self._identity.table)
        record = StoreRecord(self._identity, changelog_offset, in_step_ms)
        # One batch, however large: in several, a failure or a flush in between would leave half of the changes.
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_OWN_KEY, record.to_bytes())
        size = batch.size_in_bytes() + len(batch) * _BUFFERED_OVERHEAD_BYTES
        try:
            self._database.write(batch)
        except Exception as error:
            raise self._failed("be written", error) from error
        self._record = record
        self._written = self._written.plus(1, len(changes), size)

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        bounds = ReadOptions()
        if stop is not None:
            bounds.set_iterate_upper_bound(stop)
        try:
            iterator = self._database.iter(bounds)
        except Exception as error:
            raise self._failed("be scanned", error) from error
        # It sees the database as of now, wherever it goes. Our own record stands before the first key of an entry.
        if reverse:
            iterator.seek_to_last()
            entries = self._entries(iterator, iterator.prev, start or _FIRST_KEY)
        else:
            iterator.seek(start or _FIRST_KEY)
            entries = self._entries(iterator, iterator.next, start or _FIRST_KEY)
        scan = _RocksDBScan(self._identity.table, entries)
        self._scans.add(scan)
        return scan

    def snapshot(self) -> StoreSnapshot:
        try:
            snapshot = _RocksDBSnapshot(self, self._identity.table, self._database.iter())
        except Exception as error:
            raise self._failed("be scanned", error) from error
        self._scans.add(snapshot)
        return snapshot

    def _entries(self, iterator: RdictIter, step: Callable[[], None], start: bytes) -> Generator[tuple[bytes, bytes]]:
        """What the iterator comes by. (RocksDB's own items end without a word where a block cannot be read.)"""
        try:
            while iterator.valid() and (key := iterator.key()) >= start:
                yield key, iterator.value()
                step()
            iterator.status()
        except Exception as error:
            raise self._failed("be scanned", error) from error
        finally:
            # The database is locked while an iterator lives, and a traceback would keep this one alive.
            del iterator, step

    def len_estimate(self) -> int:
        """As RocksDB estimates: a key that was written several times may count as often, until it is compacted."""
        try:
            estimate = self._database.property_int_value("rocksdb.estimate-num-keys") or 0
        except Exception as error:
            raise self._failed("be read", error) from error
        own = self._written.writes - self._flushed.writes
        return max(0, estimate - max(1, own))

    @property
    def flush_due(self) -> bool:
        unflushed_bytes = self._written.bytes - self._flushed.bytes
        return (
            self._written.changes - self._flushed.changes >= self._options.flush_records
            or unflushed_bytes >= self._options.flush_bytes
            or unflushed_bytes >= self._memory.share_bytes
        )

    def flush(self) -> None:
        written = self._written
        if written == self._flushed:
            return
        try:
            self._database.flush()
        except Exception as error:
            raise self._failed("be flushed", error) from error
        self._flushed = written

    def clear(self) -> None:
        self._let_go()
        wipe(self._path)
        self._database = begin_database(self._path, self._options)
        self._closed = False
        self._record = None
        self._written = self._flushed = _Amount(0, 0, 0)
        self._memory.stores.add(self)

    def close(self) -> None:
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Close the database, once; RocksDB holds its lock for as long as an iterator lives."""
        if self._closed:
            return
        self._closed = True
        for scan in list(self._scans):
            scan.close()
        self._memory.stores.discard(self)
        try:
            self._database.close()
        except Exception as error:
            raise self._failed("be closed", error) from error

    def _failed(self, what: str, error: Exception) -> StoreError:
        if isinstance(error, DbClosedError):
            return StoreError(f"The store in {self._path} cannot {what}: it was closed; open it again.")
        return failed(self._path, what, error)


class _Amount(NamedTuple):
    """How much was written to a store since it was opened."""

    writes: int
    changes: int
    bytes: int

    def plus(self, writes: int, changes: int, size: int) -> "_Amount":
        return _Amount(self.writes + writes, self.changes + changes, self.bytes + size)


class _RocksDBSnapshot:
    """An iterator of RocksDB, which sees the database as it was when it was made. Its scans take turns with it.

    (The library's own Snapshot reads single keys as they were, and iterates over them as they are.)
    """

    __slots__ = ("__weakref__", "_iterator", "_store", "_table", "_turn")

    def __init__(self, store: RocksDBStore, table: str, iterator: RdictIter) -> None:
        self._store = store
        self._table = table
        self._iterator: RdictIter | None = iterator
        self._turn: object = None
        """The scan that the iterator stands where it is for."""

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        if self._iterator is None:
            raise scan_ended(self._table)
        return _RocksDBScan(self._table, self._entries(start or _FIRST_KEY, stop, reverse))

    def close(self) -> None:
        self._iterator = None

    def _entries(self, start: bytes, stop: bytes | None, reverse: bool) -> Generator[tuple[bytes, bytes]]:
        me, key = object(), None
        while True:
            if self._iterator is None:
                raise scan_ended(self._table)
            try:
                if self._turn is me:
                    _step(self._iterator, reverse)
                elif key is None:
                    _first(self._iterator, start, stop, reverse)
                else:
                    self._iterator.seek(key)
                    _step(self._iterator, reverse)
                self._turn = me
                if not self._iterator.valid():
                    self._iterator.status()
                    return
                key, value = self._iterator.key(), self._iterator.value()
            except Exception as error:
                raise self._store._failed("be scanned", error) from error
            if key < start or (stop is not None and key >= stop):
                return
            yield key, value


def _first(iterator: RdictIter, start: bytes, stop: bytes | None, reverse: bool) -> None:
    if not reverse:
        iterator.seek(start)
    elif stop is None:
        iterator.seek_to_last()
    else:
        iterator.seek_for_prev(stop)
        if iterator.valid() and iterator.key() == stop:
            iterator.prev()


def _step(iterator: RdictIter, reverse: bool) -> None:
    if reverse:
        iterator.prev()
    else:
        iterator.next()


class _RocksDBScan:
    """Entries of an iterator of RocksDB, until it is closed."""

    __slots__ = ("__weakref__", "_entries", "_table")

    def __init__(self, table: str, entries: Generator[tuple[bytes, bytes]]) -> None:
        self._table = table
        self._entries: Generator[tuple[bytes, bytes]] | None = entries

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self._entries is None:
            raise scan_ended(self._table)
        return next(self._entries)

    def close(self) -> None:
        if self._entries is not None:
            self._entries.close()
            self._entries = None


def _found(path: Path, identity: StoreIdentity, options: RocksDBOptions) -> tuple[Rdict, StoreRecord | None]:
    """The database that is in this directory, and its own record.

    Raises OfNoUse where it is damaged, or not of this identity.
    """
    database = open_database(path, options)
    record = _own_record(path, database)
    if record is not None and (why := mismatch(record.identity, identity)) is not None:
        database.close()
        raise OfNoUse(why)
    return database, record


def _own_record(path: Path, database: Rdict) -> StoreRecord | None:
    """None where nothing was ever flushed. Raises OfNoUse, and closes the database, where it cannot be read."""
    try:
        data = database.get(_OWN_KEY)
        if data is not None:
            return StoreRecord.from_bytes(data)
        if _has_entries(database):
            raise OfNoUse("damaged: it has entries, and not its own record")
        return None
    except Exception as error:
        database.close()
        raise error if isinstance(error, OfNoUse) else not_opened(path, error) from error


def _has_entries(database: Rdict) -> bool:
    iterator = database.iter()
    iterator.seek_to_first()
    iterator.status()
    return iterator.valid()
