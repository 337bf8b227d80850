"""How much memory our settings allow: what docs/operating.md says of it under Memory, summed up."""

from paperboy.engine.options import Options
from paperboy.engine.outbox import FLUSH_BYTES
from paperboy.tables.stores.options import RocksDBOptions

_MIB = 1024 * 1024
_BARE_MIB = 45
"""A worker that has nothing to do: Python, our code and its libraries, as the latency workload shows."""
_STORE_BYTES = 300_000
"""Of a table partition on disk, beside what all share."""


def bound_mib(tasks: int) -> float:
    """Of a worker with all the defaults, so many tasks, and one table on disk."""
    engine, rocksdb = Options(bootstrap_servers="memory://", group_id="any"), RocksDBOptions()
    shared = engine.max_buffer_bytes + rocksdb.block_cache_bytes + rocksdb.write_buffer_bytes
    overlays = 2 * engine.max_overlay_bytes  # twice while a checkpoint is under way
    of_each_task = overlays + FLUSH_BYTES + engine.max_unacked_bytes + _STORE_BYTES
    return _BARE_MIB + (shared + tasks * of_each_task) / _MIB
