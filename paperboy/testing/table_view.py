"""What a table holds, for a test to look at."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from paperboy.errors import TableError
from paperboy.tables.table import Entry


class TableView(Mapping[Any, Any]):
    """The checkpointed entries of a table at one moment, as a mapping.

    ``view["a"] == 3``, ``view == {"a": 3, "b": 1}``. Where a key stands in several partitions, its value can only be
    had from a view of one partition: asking for it here raises TableError.
    """

    def __init__(self, name: str, entries: Iterable[Entry]) -> None:
        self._name = name
        self._entries: dict[object, list[Entry]] = {}
        for entry in entries:
            self._entries.setdefault(_identity(entry.key), []).append(entry)

    def __getitem__(self, key: Any) -> Any:
        found = self._entries.get(_identity(key))
        if not found:
            raise KeyError(key)
        if len(found) > 1:
            partitions = " and ".join(str(entry.partition) for entry in found)
            raise TableError(
                f"Key {key!r} of table {self._name!r} stands in partitions {partitions}: say which one is meant, as in"
                f" t.table({self._name!r}, partition={found[0].partition})."
            )
        return found[0].value

    def __iter__(self) -> Iterator[Any]:
        return (found[0].key for found in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{entry.key!r}: {entry.value!r}" + (f" in partition {entry.partition}" if len(found) > 1 else "")
            for found in self._entries.values()
            for entry in found
        )
        return f"<table {self._name}: {{{shown}}}>"


def _identity(key: Any) -> object:
    """1, 1.0 and True are three keys of a table; a serializer of the user's may make keys that cannot be hashed."""
    try:
        hash(key)
    except TypeError:
        return type(key), repr(key)
    return type(key), key
