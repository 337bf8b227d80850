"""A task: partition number p of a topic group, with its stores, its position and its uncommitted work."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from paperboy.brokers.protocol import Consumer, Producer, Record, TopicPartition
from paperboy.clock import Clock
from paperboy.engine.checkpoint import Checkpoint
from paperboy.engine.inputs import Inputs
from paperboy.engine.modes import Mode, next_mode
from paperboy.engine.options import Options
from paperboy.engine.outbox import FLUSH_BYTES, Outbox, Topics
from paperboy.engine.source import Source
from paperboy.engine.status import Counters
from paperboy.engine.topology import TaskId
from paperboy.engine.work import Work
from paperboy.errors import BrokerError, CheckpointError, NotOwner, OffsetOutOfRange
from paperboy.handlers.dispatch import Dispatch
from paperboy.log import get_logger
from paperboy.tables.partition import TablePartition, Undo

_log = get_logger("paperboy.task")

_BACKOFF_SEC = 0.1
"""How long a task waits after a failure; twice as long after each further one in a row."""


@dataclass(slots=True)
class HeldTable:
    """A table's partition in this task, and the changelog partition behind it."""

    partition: TablePartition
    changelog: TopicPartition


@dataclass(slots=True)
class Wiring:
    """What an engine's tasks share."""

    options: Options
    consumer: Consumer
    producer: Producer
    topics: Topics
    clock: Clock
    in_step: Callable[[], bool]
    """Whether the engine is in a step."""
    moved: Callable[[], None]
    """Told when a task has become ready, when it has committed, and when it rests with work to commit."""
    room: Callable[[], None]
    """Told when a task has handled something."""
    counters: Counters = field(default_factory=Counters)


