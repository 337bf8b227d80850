"""Tables under test: several workers hold one table, where otherwise an engine has its own."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from paperboy.tables.global_table import GlobalTable
from paperboy.tables.partition import TablePartition
from paperboy.tables.stores.protocol import Store
from paperboy.tables.table import Entry, Table
from paperboy.testing.loop import Process, current_process


class Attached(Protocol):
    """A table for as long as a test lasts: each worker's engine attaches it, and it shows what all of them hold."""

    def entries(self) -> list[Entry]:
        """What is checkpointed.

        Raises:
            TableError: no worker runs.
        """
        ...

    def release(self) -> None:
        """Be as before the test."""
        ...


def check_unattached(table: Table | GlobalTable) -> None:
    """
    Raises:
        ConfigurationError: an engine that runs holds it.
    """
    table.attach(list)
    table.attach(None)


def attached(table: Table | GlobalTable) -> Attached:
    """Take over a table's attaching, until `Attached.release`."""
    return _AttachedTable(table) if isinstance(table, Table) else _AttachedGlobalTable(table)


class _AttachedTable:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._holders = _Holders(self._changed)
        self._store_path = table.store_path
        table.store_path = None  # under the test's own directory, wherever it is kept otherwise
        table.attach = self._holders.attach  # type: ignore[method-assign]

    def entries(self) -> list[Entry]:
        self._changed()
        return list(self._table.snapshot())

    def release(self) -> None:
        del self._table.attach
        self._table.attach(None)
        self._table.store_path = self._store_path

    def _changed(self) -> None:
        Table.attach(self._table, None)
        if self._holders.held():
            Table.attach(self._table, self._partitions)

    def _partitions(self) -> Iterable[tuple[int, TablePartition]]:
        return [each for held in self._holders.held() for each in held()]


class _AttachedGlobalTable:
    def __init__(self, table: GlobalTable) -> None:
        self._table = table
        self._holders = _Holders(self._changed)
        self._store_path = table.kept_as.store_path
        table.kept_as.store_path = None
        table.attach = self._holders.attach  # type: ignore[method-assign,assignment]

    def entries(self) -> list[Entry]:
        self._changed()
        found = {repr(key): key for key, _ in self._table.items()}  # one of several partitions comes as often
        return [Entry(0, key, self._table.get(key)) for key in found.values()]

    def release(self) -> None:
        del self._table.attach
        self._table.attach(None)
        self._table.kept_as.store_path = self._store_path

    def _changed(self) -> None:
        GlobalTable.attach(self._table, None)
        if self._holders.held():
            GlobalTable.attach(self._table, self._readable)

    def _readable(self) -> Sequence[Store] | None:
        """All workers hold the same: the first copy that is complete."""
        copies: Iterable[Sequence[Store] | None] = (readable() for readable in self._holders.held())
        return next((copy for copy in copies if copy is not None), None)


class _Holders:
    """What the workers have attached to a table.

    Args:
        changed: called when one has come or gone.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._by_process: dict[Process | None, Callable[[], Any]] = {}

    def attach(self, held: Callable[[], Any] | None) -> None:
        """In place of the table's own, called by a worker."""
        process = current_process()
        if held is None:
            self._by_process.pop(process, None)
        else:
            self._by_process[process] = held
        self._changed()

    def held(self) -> list[Callable[[], Any]]:
        """Those of workers that were not killed, in the order in which they came."""
        return [held for process, held in self._by_process.items() if process is None or process.is_alive]
