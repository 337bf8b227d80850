"""What only a store on disk can show: who may open it, what is of no use, damage, the machine's limits, memory."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rocksdict import WriteBatch

from paperboy.errors import ConfigurationError, StoreError, TableError
from paperboy.tables.stores import database
from paperboy.tables.stores.database import SharedMemory
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import StoreIdentity
from paperboy.tables.stores.rocksdb import RocksDBStore

ROOT = Path(__file__).parents[3]

IDENTITY = StoreIdentity("clicks", 3, "group-clicks-changelog", "first-id", "keys 1, values 1")

OLD_ENTRIES = {b"%03d" % number: b"old" for number in range(100)}
ENTRIES = {b"%03d" % number: b"of %03d" % number for number in range(200)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "clicks" / "3"


@contextmanager
def opened(
    path: Path, identity: StoreIdentity = IDENTITY, options: RocksDBOptions | None = None
) -> Iterator[tuple[RocksDBStore, str | None]]:
    store, why_wiped = RocksDBStore.open(path, identity, options or RocksDBOptions())
    try:
        yield store, why_wiped
    finally:
        store.close()


def write_entries(path: Path, identity: StoreIdentity = IDENTITY) -> None:
    """A store that was closed at offset 50, with its entries in two files."""
    with opened(path, identity) as (store, _):
        store.write(OLD_ENTRIES, 40, 400)
        store.flush()
        store.write(ENTRIES, 50, 500)


def assert_whole(path: Path, identity: StoreIdentity = IDENTITY) -> None:
    with opened(path, identity) as (store, why_wiped):
        assert why_wiped is None
        assert dict(store.scan()) == ENTRIES
        assert (store.changelog_offset, store.in_step_ms) == (50, 500)


def assert_wiped(path: Path, why: str, identity: StoreIdentity = IDENTITY) -> None:
    """It is of no use, says why, begins empty, and is a store again."""
    with opened(path, identity) as (store, why_wiped):
        assert why_wiped is not None
        assert re.search(why, why_wiped)
        assert "\n" not in why_wiped
        assert list(store.scan()) == []
        assert (store.changelog_offset, store.in_step_ms) == (None, None)
    write_entries(path, identity)
    assert_whole(path, identity)


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# Opening.


def test_a_store_that_was_closed_is_as_it_was(path: Path) -> None:
    write_entries(path)
    assert_whole(path)
    assert_whole(path)


def test_a_store_that_was_never_written_is_of_use_to_anybody(path: Path) -> None:
    for identity in (IDENTITY, replace(IDENTITY, definition="another")):
        with opened(path, identity) as (store, why_wiped):
            assert (why_wiped, store.changelog_offset) == (None, None)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"definition": "keys 1, Json 2"}, "of another table definition, 'keys 1, values 1'"),
        ({"changelog": "another"}, "of another changelog topic, 'group-clicks-changelog'"),
        ({"changelog_id": "second-id"}, "'group-clicks-changelog' was made anew"),
        ({"table": "visits"}, "of another table partition, 'clicks' 3"),
        ({"partition": 4}, "of another table partition, 'clicks' 3"),
    ],
)
def test_a_store_of_another_identity_is_wiped_and_says_why(path: Path, other: dict[str, Any], why: str) -> None:
    write_entries(path)
    assert_wiped(path, why, replace(IDENTITY, **other))


def test_a_changelog_without_an_id_is_taken_for_the_one_that_was_known(path: Path) -> None:
    unknown = replace(IDENTITY, changelog_id="")
    write_entries(path, unknown)
    assert_whole(path, unknown)
    assert_whole(path)  # the id is known now, and the next write notes it
    with opened(path) as (store, _):
        store.write({}, 50, 500)
    assert_whole(path, unknown)
    with opened(path, unknown) as (store, _):
        store.write({}, 50, 500)  # and it is not forgotten where the broker does not say it
    assert_wiped(path, "was made anew", replace(IDENTITY, changelog_id="second-id"))


def test_a_store_of_a_later_format_is_wiped_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("paperboy.tables.stores.record._FORMAT", 2)
        write_entries(path)
    assert_wiped(path, r"of a format that this version does not know \(02\)")


def test_a_store_whose_own_record_is_of_other_fields_is_wiped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("paperboy.tables.stores.record._pack", lambda fields: b"\x81\xa1a\x01")
        write_entries(path)
    assert_wiped(path, "damaged: its own record cannot be read")


def test_a_database_without_a_stores_own_record_is_wiped(path: Path) -> None:
    path.mkdir(parents=True)
    foreign = database.begin_database(path, RocksDBOptions())
    foreign.put(b"key", b"value")
    foreign.close()
    assert_wiped(path, "damaged: it has entries, and not its own record")


def test_one_store_at_a_time_has_a_directory(path: Path) -> None:
    with opened(path) as (store, _):
        store.write(ENTRIES, 50, 500)
        with pytest.raises(StoreError, match=re.escape(f"{path} cannot be opened") + ".*another worker has it open"):
            RocksDBStore.open(path, IDENTITY, RocksDBOptions())
    assert_whole(path)


HOLD = """
import sys
from pathlib import Path
from tests.contract.stores.test_rocksdb_store import opened
with opened(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("identity", [IDENTITY, replace(IDENTITY, definition="another")], ids=["same", "another"])
def test_a_store_that_another_process_has_open_is_refused_and_not_wiped(path: Path, identity: StoreIdentity) -> None:
    write_entries(path)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=r"cannot be opened .*: another worker has it open, which must be"):
            RocksDBStore.open(path, identity, RocksDBOptions())
        with pytest.raises(StoreError, match="cannot be wiped: another worker has it open"):
            database.wipe(path)
        holder.communicate()
    assert holder.returncode == 0
    assert_whole(path)


