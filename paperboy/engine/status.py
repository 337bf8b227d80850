"""What an engine says about itself."""

from dataclasses import dataclass

from paperboy.engine.modes import Mode


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
    """Records finished since the start, those passed over included."""
    passed_over: int
    """Records given up, by the user's choice, after they failed."""
    checkpoints: int
    checkpoint_failures: int
    restored: int
    """Changelog records read by restores."""
    lost: int
    """Input records that were deleted from the log before they were handled."""
