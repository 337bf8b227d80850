"""A counting job on a real Kafka, killed with SIGKILL again and again while it is handling records."""

import asyncio
import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import TopicPartition
from tests.chaos.job import PARTITIONS, make_notes, read_notes
from tests.contract.engine.kit import Kit

RECORDS = 500_000
KEYS = 2_000
KILLS = int(os.environ.get("PAPERBOY_CHAOS_KILLS", "20"))
SEED = int(os.environ.get("PAPERBOY_CHAOS_SEED", "0")) or random.randrange(1, 1 << 32)

pytestmark = pytest.mark.time_limit(300 + 6 * KILLS)

Log = list[list[str]]
"""What is in the input: for each partition the keys of its records, by offset."""


async def fill(kit: Kit, topic: str, chance: random.Random) -> Log:
    """Records whose value is their own offset."""
    keys: Log = [[] for _ in range(PARTITIONS)]
    for _ in range(RECORDS):
        key = f"key-{chance.randrange(KEYS)}"
        keys[partition_for_key(key.encode(), PARTITIONS)].append(key)
    for number, partition in enumerate(keys):
        for start in range(0, len(partition), 50_000):
            part = partition[start : start + 50_000]
            await kit.send(topic, [(key.encode(), b"%d" % (start + at)) for at, key in enumerate(part)], number)
    return keys


class Job:
    """The job, in a process of its own."""

    def __init__(self, arguments: Sequence[str], notes: Path, errors: Path) -> None:
        self.notes = notes
        self.began_at = read_notes(notes)
        self.errors = errors.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.job", *arguments],
            stdout=self.errors,
            stderr=self.errors,
            cwd=Path(__file__).parents[2],
        )

    def gained(self) -> int:
        """How much further its notes are than when it started (it goes back to what was committed first)."""
        return sum(read_notes(self.notes)) - sum(self.began_at)

    def kill_after(self, records: int) -> None:
        """Kill it in the midst of handling, when it has gained about so many."""
        self._wait_while(lambda: self.gained() < records)
        before = read_notes(self.notes)
        self._wait_while(lambda: read_notes(self.notes) == before)  # it is handling right now
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.errors.close()

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            assert self.process.poll() is None, f"the job ended by itself: {self.errors.name}"
            assert sum(read_notes(self.notes)) < RECORDS, "the input was used up before the last kill"
            time.sleep(0.0005)


async def committed(kit: Kit, topic: str) -> list[int]:
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    async with kit.broker() as broker:
        found = await broker.committed(kit.group, partitions)
    return [found[partition] or 0 for partition in partitions]


async def test_killed_at_any_moment_it_loses_nothing_and_repeats_only_what_was_not_committed(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    print(f"PAPERBOY_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    kit = Kit(kafka_bootstrap, f"kill-{SEED}")
    topic = await kit.topic("in", PARTITIONS)
    log = await fill(kit, topic, chance)
    notes, state_dir, errors = tmp_path / "notes", tmp_path / "state", tmp_path / "stderr"
    make_notes(notes)
    arguments = [kafka_bootstrap, topic, kit.group, str(state_dir), str(notes), *(["--slowly"] if KILLS > 50 else [])]
    repeated: collections.Counter[str] = collections.Counter()
    for _ in range(KILLS):
        job = await asyncio.to_thread(Job, arguments, notes, errors)
        # Half of what there is, since it goes on while it is looked at: the next kill is to find it at work, too.
        most = min(RECORDS // (KILLS + 1), (RECORDS - sum(read_notes(notes))) // 2)
        await asyncio.to_thread(job.kill_after, chance.randrange(1, max(2, most)))
        handled, durable = read_notes(notes), await committed(kit, topic)
        assert all(mine >= known for mine, known in zip(handled, durable, strict=True)), (handled, durable)
        for number in range(PARTITIONS):
            repeated.update(log[number][durable[number] : handled[number]])
        await verify(kit, state_dir)
    end = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.chaos.job", *arguments, "--to-the-end"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    tables = json.loads(end.stdout)
    counted = {key: value for _, key, value in tables["counts"]}
    oracle = collections.Counter(key for partition in log for key in partition)
    last = {key: str(offset) for partition in log for offset, key in enumerate(partition)}
    assert {key: value for _, key, value in tables["last"]} == last
    assert counted.keys() == oracle.keys()
    below = {key: (counted[key], count) for key, count in oracle.items() if counted[key] < count}
    above = {key: (counted[key], count) for key, count in oracle.items() if counted[key] > count + repeated[key]}
    assert (below, above) == ({}, {})
    assert KILLS == 0 or sum(repeated.values()) > 0, "no kill hit work that was not committed"
    await verify(kit, state_dir)
    too_many = sum(counted.values()) - RECORDS
    print(f"{KILLS} kills, {too_many} records counted twice, {sum(repeated.values())} handled and not committed")


async def verify(kit: Kit, state_dir: Path) -> None:
    """Every store holds what its changelog says up to the store's own offset, byte for byte."""
    checked = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "paperboy.cli", "table", "verify", str(state_dir), kit.bootstrap],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