# Damage.


def newest(path: Path, pattern: str) -> Path:
    return max(path.glob(pattern))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def spoil(file: Path) -> None:
    file.write_bytes(b"\x00garbage\xff" * 20)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        *itertools.product(["CURRENT", "*.sst"], [cut, spoil, Path.unlink]),
        *itertools.product(["MANIFEST-*"], [spoil, Path.unlink]),
    ],
)
def test_a_damaged_store_is_wiped_and_says_so(path: Path, pattern: str, damage: Callable[[Path], object]) -> None:
    write_entries(path)
    damage(newest(path, pattern))
    assert_wiped(path, "^damaged: .")


def test_a_manifest_that_lost_its_end_makes_an_earlier_store_or_none(path: Path) -> None:
    write_entries(path)
    made = path.rename(path.with_name("made"))
    size = newest(made, "MANIFEST-*").stat().st_size
    found = set()
    for length in range(0, size, 29):
        shutil.copytree(made, path)
        os.truncate(newest(path, "MANIFEST-*"), length)
        with opened(path) as (store, why_wiped):
            expected = {None: {}, 40: OLD_ENTRIES, 50: ENTRIES}[store.changelog_offset]
            assert dict(store.scan()) == expected
            found.add((store.changelog_offset, why_wiped is None))
        shutil.rmtree(path)
    assert (None, False) in found


@pytest.mark.parametrize("damage", [cut, spoil, Path.unlink])
@pytest.mark.parametrize("pattern", ["IDENTITY", "OPTIONS-*", "*.log", "rocksdict-config.json", "LOG"])
def test_what_a_store_does_not_need_may_be_missing(path: Path, damage: Callable[[Path], object], pattern: str) -> None:
    write_entries(path)
    damage(newest(path, pattern))
    assert_whole(path)


def with_a_bad_block(path: Path, at: int) -> None:
    """Some bytes in the middle of a large file are not what was written."""
    with opened(path) as (store, _):
        store.write({b"%05d" % number: os.urandom(100) for number in range(5_000)}, 50, 500)
    with newest(path, "*.sst").open("r+b") as file:
        file.seek(at)
        file.write(b"\x55" * 1_000)


def test_a_store_whose_own_record_cannot_be_read_is_wiped(path: Path) -> None:
    with_a_bad_block(path, at=100)  # the own record comes first
    assert_wiped(path, "^damaged: Corruption: block checksum mismatch")


def read_each(store: RocksDBStore) -> None:
    for number in range(5_000):
        store.get(b"%05d" % number)


def read_many(store: RocksDBStore) -> None:
    store.get_many([b"%05d" % number for number in range(5_000)])


def scan_forwards(store: RocksDBStore) -> None:
    for _ in store.scan():
        pass


def scan_backwards(store: RocksDBStore) -> None:
    for _ in store.scan(reverse=True):
        pass


@pytest.mark.parametrize("read", [read_each, read_many, scan_forwards, scan_backwards])
def test_a_block_that_cannot_be_read_is_said_and_the_next_opening_wipes(
    path: Path, read: Callable[[RocksDBStore], None]
) -> None:
    with_a_bad_block(path, at=250_000)
    with opened(path) as (store, why_wiped):
        assert why_wiped is None
        with pytest.raises(
            StoreError, match=re.escape(str(path)) + ".*Corruption.*restored from its changelog"
        ) as said:
            read(store)
    # The error, and what it has on its stack, is still here.
    assert said.value.__cause__ is not None
    assert_wiped(path, "^damaged: ")


