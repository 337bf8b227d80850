"""A job whose messages fail, killed with SIGKILL while they are tried again and put with the dead letters."""

import asyncio
import collections
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from paperboy.brokers.protocol import Record
from paperboy.serializers.values import decode_value
from paperboy.tables.keys import decode_key
from tests.contract.engine.kit import Kit

RECORDS = 3_000
"""In each partition of each of the two topics."""
PARTITIONS = 2
KILLS = int(os.environ.get("PAPERBOY_CHAOS_KILLS", "6"))
SEED = int(os.environ.get("PAPERBOY_CHAOS_SEED", "0")) or random.randrange(1, 1 << 32)

pytestmark = pytest.mark.time_limit(200 + 10 * KILLS)


def begun(journal: Path) -> int:
    """How many times a message was begun."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_after(arguments: Sequence[str], journal: Path, errors: Path, messages: int) -> bytes:
    """Run the job until it has begun so many more; the last line of its journal by then."""
    before = begun(journal)
    with errors.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.failing_job", *arguments], stdout=file, stderr=file, cwd=root()
        )
        while begun(journal) < before + messages:
            assert process.poll() is None, f"the job ended by itself: {errors}"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return journal.read_bytes().splitlines()[-1]


def root() -> Path:
    return Path(__file__).parents[2]


def place(record: Record) -> tuple[str, int, int]:
    """Where a dead letter says that it comes from."""
    said = dict(record.headers)
    return said["paperboy.topic"].decode(), int(said["paperboy.partition"]), int(said["paperboy.offset"])


async def test_killed_while_messages_fail_each_is_done_or_a_dead_letter(kafka_bootstrap: str, tmp_path: Path) -> None:
    print(f"PAPERBOY_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    kit = Kit(kafka_bootstrap, f"failing-{SEED}")
    topics = [await kit.topic(name, PARTITIONS) for name in ("waiting", "delayed")]
    values: dict[tuple[str, int, int], bytes] = {}
    for topic in topics:
        for partition in range(PARTITIONS):
            made = chance.choices([b"good", b"flaky", b"bad"], weights=[90, 5, 5], k=RECORDS)
            await kit.send(topic, [(b"%d" % chance.randrange(50), value) for value in made], partition)
            values.update({(topic, partition, offset): value for offset, value in enumerate(made)})
    journal, errors = tmp_path / "journal", tmp_path / "stderr"
    arguments = [kafka_bootstrap, *topics, kit.group, str(tmp_path / "state"), str(journal)]
    in_the_midst: collections.Counter[str] = collections.Counter()
    for _ in range(KILLS):
        most = max(2, (len(values) - begun(journal) // 2) // KILLS)
        last = await asyncio.to_thread(kill_after, arguments, journal, errors, chance.randrange(1, most))
        in_the_midst[last.split()[-1].decode()] += 1
    with errors.open("ab") as file:
        await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tests.chaos.failing_job", *arguments, "--to-the-end"],
            stdout=file,
            stderr=file,
            cwd=root(),
            check=True,
        )
    last_value = {record.key: record.value for record in await kit.read(f"{kit.group}-done-changelog")}
    done = {}
    for key, value in last_value.items():
        if value is not None:
            source, number, offset = str(decode_key(key)).split()
            done[source, int(number), int(offset)] = decode_value(value)
    dead: collections.Counter[tuple[str, int, int]] = collections.Counter()
    for topic in topics:
        for record in await kit.read(f"{topic}-dlt"):
            dead[place(record)] += 1
            assert record.value == b"bad"
            assert record.partition == place(record)[1]
            assert dict(record.headers)["paperboy.attempts"] == b"3"
    assert {where for where, value in values.items() if value != b"bad"} == done.keys(), "nothing is missing"
    assert {where for where, value in values.items() if value == b"bad"} == dead.keys(), "nothing is missing"
    flaky = {where for where, value in values.items() if value == b"flaky"}
    assert {done[where] for where in done.keys() - flaky} == {1}
    assert {done[where] for where in flaky} == {2}
    twice = sum(dead.values()) - len(dead)
    print(
        f"{KILLS} kills, the last message begun: {dict(in_the_midst)}; {len(dead)} dead letters, {twice} of them twice"
    )
