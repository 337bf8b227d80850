"""What one test has while its block lasts: a loop, a broker, its records and the workers of the engine."""

import asyncio
import shutil
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypeVar

from paperboy.brokers import open_broker
from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.engine import Engine
from paperboy.engine.topics import declared_spec, declared_topics
from paperboy.errors import PaperboyError
from paperboy.testing.backdoor import Backdoor, BrokerBackdoor, MemoryBackdoor
from paperboy.testing.loop import ProcessLoop
from paperboy.testing.records import Records
from paperboy.testing.virtual_time import Stuck, VirtualLoop
from paperboy.testing.workers import Workers

T = TypeVar("T")

_ROUNDS = 1_000
"""How often handlers may find new input that handling the last has made, before `settle` gives up."""
_PATIENCE_SEC = 300.0
REAL_PATIENCE_SEC = 60.0
"""How long is waited for what a test wants, if it does not say."""


class NotSettled(PaperboyError):
    """What a test waits for did not come. The message says what each worker is about."""


class Bench:
    """See the module. The methods are called from outside the loop, and turn it.

    Args:
        topics: the topics to make, with their partition counts.
        bootstrap_servers: a broker to use, in real time; None: one in memory, in virtual time.
    """

    def __init__(
        self,
        engine: Engine,
        topics: Mapping[str, int],
        bootstrap_servers: str | None,
        client_options: Mapping[str, object] | None,
        start_time: datetime | None,
    ) -> None:
        # The directory is not made here: most tests keep nothing on disk, and need not pay for it.
        directory = Path(gettempdir(), f"paperboy-test-{random_id()}")
        self.is_virtual = bootstrap_servers is None
        self.backdoor = _backdoor(bootstrap_servers, client_options, start_time)
        self.records = Records(self.backdoor, topics)
        self._loop = VirtualLoop() if self.is_virtual else ProcessLoop()
        self.workers = Workers(engine, self.backdoor.connect, directory, self._loop)
        self._group_id = engine._options.group_id
        self._inputs = [topic for topic, dispatch in engine._dispatches.items() if not dispatch.delay_sec]
        self._compacted = {table.topic for table in engine._global_tables.values()}
        self._declared = declared_topics(engine._dispatches, engine._global_tables)
        self._topics = topics
        self._directory = directory

    def open(self) -> None:
        """Make the topics, and start the engine.

        Raises:
            Exception: it refused to start.
        """
        self.ask(self.backdoor.start())
        self.ask(self.backdoor.create_topics([self._spec(name, count) for name, count in self._topics.items()]))
        self.wait("The start", self.workers.start())
        self.tell_failure()

    def _spec(self, name: str, partitions: int) -> TopicSpec:
        """A topic as it was declared, on the one broker that a test has."""
        spec = declared_spec(name, self._declared.get(name), compacted=name in self._compacted)
        return replace(spec, partitions=partitions, replication_factor=None)

    def close(self) -> None:
        """Stop the engine cleanly, give it back, and leave nothing behind."""
        with ExitStack() as cleanup:  # from the last to the first, whatever fails
            cleanup.callback(self._remove_directory)
            cleanup.callback(self._loop.close)
            cleanup.callback(self.workers.release)
            cleanup.callback(lambda: self.ask(self.backdoor.stop()))
            try:
                self._loop.run(self.workers.stop())
            except Stuck:
                self.workers.kill(None)

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something at the broker; in virtual time it takes none, and nothing else happens meanwhile."""
        self._check_outside(work)
        return self._loop.at_once(work) if self.is_virtual else self._loop.run(work)

    def turn(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop run until `work` has ended.

        Raises:
            NotSettled: it never will.
        """
        self._check_outside(work)
        try:
            return self._loop.run(work)
        except Stuck as stuck:
            raise NotSettled(f"{stuck} {self.workers.state()}") from stuck

    def wait(self, doing: str, work: Coroutine[Any, Any, None], within_sec: float | None = None) -> None:
        """As `turn`, for so long at most."""
        patience_sec = _PATIENCE_SEC if self.is_virtual else REAL_PATIENCE_SEC
        self.turn(self._in_time(doing, work, patience_sec if within_sec is None else within_sec))

    def settle(self, within_sec: float | None) -> None:
        """Until nothing is left to do."""
        self.wait("Settling", self._settle(), within_sec)

    def advance(self, duration_sec: float) -> None:
        """Let time pass."""
        self.turn(self._advance(duration_sec))

    def time_ms(self) -> int:
        """What the broker's clock shows."""
        return self.ask(self._time_ms())

    def tell_failure(self, *, again: bool = False) -> None:
        """Raise what a worker has failed with; unless `again`, only if that was not told yet."""
        failure = self.workers.failure(again=again)
        if failure is not None:
            raise failure

    async def _settle(self) -> None:
        inputs = [await self.records.topic(name) for name in self._inputs]
        lags: Mapping[TopicPartition, int] = {}
        for _ in range(_ROUNDS):
            await self.workers.caught_up()
            await self._loop.quiet()
            lags = await self.backdoor.lags(self._group_id, inputs)
            if self.workers.any_failed or (not lags and self.workers.running_are_ready):
                return
            if not self.workers.any_running:
                raise NotSettled(f"There is input left, and nobody to handle it. {self.workers.state()}")
        left = ", ".join(f"{partition} {lag}" for partition, lag in lags.items())
        raise NotSettled(
            f"Handling the input makes new input, for ever, it seems: after {_ROUNDS} rounds there is {left} to handle;"
            " which handler sends to its own input?"
        )

    async def _advance(self, duration_sec: float) -> None:
        await asyncio.sleep(duration_sec)
        await self._loop.quiet()
        await self.workers.end_failed()

    async def _time_ms(self) -> int:
        return self.backdoor.time_ms()

    async def _in_time(self, doing: str, work: Coroutine[Any, Any, None], limit_sec: float) -> None:
        limit = asyncio.timeout(limit_sec)
        try:
            async with limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            kind = "virtual" if self.is_virtual else "real"
            raise NotSettled(
                f"{doing} has not ended after {limit_sec:g} s of {kind} time. {self.workers.state()}"
            ) from None

    def _check_outside(self, work: Coroutine[Any, Any, Any]) -> None:
        if self._loop.is_running():
            work.close()
            raise PaperboyError(
                "A handler has called the EngineTest it runs in: its methods are for the test; a handler sends with"
                " ctx.send."
            )

    def _remove_directory(self) -> None:
        if self._directory.exists():
            shutil.rmtree(self._directory)


def _backdoor(
    address: str | None, client_options: Mapping[str, object] | None, start_time: datetime | None
) -> Backdoor:
    if address is None:
        start_ms = None if start_time is None else int(start_time.timestamp() * 1000)
        return MemoryBackdoor(MemoryCluster("engine-test", epoch_ms=start_ms))
    prefix = f"test-{random_id()[:12]}."
    if address == "memory://":
        cluster = MemoryCluster()
        return BrokerBackdoor(lambda: MemoryBroker(cluster), prefix)
    return BrokerBackdoor(lambda: open_broker(address, client_options=client_options), prefix)
