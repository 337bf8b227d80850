"""One RocksDB in one directory: opening it, wiping it, what it shares with the others of the process, what its errors
mean."""

import errno
import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBufferManager,
    WriteOptions,
)

from paperboy.errors import StoreError
from paperboy.tables.stores.errors import OfNoUse
from paperboy.tables.stores.options import RocksDBOptions

_ARENA_BLOCK_BYTES: Final = 64 * 1024
"""What a store with a single unflushed entry takes of the write buffers."""

_LOCK: Final = "LOCK"
"""RocksDB's own: whoever has a directory open holds a lock on this file."""

_CURRENT: Final = "CURRENT"
"""Without this file nothing takes a directory for a whole database."""

_DAMAGED: Final = "DAMAGED"
"""Written by us when a read finds damage, so that the next opening wipes the directory."""

_DATABASE: Final = re.compile(r"CURRENT.*|DAMAGED|IDENTITY|MANIFEST-.*|OPTIONS-.*|\d+\.\w+")
_BESIDE: Final = re.compile(r"LOG.*|rocksdict-config\.json")
"""The files of a database, and what stands in its directory before it does. Whatever else is there is not ours."""


class SharedMemory:
    """The block cache and the write buffers of all stores of the process that were opened with the same sizes.

    Made when the first store is opened, and kept.
    """

    def __init__(self, options: RocksDBOptions) -> None:
        self.cache = Cache(options.block_cache_bytes)
        self.write_buffers = WriteBufferManager(options.write_buffer_bytes, False)
        self.stores: WeakSet[object] = WeakSet()
        """Those that are open."""
        self._shared_bytes = options.write_buffer_bytes * 3 // 4

    @staticmethod
    def of(options: RocksDBOptions) -> "SharedMemory":
        sizes = (options.block_cache_bytes, options.write_buffer_bytes)
        # `setdefault`, because stores are opened by several threads.
        return _shared.get(sizes) or _shared.setdefault(sizes, SharedMemory(options))

    @property
    def share_bytes(self) -> int:
        """What one store can keep unflushed, if all keep as much."""
        return self._shared_bytes // max(1, len(self.stores))


_shared: dict[tuple[int, int], SharedMemory] = {}


