"""A task's way to durability: what it sends on its way, and one checkpoint after another."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from paperboy.brokers.protocol import TransactionalProducer
from paperboy.engine.checkpoint import Checkpoint
from paperboy.engine.inputs import Inputs
from paperboy.engine.outbox import FLUSH_BYTES, Outbox
from paperboy.engine.stores import TaskTable
from paperboy.engine.transaction import TransactionCheckpoint
from paperboy.engine.wiring import Wiring
from paperboy.errors import BrokerError, CheckpointError, NotOwner, StoreError
from paperboy.log import get_logger

_log = get_logger("paperboy.task")

_ABORT_SEC = 2.0
"""How long a transaction that is given up is waited for."""


class BackToDurable(Exception):
    """A flush, a checkpoint or a restore failed: the task must go back to what is durable."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Checkpoints:
    """Owns a task's outbox, the flush and the checkpoint that are under way, and what is due next.

    One flush and one checkpoint at a time; a cancelled task leaves both alone, because half of one would lose the rest.

    Args:
        name: the task's.
        generation: the assignment that gave this worker the task.
        wake: called when a checkpoint has ended.
        has_gaps: whether something has finished behind what has not: a transaction must not hold that.
        transaction: what everything goes through where it is to be exactly once.
    """

    def __init__(
        self,
        name: str,
        tables: Mapping[str, TaskTable],
        sources: Inputs,
        outbox: Outbox,
        generation: int,
        wiring: Wiring,
        wake: Callable[[], None],
        has_gaps: Callable[[], bool] = lambda: False,
        transaction: TransactionalProducer | None = None,
    ) -> None:
        self.due_at = 0.0
        """When the next one is to begin, in loop time."""
        self._name = name
        self._tables = list(tables.values())
        self._sources = sources
        self._outbox = outbox
        self._generation = generation
        self._wiring = wiring
        self._options = wiring.options
        self._wake = wake
        self._has_gaps = has_gaps
        self._transaction = transaction
        self._loop = asyncio.get_running_loop()
        self._flushing: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._requested = False
        self._failures = 0
        self._failed_commits = 0

    # What is due.

    @property
    def dirty(self) -> bool:
        """Whether anything has finished since the last checkpoint was committed."""
        return any(source.position != source.committed for source in self._sources) or any(
            table.partition.layer for table in self._tables
        )

    @property
    def is_running(self) -> bool:
        return self._running is not None

    @property
    def is_due(self) -> bool:
        options = self._options
        return (
            self._requested
            or (self._loop.time() >= self.due_at and (self._running is None or self._running.done()))
            or any(
                len(table.partition.layer) >= options.max_overlay_keys
                or table.partition.layer_bytes >= options.max_overlay_bytes
                for table in self._tables
            )
        )

    @property
    def failures(self) -> int:
        """How many times in a row, by now, the task went back to what is durable, or a commit failed."""
        return max(self._failures, self._failed_commits)

    def request(self) -> None:
        """Let the next one begin at the next message boundary."""
        self._requested = True

    def wait_an_interval(self) -> None:
        """The next one is due an interval from now."""
        self._requested = False
        self.due_at = self._loop.time() + self._options.checkpoint_interval_sec

    # What is done.

    async def flush_if_full(self) -> None:
        if self._outbox.bytes >= FLUSH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Hand all sends to the producer. While a transaction is being committed they are kept for the next one, as
        batches, until they are too many.

        Raises:
            BackToDurable: the broker did not take them.
        """
        if self._transaction is not None and self._running is not None and not self._running.done():
            if self._outbox.bytes < self._options.max_unacked_bytes:
                self._outbox.pack(self._transaction)
                return
            await asyncio.wait([self._running])
        while self._flushing is not None or self._outbox.bytes:
            if self._flushing is None:
                self._flushing = self._loop.create_task(self._outbox.flush(), name=f"flush {self._name}")
            await asyncio.wait([self._flushing])
            flushed, self._flushing = self._flushing, None
            try:
                flushed.result()
            except BrokerError as error:
                raise BackToDurable(error) from error

    async def tend(self) -> None:
        """Collect the checkpoint that has ended; begin one that is due, after the one that is under way.

        Raises:
            NotOwner: another worker owns the task.
            BackToDurable: it failed.
            CheckpointError: commits went on failing.
        """
        if self._running is not None and self._running.done():
            await self._finish()
        if self.is_due:
            await self._finish()
            await self._begin()

    async def the_rest(self) -> None:
        """Everything that has finished becomes durable. Raises as `tend`."""
        await self._finish()
        for _ in range(self._options.checkpoint_attempts):
            await self._begin()
            await self._finish()
            if not self.dirty:  # only the commit can have failed
                return

    async def discard(self) -> None:
        """Give up what is under way, and forget what waits."""
        for under_way in (self._flushing, self._running):
            if under_way is not None:
                under_way.cancel()
                await asyncio.wait([under_way])
                if not under_way.cancelled():
                    under_way.exception()
        self._flushing = self._running = None
        self._outbox.discard()
        if self._transaction is not None:
            with contextlib.suppress(BrokerError, TimeoutError):  # else it is dropped by whoever begins anew
                async with asyncio.timeout(_ABORT_SEC):
                    await self._transaction.abort()

    async def close(self) -> None:
        """The task has ended."""
        if self._transaction is not None:
            await self._transaction.stop()

    def failed(self, error: Exception) -> int:
        """The task goes back to what is durable. Returns how many times in a row it did.

        Raises:
            CheckpointError: too many times.
        """
        self._wiring.counters.checkpoint_failures += 1
        self._failures += 1
        if self._failures >= self._options.checkpoint_attempts:
            raise CheckpointError(
                f"Task {self._name} failed {self._failures} times in a row (checkpoint_attempts) to make its work"
                f" durable, or to go back to what is; the last time: {error}"
            ) from error
        _log.warning("back to what is durable", task=self._name, attempt=self._failures, error=str(error))
        return self._failures

    async def _begin(self) -> None:
        if not self.dirty:
            self.wait_an_interval()
            return
        await self.flush()
        if self._transaction is not None and self._has_gaps():  # by what has finished since it was due
            return
        self.wait_an_interval()
        checkpoint = self._new_checkpoint()
        self._running = self._loop.create_task(self._run(checkpoint), name=f"checkpoint {self._name}")
        self._running.add_done_callback(lambda _: self._wake())

    def _new_checkpoint(self) -> Checkpoint | TransactionCheckpoint:
        tables, positions, outputs = self._tables, self._sources.uncommitted(), self._outbox.take_acks()
        broker, consumer = self._wiring.broker, self._wiring.consumer
        if self._transaction is None:
            return Checkpoint(tables, positions, outputs, broker, consumer, self._wiring.producer, self._generation)
        return TransactionCheckpoint(
            tables, positions, outputs, broker, consumer, self._transaction, self._generation, self._options.group_id
        )

    async def _run(self, checkpoint: Checkpoint | TransactionCheckpoint) -> None:
        try:
            await checkpoint.run()
            self._sources.keep(checkpoint.positions)
            if checkpoint.commit_error is None:
                self._sources.commit(checkpoint.positions)
                self._failed_commits = 0
            else:
                self._tolerate(checkpoint.commit_error)
            self._wiring.counters.checkpoints += 1
            _log.debug(
                "checkpoint",
                task=self._name,
                changed_keys=checkpoint.changed_keys,
                positions={str(partition): position for partition, position in checkpoint.positions.items()},
            )
            self._wiring.moved()
            for table in self._tables:
                if table.partition.store.flush_due:
                    await table.held.flush()
            self._failures = 0
        except NotOwner:
            raise
        except (BrokerError, StoreError) as error:
            raise BackToDurable(error) from error

    async def _finish(self) -> None:
        running = self._running
        if running is not None:
            await asyncio.wait([running])
            self._running = None
            running.result()

    def _tolerate(self, error: BrokerError) -> None:
        """What was to be committed is durable, and the next checkpoint commits it, if it can."""
        self._failed_commits += 1
        _log.warning("commit failed", task=self._name, attempt=self._failed_commits, error=str(error))
        if self._failed_commits >= self._options.checkpoint_attempts:
            raise CheckpointError(
                f"The commit of task {self._name} failed {self._failed_commits} times in a row (checkpoint_attempts);"
                f" the last time: {error}"
            ) from error
