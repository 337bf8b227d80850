"""This worker's part in its group: the tasks it was given, opened, fed and given back."""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence

from paperboy.brokers.protocol import Assignment, Record, TopicPartition
from paperboy.engine.assignment import Recency, TaskAssignor
from paperboy.engine.changelogs import Changelog, made_anew
from paperboy.engine.globals import Follower
from paperboy.engine.opening import Opening
from paperboy.engine.restoring import Restoring
from paperboy.engine.steps import Steps
from paperboy.engine.stores import Stores, TaskTable, recency, store_identity
from paperboy.engine.task import Task
from paperboy.engine.topology import TaskId, TopicGroup
from paperboy.engine.wiring import Wiring
from paperboy.errors import BrokerError, ConfigurationError, OffsetOutOfRange, PaperboyError
from paperboy.handlers.dispatch import Dispatch
from paperboy.log import get_logger
from paperboy.tables.partition import TablePartition, Undo
from paperboy.tables.table import Table

_log = get_logger("paperboy.membership")

_FETCH_TIMEOUT_SEC = 1.0
"""How long nothing may come before it is looked what has gone wrong in the background."""
_STALE_SEC = 5.0
"""An end offset that was heard longer ago is asked for again."""
_BACKOFF_SEC = 0.1
"""How long fetching waits after a failure; twice as long after each further one."""
_FORGOTTEN_SEC = 30.0
"""Failed fetches this far apart have nothing to do with each other. That one between them has brought something tells
nothing: it may be a single partition that cannot be read."""
LAST_CHECKPOINT_SEC = 10.0
"""How long a task may take, beyond ``drain_timeout_sec``, to checkpoint what has finished; and then to give that up."""
_TURNS_SEC = 0.04
"""How long all tasks together may keep the event loop from everything else."""
_TURN_SEC = 0.02
"""How long one task may."""


