"""What a user can set on stores on disk."""

from dataclasses import dataclass
from typing import Literal, get_args

from paperboy.errors import ConfigurationError

Compression = Literal["lz4", "zstd", "snappy", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RocksDBOptions:
    """How stores on disk use memory, disk and file descriptors.

    Stores of one process that were opened with the same sizes share one block cache and one budget for what is not
    flushed yet, however many they are.

        RocksDBOptions(block_cache_bytes=512 * 1024 * 1024, compression="zstd")

    Raises:
        ConfigurationError: a setting is out of range; the sentence names it.
    """

    block_cache_bytes: int = 128 * 1024 * 1024
    """What of the disk is kept in memory, indexes and filters included, by all stores of the process together."""
    write_buffer_bytes: int = 64 * 1024 * 1024
    """Memory for writes that are not flushed yet, of all stores of the process together."""
    flush_records: int = 100_000
    """A store is flushed after as many changes: a process that is killed reads as many of each changelog again."""
    flush_bytes: int = 16 * 1024 * 1024
    """As `flush_records`, in bytes; less where the stores are so many that `write_buffer_bytes` would not do."""
    compression: Compression = "lz4"
    """Of what is on disk."""
    bloom_bits_per_key: int = 10
    """Size of the filters that spare a look at the disk for keys that are not there; 0 makes none."""
    max_open_files: int = 64
    """Files that each store keeps open, at least 20; beyond that it opens and closes them as it needs them."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(f"RocksDBOptions: {name} is {value!r}: set a whole number, {least} at least.")
        if self.compression not in get_args(Compression):
            known = ", ".join(map(repr, get_args(Compression)))
            raise ConfigurationError(f"RocksDBOptions: compression is {self.compression!r}: set one of {known}.")


_LEAST = {
    "block_cache_bytes": 0,
    "write_buffer_bytes": 1024 * 1024,
    "flush_records": 1,
    "flush_bytes": 1,
    "bloom_bits_per_key": 0,
    "max_open_files": 20,
}
