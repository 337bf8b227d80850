"""What an engine says about itself."""

from dataclasses import dataclass

from paperboy.engine.modes import Mode
from paperboy.engine.restoring import Restoring


@dataclass(slots=True)
class Counters:
    """What became of records in this worker, since its start."""

    handled: int = 0
    """Records that have finished, those passed over included."""
    passed_over: int = 0
    """Records given up, by the user's choice, after they failed, and put nowhere."""
    dead_lettered: int = 0
    """Records given up that were put with the dead letters."""
    retried: int = 0
    """Times that a message, or a bulk, failed and was to be handled again: at once, later, or out of a retry topic."""
    paused: int = 0
    """Times that a message failed and was held by its handler's circuit breaker."""
    checkpoints: int = 0
    """Checkpoints that made work durable."""
    checkpoint_failures: int = 0
    """Checkpoints after which a task went back to what was durable."""
    restored: int = 0
    """Changelog records read by restores."""
    reruns: int = 0
    """Times that a message was handled again, because another one had changed what it read (``rerun_on_conflict``)."""
    lost: int = 0
    """Input records that were deleted from the log before they were handled."""
    blocked: int = 0
    """Times that the event loop was blocked for longer than ``blocked_loop_sec``."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    name: str
    mode: Mode
    ready: bool
    """False while its tables are being restored."""
    lag: int | None
    """Records not handled yet; None while the end of the log is not known."""
    positions: dict[str, int]
    """For each input partition (``topic[0]``), the offset below which everything has finished."""
    buffered: int
    """Records fetched and not handled."""
    restoring: Restoring | None
    """How far its restore has come; None when it is ready."""
    standing_sec: float
    """How long no position has moved though there was something to handle, in seconds; about 0 where all is well."""
    failures: int
    """How many times in a row, by now, its work could not be made durable, or what is durable not be restored."""


@dataclass(frozen=True, slots=True)
class GlobalTableStatus:
    name: str
    topic: str
    ready: bool
    """It can be read: it was complete once, and has followed its topic since."""
    lag: int | None
    """Offsets that the topic is ahead, as last heard; None while its end is not known."""
    offsets: dict[str, int]
    """For each partition of the topic (``topic[0]``), the offset below which everything is in the table."""
    keyless: int
    """Records passed over because they have no key."""
    failing: str | None
    """Why the topic cannot be followed just now, while the table shows what it knew last; None where all is well."""
    restoring: Restoring | None
    """How far a restore that is under way has come."""


@dataclass(frozen=True, slots=True)
class Status:
    running: bool
    ready: bool
    """It has an assignment (if only of nothing) and all its tables: it handles what comes, until it is to stop."""
    failure: str | None
    """What has stopped it, or is just stopping it; None where nothing has."""
    mode: Mode
    step: int | None
    """The number of the current step, from 0; None when there is none."""
    lag: int | None
    """Over all tasks of this worker; None while one is not known."""
    tasks: tuple[TaskStatus, ...]
    global_tables: tuple[GlobalTableStatus, ...]
    unassigned_sec: float | None
    """How long it has had no assignment, in seconds; None while it has one, or does not run."""
    blocked_sec: float
    """How long its event loop has been blocked by now, where that is above ``blocked_loop_sec``; else 0. Only another
    thread can see it."""
    handled: int
    """From here on: see `Counters`."""
    passed_over: int
    dead_lettered: int
    retried: int
    paused: int
    checkpoints: int
    checkpoint_failures: int
    restored: int
    reruns: int
    lost: int
    blocked: int