class Membership:
    """Listens to the group, keeps a running `Task` for each one it was given, and fetches for those with room.

    Args:
        groups: the topic groups, with each topic's dispatch and each table's changelog.
        changelogs: by table name, the changelog topic and the largest record it takes.
        followers: of the global tables, which every task waits for.
        fail: told about an error that must stop the engine.
        spawn: starts a coroutine that the engine owns.
    """

    def __init__(
        self,
        wiring: Wiring,
        stores: Stores,
        groups: Sequence[TopicGroup],
        dispatches: Mapping[str, Dispatch],
        changelogs: Mapping[str, Changelog],
        followers: Sequence[Follower],
        steps: Steps,
        assignor: TaskAssignor,
        fail: Callable[[BaseException], None],
        spawn: Callable[..., "asyncio.Task[None]"],
    ) -> None:
        self.tasks: dict[TaskId, Task] = {}
        self.assigned = asyncio.Event()
        """Set while this worker has an assignment."""
        self._broker = wiring.broker
        self._wiring = wiring
        self._stores = stores
        self._options = wiring.options
        self._groups = groups
        self._dispatches = dispatches
        self._changelogs = dict(changelogs)
        self._followers = followers
        self._steps = steps
        self._assignor = assignor
        self._fail = fail
        self._spawn = spawn
        self._runners: dict[TaskId, asyncio.Task[None]] = {}
        self._opening = Opening(wiring, dispatches, followers, self._changelogs.__getitem__, self._follow_changelogs)
        self._room = asyncio.Event()
        self._fetching: set[TopicPartition] = set()
        """The partitions of the fetch that is under way."""
        self._crowded: list[Task] = []
        """The tasks of which it leaves out a partition."""
        self._fetch_failures = 0
        """Of late."""
        self._fetch_failed_at = -math.inf
        self._stopping = False
        assignor.recency = self._recency

    # What the group tells.

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Drain, checkpoint, release: when this returns, nothing of this worker's is running on these partitions."""
        self.assigned.clear()
        _log.info("revoked", partitions=len(partitions))
        await self.drain()
        self._stores.flush()
        self._assignor.revoked()

    def on_assigned(self, assignment: Assignment) -> None:
        try:
            self._take(assignment)
        except Exception as error:
            self._fail(error)  # whoever calls a listener may swallow what it raises

    def _take(self, assignment: Assignment) -> None:
        _log.info("assigned", generation=assignment.generation, partitions=len(assignment.partitions))
        self._assignor.held = list(assignment.partitions)
        if self._stopping:
            return
        given = set(assignment.partitions)
        tasks = [
            self._new_task(group, partition, assignment)
            for group in self._groups
            for partition in sorted({tp.partition for tp in assignment.partitions if tp.topic in group.topics})
        ]
        for task in tasks:
            missing = [each for each in task.sources.partitions if each not in given]
            if missing:
                raise ConfigurationError(
                    f"The group gave this worker only part of task {task.name}, without {missing[0]}: if topic"
                    f" {missing[0].topic!r} has no such partition, because others were given more, give it as many;"
                    f" else let all workers of group {self._options.group_id!r} run this engine, with the same topics."
                )
        self.tasks = {task.id: task for task in tasks}
        wanted = {(name, task.id.partition) for task in tasks for name in task.tables}
        self._stores.keep(wanted.union(*(follower.store_ids for follower in self._followers)))
        for task in tasks:
            self._apply_limits(task)
            self._runners[task.id] = self._spawn(self._run(task), name=f"task {task.name}")
        self.assigned.set()
        self._fetch_anew()

    # What the engine asks and tells.

    @property
    def is_ready(self) -> bool:
        """It has an assignment, and every task's tables are restored."""
        return self.assigned.is_set() and all(task.ready for task in self.tasks.values())

    def stop_taking(self) -> None:
        """Let no task begin another message, and take no new assignment."""
        self._stopping = True
        self._fetch_anew()
        for task in self.tasks.values():
            task.stop_taking()

    async def drain(self) -> None:
        """Let every task finish its message and checkpoint, for ``drain_timeout_sec`` at most.

        A message that takes longer is cancelled, and what had finished before it is checkpointed; a checkpoint that
        takes longer still is given up: what it would have made durable is handled again.
        """
        for task in self.tasks.values():
            task.stop_taking()
        for task_id in await self._still_running(self._options.drain_timeout_sec):
            if self.tasks[task_id].is_handling:
                _log.warning("handler cancelled", task=str(task_id))
                self._runners[task_id].cancel()
        for task_id in await self._still_running(LAST_CHECKPOINT_SEC):
            _log.warning("checkpoint given up", task=str(task_id))
            self._runners[task_id].cancel()
        for task_id in await self._still_running(LAST_CHECKPOINT_SEC):
            self._fail(
                PaperboyError(f"A hook of task {task_id} ignores its cancellation: it can neither end nor go on.")
            )
        self._runners.clear()
        self.tasks.clear()

    async def stop(self) -> None:
        """Drain, and take no new assignment."""
        self.stop_taking()
        await self.drain()

    def apply_limits(self) -> None:
        """The steps have moved: let the tasks know."""
        for task in self.tasks.values():
            self._apply_limits(task)
            task.wake()
        self._fetch_anew()

    def make_room(self) -> None:
        """A task has handled something."""
        if any(not self._fetching.issuperset(task.sources.wanted()) for task in self._crowded):
            self._fetch_anew()

    def restoring(self) -> dict[str, Restoring]:
        """What is being restored now, by the name of the task, or of the global table."""
        under_way = {task.name: task.restoring.so_far() for task in self.tasks.values() if not task.ready}
        for follower in self._followers:
            if (restoring := follower.restoring()) is not None:
                under_way[follower.table.name] = restoring
        return {name: restoring for name, restoring in under_way.items() if restoring.total_offsets}

    def partitions_of(self, table: str) -> list[tuple[int, TablePartition]]:
        """This worker's partitions of a table, with their numbers."""
        return [
            (task_id.partition, task.tables[table].partition)
            for task_id, task in sorted(self.tasks.items())
            if task.ready and table in task.tables
        ]

    async def fetch_for_ever(self) -> None:
        """Hand records to the tasks that have room, until stopped."""
        consumer = self._wiring.consumer
        while not self._stopping:
            self._room.clear()
            wanted = self._wanted()
            try:
                # Without a partition it hears what has gone wrong in the background.
                chunks = await consumer.fetch(wanted, _FETCH_TIMEOUT_SEC if wanted else 0)
            except OffsetOutOfRange as error:
                self._begin_again(error)
            except BrokerError as error:
                await self._fetch_again(error)
            else:
                if wanted:
                    self._feed(wanted, chunks)
                else:
                    await self._until_room()

    async def ask_for_ends(self) -> None:
        """Ask for the end offsets that fetches have not brought for a while."""
        stale = [
            (task, source)
            for task in self.tasks.values()
            for source in task.sources
            if (watermark := self._wiring.consumer.watermark(source.partition)) is None
            or watermark.age_sec > _STALE_SEC
        ]
        if not stale:
            return
        try:
            ends = await self._broker.end_offsets([source.partition for _, source in stale])
        except BrokerError as error:
            _log.warning("end offsets unknown", error=str(error))
            return
        for task, source in stale:
            source.end_offset = ends[source.partition]
            task.wake()

    async def look_at_changelogs(self) -> None:
        """Let tables begin again whose changelog was deleted and made anew: it holds nothing of what they do.

        Raises:
            ConfigurationError: one was made anew, and cannot be a changelog.
        """
        try:
            await self._follow_changelogs()
        except BrokerError as error:
            _log.warning("changelogs not looked at", error=str(error))

    async def _follow_changelogs(self, opening: Task | None = None) -> None:
        """As `look_at_changelogs`, for a task that is being opened, and will have its stores belong to them."""
        others = await made_anew(self._changelogs, self._broker)
        self._changelogs.update(others)
        for task in self.tasks.values():
            if task is not opening and not others.keys().isdisjoint(task.tables):
                task.go_back(BrokerError(f"Changelogs of task {task.name} were made anew while it was at work."))

    def _recency(self) -> Recency:
        return recency(self._groups, self._changelogs, self._stores.records(), self._broker.clock.time_ms())

    # One task.

    def _new_task(self, group: TopicGroup, partition: int, assignment: Assignment) -> Task:
        task_id = TaskId(group.name, partition)
        undo: Undo = []
        tables = {table.name: self._task_table(table, group, partition, undo) for table in group.tables}
        dispatches = {topic: self._dispatches[topic] for topic in group.topics}
        shares = len(assignment.partitions)
        return Task(
            task_id,
            dispatches,
            tables,
            undo,
            assignment.generation,
            room_bytes=self._options.max_buffer_bytes // shares,
            turn_sec=min(_TURN_SEC, _TURNS_SEC / shares),
            wiring=self._wiring,
            reopen=self._open,
        )

    def _task_table(self, table: Table, group: TopicGroup, partition: int, undo: Undo) -> TaskTable:
        changelog = self._changelogs[table.name]
        if partition >= changelog.partitions:
            raise ConfigurationError(
                f"Topics {', '.join(map(repr, group.topics))} have a partition {partition} now, but changelog"
                f" {changelog.topic!r} of table {table.name!r} has {changelog.partitions} partitions: stop all"
                " workers, and run 'paperboy reset' for this engine."
            )
        return TaskTable(
            TablePartition(table, partition, undo, changelog.max_record_bytes),
            TopicPartition(changelog.topic, partition),
            changelog.delete_retention_ms,
            self._stores.hold(table, store_identity(table, changelog, partition)),
        )

    async def _run(self, task: Task) -> None:
        try:
            await task.run()
        except Exception as error:
            self._fail(error)

    async def _open(self, task: Task) -> None:
        await self._opening.open(task)
        self._fetch_anew()

    def _begin_again(self, error: OffsetOutOfRange) -> None:
        """A position has fallen out of the log while it was being read."""
        partition = TopicPartition(error.topic, error.partition)
        for task in self.tasks.values():
            if partition in task.sources:
                task.go_back(error)

    async def _fetch_again(self, error: BrokerError) -> None:
        """After a while, from where the tasks stand: chunks of other partitions may have been lost with the error.

        Raises:
            BrokerError: fetches go on failing.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._fetch_failed_at >= _FORGOTTEN_SEC:
            self._fetch_failures = 0
        self._fetch_failures += 1
        self._fetch_failed_at = loop.time()
        if self._fetch_failures >= self._options.checkpoint_attempts:
            raise error
        _log.warning("fetch failed", attempt=self._fetch_failures, error=str(error))
        await asyncio.sleep(_BACKOFF_SEC * 2 ** (self._fetch_failures - 1))
        for task in self.tasks.values():
            if task.ready:
                self._wiring.consumer.seek({each.partition: each.fetched for each in task.sources}, task.generation)

    def _feed(self, wanted: Sequence[TopicPartition], chunks: Mapping[TopicPartition, list[Record]]) -> None:
        """Hand what was fetched to the tasks that have these partitions now.

        A rebalance may have come between: the chunk is then the new task's, if that is ready; if it is not, it will
        seek to where it begins, and what came too early comes again.
        """
        consumer = self._wiring.consumer
        tasks = {partition: task for task in self.tasks.values() if task.ready for partition in task.sources.partitions}
        for partition in wanted:
            task = tasks.get(partition)
            if task is None:
                continue
            source = task.sources[partition]
            watermark = consumer.watermark(partition)
            if watermark is not None:
                source.end_offset = watermark.end_offset
            records = chunks.get(partition)
            if records and records[0].offset >= source.fetched:
                task.put(partition, records)
            if source.advance(consumer.position(partition)):
                task.wake()

    async def _still_running(self, timeout_sec: float) -> list[TaskId]:
        """The tasks that have not ended within this time."""
        if self._runners:
            await asyncio.wait(self._runners.values(), timeout=timeout_sec)
        return [task_id for task_id, runner in self._runners.items() if not runner.done()]

    def _wanted(self) -> list[TopicPartition]:
        """The partitions to fetch now."""
        ready = [(task, task.sources.wanted()) for task in self.tasks.values() if task.ready]
        self._crowded = [task for task, wanted in ready if len(wanted) < len(task.sources.partitions)]
        partitions = [partition for _, wanted in ready for partition in wanted]
        self._fetching = set(partitions)
        return partitions

    def _fetch_anew(self) -> None:
        """Other partitions are wanted than those that are being fetched."""
        self._room.set()
        self._wiring.consumer.wake()

    async def _until_room(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_SEC):
                await self._room.wait()
        except TimeoutError:
            pass

    def _apply_limits(self, task: Task) -> None:
        for source in task.sources:
            source.limit = self._steps.limit(source.partition)