def is_blank(path: Path) -> bool:
    """Whether this directory, which is made if need be, holds neither a database nor the remains of one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return not any(_DATABASE.fullmatch(name) for name in os.listdir(path))
    except OSError as error:
        raise failed(path, "be opened", error) from error


def open_database(path: Path, options: RocksDBOptions) -> Rdict:
    """The database that is in this directory.

    Raises:
        OfNoUse: it is damaged.
        StoreError: another process has it open, or the machine does not let us.
    """
    if (path / _DAMAGED).exists():
        raise OfNoUse("damaged: a read has found it so")
    given = _rocksdb_options(options)
    given.create_if_missing(False)
    try:
        return _without_wal(Rdict(str(path), given, {"default": given}))
    except Exception as error:
        raise not_opened(path, error) from error


def look_into_database(path: Path, options: RocksDBOptions) -> Rdict:
    """The database that is in this directory, as it was flushed last, for reading only; another may have it open.

    Raises:
        OfNoUse: it is damaged, or there is none.
        StoreError: the machine does not let us.
    """
    if not (path / _CURRENT).exists():
        raise OfNoUse("not there")
    given = _rocksdb_options(options)
    given.create_if_missing(False)
    try:
        return Rdict(str(path), given, {"default": given}, AccessType.read_only(False))
    except Exception as error:
        raise not_opened(path, error) from error


def begin_database(path: Path, options: RocksDBOptions) -> Rdict:
    """A new database in a blank directory.

    Raises:
        StoreError: another process was quicker, or the machine does not let us.
    """
    given = _rocksdb_options(options)
    given.create_if_missing(True)
    try:
        return _without_wal(Rdict(str(path), given, {"default": given}))
    except Exception as error:
        raise failed(path, "be begun", error) from error


def wipe(path: Path) -> None:
    """Remove the database from this directory, but not its lock, which we hold meanwhile.

    CURRENT goes first, so that a crash in the middle leaves nothing that would be taken for a database.

    Raises:
        StoreError: another process has it open, or a file cannot be removed.
    """
    try:
        with (path / _LOCK).open("ab") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in sorted(os.listdir(path), key=lambda name: name != _CURRENT):
                if _DATABASE.fullmatch(name) or _BESIDE.fullmatch(name):
                    os.unlink(path / name)
    except BlockingIOError as error:
        raise StoreError(f"The store in {path} cannot be wiped: {_IN_USE}.") from error
    except OSError as error:
        raise failed(path, "be wiped", error) from error


def not_opened(path: Path, error: Exception) -> OfNoUse | StoreError:
    """What an error of an opening means: that the data is damaged, or that the machine does not let us."""
    if _machines_remedy(error) is None:
        return OfNoUse(f"damaged: {_one_line(error)}")
    return failed(path, "be opened", error)


def failed(path: Path, what: str, error: Exception) -> StoreError:
    """The error for something that RocksDB or the disk did not do, with the remedy that fits.

    Where the data is damaged, the next opening wipes it.

    Args:
        what: as in "the store cannot …".
    """
    remedy = _machines_remedy(error)
    if remedy is None and str(error).startswith("Corruption"):
        _mark_damaged(path, error)
        remedy = "start again, and it is restored from its changelog"
    if remedy is None:
        remedy = "stop the worker and remove this directory: it is restored from its changelog"
    return StoreError(f"The store in {path} cannot {what} ({_one_line(error)}): {remedy}.")


def _mark_damaged(path: Path, error: Exception) -> None:
    with suppress(OSError):  # The next opening may find the damage by itself, and the error at hand says what it is.
        (path / _DAMAGED).write_text(_one_line(error))


def _without_wal(database: Rdict) -> Rdict:
    """What is written to it goes to memory, and to disk when it is flushed."""
    without_wal = WriteOptions()
    without_wal.disable_wal = True  # type: ignore[method-assign,assignment]  # the stub has it for a method
    database.set_write_options(without_wal)
    return database


def _machines_remedy(error: Exception) -> str | None:
    """What to do about an error that is the machine's and not the data's; None where it is the data's."""
    return next((remedy for said, remedy in _MACHINES_REMEDIES if said in str(error)), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


_IN_USE = "another worker has it open, which must be stopped first, or given a state directory of its own"
_FILES = "the process has too many files open; raise its limit (ulimit -n), or lower max_open_files"
_SPACE = "make room on this disk, and start again"
_RIGHTS = "let the worker's user write in this directory, and start again"
_HARDWARE = "the disk or the memory of this machine fails; look at its log"

_MACHINES_REMEDIES: Final = (
    ("lock hold by current process", _IN_USE),
    ("While lock file", _IN_USE),
    *(
        (os.strerror(number), remedy)
        for numbers, remedy in (
            ((errno.EMFILE, errno.ENFILE), _FILES),
            ((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE),
            ((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
            ((errno.EIO, errno.ENOMEM), _HARDWARE),
        )
        for number in numbers
    ),
)

_COMPRESSIONS: Final = {
    "lz4": DBCompressionType.lz4,
    "zstd": DBCompressionType.zstd,
    "snappy": DBCompressionType.snappy,
    "none": DBCompressionType.none,
}


def _rocksdb_options(options: RocksDBOptions) -> Options:
    memory = SharedMemory.of(options)
    table = BlockBasedOptions()
    table.set_block_cache(memory.cache)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    if options.bloom_bits_per_key:
        table.set_bloom_filter(options.bloom_bits_per_key, False)
    given = Options(raw_mode=True)
    given.set_block_based_table_factory(table)
    given.set_compression_type(_COMPRESSIONS[options.compression]())
    given.set_write_buffer_manager(memory.write_buffers)
    given.set_arena_block_size(_ARENA_BLOCK_BYTES)
    # Flushes are ours to begin. Should one take long, writes fill further buffers: they are made on the event loop,
    # and a write that RocksDB holds up would hold up everything.
    given.set_write_buffer_size(min(2 * options.flush_bytes, options.write_buffer_bytes))
    given.set_max_write_buffer_number(8)
    given.set_level_zero_slowdown_writes_trigger(64)
    given.set_level_zero_stop_writes_trigger(256)
    given.set_max_open_files(options.max_open_files)
    given.set_keep_log_file_num(2)
    given.set_max_log_file_size(256 * 1024)
    given.set_max_manifest_file_size(4 * 1024 * 1024)
    given.set_manifest_preallocation_size(64 * 1024)
    given.set_stats_dump_period_sec(0)
    given.set_stats_persist_period_sec(0)
    return given
