"""Many seeds, on all cores."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CHUNK = 100
"""Seeds that one process runs: what is killed in a simulation is never let go, and ends with its process."""


class SimulationFailed(Exception):
    """The simulation itself did not work."""


@dataclass(frozen=True, slots=True)
class Found:
    """A seed that breaks a promise."""

    seed: int
    broken: str


@dataclass(frozen=True, slots=True)
class Campaign:
    """What became of many seeds."""

    seeds: int
    """So many were run, in order, up to the one that was found."""
    elapsed_sec: float
    found: Found | None

    @property
    def seeds_per_sec(self) -> float:
        return self.seeds / self.elapsed_sec


def run(
    seeds: int,
    first: int = 0,
    *,
    jobs: int | None = None,
    path: Path = ROOT,
    tell: Callable[[int], object] | None = None,
) -> Campaign:
    """Run seeds until the first one that breaks a promise.

    Args:
        jobs: processes at one time; None: one for each core.
        path: where the package is.
        tell: given how many are done, now and then.
    """
    began = time.monotonic()
    done, found = 0, None
    with ThreadPoolExecutor(jobs or os.cpu_count()) as threads:
        chunks = list(_chunks(first, seeds))
        outcomes = [threads.submit(run_here, count, start, path) for start, count in chunks]
        for (start, count), outcome in zip(chunks, outcomes, strict=True):
            found = outcome.result()
            done += count if found is None else found.seed - start + 1
            if tell is not None:
                tell(done)
            if found is not None:
                for other in outcomes:
                    other.cancel()
                break
    return Campaign(done, time.monotonic() - began, found)


def run_here(seeds: int, first: int = 0, path: Path = ROOT, env: Mapping[str, str] | None = None) -> Found | None:
    """Run seeds one after another, in one process, until the first that breaks a promise."""
    output = command(["run", "--first", str(first), "--seeds", str(seeds)], path, env)
    words = output.split(maxsplit=2)
    return Found(int(words[1].rstrip(":")), words[2].strip()) if words[0] == "seed" else None


def command(arguments: list[str], path: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """What ``paperboy-sim`` prints, of the package at `path`.

    Raises:
        SimulationFailed: it does not do what it should.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "paperboy.testing.simulation", *arguments],
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path), **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1) or not done.stdout:
        raise SimulationFailed(f"{done.stdout[-500:]}{done.stderr[-2000:]}")
    return done.stdout


def _chunks(first: int, seeds: int) -> Iterator[tuple[int, int]]:
    for start in range(first, first + seeds, _CHUNK):
        yield start, min(_CHUNK, first + seeds - start)
