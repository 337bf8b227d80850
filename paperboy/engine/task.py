"""A task: partition number p of a topic group, with its stores, its position and its uncommitted work."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from paperboy.brokers.protocol import Record, TopicPartition, TransactionalProducer
from paperboy.engine.checkpoints import BackToDurable, Checkpoints
from paperboy.engine.inputs import Inputs
from paperboy.engine.lanes import Lanes
from paperboy.engine.modes import Mode, next_mode
from paperboy.engine.outbox import Outbox
from paperboy.engine.restoring import RestoreProgress
from paperboy.engine.source import Source
from paperboy.engine.stores import TaskTable
from paperboy.engine.topology import TaskId, transactional_id
from paperboy.engine.wiring import Wiring
from paperboy.engine.work import Work
from paperboy.errors import BrokerError, NotOwner, OffsetOutOfRange, PaperboyError, StoreError
from paperboy.handlers.breaker import Breaker
from paperboy.handlers.bulk import in_bulk
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.single import one_by_one
from paperboy.log import get_logger
from paperboy.tables.partition import Undo

_log = get_logger("paperboy.task")

_BACKOFF_SEC = 0.1
"""How long a task waits after a failure; twice as long after each further one in a row."""

_SETTLE_SEC = 1.0
"""How long a checkpoint that is due waits for messages in flight, at most: what has finished above one that has not is
handled again after a crash."""
_SETTLE_SHARE = 0.1
"""The same, as a share of ``commit_interval_sec``."""


class Task:
    """Handles the records of its input partitions, one after another, and checkpoints what they caused.

    One coroutine, `run`, does all handling, but for handlers with ``concurrency``: it feeds their messages to `Lanes`,
    and everything else waits until those are empty. Checkpoints run beside it, one at a time. Tasks share nothing.

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
        tables: dict[str, TaskTable],
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
        self.restoring = RestoreProgress(asyncio.get_running_loop().time)
        self.in_step = False
        """Its stores were restored in this assignment: what they lack of their changelogs is not this task's."""
        self.failure: Exception | None = None
        """Why it is opened again; None when it is opened first."""
        self.tables = tables
        self.sources = Inputs(
            [Source(TopicPartition(topic, task_id.partition), dispatches[topic]) for topic in sorted(dispatches)],
            bulk_records=options.bulk_mode_max_records,
            bulk_timeout_sec=options.bulk_mode_timeout_ms / 1000,
            room_bytes=room_bytes,
        )
        self._wiring = wiring
        self._options = options
        ids = [transactional_id(options.group_id, source.partition) for source in self.sources]
        self.transactional_ids = ids
        """Those that may have been used for its partitions; the first is its own."""
        self.transaction: TransactionalProducer | None = None
        """What everything goes through where it is to be exactly once."""
        if options.is_exact:
            self.transaction = wiring.broker.transactional_producer(ids[0], options.transaction_timeout_sec)
        outbox = Outbox(
            self.transaction or wiring.producer, wiring.topics, wiring.broker.clock, options.max_unacked_bytes
        )
        self._wake = asyncio.Event()
        self._checkpoints = Checkpoints(
            self.name,
            tables,
            self.sources,
            outbox,
            generation,
            wiring,
            self._wake.set,
            lambda: self._lanes.has_gaps,
            self.transaction,
        )
        partitions = {name: table.partition for name, table in tables.items()}
        self._lanes = Lanes(self.name, partitions, outbox, wiring, self._wake.set, turn_sec, room_bytes)
        self._work = Work(
            self.name,
            partitions,
            undo,
            outbox,
            wiring.topics,
            wiring.broker.clock,
            wiring.counters,
            options.group_id,
            is_ending=lambda: self._draining,
            has_to_stop=lambda: self._draining or self._checkpoints.is_due,
            turn_sec=turn_sec,
        )
        self._reopen = reopen
        self._loop = asyncio.get_running_loop()
        self._draining = False
        self._opening: asyncio.Task[None] | None = None
        self._going_back: BrokerError | None = None
        self._gave_up_message = False
        self._one_by_one_to: dict[TopicPartition, int] = {}
        """Up to where messages are not handled beside each other, after that has left a gap in a transaction."""

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
        self._checkpoints.request()
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
        return self._work.message is not None or self._lanes.in_flight > 0

    @property
    def failures(self) -> int:
        """How many times in a row, by now, its work could not be made durable, or what is durable not be restored."""
        return 0 if self.ready and not self._checkpoints.dirty else self._checkpoints.failures

    # The one coroutine.

    async def run(self) -> None:
        """Until `stop_taking`, or until another worker owns the task.

        Cancelled while a message is in hand, it gives that up and checkpoints what has finished. Cancelled otherwise,
        or again, it gives up the checkpoint too.

        Raises:
            Exception: what a handler raised; what had finished before it is checkpointed.
            CheckpointError: checkpoints went on failing.
        """
        breakers = {source.dispatch.breaker for source in self.sources} - {None}
        unheard = [breaker.listen(self._on_probed) for breaker in breakers if breaker is not None]
        self._work.time_limit.watch(source.dispatch.handler_timeout_sec for source in self.sources)
        try:
            while True:
                try:
                    await self._open_and_handle()
                    return
                except NotOwner as error:
                    _log.warning("task lost", task=self.name, reason=str(error))
                    return
                except BackToDurable as failure:
                    self.failure = failure.error
                    # A transaction that failed may have been committed: then the changelog knows more than the store.
                    keeps_step = self.transaction is None and not isinstance(failure.error, StoreError)
                    self.in_step = self.in_step and keeps_step
                self.ready = False
                failures = self._checkpoints.failed(self.failure)
                self._wiring.topics.forget()  # one that did not take its records may be gone, or another by now
                await self._discard()
                if self._draining:
                    return
                await self._back_off(_BACKOFF_SEC * 2 ** (failures - 1))
        finally:
            for forget in unheard:
                forget()
            self.ready = False
            await self._discard()
            await self._checkpoints.close()

    def _on_probed(self) -> None:
        """A circuit breaker may let go on what it held."""
        self._lanes.call_all()
        self._wake.set()

    async def _open_and_handle(self) -> None:
        if not await self._open():
            return
        self._wiring.moved()
        self._checkpoints.wait_an_interval()
        try:
            while not self._draining:
                await self._handle_next()
            await self._empty_lanes()
        except (NotOwner, BackToDurable):
            raise
        except StoreError as error:  # out of a hook: the message is not to blame
            raise BackToDurable(error) from error
        except asyncio.CancelledError:
            if self._lanes.in_flight:
                self._gave_up_message = True
                await self._lanes.end()
            if self._gave_up_message:  # else it is a flush or a checkpoint that takes too long
                await self._the_rest()
            raise
        except BaseException:
            await self._the_rest()
            raise
        await self._the_rest()

    async def _the_rest(self) -> None:
        """Everything that has finished becomes durable, unless that would be more than what its positions say."""
        if self.transaction is not None:
            await self._lanes.end()
        if self.transaction is None or not self._lanes.left_gaps:
            await self._checkpoints.the_rest()

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
        except (BrokerError, StoreError) as error:
            raise BackToDurable(error) from error
        return True

    async def _become_ready(self) -> None:
        await self._reopen(self)
        for source in self.sources:
            if (end := self._one_by_one_to.pop(source.partition, None)) is not None:
                source.isolated = (source.position, end)
        # In the same step as the seek in it: what a fetch brings to a task that is not ready is dropped.
        self.ready = self.in_step = True

    async def _handle_next(self) -> None:
        self._wake.clear()
        if self._going_back is not None:
            raise BackToDurable(self._going_back)
        if self._lanes.failure is not None:
            await self._raise_failure()
        for source in self.sources:
            if not self._lanes.has(source):
                source.skip_gaps()
        has_work = self._checkpoints.dirty or self._has_gaps
        if self._checkpoints.is_due and has_work and not self._lanes.is_empty:
            await self._settle()
        await self._checkpoints.tend()
        self._decide_mode()
        self.sources.hold(self._loop.time(), self._work.now_ms())
        chosen = self._next_source()
        if chosen is None:
            await self._rest()
        elif self._goes_to_lanes(chosen):
            await self._feed_lanes(chosen)
        elif self._lanes.is_empty:
            await self._handle(chosen)
        elif self._lanes.let_pass(chosen):
            with self._lanes.held():
                await self._handle(chosen)
        else:
            await self._make_way(chosen)

    async def _handle(self, source: Source) -> None:
        """Here, where one message is handled after another."""
        breaker = source.dispatch.breaker
        if breaker is not None and not breaker.is_closed:
            await self._probe(source, breaker)
        elif self._goes_singly(source):
            await self._handle_singly(source)
        else:
            await self._handle_bulk(source)

    def _next_source(self) -> Source | None:
        now = self._loop.time()
        if self.mode is not Mode.SINGLE:
            chosen = self.sources.next_source(Mode.SINGLE, now)
            if chosen is not None and self._goes_to_lanes(chosen):  # no bulk to wait for
                return chosen
        return self.sources.next_source(self.mode, now)

    def _goes_singly(self, source: Source) -> bool:
        return self.mode is Mode.SINGLE or not source.dispatch.takes_bulks or source.is_isolated

    def _decide_mode(self) -> None:
        threshold = self._options.bulk_mode_threshold
        if self._wiring.in_step():
            mode = Mode.STEP
        elif not self._options.with_bulk_mode:
            mode = Mode.SINGLE
        else:
            mode = next_mode(self.mode, self.sources.backlog(), threshold=threshold, low_mark=threshold // 2)
        if mode is not self.mode:
            before, self.mode = self.mode, mode
            _log.info("mode changed", task=self.name, before=before.value, mode=mode.value, lag=self.sources.lag())
            if self._options.on_mode_change is not None:
                self._options.on_mode_change(self.name, before, mode)

    async def _handle_singly(self, source: Source) -> None:
        records = source.take_chunk(self.sources.turn_of_another(source))
        await self._handle_chunk(source, records)

    async def _probe(self, source: Source, breaker: Breaker) -> None:
        """Handle one record, to see whether what the handler needs is back."""
        position, given_up = source.position, self._work.given_up
        breaker.probe()
        try:
            await self._handle_chunk(source, source.take_bulk(1))
        finally:
            breaker.probed(source.position > position and self._work.given_up == given_up)

    async def _handle_chunk(self, source: Source, records: list[Record]) -> None:
        work = self._work
        work.failing = source.failing_at(records[0])
        counters = self._wiring.counters
        work.time_limit.sec = source.dispatch.handler_timeout_sec
        done = 0
        while done < len(records):
            work.turn_ends = self._loop.time() + self._work.turn_sec
            begun = work.unfinished = done
            try:
                done = await one_by_one(source.dispatch, records, done, work)
            except BaseException:
                done = work.unfinished  # stopped inside a message: everything before it has finished
                self._give_up_message()
                raise
            finally:
                counters.handled += done - begun
                if done:
                    source.position = records[done - 1].offset + 1
            failed = self._failed_at(source, records, done)
            await self._turn()
            if failed or work.has_to_stop() or source.is_paused:
                break
        if done < len(records):
            source.give_back(records[done:])
        self._wiring.room()

    def _failed_at(self, source: Source, records: list[Record], done: int) -> bool:
        """Whether the first record that is not done has failed, and is to be handled again."""
        failing = self._work.failing
        if failing is None or done == len(records) or failing.offset != records[done].offset:
            source.failing = None
            return False
        source.fails(failing)
        self._work.waits(failing)
        return True

    async def _handle_bulk(self, source: Source) -> None:
        records = source.take_bulk(self._options.bulk_mode_max_records)
        self._work.time_limit.sec = source.dispatch.handler_timeout_sec
        self._work.begin_bulk(source.failing_at(records[0]))
        try:
            taken = await in_bulk(source.dispatch, records, self._work)
        except BaseException:
            self._give_up_message()
            raise
        if taken:
            source.position = records[taken - 1].offset + 1
        self._wiring.counters.handled += taken
        self._failed_at(source, records, taken)
        if self._work.isolated is not None:
            source.isolated = self._work.isolated
            _log.warning(
                "bulk is handled one by one",
                task=self.name,
                topic=source.partition.topic,
                offsets=f"{source.isolated[0]} to {source.isolated[1] - 1}",
            )
        if taken < len(records):
            source.give_back(records[taken:])
        self._wiring.room()
        await self._turn()

    # Messages that are handled at the same time.

    def _goes_to_lanes(self, source: Source) -> bool:
        if self.transaction is not None and source.is_isolated:
            return False
        return source.dispatch.concurrency > 1 and self._goes_singly(source)

    async def _feed_lanes(self, source: Source) -> None:
        if self._lanes.feed(source, self.sources.turn_of_another(source)):
            self._wiring.room()
            await self._turn()
        else:
            await self._checkpoints.flush_if_full()
            await self._sleep()

    async def _make_way(self, source: Source) -> None:
        """Its turn comes when the lanes are empty or let it pass. In bulk mode, what they have not begun is its own."""
        if self._lanes.has(source):
            self._lanes.cut()
        if not self._lanes.is_empty:
            await self._rest()

    async def _settle(self) -> None:
        """Before a checkpoint: begin nothing new, and let what is in flight finish, if that does not take long."""
        self._lanes.cut()
        longest_sec = min(_SETTLE_SEC, _SETTLE_SHARE * self._options.commit_interval_sec)
        if self.transaction is not None:
            longest_sec = self._options.transaction_timeout_sec / 2
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_sec):
                await self._lanes.quiet()
        if self._has_gaps:
            self._one_by_one_to = self._lanes.begun_to()
            raise BackToDurable(
                PaperboyError(
                    f"Messages of {self.name} have finished behind one that has not, and a transaction holds no gaps:"
                    " they are handled again, one by one."
                )
            )

    @property
    def _has_gaps(self) -> bool:
        """Whether what has finished cannot be committed as it is: the transaction it is in must be given up."""
        return self.transaction is not None and self._lanes.has_gaps

    async def _empty_lanes(self) -> None:
        """The task is to stop: what has begun finishes, unless that takes so long that we are cancelled."""
        self._lanes.cut()
        await self._lanes.quiet()
        if self._lanes.failure is not None:
            await self._raise_failure()

    async def _raise_failure(self) -> None:
        """A message has failed for good. Those in flight beside it may finish, for as long as a drain lasts."""
        failure = self._lanes.failure
        assert failure is not None
        try:
            async with asyncio.timeout(self._options.drain_timeout_sec):
                await self._lanes.quiet()
        except TimeoutError:
            pass
        except asyncio.CancelledError:  # nobody will hear of the failure
            _log.error("message failed", task=self.name, error=repr(failure), exc_info=failure)
            raise
        if self._lanes.in_flight:
            _log.warning("handler cancelled", task=self.name)
        await self._lanes.end()
        raise failure

    def _give_up_message(self) -> None:
        self._work.abandon()
        self._gave_up_message = True

    async def _turn(self) -> None:
        """Let the loop, and the other tasks, have their turn."""
        await self._checkpoints.flush_if_full()
        await asyncio.sleep(0)

    async def _rest(self) -> None:
        """Nothing to handle: send what waits, and sleep until something changes or is due."""
        await self._checkpoints.flush()
        await self._sleep()

    async def _sleep(self) -> None:
        deadlines = [self.sources.bulk_deadline(), self.sources.held_until()]
        if not self._checkpoints.is_running and (self._checkpoints.dirty or self._has_gaps):
            deadlines.append(self._checkpoints.due_at)
            self._wiring.moved()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min((at for at in deadlines if at is not None), default=None)):
                await self._wake.wait()

    async def _discard(self) -> None:
        """Drop everything that is not durable: writes, sends, records fetched ahead."""
        await self._lanes.end()
        self._lanes.left_gaps = False
        await self._checkpoints.discard()
        self._work.abandon()
        for table in self.tables.values():
            table.partition.discard()
        for source in self.sources:
            source.start_at(source.durable, source.committed)
