"""A partition of a table, as a store on disk or a changelog has it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from paperboy.cli.shown import Reading, counted
from paperboy.cli.spool import Spool
from paperboy.tables.stores.rocksdb import RocksDBStore


class Entry(NamedTuple):
    """An entry of a table, in bytes."""

    key: bytes
    value: bytes
    offset: int
    """Of its record in the changelog; from a store, which does not know that, the changelog offset it stands for."""


class Part(Protocol):
    """A partition of a table, for reading."""

    table: str
    """Its name; where nobody says which table a changelog is of, the topic's."""
    partition: int
    reading: Reading

    @property
    def offset(self) -> int:
        """The changelog offset it stands for."""
        ...

    @property
    def takes(self) -> str:
        """What it takes where it is, for a person."""
        ...

    def get(self, key: bytes) -> Entry | None: ...

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, in the order of the keys' bytes."""
        ...


class StorePart:
    """A `Part` in a store on disk."""

    def __init__(self, path: Path, store: RocksDBStore, reading: Reading) -> None:
        self.path = path
        self.store = store
        self.table = store.identity.table
        self.partition = store.identity.partition
        self.reading = reading

    @property
    def offset(self) -> int:
        return self.store.changelog_offset or 0

    @property
    def size_bytes(self) -> int:
        """What its files take."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.exists())

    @property
    def takes(self) -> str:
        return f"{self.size_bytes} bytes on disk"

    def get(self, key: bytes) -> Entry | None:
        value = self.store.get(key)
        return None if value is None else Entry(key, value, self.offset)

    def __iter__(self) -> Iterator[Entry]:
        return (Entry(key, value, self.offset) for key, value in self.store.scan())


class ChangelogPart:
    """A `Part` in a changelog."""

    def __init__(self, table: str, partition: int, spool: Spool, reading: Reading) -> None:
        self.table = table
        self.partition = partition
        self.reading = reading
        self._spool = spool

    @property
    def offset(self) -> int:
        return self._spool.end

    @property
    def takes(self) -> str:
        keyless = f", {self._spool.keyless} without a key" if self._spool.keyless else ""
        return counted(self._spool.records, "record") + keyless

    def get(self, key: bytes) -> Entry | None:
        said = self._spool.get(key)
        return None if said is None or said.value is None else Entry(key, said.value, said.offset)

    def __iter__(self) -> Iterator[Entry]:
        return (Entry(key, said.value, said.offset) for key, said in self._spool if said.value is not None)
