"""The workers of one test, as a group."""

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from paperboy.brokers.protocol import Broker
from paperboy.engine import Engine
from paperboy.engine.topics import declared_outputs, declared_topics
from paperboy.engine.topology import changelog_topic
from paperboy.errors import ConfigurationError, PaperboyError
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.table import Entry, Table
from paperboy.testing.attached import attached, check_unattached
from paperboy.testing.loop import ProcessLoop
from paperboy.testing.worker import Worker


class Workers:
    """One worker, which runs the user's own engine, and others beside it once a test asks for them.

    Args:
        connect: opens a connection to the broker.
        directory: where they keep their state.
        loop: what they run in.
    """

    def __init__(self, engine: Engine, connect: Callable[[], Broker], directory: Path, loop: ProcessLoop) -> None:
        self._engine = engine
        self._connect = connect
        self._directory = directory
        self._loop = loop
        self._numbers = count()
        self._tables = {name: attached(table) for name, table in _tables_of(engine).items()}
        self._all = [self._new_worker(engine)]

    async def start(self) -> None:
        """Start those that do not run, and return when all have their share.

        Raises:
            Exception: one refused to start.
        """
        for worker in self._all:
            if not worker.is_running:
                await worker.start()
        await self._until_ready()

    async def stop(self) -> None:
        """Stop them, cleanly."""
        for worker in self._all:
            await worker.stop()

    async def restart(self) -> None:
        """Start those that do not run; where all do, stop all of them first, and start none if one fails in that.
        Raises as `start`."""
        if self.all_running:
            await self.stop()
            if self.any_failed:
                return
        await self.start()

    def kill(self, number: int | None) -> None:
        """Kill one of them, or all.

        Raises:
            ConfigurationError: there is none of this number.
        """
        if number is not None and not 0 <= number < len(self._all):
            raise ConfigurationError(f"There is no worker {number!r}: the group has {len(self._all)}, counted from 0.")
        for worker in self._all if number is None else [self._all[number]]:
            worker.kill()

    async def rebalance(self, wanted: int | None) -> None:
        """Let the group take everything from its workers and deal anew; with `wanted`, become so many.

        Raises:
            ConfigurationError: `wanted` is no number of workers.
            PaperboyError: one of them does not run.
        """
        if wanted is not None and (type(wanted) is not int or wanted < 1):
            raise ConfigurationError(f"workers={wanted!r} must be a whole number above 0.")
        if not self.all_running:
            raise PaperboyError(f"A rebalance needs workers that run: await t.restart() first. {self.state()}")
        if wanted is None or wanted == len(self._all):
            before = self._assignments()
            for worker in self._all:
                worker.rejoin()
            await self._until_ready(before)
            return
        while len(self._all) < wanted and not self.any_failed:
            await self._add()
        while len(self._all) > wanted and not self.any_failed:
            await self._remove()

    async def caught_up(self) -> None:
        """Until all input is handled, or one of them has ended."""
        asked = [asyncio.ensure_future(worker.engine.caught_up()) for worker in self._all if worker.is_running]
        if asked:
            try:
                await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for question in asked:
                    question.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
        await self.end_failed()

    async def end_failed(self) -> None:
        """Until those that have failed have ended."""
        for worker in self._all:
            await worker.end()

    def failure(self, *, again: bool) -> BaseException | None:
        """What one of them has failed with; None where that was told before, unless `again`."""
        for worker in self._all:
            if worker.failure is not None and (again or not worker.told):
                worker.told = True
                return worker.failure
        return None

    def entries(self, table: str) -> list[Entry]:
        """What is checkpointed of a table, in all of them.

        Raises:
            TableError: none of them runs.
        """
        return self._tables[table].entries()

    def release(self) -> None:
        """Give engine and tables back as they were."""
        for table in self._tables.values():
            table.release()
        for worker in self._all:
            worker.release()

    @property
    def running_are_ready(self) -> bool:
        """Whether no worker that runs is on its way back to what is durable."""
        return all(worker.is_ready for worker in self._all if worker.is_running)

    @property
    def all_running(self) -> bool:
        return all(worker.is_running for worker in self._all)

    @property
    def any_failed(self) -> bool:
        return any(worker.failure is not None for worker in self._all)

    @property
    def any_running(self) -> bool:
        return any(worker.is_running for worker in self._all)

    def state(self) -> str:
        """What each is about, as a sentence."""
        return "; ".join(f"Worker {number} {worker.state()}" for number, worker in enumerate(self._all)) + "."

    async def _add(self) -> None:
        """One more."""
        twin = copy.copy(self._engine)
        instance = self._engine._options.group_instance_id
        if instance is not None:
            twin._options = replace(twin._options, group_instance_id=f"{instance}-{len(self._all)}")
        before = self._assignments()
        self._all.append(self._new_worker(twin))
        await self._all[-1].start()
        await self._until_ready(before)

    async def _remove(self) -> None:
        """One less."""
        leaving = self._all[-1]
        before = self._assignments()
        await leaving.stop()
        if self.any_failed:
            return
        self._all.pop()
        await self._until_ready(before)

    def _new_worker(self, engine: Engine) -> Worker:
        return Worker(engine, self._connect, self._directory / str(next(self._numbers)), self._loop)

    def _assignments(self) -> dict[Worker, int]:
        return {worker: worker.assignments for worker in self._all}

    async def _until_ready(self, before: Mapping[Worker, int] | None = None) -> None:
        """Until all have their share, and were assigned anew since `before`; or one has ended."""
        since = before or {}
        await self._loop.until(
            lambda: (
                not self.all_running
                or all(worker.is_ready and worker.assignments > since.get(worker, 0) for worker in self._all)
            )
        )
        await self.end_failed()


def topics_of(engine: Engine, partitions: int) -> dict[str, int]:
    """The topics that have to be there, and how many partitions each has, if it does not say so itself: the engine's
    inputs, the outputs that its handlers name, and the topics of its global tables that are not its own changelogs."""
    own = [changelog_topic(table, engine._options.group_id) for table in engine._tables.values()]
    shown = [table.topic for table in engine._global_tables.values() if table.topic not in own]
    consumed = [topic for topic, dispatch in engine._dispatches.items() if dispatch.retries_of is None]
    names = [*consumed, *sorted(declared_outputs(engine._dispatches)), *shown]
    declared = declared_topics(engine._dispatches, engine._global_tables)
    return {name: (declared[name].partitions if name in declared else None) or partitions for name in names}


def check_free(engine: Engine) -> None:
    """
    Raises:
        PaperboyError: it is running, or was.
        ConfigurationError: another engine that runs holds one of its tables.
    """
    if engine._started:
        raise PaperboyError(
            "This engine was started already: give EngineTest one that was not, it starts it by itself."
        )
    for table in _tables_of(engine).values():
        check_unattached(table)


def _tables_of(engine: Engine) -> dict[str, Table | GlobalTable]:
    return {**engine._tables, **engine._global_tables}
