"""Since when nothing has moved that should."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from paperboy.engine.source import Source
from paperboy.engine.task import Task


@dataclass(slots=True)
class _Stand:
    """Where a task was seen, and since when it has been there with something to handle."""

    positions: list[int]
    since: float


class Standstill:
    """Remembers where tasks were when they were last looked at: that has to be done about every second.

    Args:
        now: the time in seconds, as the event loop has it.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._stands: dict[str, _Stand] = {}
        self._unassigned_since: float | None = now()

    def look(self, tasks: Iterable[Task], assigned: bool) -> None:
        """How things are at this moment."""
        now = self._now()
        if assigned:
            self._unassigned_since = None
        elif self._unassigned_since is None:
            self._unassigned_since = now
        stands: dict[str, _Stand] = {}
        for task in tasks:
            positions = [source.position for source in task.sources]
            last = self._stands.get(task.name)
            could_move = task.ready and any(has_something(source) for source in task.sources)
            if last is None or not could_move or positions != last.positions:
                last = _Stand(positions, now)
            stands[task.name] = last
        self._stands = stands

    def standing_sec(self, task: Task) -> float:
        """How long this task's positions had not moved, though there was something to handle."""
        stand = self._stands.get(task.name)
        return 0.0 if stand is None else self._now() - stand.since

    def unassigned_sec(self) -> float | None:
        """How long this worker has had no assignment; None while it has one."""
        return None if self._unassigned_since is None else self._now() - self._unassigned_since


def has_something(source: Source) -> bool:
    """Whether records are known to lie before it that are not held back: by a step, by a circuit breaker, or because
    one waits to be handled again."""
    if source.end_offset is None or source.held_until is not None or source.waiting or source.is_paused:
        return False
    until = source.end_offset if source.limit is None else min(source.limit, source.end_offset)
    return source.position < until
