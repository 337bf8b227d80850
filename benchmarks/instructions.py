"""``python -m benchmarks.instructions [PATH…]``: what the hot paths execute for a record, in instructions.

On a machine that others use, times differ from run to run; instructions by less than a hundredth. Counted by
``perf stat`` where the machine can (virtual ones often cannot), else by valgrind. What a start takes cancels out: each
path runs for one round and for three.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.hot import PATHS, RECORDS

ROOT = Path(__file__).parents[1]

Counter = Callable[[list[str]], int]
"""Runs a command; how many instructions it executed."""


class CannotCount(Exception):
    """Neither perf nor valgrind counts here."""


def main() -> int:
    try:
        for path, instructions in counted(sys.argv[1:] or list(PATHS)).items():
            print(f"{path:<16}{instructions:10,.0f} instructions a record", flush=True)
    except CannotCount as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def counted(paths: list[str]) -> dict[str, float]:
    """Instructions a record, by path.

    Raises:
        CannotCount: there is nothing to count with.
    """
    count = counter()
    return {path: (count(_run(path, 3)) - count(_run(path, 1))) / (2 * RECORDS) for path in paths}


def counter() -> Counter:
    """What counts here. Raises CannotCount."""
    if shutil.which("perf") is not None and _perf(["true"]) > 0:
        return _perf
    if shutil.which("valgrind") is not None:
        return _valgrind
    raise CannotCount("Counting instructions needs perf (on a machine that lets it count) or valgrind: install one.")


def _run(path: str, rounds: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.hot", path, str(rounds)]


def _perf(command: list[str]) -> int:
    """0 where perf cannot count."""
    said = _stderr_of(["perf", "stat", "-x", ",", "-e", "instructions:u", *command])
    found = re.search(r"^(\d+),", said, re.MULTILINE)
    return int(found[1]) if found else 0


def _valgrind(command: list[str]) -> int:
    said = _stderr_of(["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", *command])
    found = re.search(r"I\s+refs:\s+([\d,]+)", said)
    if found is None:
        raise CannotCount(f"valgrind did not count: {said.strip().splitlines()[-1:]}")
    return int(found[1].replace(",", ""))


def _stderr_of(command: list[str]) -> str:
    # The same hashes each time, so that dicts have the same collisions.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stderr


if __name__ == "__main__":
    sys.exit(main())
