"""A worker of the engine under test: one run after another, each of which can end as a killed process does."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paperboy.brokers.protocol import Broker
from paperboy.engine import Engine
from paperboy.testing.loop import Process, ProcessLoop
from paperboy.testing.watched import Assignments, watched


class Worker:
    """Runs an engine, as one of its group.

    Args:
        engine: its options are changed and it is started; `release` gives it back as it was.
        connect: opens a connection to the broker.
        directory: where its state is kept, in a directory for each run that came after a kill.
        loop: what it runs in.
    """

    def __init__(self, engine: Engine, connect: Callable[[], Broker], directory: Path, loop: ProcessLoop) -> None:
        self.engine = engine
        self.told = False
        """Whether the test has been told how this run failed."""
        self._options = engine._options
        self._open_broker = engine._open_broker
        self._connect = connect
        self._directory = directory
        self._kills = 0
        self._loop = loop
        self._process = Process()
        self._assignments = Assignments()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the engine anew, in the background.

        Raises:
            Exception: it refused to start.
        """
        engine, assignments = self.engine, Assignments()
        engine._forget_run()
        # Topics are made as the test needs them: what a cluster's owners allow is not what is tested.
        engine._options = replace(self._options, state_dir=self._state_dir, create_topics="auto")
        engine._open_broker = lambda _: watched(self._connect(), assignments)
        self._assignments = assignments
        self._process = Process()
        self.told = False
        starting = self._loop.spawn(self._process, engine.__aenter__())
        await asyncio.wait([starting])
        self._running = engine._background
        if (error := starting.exception()) is not None:
            self.told = True
            raise error

    async def stop(self) -> None:
        """End the run cleanly, if it has not ended."""
        if self._running is not None and self.is_running:
            await self.engine.stop()
            await asyncio.wait([self._running])

    async def end(self) -> None:
        """Until a run that has failed has ended: what had finished before is checkpointed as it does."""
        if self._running is not None and self.engine._failure is not None:
            await asyncio.wait([self._running])

    def kill(self) -> None:
        """End the run as a killed process does: what is on its disk stays as it is at this moment."""
        membership = self.engine._membership
        self._loop.kill(self._process)
        before = self._state_dir
        self._kills += 1
        if before.exists():
            _copy(before, self._state_dir)
        if membership is not None and not self._loop.has_threads:  # a thread might be at work in a store
            for store in membership._stores.abandon():
                store.close()  # what it holds was copied, and nobody reads it again
        self._running = None
        self.engine._forget_run()

    def release(self) -> None:
        """Give the engine back as it was before the first start."""
        self.engine._options = self._options
        self.engine._open_broker = self._open_broker
        self.engine._forget_run()

    def rejoin(self) -> None:
        """Ask the group for a rebalance."""
        if self._assignments.consumer is not None:
            self._assignments.consumer.rejoin()

    @property
    def is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    @property
    def failure(self) -> BaseException | None:
        """What the run has ended with, if it has failed."""
        running = self._running
        return running.exception() if running is not None and running.done() and not running.cancelled() else None

    @property
    def is_ready(self) -> bool:
        """Whether it has its share, with its tables restored."""
        return self.is_running and self.engine.status().ready

    @property
    def assignments(self) -> int:
        """How often this run was assigned a share."""
        return self._assignments.count

    def state(self) -> str:
        """What it is about, in a few words."""
        if self.failure is not None:
            return f"has failed: {self.failure!r}"
        if not self.is_running:
            return "does not run"
        if not self._assignments.is_current:
            return "waits for the group to assign it something"
        tasks = []
        for task in self.engine.status().tasks:
            doing = f"at {', '.join(f'{at} offset {offset}' for at, offset in task.positions.items())}"
            tasks.append(f"task {task.name} {doing if task.ready else 'restores its tables'}, lag {task.lag}")
        return "; ".join(tasks) or "has no task"

    @property
    def _state_dir(self) -> Path:
        return self._directory / str(self._kills)


def _copy(source: Path, target: Path) -> None:
    """As at one moment: RocksDB's own threads write and delete files meanwhile, until they have nothing left to do."""
    while True:
        before = sorted(source.rglob("*"))
        try:
            shutil.copytree(source, target)
            if sorted(source.rglob("*")) == before:
                return
        except shutil.Error:  # a file was deleted between being listed and being copied
            pass
        shutil.rmtree(target)
