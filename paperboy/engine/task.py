"""A task: partition number p of a topic group, with its stores, its position and its uncommitted work."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from paperboy.brokers.protocol import Consumer, Headers, Producer, Record, TopicPartition
from paperboy.clock import Clock
from paperboy.engine.checkpoint import Checkpoint
from paperboy.engine.modes import Mode, next_mode
from paperboy.engine.options import Options
from paperboy.engine.outbox import FLUSH_BYTES, Outbox, Send, Topics, check_bytes, check_sendable
from paperboy.engine.source import Source
from paperboy.engine.topology import TaskId
from paperboy.errors import BrokerError, CheckpointError, NotOwner
from paperboy.handlers.dispatch import TURN_SEC, Dispatch
from paperboy.log import get_logger
from paperboy.tables.partition import TablePartition, Undo, roll_back
from paperboy.tables.unit import message_of_call, unit_of_call

_log = get_logger("paperboy.task")


@dataclass(slots=True)
class HeldTable:
    """A table's partition in this task, and the changelog partition behind it."""

    partition: TablePartition
    changelog: TopicPartition


@dataclass(slots=True)
class Counters:
    """What became of the records of an engine, since its start."""

    handled: int = 0
    """Records that have finished, those passed over included."""
    passed_over: int = 0
    """Records given up by the user's choice after they failed."""
    checkpoints: int = 0
    checkpoint_failures: int = 0
    restored: int = 0
    """Changelog records read by restores."""
    lost: int = 0
    """Input records that retention deleted before they were handled."""


@dataclass(slots=True)
class Wiring:
    """What an engine's tasks share."""

    options: Options
    consumer: Consumer
    producer: Producer
    topics: Topics
    clock: Clock
    counters: Counters = field(default_factory=Counters)
    in_step: Callable[[], bool] = lambda: False
    on_progress: Callable[[], None] = lambda: None
    """Called when a task has room again, or has committed."""