def test_a_crash_while_a_store_is_wiped_leaves_one_that_is_wiped_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each removal in turn, the process ends."""

    class Crash(BaseException):
        pass

    unlink = os.unlink
    crashed = True
    for removals in itertools.count():
        write_entries(path)
        left = itertools.count(removals, -1)

        def unlink_some(file: Path, left: Iterator[int] = left) -> None:
            if next(left) == 0:
                raise Crash
            unlink(file)

        crashed = False
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink_some)
            try:
                RocksDBStore.open(path, replace(IDENTITY, definition="another"), RocksDBOptions())[0].close()
            except Crash:
                crashed = True
        if not crashed:
            break
        with opened(path) as (store, why_wiped):
            if removals == 0:
                assert (why_wiped, store.changelog_offset) == (None, 50)
            else:
                assert list(store.scan()) == []
                assert store.changelog_offset is None
        shutil.rmtree(path)
    assert removals > 5


def test_a_crash_while_a_store_is_begun_leaves_one_that_begins_again(path: Path) -> None:
    """CURRENT, which makes it a database, comes last; what comes before it may be there or not."""
    with opened(path):
        pass
    made = path.rename(path.with_name("made"))
    others = [file for file in made.iterdir() if file.name != "CURRENT"]
    assert len(others) > 5
    for number in (0, 1, 2, len(others)):
        for there in itertools.combinations(others, number):
            path.mkdir()
            for file in there:
                shutil.copy(file, path)
            with opened(path) as (store, _):
                assert (store.changelog_offset, list(store.scan())) == (None, [])
            shutil.rmtree(path)


def test_what_is_not_a_stores_stays_when_one_is_wiped(path: Path) -> None:
    write_entries(path)
    (path / "photographs").mkdir()
    (path / "photographs" / "000001.sst").write_text("not ours")
    (path / "notes.txt").write_text("not ours")
    assert_wiped(path, "definition", replace(IDENTITY, definition="another"))
    assert (path / "photographs" / "000001.sst").read_text() == (path / "notes.txt").read_text() == "not ours"


def test_a_wiped_store_takes_no_room(path: Path) -> None:
    with opened(path) as (store, _):
        store.write({b"%d" % number: os.urandom(1_000) for number in range(1_000)}, 50, 500)
    with opened(path, replace(IDENTITY, definition="another")):
        assert sum(file.stat().st_size for file in path.iterdir()) < 200_000


# The machine.


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=re.escape(f"{tmp_path}/file/0 cannot be opened")):
        RocksDBStore.open(tmp_path / "file" / "0", IDENTITY, RocksDBOptions())


TOO_MANY_FILES = """
import os, resource, sys
from pathlib import Path
from paperboy.errors import StoreError
from tests.contract.stores.test_rocksdb_store import opened
path = Path(sys.argv[1])
files = len(os.listdir("/dev/fd"))
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for spare in range(1, 20):
    resource.setrlimit(resource.RLIMIT_NOFILE, (files + spare, hard))
    try:
        with opened(path) as (store, why_wiped):
            assert why_wiped is None, why_wiped
            print(len(dict(store.scan())))
    except StoreError as error:
        print(error)
"""


def test_too_few_file_descriptors_are_said_and_nothing_is_wiped(path: Path) -> None:
    write_entries(path)
    result = run(TOO_MANY_FILES, path)
    assert result.returncode == 0, result.stderr
    refused = [line for line in result.stdout.splitlines() if line != "200"]
    assert 3 <= len(refused) < 19
    assert all(str(path) in sentence and "ulimit -n" in sentence for sentence in refused)
    assert_whole(path)


DISK_FULL = """
import resource, sys
from pathlib import Path
from paperboy.errors import StoreError
from tests.contract.stores.test_rocksdb_store import ENTRIES, opened
import os
path = Path(sys.argv[1])
try:
    with opened(path) as (store, why_wiped):
        assert why_wiped is None, why_wiped
        store.write({b"%d" % number: os.urandom(1_000) for number in range(1_000)}, 60, 600)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            store.flush()
        finally:
            print(store.flush_due, len(dict(store.scan())), flush=True)
except StoreError as error:
    print(error)
