"""Layers: what messages have written to a partition and no checkpoint has put into the store yet."""

from typing import TYPE_CHECKING, Final

from paperboy.serializers.values import encode_value

if TYPE_CHECKING:
    from paperboy.tables.partition import TablePartition

Layer = dict[bytes, object]
"""Key bytes to the value as of now: a value that cannot change, an `Encoded` one, or DELETED.

In the order in which the keys came: whatever is taken back leaves at the end.
"""

Undo = list[tuple["TablePartition", bytes, object]]
"""What stood in a partition's layer before each write, oldest first; ABSENT where nothing did."""


class Encoded:
    """A value kept as bytes, because the object it came from can change."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Marker:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


DELETED: Final = _Marker("DELETED")
ABSENT: Final = _Marker("ABSENT")

ENTRY_BYTES: Final = 256
"""What an entry of a layer costs in memory beside its key and its encoded value, about."""


def roll_back(undo: Undo, mark: int = 0) -> None:
    """Take back every write after `mark` (a length of `undo`), the latest first."""
    while len(undo) > mark:
        partition, key, before = undo.pop()
        partition.put_back(key, before)


def changelog_values(layer: Layer) -> dict[bytes, bytes | None]:
    """A layer as the changelog and the store take it: each changed key's last value, None for a deleted one."""
    return {
        key: None if value is DELETED else value.data if type(value) is Encoded else encode_value(value)
        for key, value in layer.items()
    }


def entry_bytes(key: bytes, entry: object) -> int:
    """What an entry costs in memory, about; a value that is kept as an object counts with the entry itself."""
    if entry is ABSENT:
        return 0
    return len(key) + ENTRY_BYTES + (len(entry.data) if isinstance(entry, Encoded) else 0)
