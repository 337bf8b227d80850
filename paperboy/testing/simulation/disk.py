"""A disk in memory that says what of it a crash leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from paperboy.clock import Chance
from paperboy.engine.disk import Opened
from paperboy.engine.home import Home
from paperboy.errors import StoreError
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import StoreIdentity
from paperboy.tables.stores.record import StoreRecord, mismatch
from paperboy.testing.loop import Process, current_process
from paperboy.testing.simulation.weather import Weather

_Write = tuple[dict[bytes, bytes | None], int, int]


@dataclass(frozen=True, slots=True)
class Image:
    """What is durable of a store, all as of one moment."""

    record: StoreRecord
    entries: Mapping[bytes, bytes]


class SimulatedDisk:
    """A `Disk` for the workers of one machine; it outlives them.

    Args:
        chance: draws what a crash leaves.
        flush_every: after so many writes a store wants to be flushed.
    """

    def __init__(self, weather: Weather, chance: Chance, flush_every: int) -> None:
        self.images: dict[Path, Image] = {}
        self.weather = weather
        self.flush_every = flush_every
        self._chance = chance
        self._holders: dict[Path, Process | None] = {}
        self._open: dict[Path, tuple[Process | None, DiskStore]] = {}
        self._damaged: dict[Path, None] = {}

    def take_home(self, state_dir: Path, group_id: str) -> Home:
        for number in count(1):
            path = state_dir / group_id / str(number)
            if path not in self._holders:
                self._holders[path] = current_process()
                return _SimulatedHome(path, self)
        raise AssertionError("there is always another number")

    def open(self, path: Path, identity: StoreIdentity, options: RocksDBOptions) -> Opened:
        self.weather.strike_disk("open", str(path))
        if path in self._open:
            raise StoreError(f"The store in {str(path)!r} is open already: each home has one worker.")
        image, reason = self.images.get(path), None
        if path in self._damaged:
            del self._damaged[path]
            reason = "damaged"
        elif image is not None:
            reason = mismatch(image.record.identity, identity)
        if reason is not None:
            image = None
            self.images.pop(path, None)
        store = DiskStore(self, path, identity, image)
        self._open[path] = (current_process(), store)
        return store, reason

    def look(self, path: Path) -> StoreRecord | None:
        image = self.images.get(path)
        return None if image is None or path in self._damaged else image.record

    def crash(self, process: Process) -> None:
        """A process is gone: of what it had not flushed, a part may be there, as of one moment. Once in a while, a
        store is damaged."""
        for path, (owner, store) in list(self._open.items()):
            if owner is process:
                del self._open[path]
                if (image := store.left(self._chance)) is not None:
                    self.images[path] = image
                if path in self.images and self._chance.random() < 0.05:
                    self._damaged[path] = None
        for path, holder in list(self._holders.items()):
            if holder is process:
                del self._holders[path]

    def release_home(self, path: Path) -> None:
        self._holders.pop(path, None)

    def released(self, path: Path, store: "DiskStore") -> None:
        if path in self._open and self._open[path][1] is store:
            del self._open[path]


class DiskStore(MemoryStore):
    """A store whose writes are lost with the process until they are flushed."""

    def __init__(self, disk: SimulatedDisk, path: Path, identity: StoreIdentity, image: Image | None) -> None:
        super().__init__(identity.table)
        self._disk = disk
        self._path = path
        self._identity = identity
        self._unflushed: list[_Write] = []
        self._is_open = True
        if image is not None:
            super().write(image.entries, image.record.changelog_offset, image.record.in_step_ms)

    @property
    def flush_due(self) -> bool:  # type: ignore[override]
        return len(self._unflushed) >= self._disk.flush_every

    def get(self, key: bytes) -> bytes | None:
        self._disk.weather.strike_disk("read", str(self._path))
        return super().get(key)

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int, in_step_ms: int) -> None:
        self._disk.weather.strike_disk("write", str(self._path))
        super().write(changes, changelog_offset, in_step_ms)
        self._unflushed.append((dict(changes), changelog_offset, in_step_ms))

    def flush(self) -> None:
        self._disk.weather.strike_disk("flush", str(self._path))
        self._unflushed.clear()
        if self.changelog_offset is not None and self.in_step_ms is not None:
            record = StoreRecord(self._identity, self.changelog_offset, self.in_step_ms)
            self._disk.images[self._path] = Image(record, dict(self._entries))

    def clear(self) -> None:
        super().clear()
        self._unflushed.clear()
        self._disk.images.pop(self._path, None)

    def close(self) -> None:
        super().close()
        if self._is_open:
            self._is_open = False
            try:
                self.flush()
            finally:
                self._disk.released(self._path, self)

    def left(self, chance: Chance) -> Image | None:
        """After a crash: what was flushed, and perhaps some of the writes that came after, the first ones first."""
        kept = chance.randrange(len(self._unflushed) + 1)
        before = self._disk.images.get(self._path)
        entries = {} if before is None else dict(before.entries)
        record = None if before is None else before.record
        for changes, offset, in_step_ms in self._unflushed[:kept]:
            for key, value in changes.items():
                if value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = value
            record = StoreRecord(self._identity, offset, in_step_ms)
        return None if record is None else Image(record, entries)


class _SimulatedHome(Home):
    def __init__(self, path: Path, disk: SimulatedDisk) -> None:
        super().__init__(path, -1)
        self._disk = disk

    def stores_of(self, table: str) -> dict[int, Path]:
        directory = self.store_path(table, 0).parent
        return {int(path.name): path for path in self._disk.images if path.parent == directory}

    def release(self) -> None:
        self._disk.release_home(self.path)
