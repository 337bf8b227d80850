"""One seed, from its plan to a verdict."""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from paperboy.brokers.memory import MemoryCluster
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.clock import Chance
from paperboy.engine import Engine
from paperboy.tables.stores.memory import MemoryStore
from paperboy.testing.loop import Process
from paperboy.testing.simulation.broker import SimulatedBroker, SimulatedGroup, SimulatedTransactions
from paperboy.testing.simulation.disk import SimulatedDisk
from paperboy.testing.simulation.durability import Durability
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.ledger import Broken, Ledger, value_of
from paperboy.testing.simulation.loop import SimulationLoop
from paperboy.testing.simulation.machine import Machine
from paperboy.testing.simulation.plan import RETENTION_SEC, Event, Op, Plan, plan_of
from paperboy.testing.simulation.trace import Trace
from paperboy.testing.simulation.weather import Weather
from paperboy.testing.simulation.workload import GROUP, OUT, OUT_PARTITIONS, engine_of
from paperboy.testing.virtual_time import Stuck

_EPOCH_MS = 1_700_000_000_000
_PATIENCE_SEC = 120.0
"""How long the end may take, after the last fault."""
_LOOK_SEC = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed."""

    seed: int
    broken: str | None
    """Which promise was broken first; None where all hold."""
    digest: str
    """Of the trace: the same for the same seed."""
    events: int
    """Lines of the trace."""
    steps: int
    """Callbacks that the loop has run."""
    virtual_sec: float


def simulate(seed: int, *, show: Callable[[str], object] | None = None) -> Outcome:
    """Run a seed, to its end or to the first promise that is broken.

        >>> simulate(1).broken is None
        True

    Args:
        show: given the trace, line by line, and what the engines log, as it happens.
    """
    plan = plan_of(seed)
    loop = SimulationLoop(Chance(f"turns {seed}"), plan.stays)
    with _logging(show), _without_garbage_collection():
        try:
            simulation = _Simulation(plan, loop, show)
            try:
                loop.run(simulation.run())
            except Broken:
                pass
            except Stuck as stuck:
                simulation.ledger.breaks(f"It goes on for ever, or stands still for ever: {stuck}")
            simulation.abandon()
        finally:
            loop.close()
    trace, broken = simulation.trace, simulation.ledger.broken
    return Outcome(
        seed, broken[0] if broken else None, trace.digest(), len(trace.lines), loop.steps, round(loop.time(), 3)
    )


class _Simulation:
    def __init__(self, plan: Plan, loop: SimulationLoop, show: Callable[[str], object] | None) -> None:
        self.trace = Trace(loop, show)
        self._plan = plan
        self._loop = loop
        self._chance = Chance(f"run {plan.seed}")
        self._cluster = MemoryCluster("simulation", epoch_ms=_EPOCH_MS)
        self._weather = Weather(plan.storms, plan.slow_disk, self._chance, loop, self.trace)
        self._cluster.faults = self._weather
        loop.work_seconds = self._weather.seconds_of_work
        loop.set_exception_handler(self._unheard)
        self._durability = Durability(plan, self._cluster)
        self.ledger = Ledger(plan, self._durability.excuses, self._is_member, self.trace.say)
        self._durability.ledger = self.ledger
        self._durability.store_of = self._store_of
        group = self._cluster._groups[GROUP] = SimulatedGroup(GROUP, self._cluster.clock)
        group.durability, group.trace = self._durability, self.trace
        transactions = SimulatedTransactions(
            self._cluster.clock,
            lambda group_id, by, offsets: self._cluster.group(group_id).commit_transaction(by, offsets),
        )
        transactions.trace = self.trace
        self._cluster.transactions = transactions
        disks = [SimulatedDisk(self._weather, self._chance, plan.flush_every) for _ in range(plan.machines)]
        self.machines = [
            Machine(number, loop, disks[0 if plan.one_disk else number], self.ledger, self.trace, self._build)
            for number in range(plan.machines)
        ]
        self._running: list[asyncio.Task[None]] = []
        self._beside: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        plan, durability = self._plan, self._durability
        self._make_topics()
        script: list[tuple[float, Op | Event]] = [(op.at, op) for op in plan.ops]
        script.extend((event.at, event) for event in plan.events)
        script.sort(key=lambda entry: entry[0])
        later = [entry for entry in script if entry[0] > 0 or isinstance(entry[1], Event)]
        for _, op in script[: len(script) - len(later)]:
            self._do(op)
        self._running = [asyncio.create_task(machine.run()) for machine in self.machines]
        for at, what in later:
            await self._until(at)
            self._do(what)
        await self._until(plan.lasts)
        self._clear_up()
        await self._settle()
        self._check_stores()
        durability.check_end()
        for machine in self.machines:
            machine.end()
        ended = await asyncio.wait(self._running, timeout=_PATIENCE_SEC)
        if ended[1]:
            raise self.ledger.breaks("A worker that was stopped has not ended.")
        self._check()
        durability.check_end()
        self._check_disks()

    def abandon(self) -> None:
        """Nothing of the engines runs any more."""
        for machine in self.machines:
            machine.kill()

    # What happens.

    def _do(self, what: Op | Event) -> None:
        self._check()
        if isinstance(what, Op):
            record = (what.key.encode(), value_of(what), (), self._cluster.clock.time_ms())
            topic, partition = self._cluster.topic(what.partition.topic), what.partition.partition
            self.ledger.sent(what, topic.logs[partition].end_offset)
            topic.append(partition, ([record], [100]), self._cluster.clock.time_ms())
        else:
            self._befall(what)

    def _befall(self, event: Event) -> None:
        machine, say = self.machines[event.machine], self.trace.say
        process = machine.process
        if event.kind == "compact":
            self._compact()
        elif event.kind == "jump":
            say(f"fault: the clock jumps by {event.seconds - 2:.0f} s")
            self._cluster.clock.jump(event.seconds - 2)
        elif event.kind == "marker":
            inputs = sorted(self.ledger.ops)
            if inputs:
                partition = inputs[event.steps % len(inputs)]
                say(f"marker {partition} {self._cluster.append_marker(partition)}")
        elif process is None:
            return
        elif event.kind == "age":
            self._start(self._age(machine, event.seconds))
        elif event.kind in ("kill", "freeze"):
            self._strike(event, process)
        elif event.kind == "stop":
            self._start(machine.stop(event.seconds))
        elif event.kind == "isolate":
            self._start(self._isolate(machine, event.seconds))
        elif machine.broker is not None and machine.broker.member is not None:
            if event.kind == "expire":
                say(f"fault: the session of {process.name} ends")
                machine.broker.member.expire()
            elif event.kind == "rejoin":
                say(f"fault: {process.name} rejoins")
                machine.broker.member.rejoin()

    def _strike(self, event: Event, process: Incarnation) -> None:
        """Kill or freeze a process: after so many callbacks, or in the midst of something."""
        machine = self.machines[process.machine]

        def strike() -> None:
            if machine.process is process:
                if event.kind == "kill":
                    machine.kill(event.seconds)
                else:
                    machine.freeze(event.seconds)

        if event.operation is not None:
            self._weather.set_trap(process, event.operation, event.steps, strike)
        else:
            self._loop.strike_after(process, event.steps, strike)

    async def _isolate(self, machine: Machine, seconds: float) -> None:
        """It does not reach the broker for a while; the rest of it goes on."""
        self.trace.say(f"fault: w{machine.number} is cut off for {seconds:g} s")
        until = self._weather.isolated[machine.number] = self._loop.time() + seconds
        broker = machine.broker
        if broker is not None and broker.member is not None:
            broker.member.freeze()
            await asyncio.sleep(until - self._loop.time())
            if machine.broker is broker:
                self._beside.append(self._loop.spawn(broker.process, _thaw(broker)))

    def _compact(self) -> None:
        for topic in self._durability.changelog_topics:
            self._cluster.compact(topic)
        self.trace.say("compaction")

    async def _age(self, machine: Machine, seconds: float) -> None:
        """A machine is away, and when it comes back, tombstones that it has not seen are gone."""
        machine.kill(seconds)
        await asyncio.sleep(seconds * 0.9)
        others = [other for other in self.machines if other is not machine]
        # Who restores at this very moment would miss them too: nobody has promised anything else.
        if machine.process is None and all(other.process is None or other.is_undisturbed for other in others):
            self._compact()
            self._cluster.clock.jump(RETENTION_SEC + 1)
            self._compact()
            self.trace.say("fault: tombstones are gone")

    def _clear_up(self) -> None:
        self.trace.say("the faults are over")
        self._weather.clear_up()
        for machine in self.machines:
            if machine.is_frozen:
                machine.thaw()
            if machine.broker is not None and machine.broker.member is not None:
                self._beside.append(self._loop.spawn(machine.broker.process, _thaw(machine.broker)))

    # What is checked.

    async def _settle(self) -> None:
        """Until everything is handled and committed."""
        deadline = self._loop.time() + _PATIENCE_SEC
        while not self._is_settled():
            self._check()
            if self._loop.time() > deadline:
                raise self.ledger.breaks(f"It does not come to its end: {self._state()}")
            await asyncio.sleep(_LOOK_SEC)

    def _is_settled(self) -> bool:
        committed = self.ledger.committed
        return all(
            committed.get(partition, 0) == self._cluster.log(partition).end_offset for partition in self.ledger.ops
        ) and all(machine.is_ready and machine.is_clean for machine in self.machines)

    def _state(self) -> str:
        left = [
            f"{partition} is committed to {self.ledger.committed.get(partition, 0)} of {end}"
            for partition in self.ledger.ops
            if self.ledger.committed.get(partition, 0) != (end := self._cluster.log(partition).end_offset)
        ]
        workers = [f"w{machine.number} {'is' if machine.is_ready else 'is not'} ready" for machine in self.machines]
        return "; ".join(left + workers)

    def _check(self) -> None:
        if self.ledger.broken:
            raise Broken(self.ledger.broken[0])

    def _check_stores(self) -> None:
        for machine in self.machines:
            for changelog, store in _stores(machine.engine).items():
                self._durability.check_store(store, changelog)

    def _check_disks(self) -> None:
        """What a clean stop has left on the disks agrees with the logs."""
        for machine in self.machines:
            for path, image in machine.disk.images.items():
                changelog = TopicPartition(image.record.identity.changelog, image.record.identity.partition)
                if self._durability.is_at_end(changelog, image.record.changelog_offset):
                    self._durability.check_bytes(dict(image.entries), changelog, f"What {path} has kept")

    def _restored(self, process: Incarnation, task: str) -> None:
        machine = self.machines[process.machine]
        if machine.process is process:
            for changelog, store in _stores(machine.engine, task).items():
                self._durability.check_store(store, changelog)

    def _unheard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Broken):
            self.ledger.breaks(f"Nobody has heard of an error: {context.get('message')} {error!r}")

    # How it is put together.

    def _make_topics(self) -> None:
        plan = self._plan
        for topic in plan.topics:
            self._cluster.create_topics([TopicSpec(topic, plan.partitions)])
        self._cluster.create_topics([TopicSpec(OUT, OUT_PARTITIONS)])
        config = {"cleanup.policy": "compact", "delete.retention.ms": str(int(RETENTION_SEC * 1000))}
        for topic in self._durability.changelog_topics:
            self._cluster.create_topics([TopicSpec(topic, plan.partitions, config=config)])

    def _build(self, process: Incarnation) -> tuple[Engine, SimulatedBroker]:
        engine = engine_of(self._plan, process, self.ledger, lambda task, _: self._restored(process, task))
        broker = SimulatedBroker(self._cluster, process, self._durability, self._weather, self.trace)
        engine._open_broker = lambda _: broker
        engine._disk = self.machines[process.machine].disk
        return engine, broker

    def _is_member(self, process: Incarnation) -> bool:
        machine = self.machines[process.machine]
        return machine.process is process and machine.broker is not None and machine.broker.is_member

    def _store_of(self, process: Process, changelog: TopicPartition) -> MemoryStore | None:
        for machine in self.machines:
            if machine.process is process:
                return _stores(machine.engine).get(changelog)
        return None

    def _start(self, work: Any) -> None:
        self._beside.append(asyncio.ensure_future(work))

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._loop.time()))


async def _thaw(broker: SimulatedBroker) -> None:
    if broker.member is not None and not broker.member._closing:
        broker.member.thaw()


def _stores(engine: Engine | None, task_name: str | None = None) -> dict[TopicPartition, MemoryStore]:
    """The stores of a worker's tasks, or of one, by their changelogs."""
    membership = None if engine is None else engine._membership
    if membership is None:
        return {}
    return {
        table.changelog: store
        for task in membership.tasks.values()
        for table in task.tables.values()
        if task_name in (None, task.name) and isinstance(store := table.partition.store, MemoryStore)
    }


@contextmanager
def _logging(show: Callable[[str], object] | None) -> Iterator[None]:
    """Nothing is logged, or everything is shown."""
    logger = logging.getLogger("paperboy")
    before = logger.level, logger.propagate
    handler = _Shown(show)
    logger.setLevel(logging.CRITICAL if show is None else logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        logger.setLevel(before[0])


class _Shown(logging.Handler):
    def __init__(self, show: Callable[[str], object] | None) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        if self._show is not None:
            self._show(f"{'':26}    {record.levelname.lower()} {record.getMessage()}")


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """When garbage is collected is not the seed's to say, and what is collected may run."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
