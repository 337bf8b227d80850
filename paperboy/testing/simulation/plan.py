"""What a seed stands for: a job, its input, its workers, and what befalls them."""

from dataclasses import dataclass, field
from typing import Any, Literal

from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import Chance

HandlerKind = Literal["single", "bulk", "lanes"]
OpKind = Literal["set", "delete", "poison"]
EventKind = Literal[
    "kill", "stop", "freeze", "zombie", "isolate", "expire", "rejoin", "compact", "age", "marker", "jump"
]

RETENTION_SEC = 20.0
"""For how long the changelogs keep tombstones."""
_HARMFUL: tuple[EventKind, ...] = (
    "kill", "kill", "kill", "kill", "freeze", "freeze", "zombie", "zombie", "zombie", "isolate", "expire",
    "stop", "rejoin", "age", "age",
)  # fmt: skip
_ZOMBIE_AT = (
    "produce", "produce", "produce", "produce_ack", "commit", "confirm", "write", "end_transaction", "end_transaction",
)  # fmt: skip
_HARMLESS: tuple[EventKind, ...] = ("compact", "marker", "jump")
_STRUCK = (
    "produce", "produce", "produce_ack", "produce_ack", "produce_ack", "commit", "commit", "commit_ack", "commit_ack",
    "committed", "offsets", "confirm", "fetch", "describe", "unknown_offset", "write", "write", "flush", "open", "read",
    "fence", "end_transaction", "end_transaction", "end_transaction_ack", "end_transaction_ack",
)  # fmt: skip
_STRUCK_AT = (
    "produce", "produce", "produce", "produce_ack", "produce_ack", "commit", "commit_ack", "confirm", "fetch", "write",
    "flush", "open", "offsets", "fence", "end_transaction", "end_transaction", "end_transaction_ack",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Op:
    """One input record."""

    partition: TopicPartition
    key: str
    seq: int
    """Its number among those of its key, from 1 on; 0 for poison."""
    kind: OpKind
    at: float
    """When it is sent, in seconds."""
    pause: float
    """How long its handler waits in the middle, in seconds."""
    booms: bool
    """Its handler fails once, for no reason of the record's: the engine stops."""


@dataclass(frozen=True, slots=True)
class Job:
    """A handler, its topics and its tables, which are this group's alone."""

    name: str
    topics: tuple[str, ...]
    kind: HandlerKind
    concurrency: int


@dataclass(frozen=True, slots=True)
class Storm:
    """For a while, an operation at the broker, or at the disks, may fail or take longer."""

    operation: str
    begins: float
    ends: float
    rate: float
    """How likely it hits, from 0 to 1."""
    delay: float
    """How long what it hits takes at most, in seconds."""
    fails: bool
    """Whether what it hits fails as well. For an operation that is an ack: it was carried out nevertheless."""
    machine: int | None
    """Whose; None for everybody's."""


@dataclass(frozen=True, slots=True)
class Event:
    at: float
    kind: EventKind
    machine: int
    """Which it befalls, where it befalls one."""
    seconds: float
    """How long it lasts, or how long the machine stays away."""
    steps: int
    """`kill` and `freeze`: so many callbacks later, or in the midst of the so-manieth `operation`."""
    operation: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    partitions: int
    jobs: tuple[Job, ...]
    steps: bool
    """The jobs are taken in steps, one after another."""
    stores: Literal["memory", "disk", "both"]
    machines: int
    one_disk: bool
    """All machines are one, and share a disk."""
    static: bool
    """Members of the group keep their names."""
    exactly_once: bool
    options: dict[str, Any]
    ops: tuple[Op, ...]
    lasts: float
    """How long faults happen, in seconds."""
    events: tuple[Event, ...]
    storms: tuple[Storm, ...]
    slow_disk: float
    """How long what would go to a thread takes at most, in seconds."""
    flush_every: int
    """A store on disk is to be flushed after so many writes."""
    stays: float
    """How likely the loop stays with a process."""
    topics: tuple[str, ...] = field(default=())


def plan_of(seed: int) -> Plan:
    """The same plan for the same seed, for ever the same run of one version."""
    chance = Chance(f"plan {seed}")
    partitions = chance.choice((1, 1, 2, 3))
    jobs, steps = _jobs(chance)
    lasts = chance.uniform(4.0, 10.0)
    machines = chance.choice((1, 2, 2, 3, 3))
    bulky = chance.random() < 0.5
    session = chance.uniform(0.8, 3.0)
    options: dict[str, Any] = {
        "commit_interval_sec": chance.choice((0.05, 0.2, 0.5, 1.0, 2.0)),
        "session_timeout_sec": session,
        "heartbeat_interval_sec": session / 4,
        "drain_timeout_sec": chance.choice((0.2, 1.0, 5.0)),
        "bulk_mode_threshold": chance.choice((2, 6)) if bulky else 10_000,
        "bulk_mode_max_records": chance.choice((2, 5, 20)),
        "bulk_mode_timeout_ms": chance.choice((10, 300)),
        "max_overlay_keys": chance.choice((3, 20_000)),
        "max_buffer_bytes": chance.choice((4_000, 1_000_000)),
        "checkpoint_attempts": chance.choice((3, 5, 8)),
    }
    exactly_once = chance.random() < 0.35
    if exactly_once:
        options["processing_guarantee"] = "exactly_once"
        options["transaction_interval_sec"] = options["commit_interval_sec"]
        options["transaction_timeout_sec"] = chance.choice((60.0, 60.0, 3.0))
    calm = chance.random() < 0.1
    return Plan(
        seed=seed,
        partitions=partitions,
        jobs=jobs,
        steps=steps,
        stores=chance.choice(("memory", "disk", "disk", "both")),
        machines=machines,
        one_disk=chance.random() < 0.3,
        static=chance.random() < 0.2,
        exactly_once=exactly_once,
        options=options,
        ops=_ops(chance, jobs, partitions, lasts, steps),
        lasts=lasts,
        events=_events(chance, machines, lasts, session, calm),
        storms=() if calm else _storms(chance, machines, lasts),
        slow_disk=chance.choice((0.0, 0.0, 0.05, 1.0)),
        flush_every=chance.choice((1, 4, 1_000)),
        stays=chance.choice((0.0, 0.5, 0.95)),
        topics=tuple(topic for job in jobs for topic in job.topics),
    )


def _jobs(chance: Chance) -> tuple[tuple[Job, ...], bool]:
    def job(name: str, topics: tuple[str, ...]) -> Job:
        kind: HandlerKind = chance.choice(("single", "single", "bulk", "lanes"))
        return Job(name, topics, kind, chance.choice((2, 3, 6)) if kind == "lanes" else 1)

    form = chance.random()
    if form < 0.55:
        return (job("a", ("a",)),), False
    if form < 0.75:
        return (job("ab", ("a", "b")),), False
    return (job("a", ("a",)), job("b", ("b",))), form > 0.88


def _ops(chance: Chance, jobs: tuple[Job, ...], partitions: int, lasts: float, steps: bool) -> tuple[Op, ...]:
    ops: list[Op] = []
    keys = chance.choice((1, 2, 3, 5))
    at_once = chance.choice((0.0, 0.5, 1.0))
    poisons = chance.random() < 0.4
    booms = chance.choice((0, 0, 0, 1, 2))
    slow = chance.choice((0.0, 0.0, 0.02, 0.5))
    for job in jobs:
        for topic in job.topics:
            seqs: dict[str, int] = {}
            count = chance.randrange(5, 60)
            times = sorted(0.0 if chance.random() < at_once else chance.uniform(0, lasts) for _ in range(count))
            for at in times:
                number = chance.randrange(partitions)
                kind: OpKind = "set" if chance.random() < 0.7 else "delete"
                key = f"{topic}{number}k{chance.randrange(keys)}"
                if poisons and job.kind != "bulk" and chance.random() < 0.1:
                    kind, key, seq = "poison", f"{topic}{number}poison", 0
                else:
                    seq = seqs[key] = seqs.get(key, 0) + 1
                pause = chance.uniform(0, slow) if slow and chance.random() < 0.3 else 0.0
                boom = booms > 0 and kind != "poison" and chance.random() < 0.03
                booms -= boom
                ops.append(Op(TopicPartition(topic, number), key, seq, kind, at, pause, boom))
    return tuple(sorted(ops, key=lambda op: op.at))


def _events(chance: Chance, machines: int, lasts: float, session: float, calm: bool) -> tuple[Event, ...]:
    harmful = chance.sample(_HARMFUL, k=chance.choice((1, 2, 3, 5)))
    kinds: list[EventKind] = [] if calm else list(harmful)
    kinds.extend(kind for kind in _HARMLESS if chance.random() < 0.3)
    events = []
    for _ in range(chance.choice((2, 4, 8, 12)) if kinds else 0):
        kind: EventKind = chance.choice(kinds)
        seconds = chance.choice((0.1, 1.0, 3.0, 6.0))
        operation = None
        if kind == "zombie":  # it stands still in the midst of something for longer than its session
            kind = "freeze"
            seconds, operation = session * chance.uniform(1.1, 2.0), chance.choice(_ZOMBIE_AT)
        elif kind in ("kill", "freeze") and chance.random() < 0.7:
            operation = chance.choice(_STRUCK_AT)
        events.append(
            Event(
                at=chance.uniform(0.0, lasts),
                kind=kind,
                machine=chance.randrange(machines),
                seconds=seconds,
                steps=chance.randrange(200) if operation is None else chance.choice((1, 1, 2, 5)),
                operation=operation,
            )
        )
    return tuple(sorted(events, key=lambda event: event.at))


def _storms(chance: Chance, machines: int, lasts: float) -> tuple[Storm, ...]:
    storms = []
    for _ in range(chance.choice((0, 1, 2, 4, 6))):
        begins = chance.uniform(0, lasts)
        fails = chance.random() < 0.6
        operation = chance.choice(_STRUCK)
        storms.append(
            Storm(
                operation=operation,
                begins=begins,
                ends=min(lasts, begins + chance.choice((0.2, 1.0, 3.0))),
                rate=chance.choice((0.1, 0.4, 1.0)) if operation != "fetch" else 0.1,
                delay=chance.choice((0.0, 0.05, 0.5, 3.0)),
                fails=fails,
                machine=chance.choice((None, chance.randrange(machines))),
            )
        )
    return tuple(storms)
