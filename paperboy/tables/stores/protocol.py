"""What a table asks of the bytes underneath it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol


class Store(Protocol):
    """One partition of one table: key and value bytes, and the changelog offset they stand for.

    Calls are quick and made on the event loop; whatever can block goes through an executor of its own (later stores).
    """

    @property
    def changelog_offset(self) -> int | None:
        """The offset after the last changelog record that this store holds; None where it holds nothing yet."""
        ...

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys, in their order."""
        ...

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int) -> None:
        """Put these values (None deletes) and the changelog offset they reach: all or nothing."""
        ...

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, as of now, in key order."""
        ...

    def __len__(self) -> int:
        """How many entries there are."""
        ...

    def clear(self) -> None:
        """Forget everything, the changelog offset too."""
        ...

    def close(self) -> None: ...