"""


def test_a_disk_that_is_full_is_said_and_what_was_flushed_before_stays(path: Path) -> None:
    write_entries(path)
    result = run(DISK_FULL, path)
    assert result.returncode == 0, result.stderr
    assert str(path) in result.stdout
    assert "make room on this disk" in result.stdout
    assert_whole(path)


def test_a_store_that_was_closed_says_so(path: Path) -> None:
    with opened(path) as (store, _):
        pass
    calls: list[Callable[[], object]] = [
        lambda: store.get(b"a"),
        lambda: store.get_many([b"a"]),
        lambda: store.write({b"a": b"1"}, 1, 1),
        lambda: store.scan(),
        lambda: store.len_estimate(),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=re.escape(str(path)) + ".*it was closed; open it again"):
            call()


def test_a_closed_store_is_free_though_scans_of_it_are_still_held(path: Path) -> None:
    with opened(path) as (store, _):
        store.write(ENTRIES, 50, 500)
        scans = [store.scan(), store.scan(reverse=True), store.scan(b"1", b"2")]
        for scan in scans:
            next(scan)
        list(scans[2])
    assert_whole(path)
    for scan in scans:
        with pytest.raises(TableError, match="this scan was closed"):
            next(scan)


def test_a_scan_nobody_reads_any_more_is_let_go(path: Path) -> None:
    with opened(path) as (store, _):
        store.write(ENTRIES, 50, 500)
        for _ in store.scan():
            break
        assert list(store._scans) == []


# Writing.


def test_a_write_is_one_batch_of_the_database_with_the_offset_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the disk has then of it, it has whole."""
    with opened(path) as (store, _):
        written: list[WriteBatch] = []

        class Database:
            def write(self, batch: WriteBatch) -> None:
                written.append(batch)

        with monkeypatch.context() as patch:
            patch.setattr(store, "_database", Database())
            store.write({b"%d" % number: b"v" for number in range(100_000)}, 1, 1)
        (batch,) = written
        assert len(batch) == 100_001


def test_a_write_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path, options=RocksDBOptions(flush_records=300)) as (store, _):
        store.write(ENTRIES, 50, 500)

        class Database:
            def write(self, batch: WriteBatch) -> None:
                raise OSError("IO error: No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(store, "_database", Database())
            with pytest.raises(StoreError, match=r"cannot be written .*make room on this disk"):
                store.write(dict.fromkeys(ENTRIES, b"new"), 60, 600)
        assert not store.flush_due
    assert_whole(path)


# Looking.


def test_a_look_shows_what_was_flushed_while_a_worker_goes_on(path: Path) -> None:
    with opened(path) as (store, _):
        store.write(ENTRIES, 50, 500)
        store.flush()
        store.write({b"000": None}, 51, 510)
        look = RocksDBStore.look(path)
        assert dict(look.scan()) == ENTRIES
        assert (look.identity, look.changelog_offset, look.in_step_ms) == (IDENTITY, 50, 500)
        with pytest.raises(StoreError, match="cannot be written"):
            look.write({b"a": b"1"}, 60, 600)
        look.close()
        assert store.get(b"000") is None
    assert store.changelog_offset == 51


def test_a_look_wipes_nothing_and_makes_nothing(path: Path) -> None:
    with pytest.raises(StoreError, match="is not there"):
        RocksDBStore.look(path)
    assert not path.exists()
    with opened(path), pytest.raises(StoreError, match="is empty: its worker has flushed nothing yet"):
        RocksDBStore.look(path)
    write_entries(path)
    spoil(newest(path, "MANIFEST-*"))
    with pytest.raises(StoreError, match=r"is damaged: .*restores it when it is started"):
        RocksDBStore.look(path)
    assert list(path.glob("*.sst"))


# Options.


def written_options(path: Path) -> str:
    """What RocksDB says it was opened with, last."""
    return newest(path, "OPTIONS-*").read_text()


@pytest.mark.parametrize("opening", ["first", "second"])
def test_options_reach_rocksdb_at_each_opening(path: Path, opening: str) -> None:
    if opening == "second":
        write_entries(path)
    options = RocksDBOptions(compression="zstd", bloom_bits_per_key=7, max_open_files=33, flush_bytes=3 * 1024 * 1024)
    with opened(path, options=RocksDBOptions(bloom_bits_per_key=0)):
        assert "filter_policy=nullptr" in written_options(path)
    with opened(path, options=options):
        said = written_options(path)
    for line in (
        "max_open_files=33",
        "compression=kZSTD",
        "filter_policy=bloomfilter",
        "write_buffer_size=6291456",
        "keep_log_file_num=2",
        "cache_index_and_filter_blocks=true",
    ):
        assert line in said, line


@pytest.mark.parametrize("compression", ["lz4", "zstd", "snappy", "none"])
def test_each_compression_can_be_written_and_read_after_another(path: Path, compression: Any) -> None:
    with opened(path, options=RocksDBOptions(compression="lz4")) as (store, _):
        store.write(dict.fromkeys(ENTRIES, b"old"), 1, 1)
    with opened(path, options=RocksDBOptions(compression=compression, bloom_bits_per_key=0)) as (store, _):
        store.write(ENTRIES, 50, 500)
    assert_whole(path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("block_cache_bytes", -1),
        ("write_buffer_bytes", 1_000),
        ("flush_records", 0),
        ("flush_bytes", 0),
        ("flush_bytes", 1.5),
        ("bloom_bits_per_key", True),
        ("max_open_files", 19),
        ("compression", "lz5"),
    ],
)
def test_a_setting_that_cannot_be_is_named(setting: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"RocksDBOptions: {setting} is {value!r}: set"):
        RocksDBOptions(**{setting: value})


