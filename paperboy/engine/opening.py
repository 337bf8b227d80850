"""Before a task begins, and after it has failed: its tables, and where its input goes on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from paperboy.brokers.protocol import RESETTING, TopicPartition, TransactionalProducer
from paperboy.engine.changelogs import Changelog
from paperboy.engine.globals import Follower
from paperboy.engine.reclaim import reclaim
from paperboy.engine.restore import restore
from paperboy.engine.stores import TaskTable
from paperboy.engine.task import Task
from paperboy.engine.transaction import fence
from paperboy.engine.wiring import Wiring
from paperboy.errors import BrokerError, ConfigurationError, OffsetOutOfRange, StoreError
from paperboy.handlers.dispatch import Dispatch
from paperboy.log import get_logger

_log = get_logger("paperboy.membership")

_RESTORES_AT_ONCE = 4
_MARKED_SEC = 10.0
"""How long a commit may take to show."""
_MARKED_LOOK_SEC = 0.02


class Opening:
    """Brings tasks to what is durable.

    Args:
        dispatches: by topic.
        followers: of the global tables, which every task waits for.
        changelog: a table's, by its name, as it is now.
        follow_changelogs: looks whether changelogs were made anew while a task was at work.
    """

    def __init__(
        self,
        wiring: Wiring,
        dispatches: Mapping[str, Dispatch],
        followers: Sequence[Follower],
        changelog: Callable[[str], Changelog],
        follow_changelogs: Callable[[Task], Awaitable[None]],
    ) -> None:
        self._wiring = wiring
        self._broker = wiring.broker
        self._options = wiring.options
        self._dispatches = dispatches
        self._followers = followers
        self._changelog = changelog
        self._follow_changelogs = follow_changelogs
        self._restoring = asyncio.Semaphore(_RESTORES_AT_ONCE)

    async def open(self, task: Task) -> None:
        """Bring the task's tables to what is durable, find where its input goes on, and begin fetching there."""
        async with self._restoring:
            transaction = task.transaction
            committed_by = set() if transaction is None else await self._fence(task, transaction)
            await self._open_tables(task)
        for follower in self._followers:
            await follower.complete.wait()
        partitions = task.sources.partitions
        committed = await self._broker.committed(self._options.group_id, partitions)
        begins = await self._broker.beginning_offsets(partitions)
        ends = await self._broker.end_offsets(partitions)
        starts = {}
        for partition in partitions:
            starts[partition] = self._start(partition, committed[partition], begins[partition], ends[partition])
            task.sources[partition].end_offset = ends[partition]
        fresh = {partition: start for partition, start in starts.items() if start != committed[partition]}
        # So that a later start of this group does not begin somewhere else; in a transaction, so that whoever takes
        # these partitions over knows whom to fence.
        if transaction is not None and (fresh or committed_by != {transaction.transactional_id}):
            await transaction.commit(self._options.group_id, starts)
            await self._until_marked(task, transaction.transactional_id)
        elif fresh:
            await self._wiring.consumer.commit(fresh, task.generation)
        positions = {}
        for partition, start in starts.items():
            source = task.sources[partition]
            # In step, the stores stand for what was durable, though its commit may have failed.
            is_durable = task.in_step and start <= source.durable <= ends[partition]
            positions[partition] = source.durable if is_durable else start
            source.start_at(positions[partition], committed=start)
        self._wiring.consumer.release(positions, task.generation)

    async def _fence(self, task: Task, transaction: TransactionalProducer) -> set[str | None]:
        """Before anything is read: end the transactions of whoever had the task's partitions, under whatever id.
        Returns which ids these were."""
        # Whoever has lost the task must not fence the one that has it now.
        await self._wiring.consumer.confirm(task.generation)
        fenced: set[str] = {transaction.transactional_id}
        await transaction.start()
        while True:
            committed_by = await self._committed_by(task)
            others = {*task.transactional_ids, *(by for by in committed_by if by is not None)} - fenced
            if not others:
                return committed_by
            for other in sorted(others):
                await fence(self._broker, other, self._options.transaction_timeout_sec)
            fenced |= others

    async def _until_marked(self, task: Task, transactional_id: str) -> None:
        """A commit shows a moment later. Whoever took a partition over before that would not know whom to fence.

        Raises:
            BrokerError: it does not show.
        """
        try:
            async with asyncio.timeout(_MARKED_SEC):
                while await self._committed_by(task) != {transactional_id}:  # noqa: ASYNC110 - the broker tells nobody
                    await asyncio.sleep(_MARKED_LOOK_SEC)
        except TimeoutError:
            raise BrokerError(
                f"The offsets of task {task.name} are not those that {transactional_id!r} has committed, after"
                f" {_MARKED_SEC:g} s: they are read again."
            ) from None

    async def _committed_by(self, task: Task) -> set[str | None]:
        found = await self._broker.committed_by(self._options.group_id, task.sources.partitions)
        return set(found.values())

    async def _open_tables(self, task: Task) -> None:
        tables = list(task.tables.values())
        if task.in_step:
            try:
                for table in tables:
                    await self._reclaim(table, task.generation)
                return
            except OffsetOutOfRange:  # the changelog was cut under our feet, or made anew
                task.in_step = False
        if task.failure is not None:
            await self._follow_changelogs(task)
        for table in tables:
            held = table.held
            await held.belong_to(self._changelog(table.partition.table).topic_id)
            table.partition.store = await (held.reopen() if isinstance(task.failure, StoreError) else held.open())
        if tables:
            await restore(tables, self._broker, task.restoring)
            self._tell_restored(task)

    def _tell_restored(self, task: Task) -> None:
        restored = task.restoring.so_far()
        self._wiring.counters.restored += restored.records
        _log.info("restored", task=task.name, records=restored.records, seconds=round(restored.elapsed_sec, 3))
        if self._options.on_restore is not None:
            self._options.on_restore(task.name, restored)

    async def _reclaim(self, table: TaskTable, generation: int) -> None:
        """A checkpoint that failed may have reached the log all the same: the table never held it."""
        wiring = self._wiring
        offset = await reclaim(table, {}, wiring.broker, wiring.consumer, wiring.producer, generation)
        store = table.partition.store
        if offset != store.changelog_offset:
            store.write({}, offset, wiring.broker.clock.time_ms())

    def _start(self, partition: TopicPartition, committed: int | None, begin: int, end: int) -> int:
        if committed is None:
            # What waits in a retry topic was put there by this group: it is not new to it.
            is_retry = self._dispatches[partition.topic].retries_of is not None
            return begin if is_retry or self._options.auto_offset_reset == "earliest" else end
        if committed == RESETTING:
            raise ConfigurationError(
                f"Group {self._options.group_id!r} is in the middle of a reset: run 'paperboy reset' again to end it."
            )
        if begin <= committed <= end:
            return committed
        return self._out_of_range(partition, committed, begin, end)

    def _out_of_range(self, partition: TopicPartition, offset: int, begin: int, end: int) -> int:
        if self._options.offset_out_of_range == "stop":
            raise OffsetOutOfRange(
                f"Group {self._options.group_id!r} stands at offset {offset} of {partition}, but the log holds"
                f" {begin} to {end}: records were deleted before they were handled, or the topic was made anew."
                f" To go on at {begin}, set offset_out_of_range='continue', or reset the group's offsets.",
                partition.topic,
                partition.partition,
                offset,
            )
        lost = max(0, begin - offset)
        self._wiring.counters.lost += lost
        _log.error("records lost", partition=str(partition), at_offset=offset, continuing_at=begin, lost=lost)
        return begin
