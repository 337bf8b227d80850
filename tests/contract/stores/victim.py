"""A process that writes to a store without end, until somebody kills it.

``python -m tests.contract.stores.victim <directory> <seed>`` says ``flushed <offset>`` after each flush.
"""

import random
import sys
from pathlib import Path

from paperboy.tables.stores.options import RocksDBOptions
from tests.contract.stores.conftest import open_rocksdb

# Small buffers: RocksDB flushes by itself now and then, and has something to compact.
OPTIONS = RocksDBOptions(write_buffer_bytes=1024 * 1024, flush_records=2_000, flush_bytes=128 * 1024)


def changes(seed: int, offset: int) -> dict[bytes, bytes | None]:
    """What the write that reaches `offset` changes: some keys that are written again and again, and some deletes."""
    chance = random.Random(seed * 1_000_003 + offset)
    keys = [b"%d" % chance.randrange(3_000) for _ in range(chance.randrange(200))]
    return {key: None if chance.random() < 0.2 else b"%d " % offset + b"v" * chance.randrange(100) for key in keys}


def write_for_ever(path: Path, seed: int) -> None:
    store = open_rocksdb(path, OPTIONS)
    offset = store.changelog_offset or 0
    print("opened", offset, flush=True)
    while True:
        offset += 1
        store.write(changes(seed, offset), offset, offset * 10)
        if store.flush_due:
            store.flush()
            print("flushed", offset, flush=True)


if __name__ == "__main__":
    write_for_ever(Path(sys.argv[1]), int(sys.argv[2]))
