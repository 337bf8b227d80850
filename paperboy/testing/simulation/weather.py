"""What fails, and takes long, in a simulation: as its plan says, and the seed draws."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paperboy.brokers.memory.faults import Faults, Operation
from paperboy.clock import Chance
from paperboy.errors import BrokerError, StoreError
from paperboy.testing.loop import Process, current_process
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.loop import SimulationLoop
from paperboy.testing.simulation.plan import Storm
from paperboy.testing.simulation.trace import Trace


@dataclass(slots=True)
class _Trap:
    operation: str
    left: int
    spring: Callable[[], object]


class Weather(Faults):
    """The `Faults` of the simulated broker, and those of the disks.

    Args:
        slow_disk: how long what would go to a thread takes at most, in seconds.
    """

    def __init__(
        self,
        storms: Sequence[Storm],
        slow_disk: float,
        chance: Chance,
        loop: SimulationLoop,
        trace: Trace,
    ) -> None:
        super().__init__()
        self.isolated: dict[int, float] = {}
        """Until when a machine does not reach the broker."""
        self._storms = storms
        self._slow_disk = slow_disk
        self._chance = chance
        self._loop = loop
        self._trace = trace
        self._traps: dict[Incarnation, _Trap] = {}

    def set_trap(self, process: Incarnation, operation: str, number: int, spring: Callable[[], object]) -> None:
        """Call `spring` in the midst of a process's so-manieth `operation` from now on: it kills or freezes it."""
        self._traps[process] = _Trap(operation, number, spring)

    def clear_up(self) -> None:
        """Nothing fails any more."""
        self._storms = ()
        self._slow_disk = 0.0
        self.isolated.clear()
        self._traps.clear()

    async def meet(self, operation: Operation) -> None:
        process = current_process()
        self._spring(process, operation)
        storm = self._hit_by(operation, process)
        isolated = isinstance(process, Incarnation) and self.isolated.get(process.machine, 0.0) > self._loop.time()
        if storm is None and not isolated:
            await super().meet(operation)
            return
        delay = 0.0 if storm is None else self._chance.uniform(0, storm.delay)
        if isolated:
            delay += 0.2
        await asyncio.sleep(delay)
        await super().meet(operation)
        if isolated or (storm is not None and storm.fails):
            self._trace.say(f"fault: {operation} fails")
            raise BrokerError(f"The simulation lets {operation} fail.")

    def strike_disk(self, operation: str, path: str) -> None:
        """
        Raises:
            StoreError: the disk fails now.
        """
        process = current_process()
        self._spring(process, operation)
        if process is not None and not process.is_alive:
            raise StoreError("The process is dead: nobody hears of this.")
        storm = self._hit_by(operation, process)
        if storm is not None and storm.fails:
            if isinstance(process, Incarnation):
                process.may_repeat = True
            self._trace.say(f"fault: {operation} of {path} fails")
            raise StoreError(f"The simulation lets {operation} of {path!r} fail: no space left on device.")

    def now(self) -> float:
        """The time, in seconds from the beginning."""
        return self._loop.time()

    def seconds_of_work(self) -> float:
        """How long a disk takes over what blocks."""
        return self._chance.uniform(0, self._slow_disk) if self._slow_disk else 0.0

    def hides_offset(self) -> bool:
        """Whether the broker knows a batch already, and does not say where it stands."""
        return self._hit_by("unknown_offset", current_process()) is not None

    def _spring(self, process: Process | None, operation: str) -> None:
        if not isinstance(process, Incarnation) or process not in self._traps:
            return
        trap = self._traps[process]
        if trap.operation == operation:
            trap.left -= 1
            if trap.left <= 0:
                del self._traps[process]
                self._trace.say(f"fault: trapped at {operation}")
                trap.spring()

    def _hit_by(self, operation: str, process: Process | None) -> Storm | None:
        now = self._loop.time()
        for storm in self._storms:
            if storm.operation == operation and storm.begins <= now < storm.ends:
                if storm.machine is not None and not (
                    isinstance(process, Incarnation) and process.machine == storm.machine
                ):
                    continue
                if self._chance.random() < storm.rate:
                    return storm
        return None
