"""A task's part in tables, without the task: messages that begin, finish and fail, and checkpoints between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperboy.tables.layer import Layer, Undo, changelog_values, roll_back
from paperboy.tables.partition import TablePartition
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Store, StoreIdentity
from paperboy.tables.stores.rocksdb import RocksDBStore
from paperboy.tables.table import Table
from paperboy.tables.unit import message_of_call

LIMIT = 1_048_588
"""What a changelog takes by default."""


def open_store(kind: str, path: Path, table: Table, partition: int) -> Store:
    """A store of this kind, as it was left in `path`."""
    if kind == "memory":
        return MemoryStore(table.name)
    identity = StoreIdentity(table.name, partition, f"{table.name}-changelog", "id", table.definition)
    store, why_wiped = RocksDBStore.open(path, identity, RocksDBOptions())
    assert why_wiped is None
    return store


@dataclass
class Message:
    """The context of a message."""

    unit: "Task"


@dataclass
class Task:
    """The unit of work of tables that are held in one partition; one message after another."""

    partition: int = 3
    name: str = "page-views[3]"
    message: object | None = None
    tables: dict[str, TablePartition] = field(default_factory=dict)
    undo: Undo = field(default_factory=list)

    def hold(self, table: Table, store: Store, max_record_bytes: int = LIMIT) -> TablePartition:
        held = TablePartition(table, self.partition, self.undo, max_record_bytes)
        held.store = store
        self.tables[table.name] = held
        return held

    def finish(self) -> None:
        """The message in hand has finished."""
        self.undo.clear()

    def fail(self) -> None:
        """The message in hand has failed."""
        roll_back(self.undo)

    @contextmanager
    def handling(self) -> Iterator[Message]:
        """A message, in whose handler we are; it finishes, or it fails."""
        self.message = message = Message(self)
        token = message_of_call.set(message)
        try:
            yield message
            self.finish()
        except BaseException:
            self.fail()
            raise
        finally:
            message_of_call.reset(token)
            self.message = None

    def checkpoint(self) -> None:
        """Between messages: what has finished becomes the stores'."""
        for held in self.tables.values():
            store_frozen(held, held.freeze())


def store_frozen(held: TablePartition, frozen: Layer) -> None:
    """What a checkpoint does once the changelog has it all."""
    held.store.write(changelog_values(frozen), (held.store.changelog_offset or 0) + len(frozen), 0)
    held.thaw()


def write(held: TablePartition, entries: dict[Any, Any]) -> None:
    """As a message that finishes."""
    held.set_many(entries.items())
