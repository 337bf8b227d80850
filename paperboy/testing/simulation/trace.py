"""What happened in a simulation, line by line."""

import hashlib
from collections.abc import Callable

from paperboy.testing.loop import current_process
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.loop import SimulationLoop


class Trace:
    """One line an event: the number of callbacks that the loop had run, the time, who, and what.

    Two runs of a seed that do the same have the same lines, to the byte.

    Args:
        show: given each line as it comes.
    """

    def __init__(self, loop: SimulationLoop, show: Callable[[str], object] | None) -> None:
        self.lines: list[str] = []
        self._loop = loop
        self._show = show

    def say(self, what: str) -> None:
        """An event of the process that this is called in."""
        loop, process = self._loop, current_process()
        name = process.name if isinstance(process, Incarnation) else "-"
        line = f"{loop.steps:7} {loop.time():10.4f} {name:6} {what}"
        self.lines.append(line)
        if self._show is not None:
            self._show(line)

    def digest(self) -> str:
        """Of all lines."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
