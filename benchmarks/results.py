"""What was measured, as it is written to RESULTS.json."""

import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.trials import Figures
from benchmarks.workloads import Goal


@dataclass
class Results:
    """Everything of one run of the harness."""

    measured: str
    """The day."""
    command: str
    asked: int
    """Records, before a workload's share and a contender's limit."""
    repeats: int
    machine: dict[str, Any]
    versions: dict[str, str]
    runs: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    """By workload and contender."""
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Why there is nothing, or less than there should be, by workload and contender."""

    def note(self, workload: str, contender: str, figures: Figures) -> None:
        self.runs.setdefault(workload, {}).setdefault(contender, []).append(figures)

    def miss(self, workload: str, contender: str, why: str) -> None:
        self.missing.setdefault(workload, {})[contender] = why

    def forget(self, workload: str) -> None:
        """It is to be measured anew."""
        self.runs.pop(workload, None)
        self.missing.pop(workload, None)

    def values(self, workload: str, contender: str, figure: str) -> list[float]:
        """A figure of each run; empty where it was not measured."""
        runs = self.runs.get(workload, {}).get(contender, [])
        return [run[figure] for run in runs if run.get(figure) is not None]

    def median(self, workload: str, contender: str, figure: str) -> float | None:
        values = self.values(workload, contender, figure)
        return statistics.median(values) if values else None

    def reached(self, goal: Goal, ours: str) -> float | None:
        """Our figure over the best of theirs (or less it, where a difference is aimed at; or alone, where that has a
        limit); None: not measured."""
        mine = self.median(goal.workload, ours, goal.figure)
        if goal.limit is not None:
            return mine
        theirs = [
            value
            for contender in goal.against
            if (value := self.median(goal.their_workload or goal.workload, contender, goal.figure)) is not None
        ]
        if mine is None or not theirs:
            return None
        if goal.more_at_most is not None:
            return mine - min(theirs)
        best = max(theirs) if goal.at_least is not None else min(theirs)
        return mine / best if best else None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        return cls(**json.loads(path.read_text()))


def is_met(goal: Goal, reached: float) -> bool:
    if goal.at_least is not None:
        return reached >= goal.at_least
    (limit,) = (each for each in (goal.at_most, goal.more_at_most, goal.limit) if each is not None)
    return reached <= limit


def this_machine() -> dict[str, Any]:
    """What a reader needs to know of it, and no names."""
    return {
        "processor": _first_value(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _first_value(path: Path, name: str) -> str | None:
    try:
        lines: Iterable[str] = path.read_text().splitlines()
    except OSError:
        return None
    return next(
        (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), None
    )
