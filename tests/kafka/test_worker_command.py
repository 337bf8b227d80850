"""``paperboy worker`` on a real Kafka: processes that share the work, die, are rolled and stopped under load."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import random_id
from tests.contract.engine.kit import Kit

ROOT = Path(__file__).parents[2]
PARTITIONS = 4

JOB = """
import asyncio, os, time
from paperboy import Engine, Handler, Table

counts = Table("counts", store="rocksdb://")

class Counting(Handler):
    topic = os.environ["JOB_TOPIC"]

    @classmethod
    async def on_message(cls, msg, ctx):
        counts[msg.key] = counts.get(msg.key, 0) + 1
        if "JOB_HANGS" in os.environ:
            print("hangs", flush=True)
            time.sleep(3600)
        if msg.value == b"poison":
            raise ValueError("poison")
        # In one write: the workers share a pipe.
        os.write(1, f"handled {os.getpid()} {msg.partition} {msg.offset} {time.monotonic()}\\n".encode())

engine = Engine(
    Counting,
    bootstrap_servers=os.environ["JOB_BOOTSTRAP"],
    group_id=os.environ["JOB_GROUP"],
    group_instance_id=os.environ.get("JOB_INSTANCE"),
    stop_at_end="JOB_ENDS" in os.environ,
    commit_interval_sec=float(os.environ.get("JOB_COMMITS", "0.5")),
    session_timeout_sec=6,
    with_bulk_mode=False,
)
engine.register_table(counts)
"""


class Handled(NamedTuple):
    """A record that a worker has handled; `at` is the machine's monotonic time, in seconds."""

    pid: int
    partition: int
    offset: int
    at: float


Fields = dict[str, Any]


