"""Reading a table outside handlers."""

from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from paperboy.errors import TableError
from paperboy.tables.layer import Encoded
from paperboy.tables.partition import UNSET, TablePartition
from paperboy.tables.scan import checked_limit

if TYPE_CHECKING:
    from paperboy.tables.table import Table


class Entry(NamedTuple):
    """An entry of a table, and the partition it stands in."""

    partition: int
    key: Any
    value: Any


class Snapshot:
    """What was checkpointed of the table partitions that a worker held, at the moment this was made.

    Iterating gives each `Entry`, in the order of partitions and keys, decoded when it comes up: nothing is copied. What
    is written afterwards does not show. A snapshot on disk keeps old data from being cleaned up until it is closed: by
    `close`, at the end of a ``with``, or when nobody holds it any more. It ends when a partition's store is closed,
    because the partition goes to another worker or the engine stops.

        with clicks.snapshot() as snapshot:
            for partition, page, count in snapshot.items(prefix="docs/", limit=10):
                print(page, count)

    To read millions of entries beside a running engine, give its event loop a turn now and then
    (``await asyncio.sleep(0)``).

    Args:
        partitions: in their order.
    """

    def __init__(self, table: "Table", partitions: Iterable[TablePartition]) -> None:
        self._table = table
        self._closed = False
        self._pinned = [(partition, partition.store.snapshot()) for partition in partitions]

    def __iter__(self) -> Iterator[Entry]:
        return self.items()

    def get(self, key: Any, default: Any = UNSET, *, partition: int | None = None) -> Any:
        """The value of `key`, or `default`, or else the table's own default.

        Args:
            partition: where to look; by default in all of them, and the first that has the key counts.

        Raises:
            SerializationError: `key` cannot be a key.
            DeserializationError: the value cannot be read.
            TableError: the snapshot, or a store, was closed.
        """
        self._check_open()
        for held, pinned in self._pinned:
            if partition is None or held.partition == partition:
                encoded = held.encoded_key(key)
                for _, data in pinned.scan(encoded, encoded + b"\x00"):
                    return held.decoded_value(encoded, Encoded(data))
        return self._table.make_default() if default is UNSET else default

    def items(
        self,
        *,
        prefix: Any = None,
        start: Any = None,
        stop: Any = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Entry]:
        """The entries of a range, as `Table.items` takes it; `limit` counts over all partitions.

        Raises:
            DeserializationError: while iterating: an entry cannot be read.
            TableError: the same: the snapshot, or a store, was closed.
        """
        self._check_open()
        limit = checked_limit(self._table.name, limit)
        ordered = self._pinned[::-1] if reverse else self._pinned
        ranges = [(held, pinned, held.range(prefix, start, stop)) for held, pinned in ordered]

        def run() -> Iterator[Entry]:
            for held, pinned, (first, end) in ranges:
                scan = pinned.scan(first, end, reverse=reverse)
                try:
                    for encoded, data in scan:
                        key, value = held.decoded_key(encoded), held.decoded_value(encoded, Encoded(data))
                        yield Entry(held.partition, key, value)
                        self._check_open()
                finally:
                    scan.close()

        return islice(run(), limit)

    def close(self) -> None:
        """Let go of the stores. A second call does nothing."""
        self._closed = True
        for _, pinned in self._pinned:
            pinned.close()
        self._pinned = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise TableError(
                f"Table {self._table.name!r}: this snapshot was closed: make another with table.snapshot()."
            )
