"""A machine that keeps a worker running, one life after another."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from paperboy.engine import Engine
from paperboy.errors import BrokerError, CheckpointError, OffsetOutOfRange, StoreError, TopicNotFound
from paperboy.testing.simulation.broker import SimulatedBroker
from paperboy.testing.simulation.disk import SimulatedDisk
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.ledger import Ledger
from paperboy.testing.simulation.loop import SimulationLoop
from paperboy.testing.simulation.trace import Trace
from paperboy.testing.simulation.workload import Boom

_RESTART_SEC = 0.5


class Machine:
    """Starts an engine, and another one when that has ended, until it is told to keep it stopped.

    Args:
        build: makes an incarnation's engine, and its connection to the broker.
    """

    def __init__(
        self,
        number: int,
        loop: SimulationLoop,
        disk: SimulatedDisk,
        ledger: Ledger,
        trace: Trace,
        build: Callable[[Incarnation], tuple[Engine, SimulatedBroker]],
    ) -> None:
        self.number = number
        self.disk = disk
        self.process: Incarnation | None = None
        """The life that it is in; None between two."""
        self.engine: Engine | None = None
        self.broker: SimulatedBroker | None = None
        self.is_frozen = False
        self._away_until = 0.0
        self._loop = loop
        self._ledger = ledger
        self._trace = trace
        self._build = build
        self._lives = 0
        self._ended: asyncio.Future[asyncio.Task[None] | None] | None = None
        self._last = False

    @property
    def is_ready(self) -> bool:
        """Its worker has its share, restored, and everything that it finished is committed."""
        membership = None if self.engine is None else self.engine._membership
        return membership is not None and membership.is_ready

    @property
    def is_undisturbed(self) -> bool:
        """It is at work, and neither frozen nor restoring."""
        return self.is_ready and not self.is_frozen

    @property
    def is_clean(self) -> bool:
        """Everything that its worker has finished is committed."""
        membership = None if self.engine is None else self.engine._membership
        return membership is not None and not any(
            task._checkpoints.dirty or task._checkpoints.is_running for task in membership.tasks.values()
        )

    async def run(self) -> None:
        """One life after another, until `stop` is the end."""
        while not self._last:
            await asyncio.sleep(max(0.0, self._away_until - self._loop.time()))
            ended = await self._live()
            if ended is not None and not ended.cancelled():
                self._judge(ended.exception())
            self._away_until = max(self._away_until, self._loop.time() + _RESTART_SEC)

    async def stop(self, away_sec: float) -> None:
        """As SIGTERM does; a new life begins after this time."""
        if self.engine is not None:
            self._away_until = self._loop.time() + away_sec
            self._trace.say(f"fault: stop w{self.number}")
            await self.engine.stop()

    def end(self) -> None:
        """Stop it for good: `run` returns when it has."""
        self._last = True
        if self.engine is not None:
            self.engine._begin_stop()

    def kill(self, away_sec: float = 0.0) -> None:
        """As kill -9 does."""
        process = self.process
        if process is None:
            return
        self._trace.say(f"fault: kill {process.name}")
        self.is_frozen = False
        self._loop.thaw(process)
        self._loop.kill(process)
        self.disk.crash(process)
        self.process = self.engine = self.broker = None
        self._away_until = max(self._away_until, self._loop.time() + away_sec)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def freeze(self, seconds: float) -> None:
        """As SIGSTOP does, and SIGCONT after a while."""
        process = self.process
        if process is not None:
            self._trace.say(f"fault: freeze {process.name} for {seconds:g} s")
            process.stood_still = self.is_frozen = True
            self._loop.freeze(process)
            self._loop.call_later(seconds, self._wake, process, context=Context())

    def thaw(self) -> None:
        if self.process is not None and self.is_frozen:
            self._trace.say(f"fault: thaw {self.process.name}")
            self._loop.thaw(self.process)
        self.is_frozen = False

    def _wake(self, process: Incarnation) -> None:
        if self.process is process:
            self.thaw()

    async def _live(self) -> asyncio.Task[None] | None:
        """Returns the task that ran the engine; None where it was killed."""
        self._lives += 1
        process = Incarnation(self.number, self._lives)
        engine, broker = self._build(process)
        self._trace.say(f"start {process.name}")
        self.process, self.engine, self.broker = process, engine, broker
        ended: asyncio.Future[asyncio.Task[None] | None] = self._loop.create_future()
        self._ended = ended
        running = self._loop.spawn(process, engine._run(), name=f"engine {process.name}")
        engine._background = running  # nothing is drawn on a terminal

        def end(task: asyncio.Task[None]) -> None:
            if not ended.done():  # it was killed in the very moment of its end
                ended.set_result(task)

        running.add_done_callback(end)
        return await ended

    def _judge(self, failure: BaseException | None) -> None:
        process = self.process
        self.process = self.engine = self.broker = None
        self._trace.say(f"ended w{self.number}: {type(failure).__name__}")
        if failure is not None and not _is_to_be_expected(failure) and not self._ledger.broken:
            self._ledger.breaks(f"{process and process.name} has failed, and nothing explains it: {failure!r}")


def _is_to_be_expected(failure: BaseException) -> bool:
    wrong: tuple[type[Any], ...] = (OffsetOutOfRange, TopicNotFound)
    return isinstance(failure, Boom | BrokerError | StoreError | CheckpointError) and not isinstance(failure, wrong)