class Task:
    """Handles the records of its input partitions, one after another, and checkpoints what they caused.

    One coroutine, `run`, does all handling; checkpoints run beside it, one at a time. Nothing is shared with other tasks.

    Args:
        dispatches: for each of the task's topics, its handler's.
        reopen: brings tables and positions back to what is durable: restores the stores, seeks to what is committed.
    """

    def __init__(
        self,
        task_id: TaskId,
        dispatches: dict[str, Dispatch],
        tables: dict[str, HeldTable],
        undo: Undo,
        generation: int,
        wiring: Wiring,
        reopen: Callable[["Task"], Awaitable[None]],
    ) -> None:
        self.id = task_id
        self.name = str(task_id)
        self.generation = generation
        self.mode = Mode.SINGLE
        self.ready = False
        """Its tables are restored, and its partitions are being fetched."""
        self.lost = False
        """Another worker owns it: what is not durable is void."""
        self.message: object | None = None
        self.turn_ends = 0.0
        self.unfinished = 0
        self.tables = {name: held.partition for name, held in tables.items()}
        self.enter: Callable[[object], object] | None = message_of_call.set if tables else None
        self.undo = undo
        self.pending: list[Send] = []
        self.sources = {
            source.partition: source
            for source in (
                Source(TopicPartition(topic, task_id.partition), dispatches[topic]) for topic in sorted(dispatches)
            )
        }
        self.held_tables = list(tables.values())
        self._wiring = wiring
        self._options = wiring.options
        self._outbox = Outbox(wiring.producer, wiring.topics, wiring.clock, wiring.options.max_unacked_bytes)
        self._reopen = reopen
        self._wake = asyncio.Event()
        self._draining = False
        self._checkpoint: asyncio.Task[None] | None = None
        self._checkpoint_wanted = False
        self._checkpoint_at = 0.0
        self._failed_checkpoints = 0
        self._loop = asyncio.get_running_loop()

    # What the engine asks and tells.

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
        self.turn_ends = 0.0
        self._wake.set()

    def lag(self) -> int | None:
        """Records not handled yet; None where the end of a partition is not known."""
        lags = [source.lag() for source in self.sources.values()]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    @property
    def dirty(self) -> bool:
        """Whether anything has finished since the last committed checkpoint."""
        return any(source.position != source.committed for source in self.sources.values()) or any(
            partition.layer for partition in self.tables.values()
        )

    # The one coroutine.

    async def run(self) -> None:
        """Until `stop_taking`, or until the task is lost.

        Raises:
            Exception: what a handler raised; what had finished before it is checkpointed.
            CheckpointError: checkpoints went on failing.
        """
        unit_of_call.set(self)
        while True:
            try:
                await self._reopen(self)
                self.ready = True
                self._wiring.on_progress()
                self._checkpoint_at = self._loop.time() + self._options.commit_interval_sec
                try:
                    await self._work()
                except (NotOwner, _CheckpointFailed):
                    raise
                except BaseException:
                    await self._settle_checkpoints(final=True)
                    raise
                await self._settle_checkpoints(final=True)
                return
            except NotOwner as error:
                self.lost = True
                self.discard()
                _log.warning("task lost", task=self.name, reason=str(error))
                return
            except _CheckpointFailed as failure:
                self._wiring.counters.checkpoint_failures += 1
                self._failed_checkpoints += 1
                self.ready = False
                self.discard()
                if self._failed_checkpoints >= self._options.checkpoint_attempts:
                    raise CheckpointError(
                        f"The checkpoint of task {self.name} failed {self._failed_checkpoints} times in a row"
                        f" (checkpoint_attempts); the last time: {failure.error}"
                    ) from failure.error
                _log.warning(
                    "checkpoint failed", task=self.name, attempt=self._failed_checkpoints, error=str(failure.error)
                )

    def discard(self) -> None:
        """Drop everything that is not durable: layers, outbox, records fetched ahead."""
        if self._checkpoint is not None:
            self._checkpoint.cancel()
            self._checkpoint = None
        roll_back(self.undo)
        self.pending.clear()
        self.message = None
        for partition in self.tables.values():
            partition.discard()
        self._outbox.discard()
        for source in self.sources.values():
            source.start_at(source.committed)

    async def _work(self) -> None:
        while not self._draining:
            self._wake.clear()
            for source in self.sources.values():
                source.skip_gaps()
            await self._tend_checkpoint()
            self._decide_mode()
            chosen = self._next_source()
            if chosen is None:
                await self._rest()
            elif self.mode is Mode.SINGLE:
                await self._handle_singly(chosen)
            else:
                await self._handle_bulk(chosen)

    async def _handle_singly(self, source: Source) -> None:
        records = source.take_chunk(self._next_head_timestamp(source))
        self.unfinished = done = 0
        try:
            while done < len(records):
                self.turn_ends = self._loop.time() + TURN_SEC
                done = await source.dispatch.one_by_one(records, done, self)
                source.position = records[done - 1].offset + 1
                if self._draining or self._checkpoint_due():
                    break
                await self._turn()
        except BaseException:
            # Stopped inside a message: everything before it has finished.
            done = max(done, self.unfinished)
            if done:
                source.position = records[done - 1].offset + 1
            self._abandon_message()
            raise
        finally:
            self._wiring.counters.handled += done
        if done < len(records):
            source.give_back(records[done:])
        self._wiring.on_progress()

    async def _handle_bulk(self, source: Source) -> None:
        records = source.take_bulk(self._options.bulk_mode_max_records)
        try:
            await source.dispatch.in_bulk(records, self, self._turn)
        except BaseException:
            self._abandon_message()
            raise
        source.position = records[-1].offset + 1
        self._wiring.counters.handled += len(records)
        self._wiring.on_progress()
        await self._turn()

    async def _turn(self) -> None:
        """Let the loop, and the other tasks, have their turn."""
        if self._outbox.bytes >= FLUSH_BYTES:
            await self._flush()
        await asyncio.sleep(0)

    async def _flush(self) -> None:
        try:
            await self._outbox.flush()
        except BrokerError as error:
            raise _CheckpointFailed(error) from error

    async def _rest(self) -> None:
        """Nothing to handle: send what waits, and sleep until something changes or is due."""
        if self._outbox.bytes:
            await self._flush()
        due = self._checkpoint_at if self.dirty and self._checkpoint is None else None
        deadlines = [
            source.bulk_deadline
            for source in self.sources.values()
            if source.bulk_deadline is not None and source.head_timestamp is not None
        ]
        if due is not None:
            deadlines.append(due)
        try:
            async with asyncio.timeout_at(min(deadlines) if deadlines else None):
                await self._wake.wait()
        except TimeoutError:
            pass

    # Which records are next.

    def _decide_mode(self) -> None:
        if self._wiring.in_step():
            mode = Mode.STEP
        elif not self._options.with_bulk_mode:
            mode = Mode.SINGLE
        else:
            threshold = self._options.bulk_mode_threshold
            mode = next_mode(self.mode, self.lag(), threshold=threshold, low_mark=threshold // 2)
        if mode is not self.mode:
            before, self.mode = self.mode, mode
            _log.info("mode changed", task=self.name, before=before.value, mode=mode.value, lag=self.lag())
            if self._options.on_mode_change is not None:
                self._options.on_mode_change(self.name, before, mode)

    def _next_source(self) -> Source | None:
        """Of the inputs that have something to hand over, the one whose first record is the oldest."""
        oldest, oldest_timestamp = None, 0
        for source in self.sources.values():
            timestamp = source.head_timestamp
            if timestamp is None or (self.mode is not Mode.SINGLE and not self._bulk_is_full(source)):
                continue
            if oldest is None or timestamp < oldest_timestamp:
                oldest, oldest_timestamp = source, timestamp
        return oldest

    def _next_head_timestamp(self, chosen: Source) -> int | None:
        """The oldest first record among the other inputs: beyond it, it is their turn."""
        others = [
            timestamp
            for source in self.sources.values()
            if source is not chosen and (timestamp := source.head_timestamp) is not None
        ]
        return min(others) if others else None

    def _bulk_is_full(self, source: Source) -> bool:
        """Enough records, nothing more to come, no room for more, or time is up."""
        if source.buffered >= self._options.bulk_mode_max_records or source.at_known_end or not self.has_room(source):
            return True
        now = self._loop.time()
        if source.bulk_deadline is None:
            source.bulk_deadline = now + self._options.bulk_mode_timeout_ms / 1000
        return now >= source.bulk_deadline

    def has_room(self, source: Source) -> bool:
        """Whether more may be fetched for this input."""
        return source.buffered_bytes < self.room_bytes

    room_bytes: int = 8 * 1024 * 1024
    """What each input may fetch ahead; set by the engine from ``max_buffer_bytes`` and the number of partitions."""

    # What a message does: see handlers.dispatch.Unit.

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> None:
        check_bytes(topic, key, value, headers)
        send = (topic, partition, key, value, tuple(headers), timestamp_ms)
        known = self._wiring.topics.get(topic)
        if known is not None:
            check_sendable(send, known, self._wiring.clock.time_ms())
        self.pending.append(send)

    def mark(self) -> tuple[int, int]:
        return len(self.undo), len(self.pending)

    def roll_back(self, mark: tuple[int, int]) -> None:
        roll_back(self.undo, mark[0])
        del self.pending[mark[1] :]

    async def settle(self) -> None:
        unknown = sorted({send[0] for send in self.pending if self._wiring.topics.get(send[0]) is None})
        if unknown:
            await self._wiring.topics.learn(unknown)
            now_ms = self._wiring.clock.time_ms()
            for send in self.pending:
                topic = self._wiring.topics.get(send[0])
                assert topic is not None
                check_sendable(send, topic, now_ms)

    def accept(self) -> None:
        self.undo.clear()
        if self.pending:
            for send in self.pending:
                self._outbox.put(send)
            self.pending.clear()

    def passed_over(self, error: Exception, count: int, record: Record) -> None:
        self._wiring.counters.passed_over += count
        _log.error(
            "passed over",
            task=self.name,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            records=count,
            error=repr(error),
            exc_info=error,
        )

    def _abandon_message(self) -> None:
        """The message in hand never happened."""
        self.roll_back((0, 0))
        self.message = None

    # Checkpoints.

    def _checkpoint_due(self) -> bool:
        if self._checkpoint_wanted or self._loop.time() >= self._checkpoint_at:
            return True
        partitions = self.tables.values()
        return any(
            len(partition.layer) >= self._options.max_overlay_keys
            or partition.layer_bytes >= self._options.max_overlay_bytes
            for partition in partitions
        )

    async def _tend_checkpoint(self) -> None:
        """Collect the checkpoint that has ended, wait for one that is in the way, begin one that is due."""
        if self._checkpoint is not None and self._checkpoint.done():
            await self._finish_checkpoint()
        if not self._checkpoint_due():
            return
        if self._checkpoint is not None:
            await self._finish_checkpoint()
        await self._begin_checkpoint()

    async def _begin_checkpoint(self) -> None:
        self._checkpoint_wanted = False
        self._checkpoint_at = self._loop.time() + self._options.commit_interval_sec
        if not self.dirty:
            return
        await self._flush()
        positions = {
            partition: source.position
            for partition, source in self.sources.items()
            if source.position != source.committed
        }
        checkpoint = Checkpoint(
            self.held_tables,
            positions,
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
            raise _CheckpointFailed(error) from error
        if checkpoint.committed:
            for partition, position in checkpoint.positions.items():
                self.sources[partition].committed = position
        self._failed_checkpoints = 0
        self._wiring.counters.checkpoints += 1
        _log.debug(
            "checkpoint",
            task=self.name,
            changed_keys=checkpoint.changed_keys,
            committed=checkpoint.committed,
            positions={str(partition): position for partition, position in checkpoint.positions.items()},
        )
        self._wiring.on_progress()

    async def _finish_checkpoint(self) -> None:
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            await checkpoint

    async def _settle_checkpoints(self, *, final: bool) -> None:
        """Everything that has finished becomes durable."""
        await self._finish_checkpoint()
        if final and self.dirty:
            await self._begin_checkpoint()
            await self._finish_checkpoint()


class _CheckpointFailed(Exception):
    """A checkpoint (or a flush before one) failed: the task must go back to what is durable."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