def due(store: RocksDBStore) -> bool:
    return store.flush_due


def test_a_flush_is_due_after_so_many_changes(path: Path) -> None:
    with opened(path, options=RocksDBOptions(flush_records=10)) as (store, _):
        store.write({b"%d" % number: b"" for number in range(9)}, 1, 1)
        assert not due(store)
        store.write({b"same": b""}, 2, 2)
        assert due(store)
        store.flush()
        assert not due(store)
        store.write({b"%d" % number: None for number in range(10)}, 3, 3)
        assert due(store)


def test_a_flush_is_due_after_so_many_bytes(path: Path) -> None:
    with opened(path, options=RocksDBOptions(flush_bytes=10_000)) as (store, _):
        store.write({b"a": b"v" * 9_000}, 1, 1)
        assert not due(store)
        store.write({b"a": b"v" * 1_000}, 2, 2)
        assert due(store)
        store.clear()
        assert not due(store)


def test_a_flush_is_due_earlier_where_stores_are_many(tmp_path: Path) -> None:
    options = RocksDBOptions(write_buffer_bytes=1024 * 1024)
    with opened(tmp_path / "0", options=options) as (store, _):
        store.write({b"a": b"v" * 250_000}, 1, 1)
        assert not due(store)
        with opened(tmp_path / "1", options=options), opened(tmp_path / "2", options=options):
            assert not due(store)
            with opened(tmp_path / "3", options=options):
                assert due(store)
        assert not due(store)


def test_what_is_written_while_a_flush_runs_is_due_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path, options=RocksDBOptions(flush_records=2)) as (store, _):
        flush = store._database.flush

        class Database:
            def flush(self) -> None:
                monkeypatch.undo()
                flush()
                store.write({b"b": b"", b"c": b""}, 2, 2)

        store.write({b"a": b"", b"b": b""}, 1, 1)
        monkeypatch.setattr(store, "_database", Database())
        store.flush()
        assert due(store)


# Memory and disk.


def test_stores_of_one_process_share_their_memory_by_its_sizes(tmp_path: Path) -> None:
    assert SharedMemory.of(RocksDBOptions()) is SharedMemory.of(RocksDBOptions(compression="zstd"))
    assert SharedMemory.of(RocksDBOptions()) is not SharedMemory.of(RocksDBOptions(block_cache_bytes=1024 * 1024))


def test_an_import_makes_no_cache_and_starts_no_thread() -> None:
    result = run(
        "import threading; from paperboy.tables.stores import database, rocksdb;"
        " assert database._shared == {}; assert threading.active_count() == 1"
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_hundred_stores_stay_within_the_write_buffers_of_their_process(tmp_path: Path) -> None:
    options = RocksDBOptions()
    memory = SharedMemory.of(options)
    stores = [RocksDBStore.open(tmp_path / str(number), IDENTITY, options)[0] for number in range(100)]
    changes: list[dict[bytes, bytes | None]] = [
        {b"\x01P%06d" % (number * 7919 % 100_003): b"v" * 20 for number in range(start, start + 1_000)}
        for start in range(0, 10_000, 1_000)
    ]
    most = 0
    for offset, change in enumerate(changes):
        for store in stores:
            store.write(change, offset, offset)
            most = max(most, memory.write_buffers.get_usage())
            if store.flush_due:
                store.flush()
    assert memory.write_buffers.get_buffer_size() == options.write_buffer_bytes
    assert options.write_buffer_bytes // 4 < most <= options.write_buffer_bytes
    for store in stores:
        assert sum(1 for _ in store.scan()) == 10_000
        store.close()
    assert memory.cache.get_usage() <= options.block_cache_bytes
    assert len(memory.stores) == 0
    assert memory.write_buffers.get_usage() < 100_000


def test_logs_of_rocksdb_do_not_pile_up(path: Path) -> None:
    for _ in range(6):
        assert_whole(path) if path.exists() else write_entries(path)
    assert len(list(path.glob("LOG*"))) <= 3
