"""The stores in a state directory, as they were flushed last: their worker may be running."""

import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

from paperboy.cli.errors import Misuse
from paperboy.cli.loading import Definition
from paperboy.cli.parts import StorePart
from paperboy.cli.shown import Reading, reading_of
from paperboy.errors import StoreError
from paperboy.tables.stores.errors import EmptyStore
from paperboy.tables.stores.protocol import StoreIdentity
from paperboy.tables.stores.rocksdb import RocksDBStore


class Stores:
    """What is in a state directory, or in a directory in one. A store that cannot be read is named on standard error.

    Args:
        table: only this table's, by its name or its changelog's.
        definition: of the engine, for its tables' serializers.

    Raises:
        Misuse: there is none.
    """

    def __init__(self, directory: Path, table: str | None, definition: Definition | None) -> None:
        self.unreadable = 0
        """How many could not be read so far."""
        self._table = table
        self._definition = definition
        self._paths = sorted({file.parent for file in directory.rglob("CURRENT")}, key=_in_order)
        if not self._paths:
            raise Misuse(f"There is no store in {str(directory)!r}: name a state_dir, or a directory in one.")

    def __iter__(self) -> Iterator[StorePart]:
        """Each of them, open until the next one comes."""
        return self._opened(self._paths)

    async def parts(self) -> AsyncGenerator[StorePart, None]:
        """Each table partition once. Where it has moved from one worker of this machine to another, each has a store of
        it: then it is the one that was in step with the changelog last."""
        newest: dict[tuple[str, int], tuple[int, Path]] = {}
        for part in self:
            here = (part.store.in_step_ms or 0, part.path)
            found = (part.store.identity.changelog, part.partition)
            if found in newest:
                left_out = min(here, newest[found])
                print(f"paperboy: left out {left_out[1]}, of which there is a newer one.", file=sys.stderr)
            newest[found] = max(here, newest.get(found, here))
        for part in self._opened([path for _, path in newest.values()]):
            yield part

    def _opened(self, paths: Sequence[Path]) -> Iterator[StorePart]:
        for path in paths:
            try:
                store = RocksDBStore.look(path)
            except StoreError as error:
                self.unreadable += not isinstance(error, EmptyStore)
                print(f"paperboy: {error}", file=sys.stderr)
                continue
            try:
                if self._table in (None, store.identity.table, store.identity.changelog):
                    yield StorePart(path, store, self._reading(store.identity))
            finally:
                store.close()

    def _reading(self, identity: StoreIdentity) -> Reading:
        table = None if self._definition is None else self._definition.kept_as(identity.table)
        if table is not None and table.definition == identity.definition:
            return Reading(table.codec, table.codec)
        return reading_of(identity.definition)  # and not as a table of today would write it


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Partition 10 after partition 9."""
    return [(len(part) if part.isdecimal() else 0, part) for part in path.parts]
