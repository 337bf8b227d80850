"""A store in memory: gone with the process, restored from the changelog at each start."""

from collections.abc import Iterator, Mapping, Sequence
from weakref import WeakSet

from paperboy.tables.stores.errors import empty_key, scan_ended
from paperboy.tables.stores.protocol import Scan, StoreSnapshot
from paperboy.tables.stores.sorted_keys import SortedKeys


class MemoryStore:
    """See `Store`. Keys are sorted once somebody scans, and not before.

    Args:
        table: the table's name, for messages.
    """

    flush_due = False

    def __init__(self, table: str = "") -> None:
        self._table = table
        self._entries: dict[bytes, bytes] = {}
        self._keys: SortedKeys | None = None
        self._moved: set[bytes] = set()
        """Keys that came or went since `_keys` was made."""
        self._snapshots: WeakSet[_MemorySnapshot] = WeakSet()
        self._changelog_offset: int | None = None
        self._in_step_ms: int | None = None

    @property
    def changelog_offset(self) -> int | None:
        return self._changelog_offset

    @property
    def in_step_ms(self) -> int | None:
        return self._in_step_ms

    def get(self, key: bytes) -> bytes | None:
        return self._entries.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._entries.get(key) for key in keys]

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
        if b"" in changes:
            raise empty_key(self._table)
        entries = self._entries
        for snapshot in list(self._snapshots):
            snapshot.keep(changes)
        if self._keys is not None:
            self._moved ^= {key for key, value in changes.items() if (key in entries) == (value is None)}
        for key, value in changes.items():
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        self._changelog_offset = changelog_offset
        self._in_step_ms = in_step_ms

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        return self.snapshot().scan(start, stop, reverse=reverse)

    def snapshot(self) -> StoreSnapshot:
        if self._keys is None:
            self._keys = SortedKeys(self._entries)
        elif self._moved:
            self._keys = self._keys.moved(self._moved)
            self._moved = set()
        snapshot = _MemorySnapshot(self._table, self._keys, self._entries)
        self._snapshots.add(snapshot)
        return snapshot

    def len_estimate(self) -> int:
        """How many entries there are, exactly."""
        return len(self._entries)

    def flush(self) -> None:
        """Nothing here survives the process."""

    def clear(self) -> None:
        self.close()
        self._entries, self._keys, self._moved = {}, None, set()
        self._changelog_offset = self._in_step_ms = None

    def close(self) -> None:
        for snapshot in list(self._snapshots):
            snapshot.close()


class _MemorySnapshot:
    """The keys as of the beginning; each one's value from what it was before a write, or as it stands."""

    __slots__ = ("__weakref__", "_before", "_entries", "_keys", "_table")

    def __init__(self, table: str, keys: SortedKeys, entries: Mapping[bytes, bytes]) -> None:
        self._table = table
        self._keys: SortedKeys | None = keys
        self._entries = entries
        self._before: dict[bytes, bytes] = {}

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        if self._keys is None:
            raise scan_ended(self._table)
        return _MemoryScan(self, self._table, self._keys.between(start, stop, reverse=reverse))

    def next_of(self, keys: Iterator[bytes]) -> tuple[bytes, bytes]:
        """The next of these keys of ours, and its value."""
        if self._keys is None:
            raise scan_ended(self._table)
        key = next(keys)
        value = self._before.get(key)
        return key, self._entries[key] if value is None else value

    def keep(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Note what these keys stand for now, before they change."""
        entries, before = self._entries, self._before
        for key in changes:
            if key not in before and key in entries:
                before[key] = entries[key]

    def close(self) -> None:
        self._keys = None
        self._entries = self._before = {}


class _MemoryScan:
    """Goes through a snapshot, which it may be alone in holding."""

    __slots__ = ("_keys", "_snapshot", "_table")

    def __init__(self, snapshot: _MemorySnapshot, table: str, keys: Iterator[bytes]) -> None:
        self._snapshot: _MemorySnapshot | None = snapshot
        self._table = table
        self._keys = keys

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self._snapshot is None:
            raise scan_ended(self._table)
        return self._snapshot.next_of(self._keys)

    def close(self) -> None:
        self._snapshot = None
