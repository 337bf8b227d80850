"""A store in memory: gone with the process, restored from the changelog at each start."""

from collections.abc import Iterator, Mapping, Sequence


class MemoryStore:
    """See `Store`."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}
        self._changelog_offset: int | None = None

    @property
    def changelog_offset(self) -> int | None:
        return self._changelog_offset

    def get(self, key: bytes) -> bytes | None:
        return self._entries.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._entries.get(key) for key in keys]

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int) -> None:
        entries = self._entries
        for key, value in changes.items():
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        self._changelog_offset = changelog_offset

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self._entries.items()))

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        self._entries.clear()
        self._changelog_offset = None

    def close(self) -> None:
        """Nothing to close."""
