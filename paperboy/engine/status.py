"""What an engine says about itself."""

from dataclasses import dataclass

from paperboy.engine.modes import Mode


@dataclass(slots=True)
class Counters:
    """What became of records in this worker, since its start."""

    handled: int = 0
    """Records that have finished, those passed over included."""
    passed_over: int = 0
    """Records given up, by the user's choice, after they failed."""
    checkpoints: int = 0
    """Checkpoints that made work durable."""
    checkpoint_failures: int = 0
    """Checkpoints after which a task went back to what was durable."""
    restored: int = 0
    """Changelog records read by restores."""
    lost: int = 0
    """Input records that were deleted from the log before they were handled."""


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


@dataclass(frozen=True, slots=True)
class Status:
    running: bool
    mode: Mode
    step: int | None
    """The number of the current step, from 0; None when there is none."""
    lag: int | None
    """Over all tasks of this worker; None while one is not known."""
    tasks: tuple[TaskStatus, ...]
    handled: int
    """From here on: see `Counters`."""
    passed_over: int
    checkpoints: int
    checkpoint_failures: int
    restored: int
    lost: int
