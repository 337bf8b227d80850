"""A process that is killed in the middle of writing leaves a store whose data and changelog offset agree."""

import random
import subprocess
import sys
from pathlib import Path

from tests.contract.stores.conftest import open_rocksdb
from tests.contract.stores.victim import OPTIONS, changes

ROOT = Path(__file__).parents[3]

KILLS = 8


def test_after_each_kill_the_store_holds_what_it_held_at_its_offset(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    path = tmp_path / "store"
    expected: dict[bytes, bytes] = {}
    offset = 0
    for _ in range(KILLS):
        flushed = _kill_after(path, seed, lines=chance.randrange(1, 15))
        store = open_rocksdb(path, OPTIONS)
        found = store.changelog_offset or 0
        assert found >= flushed, f"seed {seed}: offset {flushed} was flushed, and the store stands at {found}"
        for reached in range(offset + 1, found + 1):
            for key, value in changes(seed, reached).items():
                if value is None:
                    expected.pop(key, None)
                else:
                    expected[key] = value
        assert store.in_step_ms == (found * 10 or None)
        assert list(store.scan()) == sorted(expected.items()), f"seed {seed}, offset {found}"
        offset = found
        store.close()
    assert offset > 0


def _kill_after(path: Path, seed: int, lines: int) -> int:
    """Let a process write, kill it after so many lines of its, and return the last offset it said was flushed.

    It writes on while we read what it said and reach for it: the moment is nobody's choice.
    """
    flushed = 0
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.stores.victim", str(path), str(seed)], cwd=ROOT, stdout=subprocess.PIPE
    )
    with victim:
        assert victim.stdout is not None
        for _ in range(lines):
            said = victim.stdout.readline().split()
            assert said, "the process has ended by itself"
            flushed = int(said[1])
        victim.kill()
        for line in victim.stdout.read().splitlines():
            flushed = int(line.split()[1])
    return flushed
