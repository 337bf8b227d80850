"""Restores of large changelogs from a real Kafka, in processes of their own: how much memory they take, and a kill."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paperboy.clock import random_id
from tests.contract.engine.kit import Kit, entry

RESTORE_JOB = Path(__file__).parent / "restore_job.py"


@pytest.fixture
def kit(kafka_bootstrap: str) -> Kit:
    return Kit(kafka_bootstrap, random_id()[:12])


@pytest.mark.time_limit(120)
async def test_large_values_and_many_partitions_are_restored_in_bounded_memory(kit: Kit, tmp_path: Path) -> None:
    """100 partitions, 200 MB of values of 1 MB: restored by a process whose memory is measured."""
    source = await kit.topic("large", 100)
    changelog = await kit.changelog("counts", 100, max_message_bytes="2000000")
    value = os.urandom(1_000_000)
    for partition in range(100):
        await kit.send(changelog, [entry(b"%d" % number, value) for number in range(2)], partition)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(RESTORE_JOB), kit.bootstrap, source, kit.group, str(tmp_path / "state")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    entries, _, base_mb, peak_mb = map(float, done.stdout.split())
    assert entries == 200
    assert peak_mb - base_mb < 250, f"{base_mb} MB before the restore, {peak_mb} MB at its peak"


async def test_a_restore_that_is_killed_goes_on_where_it_was(kit: Kit, tmp_path: Path) -> None:
    """A child restores a large changelog and is killed in the midst; the next one reads less than there is."""
    records, source = 400_000, await kit.topic("killed")
    changelog = await kit.changelog("counts", 1)
    for start in range(0, records, 50_000):
        await kit.send(changelog, [entry(b"%d" % number, "v" * 50) for number in range(start, start + 50_000)])
    command = [sys.executable, str(RESTORE_JOB), kit.bootstrap, source, kit.group, str(tmp_path / "state"), "--watch"]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    while True:  # it prints how far it has come
        line = await child.stdout.readline()
        assert line, "it came to the end before it was killed"
        if records // 2 <= int(line) < records:
            break
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    again = await asyncio.to_thread(subprocess.run, command[:-1], capture_output=True, text=True, check=True)
    entries, read, _, _ = map(float, again.stdout.split())
    assert entries == records
    assert 0 < read <= records - 100_000, "what was flushed before the kill is not read again"