class Command:
    """``paperboy worker job:engine`` that runs, and what it and its workers have said and printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.handled: list[Handled] = []
        self.offsets: set[tuple[int, int]] = set()
        """Which records were handled: their partitions and offsets."""
        self.workers: set[int] = set()
        """The pids of those that have handled something."""
        self.printed: list[str] = []
        self.lines: list[str] = []
        """Of standard error; those that were logged as their fields, too."""
        self.logged: list[Fields] = []
        self._moved = asyncio.Event()

    def said(self, event: str, **fields: Any) -> list[Fields]:
        """The log lines of this event with these fields."""
        return [line for line in self.logged if line["event"] == event and fields.items() <= line.items()]

    def pids(self) -> dict[int, int]:
        """The latest of each worker's."""
        return {line["worker"]: line["pid"] for line in self.said("worker started")}

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    async def until_handled(self, records: int) -> None:
        """Of each partition, so many."""
        wanted = all_of(records)
        await self.until(lambda: len(self.offsets) >= len(wanted) and self.offsets >= wanted)

    async def until_ready(self, times: int) -> None:
        await self.until(lambda: len(self.said("worker ready")) >= times)

    async def read(self) -> None:
        """Everything, until the last process that may write has ended."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        await asyncio.gather(
            self._read(self.process.stdout, self._take_printed), self._read(self.process.stderr, self._take_logged)
        )

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        async for line in stream:
            take(line.decode().rstrip("\n"))
            self._moved.set()

    def _take_logged(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("{"):
            self.logged.append(json.loads(line))

    def _take_printed(self, line: str) -> None:
        kind, *rest = line.split()
        if kind == "handled":
            pid, partition, offset, at = rest
            self.handled.append(Handled(int(pid), int(partition), int(offset), float(at)))
            self.workers.add(int(pid))
            self.offsets.add((int(partition), int(offset)))
        else:
            self.printed.append(line)


@pytest.fixture
def kit(kafka_bootstrap: str) -> Kit:
    return Kit(kafka_bootstrap, random_id()[:12])


@asynccontextmanager
async def command(kit: Kit, topic: str, directory: Path, *arguments: str, **env: str) -> AsyncIterator[Command]:
    """Runs it in `directory`, over the job; whatever is left of it at the end is killed, and waited for."""
    (directory / "job.py").write_text(JOB)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paperboy.cli", "worker", "job:engine", "--log", "json", *arguments),
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JOB_TOPIC": topic,
            "JOB_BOOTSTRAP": kit.bootstrap,
            "JOB_GROUP": kit.group,
            **env,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Command(process)
    reading = asyncio.create_task(running.read())
    try:
        yield running
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reading
    finally:
        for pid in [process.pid, *running.pids().values()]:
            if not reading.done():  # somebody still lives
                _kill(pid)
        async with asyncio.timeout(20):
            await reading
            await process.wait()
        print(*running.lines, sep="\n")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def fill(kit: Kit, topic: str, records: int, value: bytes = b"v") -> None:
    """So many records into each partition."""
    for partition in range(PARTITIONS):
        await kit.send(topic, [(b"key-%d" % (number % 10), value) for number in range(records)], partition)


def all_of(records: int) -> set[tuple[int, int]]:
    return set(itertools.product(range(PARTITIONS), range(records)))


async def committed(kit: Kit, topic: str) -> list[int]:
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    async with kit.broker() as broker:
        found = await broker.committed(kit.group, partitions)
    return [found[partition] or 0 for partition in partitions]


async def test_two_workers_share_the_partitions_each_with_a_home_of_its_own(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("shared", PARTITIONS)
    async with command(kit, topic, tmp_path, "--workers", "2") as c:
        await c.until_ready(2)
        await fill(kit, topic, 100)
        await c.until_handled(100)
        started = c.said("worker started")
    of_worker = {pid: {r.partition for r in c.handled if r.pid == pid} for pid in c.pids().values()}
    assert sorted(map(len, of_worker.values())) == [2, 2]
    assert {line["worker"] for line in started} == {1, 2}
    for line in started:
        assert (line["group_id"], line["broker"], line["topics"]) == (kit.group, kit.bootstrap, [topic])
        assert line["state_dir"] == ".paperboy"
    assert sorted(home.name for home in (tmp_path / ".paperboy" / kit.group).iterdir()) == ["1", "2"]


async def test_sigterm_ends_with_0_and_all_that_was_handled_is_committed(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("stopped", PARTITIONS)
    await fill(kit, topic, 3_000)
    async with command(kit, topic, tmp_path, "--workers", "2", JOB_COMMITS="3600") as c:
        await c.until(lambda: len(c.handled) >= 2_000)
        c.process.terminate()
        assert await c.process.wait() == 0
    assert len(c.handled) < PARTITIONS * 3_000, "it was stopped in the midst"
    handled = [sum(record.partition == number for record in c.handled) for number in range(PARTITIONS)]
    assert await committed(kit, topic) == handled
    assert c.said("worker failed") == c.said("worker killed") == []


async def test_a_worker_killed_in_the_midst_is_started_again_and_nothing_is_missing(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("killed", PARTITIONS)
    async with command(kit, topic, tmp_path, "--workers", "2") as c:
        await c.until_ready(2)
        filling = asyncio.create_task(fill(kit, topic, 3_000))
        await c.until(lambda: len(c.handled) >= 1_000)
        victim = c.handled[-1].pid
        os.kill(victim, signal.SIGKILL)
        await filling
        await c.until_handled(3_000)
        await c.until_ready(3)
        (failed,) = c.said("worker failed")
        assert (failed["pid"], failed["signal"]) == (victim, "SIGKILL")
        assert victim not in c.pids().values()


@pytest.mark.time_limit(120)
@pytest.mark.parametrize("instance", [None, "job"], ids=["dynamic", "static"])
async def test_a_roll_under_load_loses_no_record_and_says_how_long_each_partition_paused(
    kit: Kit, tmp_path: Path, instance: str | None
) -> None:
    """A record for each partition every 20 ms or so, all the while; the pause is the longest time between two that were
    handled."""
    topic = await kit.topic("rolled", PARTITIONS)
    env = {} if instance is None else {"JOB_INSTANCE": instance}
    sent = 0
    async with command(kit, topic, tmp_path, "--workers", "2", **env) as c:
        await c.until_ready(2)
        async with kit.broker() as broker:
            producer = broker.producer()
            await producer.start()

            async def send_once() -> None:
                nonlocal sent
                for number in range(PARTITIONS):
                    record = (b"key", b"v", (), broker.clock.time_ms())
                    (ack,) = await producer.send(TopicPartition(topic, number), [record])
                    await ack
                sent += 1

            try:
                while len(c.offsets) < PARTITIONS * 50:
                    await send_once()
                before = c.pids()
                c.process.send_signal(signal.SIGHUP)
                while len(c.said("worker ready")) < 4:
                    await send_once()
                total = sent + 50
                while sent < total:
                    await send_once()
            finally:
                await producer.stop()
        await c.until_handled(sent)
        after = c.pids()
        c.process.terminate()
        assert await c.process.wait() == 0
    assert not set(before.values()) & set(after.values()), "both were restarted"
    ends, ready = c.said("worker ends"), c.said("worker ready")
    assert ends[1]["timestamp"] >= ready[2]["timestamp"], "the second went when the first was ready again"
    assert c.said("worker failed") == c.said("worker killed") == []
    assert len(c.handled) == len(c.offsets), "a graceful restart repeats nothing"
    pauses = []
    for number in range(PARTITIONS):
        times = sorted(record.at for record in c.handled if record.partition == number)
        pauses.append(max(after - before for before, after in itertools.pairwise(times)))
    print("longest pause of each partition, in seconds:", [round(pause, 2) for pause in pauses])
    assert max(pauses) < 15


async def test_workers_with_a_name_each_have_a_name_of_their_own(kit: Kit, tmp_path: Path) -> None:
    """Two members of one name would fence each other off."""
    topic = await kit.topic("named", PARTITIONS)
    async with command(kit, topic, tmp_path, "--workers", "2", JOB_INSTANCE="job") as c:
        await c.until_ready(2)
        await fill(kit, topic, 50)
        await c.until_handled(50)
        assert len(c.workers) == 2
        assert c.said("worker failed") == []


async def test_a_worker_that_fails_at_once_is_tried_again_and_given_up_with_its_sentence(
    kit: Kit, tmp_path: Path
) -> None:
    async with command(kit, f"missing-{kit.unique}", tmp_path, "--workers", "2", "--attempts", "3") as c:
        assert await c.process.wait() == 1
    assert sum("to consume: not found on" in line for line in c.lines) == 1
    waits = {number: [line["in_sec"] for line in c.said("worker restarts", worker=number)] for number in (1, 2)}
    assert [0.5, 1.0] in waits.values()
    assert len(c.said("given up")) >= 1
    assert c.said("ended") == [c.said("ended", exit_code=1)[0]]


async def test_a_message_that_fails_is_said_with_its_traceback_and_its_offset(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("poisoned", PARTITIONS)
    await fill(kit, topic, 1, b"poison")
    async with command(kit, topic, tmp_path, "--attempts", "2") as c:
        assert await c.process.wait() == 1
    failed = [line for line in c.said("worker failed") if "exception" in line]
    assert failed, "with its traceback"
    assert failed[0]["error"].startswith("ValueError: poison; ")
    assert f"{topic}[" in failed[0]["error"]
    assert 'raise ValueError("poison")' in failed[0]["exception"]


async def test_workers_end_by_themselves_when_their_supervisor_is_killed(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("orphaned", PARTITIONS)
    async with command(kit, topic, tmp_path, "--workers", "2", JOB_COMMITS="3600") as c:
        await c.until_ready(2)
        filling = asyncio.create_task(fill(kit, topic, 3_000))
        await c.until(lambda: len(c.handled) >= 1_000)
        c.process.kill()
        await filling
        # The context ends when the last of them has closed its output, which is what a process does that has ended.
    assert len(c.said("supervisor gone")) == 2
    handled = [sum(record.partition == number for record in c.handled) for number in range(PARTITIONS)]
    assert await committed(kit, topic) == handled, "and they drained"


async def test_a_worker_that_does_not_end_is_killed_after_its_time_and_it_is_said(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("hanging", PARTITIONS)
    await fill(kit, topic, 1)
    async with command(kit, topic, tmp_path, "--stop-timeout", "1s", JOB_HANGS="1") as c:
        await c.until(lambda: bool(c.printed))
        c.process.terminate()
        assert await c.process.wait() == 1
    assert [line["reason"] for line in c.said("worker killed")] == ["it did not end within 1 s"]


async def test_engines_that_come_to_their_end_end_the_command(kit: Kit, tmp_path: Path) -> None:
    topic = await kit.topic("ending", PARTITIONS)
    await fill(kit, topic, 100)
    async with command(kit, topic, tmp_path, "--workers", "2", JOB_ENDS="1") as c:
        assert await c.process.wait() == 0
    assert c.offsets == all_of(100)
    assert sorted(line["worker"] for line in c.said("worker finished")) == [1, 2]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("job", "names no engine"), ("no_such_job:engine", "There is no module"), ("job:motor", "has no 'motor'")],
)
async def test_misuse_ends_with_2_and_one_sentence(
    kafka_bootstrap: str, tmp_path: Path, name: str, sentence: str
) -> None:
    (tmp_path / "job.py").write_text("")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paperboy.cli", "worker", name, "--workers", "2", "--log", "text"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().count(sentence) == 1
