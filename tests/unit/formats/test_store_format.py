"""Stores that older versions left on people's disks are read, or at least known for what they are.

``store_v1.zip`` is the directory of a store of format 1 as it was left by a close, without its logs. It stays, as does
what is said of it here.
"""

import shutil
from pathlib import Path

import pytest

from paperboy.serializers.values import encode_value
from paperboy.tables.keys import encode_key
from paperboy.tables.stores.errors import OfNoUse
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import StoreIdentity
from paperboy.tables.stores.record import StoreRecord
from paperboy.tables.stores.rocksdb import RocksDBStore

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"

GOLDEN = Path(__file__).with_name("store_v1.zip")

IDENTITY = StoreIdentity("clicks", 3, "group-clicks-changelog", "qhZ2w0PhR5CyoYEx1f1B1w", "keys 1, values 1")

RECORD = StoreRecord(StoreIdentity("clicks", 3, "c", "id", "d"), 151, 1_700_000_005_000)
RECORD_OF_FORMAT_1 = (
    "01 87"
    " a5 74 61 62 6c 65 a6 63 6c 69 63 6b 73"
    " a9 70 61 72 74 69 74 69 6f 6e 03"
    " a9 63 68 61 6e 67 65 6c 6f 67 a1 63"
    " ac 63 68 61 6e 67 65 6c 6f 67 5f 69 64 a2 69 64"
    " aa 64 65 66 69 6e 69 74 69 6f 6e a1 64"
    " b0 63 68 61 6e 67 65 6c 6f 67 5f 6f 66 66 73 65 74 cc 97"
    " aa 69 6e 5f 73 74 65 70 5f 6d 73 cf 00 00 01 8b cf e5 7b 88"
)


def test_a_store_of_format_1(tmp_path: Path) -> None:
    path = tmp_path / "3"
    shutil.unpack_archive(GOLDEN, path)
    store, why_wiped = RocksDBStore.open(path, IDENTITY, RocksDBOptions())
    assert why_wiped is None
    expected = {n: {"clicks": n} for n in range(50, 100)} | {n: {"clicks": -n} for n in range(50) if n % 3}
    entries = {encode_key(key): encode_value(value) for key, value in expected.items()}
    entries[encode_key(("anna", 1))] = encode_value("last")
    assert dict(store.scan()) == entries
    assert (store.changelog_offset, store.in_step_ms) == (151, 1_700_000_005_000)
    store.close()


def test_a_stores_own_record_of_format_1() -> None:
    written = bytes.fromhex(RECORD_OF_FORMAT_1)
    assert StoreRecord.from_bytes(written) == RECORD
    assert RECORD.to_bytes() == written


@pytest.mark.parametrize("data", [b"", b"\x00\x80", b"\x02" + RECORD.to_bytes()[1:]])
def test_a_record_of_a_format_that_is_not_known_is_not_guessed_at(data: bytes) -> None:
    with pytest.raises(OfNoUse, match="of a format that this version does not know"):
        StoreRecord.from_bytes(data)


@pytest.mark.parametrize("data", [b"\x01", b"\x01\x80", b"\x01\xc0", b"\x01\xc1", RECORD.to_bytes() + b"\x00"])
def test_a_record_that_is_none_is_damage(data: bytes) -> None:
    with pytest.raises(OfNoUse, match="damaged: its own record cannot be read"):
        StoreRecord.from_bytes(data)


def test_the_page_names_the_fields_of_the_record_and_has_it_as_an_example() -> None:
    section = PAGE.read_text("utf-8").split("## Stores on disk")[1]
    assert RECORD_OF_FORMAT_1 in " ".join(section.split())
    for field in (*StoreIdentity.__dataclass_fields__, "changelog_offset", "in_step_ms"):
        assert f"| `{field}` |" in section
