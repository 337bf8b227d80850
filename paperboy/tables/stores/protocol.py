"""What a table asks of the bytes underneath it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """Whose bytes a store holds. A store on disk that was written under another identity is of no use."""

    table: str
    partition: int
    changelog: str
    """The changelog topic."""
    changelog_id: str
    """The broker's own id of that topic, which a topic made anew does not share; empty where the broker has none."""
    definition: str
    """How the table writes its keys and values (see `paperboy.tables.table.Table.definition`)."""


class Scan(Iterator[tuple[bytes, bytes]], Protocol):
    """Entries of a store in key order, as they were when the scan began, whatever is written meanwhile."""

    def close(self) -> None:
        """Give back what the scan holds on to; the store ends its scans itself. Then `next` raises TableError."""
        ...


class StoreSnapshot(Protocol):
    """A store as it was when this was made, whatever is written meanwhile."""

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        """As `Store.scan`."""
        ...

    def close(self) -> None:
        """Give back what the snapshot holds on to; its scans end with it. The store's own `close` does it as well.
        `scan` raises TableError then."""
        ...


class Store(Protocol):
    """One partition of one table: key and value bytes, and the changelog offset they stand for.

    Keys are not empty. `open` aside (each kind of store has its own), what can block for long says so, and is called
    in a thread; everything else is quick and called on the event loop. No call overlaps with a `clear` or `close`.

    All methods raise `StoreError`, which names the path and the remedy, where the disk does not do as it is told.
    """

    @property
    def changelog_offset(self) -> int | None:
        """The offset after the last changelog record that this store holds; None where it holds nothing yet."""
        ...

    @property
    def in_step_ms(self) -> int | None:
        """When the store was last known to lack nothing of its changelog below `changelog_offset`, as `write` was told:
        broker time in milliseconds; None where it holds nothing yet."""
        ...

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys, in their order."""
        ...

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
        """Put these values (None deletes), the changelog offset they reach, and the time: all or nothing."""
        ...

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        """The entries with ``start <= key < stop`` (`stop` None: to the end), in key order or in the reverse."""
        ...

    def snapshot(self) -> StoreSnapshot:
        """The store as it is now, for as long as somebody holds what this returns."""
        ...

    def len_estimate(self) -> int:
        """About how many entries there are, without counting them."""
        ...

    @property
    def flush_due(self) -> bool:
        """Whether so much was written since the last flush that `flush` should be called."""
        ...

    def flush(self) -> None:
        """Make what was written so far survive the end of the process. Blocks: call it in a thread; `get`, `get_many`,
        `write` and `scan` may go on meanwhile."""
        ...

    def clear(self) -> None:
        """Forget everything, the changelog offset too. Blocks: call it in a thread."""
        ...

    def close(self) -> None:
        """End scans, flush, and let go. Blocks: call it in a thread. A second call does nothing."""
        ...
