"""The engine: it owns the lifecycle and wires the parts."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from paperboy.brokers import open_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import (
    Broker,
    GivenHeaders,
    MembershipOptions,
    Producer,
    TopicPartition,
    TopicSpec,
)
from paperboy.engine.assignment import TaskAssignor
from paperboy.engine.disk import Disk, LocalDisk
from paperboy.engine.globals import Follower
from paperboy.engine.health import Health, health_of
from paperboy.engine.membership import LAST_CHECKPOINT_SEC, Membership
from paperboy.engine.modes import Mode
from paperboy.engine.options import Options
from paperboy.engine.outbox import Topics, check_bytes, check_sendable, checked_headers
from paperboy.engine.preparation import Prepared, prepare
from paperboy.engine.progress import Progress
from paperboy.engine.registration import dispatches_of, topics_of_steps
from paperboy.engine.restoring import SHOW_SEC, RestoreDisplay
from paperboy.engine.signals import stopping_on_signals
from paperboy.engine.standstill import Standstill
from paperboy.engine.status import Counters, Status, TaskStatus
from paperboy.engine.steps import Steps
from paperboy.engine.stores import Stores
from paperboy.engine.task import Task
from paperboy.engine.watchdog import Watchdog, watched
from paperboy.engine.wiring import Wiring
from paperboy.errors import ConfigurationError, PaperboyError
from paperboy.handlers.handler import Handler
from paperboy.log import get_logger
from paperboy.serializers.outgoing import Serialize, to_bytes
from paperboy.serializers.protocol import SchemaNotFetched
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.table import Table
from paperboy.topic import Topic, addressed

_log = get_logger("paperboy.engine")

T = TypeVar("T")

_ENDS_SEC = 1.0
"""How often end offsets are looked at that fetches do not bring."""
_CHANGELOGS_SEC = 10.0
"""How often it is looked whether changelogs were made anew."""
_REBALANCE_MARGIN_SEC = 2 * LAST_CHECKPOINT_SEC + 5.0
"""What a rebalance may take beyond ``drain_timeout_sec``: the last checkpoints, and giving them up."""
_CLOSE_TIMEOUT_SEC = 10.0


class Engine:
    """Consumes its handlers' topics in a consumer group, until it is stopped.

        engine = Engine(PageViews, bootstrap_servers="localhost:9092", group_id="page-views")
        engine.register_table(clicks)
        asyncio.run(engine.start())

    `start` runs until `stop`, SIGINT or SIGTERM, and returns; ``async with engine:`` runs it in the background.

    Args:
        handlers: Handler or BulkHandler classes or instances; a topic has one.
        options: see `Options`: ``bootstrap_servers`` and ``group_id`` are needed, the rest has defaults.

    Raises:
        ConfigurationError: an option is unknown or out of range, a handler has no topic or one that another has.
    """

    def __init__(self, *handlers: Handler | type[Handler], **options: Any) -> None:
        self._options = Options.of(options)
        self._dispatches = dispatches_of(handlers, self._options)
        self._topics_of_steps = topics_of_steps(self._options.steps or (), handlers, self._dispatches)
        self._tables: dict[str, Table] = {}
        self._global_tables: dict[str, GlobalTable] = {}
        self._open_broker: Callable[[Options], Broker] = _open_broker
        self._disk: Disk = LocalDisk()
        self._forget_run()

    def _forget_run(self) -> None:
        """Be as before the first start. Engines under test are run again, and on another broker."""
        self._steps = Steps(self._topics_of_steps)
        self._counters = Counters()
        self._broker: Broker | None = None
        self._producer: Producer | None = None
        self._topics: Topics | None = None
        self._membership: Membership | None = None
        self._progress: Progress | None = None
        self._followers: list[Follower] = []
        self._standstill: Standstill | None = None
        self._watchdog: Watchdog | None = None
        self._background: asyncio.Task[None] | None = None
        self._started = False
        self._running = asyncio.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None

    def register_table(self, table: Table | GlobalTable) -> None:
        """Let handlers use `table`: restored from its changelog, or its topic, before they see a record.

        Raises:
            ConfigurationError: the engine has started, or has another table of this name.
        """
        if self._started:
            raise ConfigurationError(f"Table {table.name!r} was registered after the start: register it before.")
        if table.name in self._tables or table.name in self._global_tables:
            raise ConfigurationError(f"Two tables are called {table.name!r}: give each its own name.")
        if isinstance(table, GlobalTable):
            self._global_tables[table.name] = table
        else:
            self._tables[table.name] = table

    async def start(self) -> None:
        """Run until stopped. A clean stop returns; so does SIGINT or SIGTERM, after what is in hand has finished.

        Raises:
            ConfigurationError, BrokerError: it cannot start, and the sentence says why.
            Exception: what a handler raised, as it was, with a note that names topic, partition and offset.
        """
        with stopping_on_signals(self._stop_on_signal):
            await self._run()

    async def stop(self) -> None:
        """Finish the messages in hand, checkpoint, leave the group: `start` returns when it is done.

        The end of an ``async with`` block does the same.
        """
        self._begin_stop()

    async def shutdown(self) -> None:
        """The same as `stop`."""
        await self.stop()

    async def __aenter__(self) -> Self:
        """Run in the background; returns when the engine is joining its group. Takes no signals."""
        self._background = asyncio.create_task(self._run(), name="paperboy engine")
        running = asyncio.create_task(self._running.wait())
        try:
            await asyncio.wait([self._background, running], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._background.cancel()
            await asyncio.wait([self._background])
            raise
        finally:
            running.cancel()
        if self._background.done():
            await self._background
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._begin_stop()
        background, self._background = self._background, None
        if background is not None:
            try:
                await background
            except Exception as failure:
                if failure is not error:
                    raise

    @property
    def mode(self) -> Mode:
        """Step while a step is under way, else bulk while any task is in bulk, else single."""
        if self._started and self._steps.current is not None:
            return Mode.STEP
        return Mode.BULK if any(task.mode is Mode.BULK for task in self._tasks()) else Mode.SINGLE

    def status(self) -> Status:
        """How things stand in this worker. Other threads may ask, too."""
        standstill, watchdog = self._standstill, self._watchdog
        self._look()
        tasks = tuple(
            TaskStatus(
                name=task.name,
                mode=task.mode,
                ready=task.ready,
                lag=task.sources.lag(),
                positions={str(source.partition): source.position for source in task.sources},
                buffered=sum(source.buffered for source in task.sources),
                restoring=None if task.ready else task.restoring.so_far(),
                standing_sec=0.0 if standstill is None else standstill.standing_sec(task),
                failures=task.failures,
            )
            for task in self._tasks()
        )
        lags = [task.lag for task in tasks]
        membership, followers = self._membership, self._followers
        return Status(
            running=self._running.is_set(),
            ready=membership is not None
            and not self._stop.is_set()
            and membership.is_ready
            and all(follower.complete.is_set() for follower in followers),
            failure=None if self._failure is None else repr(self._failure),
            mode=self.mode,
            step=self._steps.current if self._started else None,
            lag=None if None in lags else sum(lag for lag in lags if lag is not None),
            tasks=tasks,
            global_tables=tuple(follower.status() for follower in self._followers),
            unassigned_sec=None if standstill is None else standstill.unassigned_sec(),
            blocked_sec=0.0 if watchdog is None else watchdog.blocked_sec(),
            **asdict(self._counters),
        )

    def health(self) -> Health:
        """Whether it does its work, and if not, why: for liveness and readiness endpoints. Other threads may ask, too,
        and they alone can find the event loop blocked."""
        return health_of(self.status(), self._options.stalled_sec)

    async def send(
        self,
        topic: str | Topic,
        value: Any,
        *,
        key: Any = None,
        headers: GivenHeaders = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
        serializer: Serialize | None = None,
        key_serializer: Serialize | None = None,
    ) -> tuple[int, int]:
        """Send a record from outside a handler, while the engine runs. The arguments are those of `Context.send`.

        Returns:
            Its partition and offset, after the broker has acknowledged it.

        Raises:
            PaperboyError: the engine is not running.
            BrokerError: the topic does not exist, or the broker did not take the record.
        """
        topic, serializer, key_serializer = addressed(topic, serializer, key_serializer)
        broker, producer, topics = self._broker, self._producer, self._topics
        if broker is None or producer is None or topics is None:
            raise PaperboyError(
                f"engine.send to {topic!r}: the engine is not running; start it, or use 'async with engine:'."
            )
        if serializer is not None:
            value = to_bytes(serializer, value, part="value", topic=topic)
        if key_serializer is not None:
            key = to_bytes(key_serializer, key, part="key", topic=topic)
        if isinstance(value, SchemaNotFetched):
            value = await value.finish()
        if isinstance(key, SchemaNotFetched):
            key = await key.finish()
        outgoing = checked_headers(topic, headers)
        check_bytes(topic, key, value)
        if broker.new_topic_partitions is not None:
            await broker.create_topics([TopicSpec(topic, broker.new_topic_partitions)])
        await topics.learn([topic])
        partitions = topics[topic].partitions
        now_ms = broker.clock.time_ms()
        check_sendable((topic, partition, key, value, outgoing, timestamp_ms), topics[topic], now_ms)
        if partition is None:
            partition = now_ms % partitions if key is None else partition_for_key(key, partitions)
        record = (key, value, outgoing, now_ms if timestamp_ms is None else timestamp_ms)
        (ack,) = await producer.send(TopicPartition(topic, partition), [record])
        return partition, (await ack).base_offset

    async def caught_up(self) -> None:
        """Returns when all that was in the input topics at the call is handled and committed by the group, with all
        that handling it sent to input topics; this worker's tables are restored by then, and its global tables hold
        what is in their topics.

        Raises:
            Exception: the engine stopped with this error meanwhile.
            PaperboyError: the engine is not running, or was stopped meanwhile.
        """
        if self._progress is None:
            raise self._failure or PaperboyError("engine.caught_up: the engine is not running.")
        await self._progress.caught_up()
        for follower in self._followers:
            await follower.caught_up()
        if self._progress is None:
            raise self._failure or PaperboyError("The engine stopped before it had caught up.")

    # Starting and stopping.

    async def _run(self) -> None:
        if self._started:
            raise PaperboyError("This engine was started before: make a new one.")
        self._started = True
        with watched(self._options.blocked_loop_sec, self._counters) as self._watchdog:
            try:
                await self._run_watched()
            finally:
                self._watchdog = None
        if self._failure is not None:
            raise self._failure

    async def _run_watched(self) -> None:
        options = self._options
        broker = self._open_broker(options)
        try:
            await self._unless_stopped(broker.start())
            producer = broker.producer()
            try:
                await self._unless_stopped(producer.start())
                self._broker, self._producer, self._topics = broker, producer, Topics(broker)
                prepared = await self._unless_stopped(
                    prepare(broker, options, self._dispatches, self._tables, self._global_tables)
                )
                if prepared is not None:
                    await self._take_part(prepared, broker, producer, self._topics)
            finally:
                self._broker = self._producer = self._topics = None
                await self._close(producer.stop(), "producer")
        finally:
            await self._close(broker.stop(), "broker")

    async def _unless_stopped(self, starting: Coroutine[Any, Any, T]) -> T | None:
        """A part of the start; given up, with None, when the engine is told to stop."""
        work = asyncio.ensure_future(starting)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        return None if work.cancelled() else work.result()

    async def _take_part(self, prepared: Prepared, broker: Broker, producer: Producer, topics: Topics) -> None:
        """Join the group, and handle what it gives, until told to stop."""
        options = self._options
        assignor = TaskAssignor(prepared.groups)
        consumer = broker.consumer(options.group_id, sorted(self._dispatches), assignor, _membership_options(options))
        wiring = Wiring(
            options=options,
            broker=broker,
            consumer=consumer,
            producer=producer,
            topics=topics,
            in_step=lambda: self._steps.current is not None,
            moved=lambda: progress.moved(),
            room=lambda: membership.make_room(),
            counters=self._counters,
        )
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
                return group.create_task(work, name=name)

            stores = Stores(Path(options.state_dir), options.group_id, options.rocksdb, spawn, self._disk)
            followers = [
                Follower(table, prepared.global_topics[name], stores, wiring)
                for name, table in self._global_tables.items()
            ]
            membership = Membership(
                wiring,
                stores,
                prepared.groups,
                self._dispatches,
                prepared.changelogs,
                followers,
                self._steps,
                assignor,
                self._fail,
                spawn,
            )
            progress = Progress(
                broker, options.group_id, prepared.inputs, membership, self._steps, lambda: self._failure
            )
            display = RestoreDisplay(membership.restoring, options.on_restore, on_terminal=self._background is None)
            beside: list[asyncio.Task[None]] = []
            attached: list[Table | GlobalTable] = []

            def run_beside(work: Coroutine[Any, Any, None], name: str) -> None:
                beside.append(group.create_task(self._guarded(work), name=name))

            try:
                for table in self._tables.values():
                    table.attach(lambda name=table.name: membership.partitions_of(name))  # type: ignore[misc]
                    attached.append(table)
                for follower in followers:
                    follower.table.attach(follower.readable)
                    attached.append(follower.table)
                on_disk = [*self._tables.values(), *(table.kept_as for table in self._global_tables.values())]
                await stores.take_homes(on_disk)
                self._followers = followers
                for follower in followers:
                    run_beside(follower.run(), f"global table {follower.table.name}")
                ends = await progress.input_ends() if options.stop_at_end else None
                await consumer.start(membership)
                _log.info("started", group_id=options.group_id, broker=broker.name, topics=sorted(self._dispatches))
                self._membership, self._progress = membership, progress
                self._standstill = Standstill(asyncio.get_running_loop().time)
                run_beside(membership.fetch_for_ever(), "fetch")
                run_beside(progress.take_steps(), "steps")
                run_beside(_every(_ENDS_SEC, self._ask_for_ends), "ends")
                run_beside(_every(_CHANGELOGS_SEC, membership.look_at_changelogs), "changelogs")
                run_beside(_every(SHOW_SEC, display.show), "restore display")
                if ends is not None:
                    run_beside(self._stop_after(progress.until_committed(ends)), "stop at end")
                self._running.set()
                await self._stop.wait()
                _log.info("stopping", group_id=options.group_id)
            except Exception as error:
                self._fail(error)  # raised as it is when the group of tasks has ended
            finally:
                await membership.stop()
                self._running.clear()
                progress.end()
                for task in beside:
                    task.cancel()
                for each in attached:
                    each.attach(None)
                self._membership = self._progress = self._standstill = None
                self._followers = []
                await self._close(consumer.stop(), "consumer")
                display.close()
                await stores.close()
                _log.info("stopped", group_id=options.group_id)

    async def _ask_for_ends(self) -> None:
        if self._membership is not None:
            await self._membership.ask_for_ends()
        self._look()

    def _look(self) -> None:
        if self._standstill is not None and self._membership is not None:
            self._standstill.look(self._tasks(), self._membership.assigned.is_set())

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """What fails beside the tasks stops the engine as well, and is raised by `start` as it is."""
        try:
            await work
        except Exception as error:
            self._fail(error)

    async def _stop_after(self, work: Coroutine[Any, Any, None]) -> None:
        await work
        self._begin_stop()

    async def _close(self, closing: Coroutine[Any, Any, None], what: str) -> None:
        """A broker that is away must not keep a stop from ending."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SEC):
                await closing
        except (PaperboyError, TimeoutError, OSError) as error:
            _log.warning("closing failed", what=what, error=repr(error))

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            _log.error("failed", group_id=self._options.group_id, error=repr(error))
        self._begin_stop()

    def _stop_on_signal(self, name: str) -> None:
        _log.info("signal", signal=name)
        self._begin_stop()

    def _begin_stop(self) -> None:
        self._stop.set()
        if self._membership is not None:
            self._membership.stop_taking()

    def _tasks(self) -> list[Task]:
        return [] if self._membership is None else list(self._membership.tasks.values())


def _open_broker(options: Options) -> Broker:
    return open_broker(
        options.bootstrap_servers,
        client_options=options.client_options,
        connect_timeout_sec=options.connect_timeout_sec,
    )


def _membership_options(options: Options) -> MembershipOptions:
    return MembershipOptions(
        session_timeout_sec=options.session_timeout_sec,
        heartbeat_interval_sec=options.heartbeat_interval_sec,
        rebalance_timeout_sec=max(options.session_timeout_sec, options.drain_timeout_sec + _REBALANCE_MARGIN_SEC),
        group_instance_id=options.group_instance_id,
    )


async def _every(seconds: float, work: Any) -> None:
    while True:
        await asyncio.sleep(seconds)
        await work()
