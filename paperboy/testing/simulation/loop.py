"""The event loop of a simulation: it has virtual time, and a seed says whose turn it is."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from paperboy.clock import Chance
from paperboy.testing.loop import Process, process_of
from paperboy.testing.virtual_time import VirtualLoop


class SimulationLoop(VirtualLoop):
    """Runs several processes as one machine each would: what is ready in one runs in the order in which it became
    ready, as asyncio has it, and between them the seed chooses.

    Nothing depends on addresses or hashes: tasks are hashed by the order of their creation, because asyncio keeps them
    in sets.

    Args:
        chance: draws whose turn it is.
        stays: how likely the next turn is the same process's again, from 0 to 1.
    """

    def __init__(self, chance: Chance, stays: float) -> None:
        super().__init__()
        nothing = asyncio.Handle(_do_nothing, (), self)
        nothing.cancel()
        self._turns = self._ready = _Turns(chance, stays, nothing)
        self._numbers = count(1)
        self.set_task_factory(self._new_task)
        self.work_seconds: Callable[[], float] = lambda: 0.0
        """How long what would go to a thread takes."""

    @property
    def steps(self) -> int:
        """How many callbacks have run so far."""
        return self._turns.steps

    def strike_after(self, process: Process, steps: int, strike: Callable[[], object]) -> None:
        """Call `strike`, which kills or freezes a process, when it has run so many callbacks more."""
        queue = self._turns.queue(process)
        queue.steps_left, queue.strike = steps, strike

    def freeze(self, process: Process) -> None:
        """Let nothing of a process run until `thaw`, as SIGSTOP does. The time of the others goes on."""
        self._turns.freeze(process)

    def thaw(self, process: Process) -> None:
        """Let it go on: what became due meanwhile is run now."""
        self._turns.thaw(process)

    def seconds_of_work(self) -> float:
        return self.work_seconds()

    def _new_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return _NumberedTask(work, next(self._numbers), loop=loop, **options)


class _NumberedTask(asyncio.Task[Any]):
    def __init__(self, work: Any, number: int, **options: Any) -> None:
        self._number = number  # asyncio asks for the hash while it makes the task
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._number


class _Queue:
    """What is ready in one process."""

    def __init__(self) -> None:
        self.handles: deque[asyncio.Handle] = deque()
        self.frozen = False
        self.steps_left: int | None = None
        """Until it is struck; None where it is not to be."""
        self.strike: Callable[[], object] | None = None


class _Turns:
    """What is ready, by process. Stands in for the one queue of asyncio's loop.

    Args:
        nothing: handed out where there is nothing any more that asyncio had counted.
    """

    def __init__(self, chance: Chance, stays: float, nothing: asyncio.Handle) -> None:
        self.steps = 0
        self._draw = chance.random
        self._stays = stays
        self._nothing = nothing
        self._queues: dict[Process | None, _Queue] = {}
        self._ready: list[_Queue] = []
        """Those with something in them, and not frozen, in the order in which they became so."""
        self._size = 0
        self._last: _Queue | None = None

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[asyncio.Handle]:
        for queue in self._queues.values():
            yield from queue.handles

    def append(self, handle: asyncio.Handle) -> None:
        queue = self.queue(process_of(handle))
        queue.handles.append(handle)
        if not queue.frozen:
            self._size += 1
            if len(queue.handles) == 1:
                self._ready.append(queue)

    def popleft(self) -> asyncio.Handle:
        ready = self._ready
        if not ready:  # who was to run has been frozen since
            return self._nothing
        self.steps += 1
        queue = ready[0]
        if len(ready) > 1:
            queue = ready[int(self._draw() * len(ready))]
            if self._last in ready and self._draw() < self._stays:
                queue = self._last
        self._last = queue
        if queue.steps_left is not None:
            queue.steps_left -= 1
            if queue.steps_left < 0 and queue.strike is not None:
                queue.steps_left = None
                queue.strike()  # killed, what it has here is cancelled
                if queue.frozen:
                    return self._nothing
        handle = queue.handles.popleft()
        self._size -= 1
        if not queue.handles:
            ready.remove(queue)
        return handle

    def clear(self) -> None:
        self._queues.clear()
        self._ready.clear()
        self._size = 0

    def freeze(self, process: Process) -> None:
        queue = self.queue(process)
        if not queue.frozen:
            queue.frozen = True
            if queue.handles:
                self._size -= len(queue.handles)
                self._ready.remove(queue)

    def thaw(self, process: Process) -> None:
        queue = self.queue(process)
        if queue.frozen:
            queue.frozen = False
            if queue.handles:
                self._size += len(queue.handles)
                self._ready.append(queue)

    def queue(self, process: Process | None) -> _Queue:
        queue = self._queues.get(process)
        if queue is None:
            queue = self._queues[process] = _Queue()
        return queue


def _do_nothing() -> None:
    pass
