"""The engine: it owns the lifecycle and wires the parts."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

from paperboy.brokers import open_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Broker, Headers, MembershipOptions, Producer, TopicPartition, TopicSpec
from paperboy.engine.assignment import TaskAssignor
from paperboy.engine.membership import Membership
from paperboy.engine.modes import Mode
from paperboy.engine.options import Options
from paperboy.engine.outbox import Topics, check_bytes, check_sendable
from paperboy.engine.signals import stopping_on_signals
from paperboy.engine.status import Status, TaskStatus
from paperboy.engine.steps import Steps, reached
from paperboy.engine.task import Task, Wiring
from paperboy.engine.topology import (
    TopicGroup,
    changelog_spec,
    check_changelog,
    missing_topics,
    partition_count,
    topic_groups,
)
from paperboy.errors import ConfigurationError, PaperboyError
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.handler import Handler
from paperboy.log import get_logger
from paperboy.tables.table import Table

_log = get_logger("paperboy.engine")

_TICK_SEC = 0.25
_ENDS_SEC = 1.0
_REBALANCE_MARGIN_SEC = 10.0


class Engine:
    """Consumes its handlers' topics in a consumer group, until it is stopped.

        engine = Engine(PageViews, bootstrap_servers="localhost:9092", group_id="page-views")
        engine.register_table(clicks)
        asyncio.run(engine.start())

    `start` runs until `stop`, SIGINT or SIGTERM, and returns; ``async with engine:`` runs it in the background.

    Args:
        handlers: Handler or BulkHandler classes or instances; each topic has one.
        options: see `Options`: ``bootstrap_servers`` and ``group_id`` are needed, the rest has defaults.

    Raises:
        ConfigurationError: an option is unknown or out of range, a handler has no topic or one that another has.
    """

    def __init__(self, *handlers: Handler | type[Handler], **options: Any) -> None:
        self._options = Options.of(options)
        self._tables: dict[str, Table] = {}
        self._dispatches = _dispatches(handlers, self._options)
        self._steps_topics = _steps_topics(handlers, self._options)
        self._broker: Broker | None = None
        self._producer: Producer | None = None
        self._topics: Topics | None = None
        self._membership: Membership | None = None
        self._wiring: Wiring | None = None
        self._steps = Steps(self._steps_topics)
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._progress = asyncio.Event()
        self._running = asyncio.Event()
        self._background: asyncio.Task[None] | None = None
        self._started = False

    def register_table(self, table: Table) -> None:
        """Let handlers use `table`: restored from its changelog before they see a record.

        Raises:
            ConfigurationError: the engine has started, or has another table of this name.
        """
        if self._started:
            raise ConfigurationError(
                f"Table {table.name!r} was registered after the engine had started: register it first."
            )
        if table.name in self._tables:
            raise ConfigurationError(f"Two tables are called {table.name!r}: give each its own name.")
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
        """Run in the background; returns when the engine has joined its group. Takes no signals."""
        self._background = asyncio.create_task(self._run(), name="paperboy engine")
        running = asyncio.ensure_future(self._running.wait())
        await asyncio.wait([self._background, running], return_when=asyncio.FIRST_COMPLETED)
        if not self._running.is_set():
            running.cancel()
            await self._background
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._begin_stop()
        background, self._background = self._background, None
        if background is not None:
            await background

    @property
    def mode(self) -> Mode:
        """Step while a step is under way, else bulk while any task is in bulk, else single."""
        if self._started and self._steps.current is not None:
            return Mode.STEP
        tasks = self._tasks()
        return Mode.BULK if any(task.mode is Mode.BULK for task in tasks) else Mode.SINGLE

    def status(self) -> Status:
        """How things stand in this worker."""
        tasks = tuple(
            TaskStatus(
                name=task.name,
                mode=task.mode,
                ready=task.ready,
                lag=task.lag(),
                positions={str(partition): source.position for partition, source in task.sources.items()},
                buffered=sum(source.buffered for source in task.sources.values()),
            )
            for task in self._tasks()
        )
        lags = [task.lag for task in tasks]
        counters = self._wiring.counters if self._wiring is not None else None
        return Status(
            running=self._running.is_set(),
            mode=self.mode,
            step=self._steps.current if self._started and self._steps_topics else None,
            lag=None if None in lags else sum(lag for lag in lags if lag is not None),
            tasks=tasks,
            handled=counters.handled if counters else 0,
            passed_over=counters.passed_over if counters else 0,
            checkpoints=counters.checkpoints if counters else 0,
            checkpoint_failures=counters.checkpoint_failures if counters else 0,
            restored=counters.restored if counters else 0,
            lost=counters.lost if counters else 0,
        )

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> tuple[int, int]:
        """Send a record from outside a handler, while the engine runs.

        Returns:
            Its partition and offset, after the broker has acknowledged it.

        Raises:
            PaperboyError: the engine is not running.
            BrokerError: the topic does not exist, or the broker did not take the record.
        """
        broker, producer, topics = self._broker, self._producer, self._topics
        if broker is None or producer is None or topics is None:
            raise PaperboyError(
                f"engine.send to {topic!r}: the engine is not running; start it, or use 'async with engine:'."
            )
        check_bytes(topic, key, value, headers)
        if broker.new_topic_partitions is not None and topic not in await broker.describe_topics([topic]):
            await broker.create_topics([TopicSpec(topic, broker.new_topic_partitions)])
        await topics.learn([topic])
        known = topics.get(topic)
        assert known is not None
        now_ms = broker.clock.time_ms()
        check_sendable((topic, partition, key, value, headers, timestamp_ms), known, now_ms)
        if partition is None:
            partition = now_ms % known.partitions if key is None else partition_for_key(key, known.partitions)
        record = (key, value, tuple(headers), now_ms if timestamp_ms is None else timestamp_ms)
        (ack,) = await producer.send(TopicPartition(topic, partition), [record])
        return partition, (await ack).base_offset

    async def caught_up(self) -> None:
        """Returns when all that was in the input topics at the call is handled and committed by the group, with all
        that handling it sent to input topics; this worker's tables are restored by then.

        Raises:
            Exception: the engine stopped with this error meanwhile.
            PaperboyError: the engine is not running.
        """
        if not self._running.is_set():
            raise PaperboyError("engine.caught_up: the engine is not running.")
        await self._until(lambda: self._membership is not None and self._membership.is_ready)
        before: Mapping[TopicPartition, int] = {}
        for _ in range(len(self._input_topics()) + 1):
            ends = await self._ends(self._input_topics())
            if ends == before:
                return
            await self._until_reached(ends)
            before = ends

    # Starting and stopping.

    async def _run(self) -> None:
        if self._started:
            raise PaperboyError("This engine was started before: make a new one.")
        self._started = True
        broker = open_broker(
            self._options.bootstrap_servers,
            client_options=self._options.client_options,
            connect_timeout_sec=self._options.connect_timeout_sec,
        )
        try:
            await broker.start()
            self._broker = broker
            self._topics = Topics(broker)
            groups, changelogs = await self._prepare(broker)
            self._producer = broker.producer()
            await self._producer.start()
            await self._work(broker, self._producer, groups, changelogs)
        finally:
            self._running.clear()
            self._progress.set()
            for table in self._tables.values():
                table.attach(None)
            producer, self._producer, self._broker = self._producer, None, None
            if producer is not None:
                await producer.stop()
            await broker.stop()
        if self._failure is not None:
            raise self._failure

    async def _work(
        self,
        broker: Broker,
        producer: Producer,
        groups: list[TopicGroup],
        changelogs: dict[str, tuple[str, int]],
    ) -> None:
        options = self._options
        assignor = TaskAssignor(groups)
        consumer = broker.consumer(
            options.group_id,
            self._input_topics(),
            assignor,
            MembershipOptions(
                session_timeout_sec=options.session_timeout_sec,
                heartbeat_interval_sec=options.heartbeat_interval_sec,
                rebalance_timeout_sec=max(
                    options.session_timeout_sec, options.drain_timeout_sec + _REBALANCE_MARGIN_SEC
                ),
                group_instance_id=options.group_instance_id,
            ),
        )
        assert self._topics is not None
        wiring = self._wiring = Wiring(options, consumer, producer, self._topics, broker.clock)
        wiring.in_step = lambda: self._steps.current is not None
        wiring.on_progress = self._on_progress
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
                return group.create_task(work, name=name)

            membership = self._membership = Membership(
                broker, wiring, groups, self._dispatches, changelogs, self._steps, assignor, self._fail, spawn
            )
            for table in self._tables.values():
                table.attach(lambda name=table.name: membership.partitions_of(name))  # type: ignore[misc]
            ends = await self._ends(self._input_topics()) if options.stop_at_end else None
            try:
                await consumer.start(membership)
                _log.info("started", group_id=options.group_id, broker=broker.name, topics=self._input_topics())
                fetching = spawn(self._guarded(membership.fetch_for_ever()), "fetch")
                beside = [
                    spawn(self._guarded(self._take_steps()), "steps"),
                    spawn(self._guarded(self._watch_ends(membership)), "ends"),
                ]
                if ends is not None:
                    beside.append(spawn(self._guarded(self._stop_at(ends)), "stop at end"))
                self._running.set()
                await self._stop.wait()
            finally:
                _log.info("stopping", group_id=options.group_id)
                self._stop.set()
                await membership.stop()
                for task in beside:
                    task.cancel()
                await asyncio.wait([fetching, *beside])
                await consumer.stop()
                self._membership = None
                _log.info("stopped", group_id=options.group_id)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """What fails beside the tasks stops the engine as well, and is raised by `start` as it is."""
        try:
            await work
        except Exception as error:
            self._fail(error)

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

    async def _prepare(self, broker: Broker) -> tuple[list[TopicGroup], dict[str, tuple[str, int]]]:
        """Look at the topics, create what is ours to create, refuse what cannot work."""
        options = self._options
        groups = topic_groups(list(dict.fromkeys(self._dispatches.values())), self._tables)
        inputs = self._input_topics()
        found = await broker.describe_topics(inputs)
        absent = [name for name in inputs if name not in found]
        if absent and broker.new_topic_partitions is not None and options.create_topics == "auto":
            await broker.create_topics([TopicSpec(name, broker.new_topic_partitions) for name in absent])
            found = await broker.describe_topics(inputs)
        elif absent:
            raise ConfigurationError(
                f"Topic{'s' if len(absent) > 1 else ''} {', '.join(map(repr, absent))} to consume:"
                f" not found on {broker.name}; create {'them' if len(absent) > 1 else 'it'}, or correct the name."
            )
        specs = {}
        for group in groups:
            count = partition_count(group, found)
            for table in group.tables:
                specs[table.name] = changelog_spec(table, options.group_id, count)
        unused = [name for name in self._tables if name not in specs]
        if unused:
            raise ConfigurationError(
                f"Table {unused[0]!r} is registered, but no handler uses it: name it in tables=[…]."
            )
        names = [spec.name for spec in specs.values()]
        if len(set(names)) < len(names) or set(names) & set(inputs):
            raise ConfigurationError(
                f"The changelogs {sorted(names)} must differ from each other and from the input topics."
            )
        existing = await broker.describe_topics(names)
        missing = [spec for spec in specs.values() if spec.name not in existing]
        if missing and options.create_topics == "never":
            raise ConfigurationError(
                f"create_topics='never', and on {broker.name} these topics are missing: {missing_topics(missing)}."
            )
        for spec in specs.values():
            if spec.name in existing:
                check_changelog(spec, existing[spec.name])
        await broker.create_topics(missing)
        described = await broker.describe_topics(names)
        changelogs = {
            table: (spec.name, int(described[spec.name].config.get("max.message.bytes", 1_048_588)))
            for table, spec in specs.items()
        }
        return groups, changelogs

    # Steps and ends.

    async def _take_steps(self) -> None:
        """Open one step after another; each ends when the whole group has committed up to its end."""
        membership = self._membership
        assert membership is not None
        while (current := self._steps.current) is not None:
            ends = await self._ends(sorted(self._steps.topics))
            _log.info("step begins", step=current, topics=sorted(self._steps.topics), records_to=sum(ends.values()))
            self._steps.begin(ends)
            membership.apply_limits()
            await self._until_reached(ends)
            self._steps.pass_on()
            _log.info("step ends", step=current)
            membership.apply_limits()

    async def _stop_at(self, ends: Mapping[TopicPartition, int]) -> None:
        await self._until_reached(ends)
        self._stop.set()

    async def _until_reached(self, ends: Mapping[TopicPartition, int]) -> None:
        """Until the group has committed these offsets, those of other workers too."""
        broker = self._broker
        assert broker is not None
        partitions = list(ends)
        while True:
            self._progress.clear()
            self._hurry_checkpoints(ends)
            committed = await broker.committed(self._options.group_id, partitions)
            if reached(committed, await broker.beginning_offsets(partitions), ends):
                return
            await self._wait_for_progress()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Until something holds that changes when a task makes progress."""
        while not condition():
            self._progress.clear()
            await self._wait_for_progress()

    async def _wait_for_progress(self) -> None:
        """A moment, or until a task of this worker has handled or committed something."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK_SEC):
                await self._progress.wait()
        if self._failure is not None or self._broker is None:
            raise self._failure or PaperboyError("The engine stopped before it had caught up.")

    def _hurry_checkpoints(self, ends: Mapping[TopicPartition, int]) -> None:
        """Tasks that have come to the ends that somebody waits for need not wait for the interval."""
        for task in self._tasks():
            sources = [source for source in task.sources.values() if source.partition in ends]
            if any(source.position > source.committed for source in sources) and all(
                source.position >= ends[source.partition] for source in sources
            ):
                task.request_checkpoint()

    async def _watch_ends(self, membership: Membership) -> None:
        while True:
            await asyncio.sleep(_ENDS_SEC)
            await membership.ask_for_ends()

    async def _ends(self, topics: list[str]) -> dict[TopicPartition, int]:
        broker = self._broker
        assert broker is not None
        described = await broker.describe_topics(topics)
        partitions = [TopicPartition(name, number) for name in topics for number in range(described[name].partitions)]
        return await broker.end_offsets(partitions)

    def _on_progress(self) -> None:
        self._progress.set()
        if self._membership is not None:
            self._membership.make_room()

    def _tasks(self) -> list[Task]:
        return [] if self._membership is None else list(self._membership.tasks.values())

    def _input_topics(self) -> list[str]:
        return sorted(self._dispatches)


def _dispatches(handlers: tuple[Handler | type[Handler], ...], options: Options) -> dict[str, Dispatch]:
    """Each topic's dispatch.

    Raises:
        ConfigurationError: there is no handler, or two for one topic.
    """
    if not handlers:
        raise ConfigurationError("Engine needs at least one handler: Engine(MyHandler, …).")
    by_topic: dict[str, Dispatch] = {}
    for handler in handlers:
        dispatch = Dispatch(handler, fail_on_exception=options.fail_on_exception)
        for topic in dispatch.topics:
            if topic in by_topic:
                raise ConfigurationError(
                    f"Topic {topic!r} has two handlers, {by_topic[topic].name} and {dispatch.name}: a topic has one."
                )
            by_topic[topic] = dispatch
    return by_topic


def _steps_topics(handlers: tuple[Handler | type[Handler], ...], options: Options) -> list[frozenset[str]]:
    """The topics of each step.

    Raises:
        ConfigurationError: a step names a handler that is not the engine's, or one stands in two.
    """
    steps = []
    seen: list[object] = []
    for number, step in enumerate(options.steps or ()):
        for handler in step:
            if not any(handler is known for known in handlers):
                raise ConfigurationError(f"Step {number} names {handler!r}, which is not one of the engine's handlers.")
            if any(handler is earlier for earlier in seen):
                raise ConfigurationError(f"{handler!r} stands in two steps: a handler has one turn.")
            seen.append(handler)
        steps.append(frozenset(topic for handler in step for topic in Dispatch(handler, fail_on_exception=True).topics))
    return steps
