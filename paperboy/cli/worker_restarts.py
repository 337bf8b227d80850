"""When a worker is started again, and when not: decisions, and nothing that acts on them."""

from dataclasses import dataclass
from typing import NamedTuple

from paperboy.clock import random_id

_FIRST_DELAY_SEC = 0.5
_MAX_DELAY_SEC = 30.0
_SETTLED_SEC = 60.0
_AGE_SPREAD = 0.2
_MEMORY_SPREAD = 0.1


class Limits(NamedTuple):
    """What one process of a worker may come to before another takes its place; None is no limit."""

    age_sec: float | None
    memory_mb: float | None

    def passed(self, age_sec: float, memory_mb: float | None) -> str | None:
        """The limit that is passed, for a person; None where there is none."""
        if self.age_sec is not None and age_sec >= self.age_sec:
            return "age"
        if self.memory_mb is not None and memory_mb is not None and memory_mb >= self.memory_mb:
            return "memory"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """What is done about workers that end, or have become old or large."""

    attempts: int = 5
    """After so many failures in a row nothing is tried any more."""
    max_age_sec: float | None = None
    max_memory_mb: float | None = None

    def limits(self) -> Limits:
        """Those of one process: up to a fifth (age) or a tenth (memory) below what was set, by chance, so that workers
        that were started together do not all go together."""
        return Limits(
            None if self.max_age_sec is None else self.max_age_sec * (1 - _AGE_SPREAD * _chance()),
            None if self.max_memory_mb is None else self.max_memory_mb * (1 - _MEMORY_SPREAD * _chance()),
        )

    def gives_up(self, failures: int) -> bool:
        return failures >= self.attempts


def has_settled(ready_sec: float | None) -> bool:
    """Whether a worker that has failed had worked before, so that its failures are counted from the beginning.

    Args:
        ready_sec: how long it had been ready; None if it never was.
    """
    return ready_sec is not None and ready_sec >= _SETTLED_SEC


def delay_sec(failures: int) -> float:
    """How long to wait after so many failures in a row: half a second, then twice as long each time, 30 s at most."""
    return min(_FIRST_DELAY_SEC * 2.0 ** (failures - 1), _MAX_DELAY_SEC)


def _chance() -> float:
    """From 0 to just under 1."""
    return int(random_id()[:8], 16) / 16**8