class Task:
    """Handles the records of its input partitions, one after another, and checkpoints what they caused.

    One coroutine, `run`, does all handling; checkpoints run beside it, one at a time. Tasks share nothing.

    Args:
        dispatches: for each of the task's topics, its handler's.
        tables: by name.
        undo: the list in which the tables note their writes.
        generation: the assignment that gave this worker the task.
        room_bytes: how much each input partition may have waiting.
        turn_sec: how long records are handled before the loop, and the other tasks, get their turn.
        reopen: brings tables and positions to what is durable: restores the stores, and fetches from what is committed.
    """

    def __init__(
        self,
        task_id: TaskId,
        dispatches: dict[str, Dispatch],
        tables: dict[str, HeldTable],
        undo: Undo,
        generation: int,
        room_bytes: int,
        turn_sec: float,
        wiring: Wiring,
        reopen: Callable[["Task"], Awaitable[None]],
    ) -> None:
        options = wiring.options
        self.id = task_id
        self.name = str(task_id)
        self.generation = generation
        self.mode = Mode.SINGLE
        self.ready = False
        """Its tables are restored, and its partitions are being fetched."""
        self.tables = tables
        self.sources = Inputs(
            [Source(TopicPartition(topic, task_id.partition), dispatches[topic]) for topic in sorted(dispatches)],
            bulk_records=options.bulk_mode_max_records,
            bulk_timeout_sec=options.bulk_mode_timeout_ms / 1000,
            room_bytes=room_bytes,
        )
        self._wiring = wiring
        self._options = options
        self._outbox = Outbox(wiring.producer, wiring.topics, wiring.clock, options.max_unacked_bytes)
        partitions = {name: held.partition for name, held in tables.items()}
        self._work = Work(
            self.name,
            partitions,
            undo,
            self._outbox,
            wiring.topics,
            wiring.clock,
            wiring.counters,
            has_to_stop=lambda: self._draining or self._checkpoint_due(),
            turn_sec=turn_sec,
        )
        self._reopen = reopen
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._draining = False
        self._opening: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._checkpoint: asyncio.Task[None] | None = None
        self._checkpoint_wanted = False
        self._checkpoint_at = 0.0
        self._failures = 0
        self._failed_commits = 0
        self._going_back: BrokerError | None = None
        self._gave_up_message = False

    # What others ask and tell.

    def put(self, partition: TopicPartition, records: list[Record]) -> None:
        """Records that were fetched."""
        self.sources[partition].put(records)
        self._wake.set()

    def wake(self) -> None:
        """Something the task may be waiting for has changed."""
        self._wake.set()

    def request_checkpoint(self) -> None:
        """Checkpoint at the next message boundary, if there is anything to checkpoint."""
        self._checkpoint_wanted = True
        self._wake.set()

    def stop_taking(self) -> None:
        """Finish the message in hand, checkpoint, and end `run`."""
        self._draining = True
        self._work.turn_ends = 0.0
        if self._opening is not None:
            self._opening.cancel()
        self._wake.set()

    def go_back(self, error: BrokerError) -> None:
        """Drop what is not durable, and begin again from what is: what was fetched is not what the log holds."""
        self.ready = False
        self._going_back = error
        self._wake.set()

    @property
    def is_handling(self) -> bool:
        """Whether a message (or bulk) is in a handler's hands."""
        return self._work.message is not None

    # The one coroutine.

    async def run(self) -> None:
        """Until `stop_taking`, or until another worker owns the task.

        Cancelled while a message is in hand, it gives that up and checkpoints what has finished. Cancelled otherwise,
        or again, it gives up the checkpoint too.

        Raises:
            Exception: what a handler raised; what had finished before it is checkpointed.
            CheckpointError: checkpoints went on failing.
        """
        try:
            while True:
                try:
                    await self._open_and_handle()
                    return
                except NotOwner as error:
                    _log.warning("task lost", task=self.name, reason=str(error))
                    return
                except _BackToDurable as failure:
                    self._give_up_after_too_many(failure)
                self.ready = False
                await self._discard()
                if self._draining:
                    return
                await self._back_off(_BACKOFF_SEC * 2 ** (self._failures - 1))
        finally:
            self.ready = False
            await self._discard()

    async def _open_and_handle(self) -> None:
        if not await self._open():
            return
        self._wiring.moved()
        self._checkpoint_at = self._loop.time() + self._options.commit_interval_sec
        try:
            while not self._draining:
                await self._handle_next()
        except (NotOwner, _BackToDurable):
            raise
        except asyncio.CancelledError:
            if self._gave_up_message:  # else it is a flush or a checkpoint that takes too long
                await self._checkpoint_the_rest()
            raise
        except BaseException:
            await self._checkpoint_the_rest()
            raise
        await self._checkpoint_the_rest()

    async def _back_off(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._draining:
                    self._wake.clear()
                    await self._wake.wait()

    async def _open(self) -> bool:
        """Bring tables and positions to what is durable; given up, with False, when the task is to stop."""
        self._going_back = None
        opening = self._opening = self._loop.create_task(self._become_ready(), name=f"open {self.name}")
        try:
            await asyncio.wait([opening])
        finally:
            self._opening = None
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
        if opening.cancelled():
            return False
        try:
            opening.result()
        except (NotOwner, OffsetOutOfRange):
            raise
        except BrokerError as error:
            raise _BackToDurable(error) from error
        return True

    async def _become_ready(self) -> None:
        await self._reopen(self)
        # In the same step as the seek in it: what a fetch brings to a task that is not ready is dropped.
        self.ready = True

    async def _handle_next(self) -> None:
        self._wake.clear()
        if self._going_back is not None:
            raise _BackToDurable(self._going_back)
        for source in self.sources:
            source.skip_gaps()
        await self._tend_checkpoint()
        self._decide_mode()
        chosen = self.sources.next_source(self.mode, self._loop.time())
        if chosen is None:
            await self._rest()
        elif self.mode is Mode.SINGLE or not chosen.dispatch.takes_bulks:
            await self._handle_singly(chosen)
        else:
            await self._handle_bulk(chosen)

    def _decide_mode(self) -> None:
        threshold = self._options.bulk_mode_threshold
        if self._wiring.in_step():
            mode = Mode.STEP
        elif not self._options.with_bulk_mode:
            mode = Mode.SINGLE
        else:
            mode = next_mode(self.mode, self.sources.lag(), threshold=threshold, low_mark=threshold // 2)
        if mode is not self.mode:
            before, self.mode = self.mode, mode
            _log.info("mode changed", task=self.name, before=before.value, mode=mode.value, lag=self.sources.lag())
            if self._options.on_mode_change is not None:
                self._options.on_mode_change(self.name, before, mode)

    async def _handle_singly(self, source: Source) -> None:
        work = self._work
        records = source.take_chunk(self.sources.turn_of_another(source))
        counters = self._wiring.counters
        done = 0
        while done < len(records):
            work.turn_ends = self._loop.time() + self._work.turn_sec
            begun = work.unfinished = done
            try:
                done = await source.dispatch.one_by_one(records, done, work)
            except BaseException:
                done = work.unfinished  # stopped inside a message: everything before it has finished
                self._give_up_message()
                raise
            finally:
                counters.handled += done - begun
                if done:
                    source.position = records[done - 1].offset + 1
            if work.has_to_stop():
                break
            await self._turn()
        if done < len(records):
            source.give_back(records[done:])
        self._wiring.room()

    async def _handle_bulk(self, source: Source) -> None:
        records = source.take_bulk(self._options.bulk_mode_max_records)
        try:
            taken = await source.dispatch.in_bulk(records, self._work)
        except BaseException:
            self._give_up_message()
            raise
        source.position = records[taken - 1].offset + 1
        self._wiring.counters.handled += taken
        if taken < len(records):
            source.give_back(records[taken:])
        self._wiring.room()
        await self._turn()

    def _give_up_message(self) -> None:
        self._work.abandon()
        self._gave_up_message = True

    async def _turn(self) -> None:
        """Let the loop, and the other tasks, have their turn."""
        if self._outbox.bytes >= FLUSH_BYTES:
            await self._flush()
        await asyncio.sleep(0)

    async def _rest(self) -> None:
        """Nothing to handle: send what waits, and sleep until something changes or is due."""
        if self._outbox.bytes:
            await self._flush()
        deadlines = [self.sources.bulk_deadline()]
        if self._checkpoint is None and self._dirty:
            deadlines.append(self._checkpoint_at)
            self._wiring.moved()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min((at for at in deadlines if at is not None), default=None)):
                await self._wake.wait()

    async def _flush(self) -> None:
        """Hand all sends to the producer. A cancelled task leaves a flush alone: half a flush would lose the rest."""
        while self._flushing is not None or self._outbox.bytes:
            if self._flushing is None:
                self._flushing = self._loop.create_task(self._outbox.flush(), name=f"flush {self.name}")
            await asyncio.wait([self._flushing])
            flushed, self._flushing = self._flushing, None
            try:
                flushed.result()
            except BrokerError as error:
                raise _BackToDurable(error) from error

    # Checkpoints.

    @property
    def _dirty(self) -> bool:
        """Whether anything has finished since the last checkpoint was committed."""
        return any(source.position != source.committed for source in self.sources) or any(
            held.partition.layer for held in self.tables.values()
        )

    def _checkpoint_due(self) -> bool:
        options = self._options
        return (
            self._checkpoint_wanted
            or self._loop.time() >= self._checkpoint_at
            or any(
                len(held.partition.layer) >= options.max_overlay_keys
                or held.partition.layer_bytes >= options.max_overlay_bytes
                for held in self.tables.values()
            )
        )

    async def _tend_checkpoint(self) -> None:
        """Collect the checkpoint that has ended; begin one that is due, after the one that is under way."""
        if self._checkpoint is not None and self._checkpoint.done():
            await self._finish_checkpoint()
        if self._checkpoint_due():
            await self._finish_checkpoint()
            await self._begin_checkpoint()

    async def _checkpoint_the_rest(self) -> None:
        """Everything that has finished becomes durable."""
        await self._finish_checkpoint()
        for _ in range(self._options.checkpoint_attempts):
            await self._begin_checkpoint()
            await self._finish_checkpoint()
            if not self._dirty:  # only the commit can have failed
                return

    async def _begin_checkpoint(self) -> None:
        self._checkpoint_wanted = False
        self._checkpoint_at = self._loop.time() + self._options.commit_interval_sec
        if not self._dirty:
            return
        await self._flush()
        checkpoint = Checkpoint(
            list(self.tables.values()),
            self.sources.uncommitted(),
            self._outbox.take_acks(),
            self._wiring.consumer,
            self._wiring.producer,
            self._wiring.clock,
            self.generation,
        )
        self._checkpoint = self._loop.create_task(self._run_checkpoint(checkpoint), name=f"checkpoint {self.name}")
        self._checkpoint.add_done_callback(lambda _: self._wake.set())

    async def _run_checkpoint(self, checkpoint: Checkpoint) -> None:
        try:
            await checkpoint.run()
        except NotOwner:
            raise
        except BrokerError as error:
            raise _BackToDurable(error) from error
        if checkpoint.commit_error is None:
            self.sources.commit(checkpoint.positions)
            self._failed_commits = 0
        else:
            self._tolerate(checkpoint.commit_error)
        self._failures = 0
        self._wiring.counters.checkpoints += 1
        _log.debug(
            "checkpoint",
            task=self.name,
            changed_keys=checkpoint.changed_keys,
            positions={str(partition): position for partition, position in checkpoint.positions.items()},
        )
        self._wiring.moved()

    async def _finish_checkpoint(self) -> None:
        checkpoint = self._checkpoint
        if checkpoint is not None:
            await asyncio.wait([checkpoint])  # a cancelled task leaves its checkpoint alone
            self._checkpoint = None
            checkpoint.result()

    def _tolerate(self, error: BrokerError) -> None:
        """What was to be committed is durable, and the next checkpoint commits it, if it can."""
        self._failed_commits += 1
        _log.warning("commit failed", task=self.name, attempt=self._failed_commits, error=str(error))
        if self._failed_commits >= self._options.checkpoint_attempts:
            raise CheckpointError(
                f"The commit of task {self.name} failed {self._failed_commits} times in a row (checkpoint_attempts);"
                f" the last time: {error}"
            ) from error

    def _give_up_after_too_many(self, failure: "_BackToDurable") -> None:
        self._wiring.counters.checkpoint_failures += 1
        self._failures += 1
        if self._failures >= self._options.checkpoint_attempts:
            raise CheckpointError(
                f"Task {self.name} failed {self._failures} times in a row (checkpoint_attempts) to make its work"
                f" durable, or to go back to what is; the last time: {failure.error}"
            ) from failure.error
        _log.warning("back to what is durable", task=self.name, attempt=self._failures, error=str(failure.error))

    async def _discard(self) -> None:
        """Drop everything that is not durable: writes, sends, records fetched ahead."""
        for under_way in (self._flushing, self._checkpoint):
            if under_way is not None:
                under_way.cancel()
                await asyncio.wait([under_way])
                if not under_way.cancelled():
                    under_way.exception()
        self._flushing = self._checkpoint = None
        self._work.abandon()
        for held in self.tables.values():
            held.partition.discard()
        self._outbox.discard()
        for source in self.sources:
            source.start_at(source.committed)


class _BackToDurable(Exception):
    """A flush, a checkpoint or a restore failed: the task must go back to what is durable."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
