"""What a crash leaves of the stores of a simulation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from paperboy.clock import Chance
from paperboy.engine.disk import Opened
from paperboy.errors import StoreError
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Store, StoreIdentity
from paperboy.testing.simulation.disk import SimulatedDisk
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.loop import SimulationLoop
from paperboy.testing.simulation.plan import Storm
from paperboy.testing.simulation.trace import Trace
from paperboy.testing.simulation.weather import Weather

IDENTITY = StoreIdentity("clicks", 0, "g-clicks-changelog", "id", "1")
PATH = Path("state/g/1/clicks/0")


class Bench:
    """A disk, and processes that use it one after another."""

    def __init__(self, loop: SimulationLoop, seed: int = 0, *storms: Storm) -> None:
        self._loop = loop
        weather = Weather(storms, 0.0, Chance(seed), loop, Trace(loop, None))
        self.disk = SimulatedDisk(weather, Chance(seed), flush_every=3)
        self.process = Incarnation(0, 1)

    def open(self) -> Opened:
        async def opened() -> Opened:
            return self.disk.open(PATH, IDENTITY, RocksDBOptions())

        async def main() -> Opened:
            return await self._loop.spawn(self.process, opened())

        return self._loop.run(main())

    def crash(self) -> None:
        self.disk.crash(self.process)
        self.process = Incarnation(0, 2)


@pytest.fixture
def loop() -> Iterator[SimulationLoop]:
    made = SimulationLoop(Chance("test"), 0.0)
    yield made
    made.close()


def numbered(store: Store, count: int, first: int = 0) -> None:
    """Write so many entries, one by one."""
    for number in range(first, first + count):
        store.write({b"%d" % number: b"x"}, number + 1, 0)


def test_what_was_flushed_is_there_after_a_crash_and_of_the_rest_the_first_writes_only(loop: SimulationLoop) -> None:
    left = set()
    for seed in range(40):
        bench = Bench(loop, seed)
        store, _ = bench.open()
        numbered(store, 2)
        store.flush()
        numbered(store, 3, first=2)
        bench.crash()
        store, reason = bench.open()
        if reason is None:
            offset = store.changelog_offset
            assert offset is not None
            assert [key for key, _ in store.scan()] == [b"%d" % number for number in range(offset)]
            left.add(offset)
        else:
            assert (reason, store.changelog_offset) == ("damaged", None)
    assert left == {2, 3, 4, 5}


def test_what_is_closed_is_flushed_and_can_be_opened_by_the_next(loop: SimulationLoop) -> None:
    bench = Bench(loop)
    store, _ = bench.open()
    numbered(store, 3)
    assert store.flush_due
    with pytest.raises(StoreError, match="open already"):
        bench.open()
    store.close()
    store, reason = bench.open()
    assert (store.changelog_offset, reason) == (3, None)


def test_a_full_disk_takes_nothing(loop: SimulationLoop) -> None:
    bench = Bench(loop, 0, Storm("write", 0, 10, rate=1.0, delay=0, fails=True, machine=None))
    store, _ = bench.open()
    with pytest.raises(StoreError, match="no space left"):
        store.write({b"a": b"1"}, 1, 0)
    assert store.changelog_offset is None
    assert store.get(b"a") is None
