"""A group of workers, each in a process of its own, what they note in their journals, and what feeds them."""

import asyncio
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from paperboy.brokers.protocol import TopicPartition
from tests.contract.engine.kit import Kit, until

PARTITIONS = 8
_BATCH = 20
_PAUSE_SEC = 0.02
_TASK = re.compile(r"\[(\d+)\]$")


class Handled(NamedTuple):
    """One record in a handler's hands."""

    at_ns: int
    partition: int
    offset: int
    before: int
    """What the handler saw as the key's last offset; -1 for none."""


class Said(NamedTuple):
    """One log line."""

    at_ns: int
    event: str
    fields: dict[str, Any]

    @property
    def partition(self) -> int | None:
        """Of the task it is about."""
        found = _TASK.search(str(self.fields.get("task", "")))
        return int(found[1]) if found else None


class Worker:
    """One process, from its start to its end."""

    def __init__(self, name: str, journal: Path, command: Sequence[str]) -> None:
        self.name = name
        self.journal: list[Handled | Said] = []
        self.handled = 0
        """How many records it has handled."""
        self.tasks: set[int] = set()
        """The partitions that are its own now, and restored."""
        self.is_stopped = False
        self.began_ns = time.monotonic_ns()
        self.ended_ns: int | None = None
        self._errors = journal.with_suffix(".stderr").open("wb")
        journal.touch()
        self._read = journal.open("rb")
        self._tail = b""
        self._process = subprocess.Popen(
            command,
            stdout=self._errors,
            stderr=self._errors,
            cwd=Path(__file__).parents[2],
        )

    def look(self) -> None:
        """Read what is new in its journal. It must not have ended by itself."""
        if self.ended_ns is None and (code := self._process.poll()) is not None:
            pytest.fail(f"worker {self.name} died with {code}: {Path(self._errors.name).read_text()[-2000:]}")
        *lines, self._tail = (self._tail + self._read.read()).split(b"\n")
        for line in lines:
            self._note(line.decode())

    def said(self, event: str, since_ns: int = 0) -> list[Said]:
        return [line for line in self.journal if isinstance(line, Said) and line.event == event and line[0] > since_ns]

    @property
    def home(self) -> str:
        return str(self.said("state kept")[0].fields["directory"])

    def send(self, number: signal.Signals) -> int:
        """Send it a signal; when that was."""
        at_ns = time.monotonic_ns()
        self._process.send_signal(number)
        self.is_stopped = number is signal.SIGSTOP
        return at_ns

    async def end(self, within_sec: float = 30) -> int:
        """Wait for its end; its exit code."""
        code = await asyncio.to_thread(self._process.wait, within_sec)
        self.ended_ns = time.monotonic_ns()
        self.look()
        return code

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self._read.close()

    def _note(self, line: str) -> None:
        at, kind, rest = line.split(" ", 2)
        if kind == "handled":
            self.journal.append(Handled(int(at), *map(int, rest.split())))
            self.handled += 1
            return
        fields = json.loads(rest)
        said = Said(int(at), fields["event"], fields)
        self.journal.append(said)
        if said.event in ("revoked", "assigned"):
            self.tasks.clear()
        elif said.event == "restored" and said.partition is not None:
            self.tasks.add(said.partition)
        elif said.event == "task lost" and said.partition is not None:
            self.tasks.discard(said.partition)


class Group:
    """The workers of one group, living and dead, over one topic and one state directory."""

    def __init__(
        self,
        kit: Kit,
        topic: str,
        directory: Path,
        wait_sec: float = 0,
        commit_sec: float = 0.1,
        program: str = "tests.chaos.member",
    ) -> None:
        self.workers: list[Worker] = []
        self.state_dir = directory / "state"
        self._kit = kit
        self._directory = directory
        self._where = [kit.bootstrap, topic, kit.group, str(self.state_dir)]
        self._program = program
        self._pace = [str(wait_sec), str(commit_sec)]

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.ended_ns is None]

    @property
    def owners(self) -> dict[int, Worker]:
        """Who handles which partition, of those who run."""
        return {number: worker for worker in self.living if not worker.is_stopped for number in worker.tasks}

    def join(self) -> Worker:
        """Start another worker."""
        name = f"worker-{len(self.workers)}"
        journal = self._directory / f"{name}.journal"
        command = [sys.executable, "-m", self._program, *self._where, str(journal), *self._pace]
        worker = Worker(name, journal, command)
        self.workers.append(worker)
        return worker

    async def leave(self, worker: Worker) -> None:
        """SIGTERM: it gives everything back, and ends with 0."""
        worker.send(signal.SIGTERM)
        assert await worker.end() == 0, f"{worker.name} did not stop as it should"

    async def until(self, what: str, condition: Callable[[], bool], within_sec: float = 60) -> None:
        """Wait until it holds, by the journals; nobody may die meanwhile."""

        def holds() -> bool:
            for worker in self.living:
                worker.look()
            return condition()

        try:
            async with asyncio.timeout(within_sec):
                await until(holds)
        except TimeoutError:
            tasks = {worker.name: sorted(worker.tasks) for worker in self.living}
            pytest.fail(f"{what}: not within {within_sec:g} s; the tasks are {tasks}")

    async def until_handling(self, worker: Worker) -> None:
        """Wait until it handles another record."""
        before = worker.handled
        await self.until(f"{worker.name} handles records", lambda: worker.handled > before)

    def handled(self) -> Iterator[tuple[Worker, Handled]]:
        for worker in self.workers:
            for line in worker.journal:
                if isinstance(line, Handled):
                    yield worker, line

    def count_handled(self) -> int:
        return sum(worker.handled for worker in self.workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.close()


class Feed:
    """Sends records without an end, a thousand a second, until it is told to stop."""

    def __init__(self, kit: Kit, topic: str, keys: int, chance: random.Random) -> None:
        self.log: list[list[str]] = [[] for _ in range(PARTITIONS)]
        """What is in the input: for each partition the keys of its records, by offset."""
        self._kit = kit
        self._topic = topic
        self._keys = keys
        self._chance = chance
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        sending = asyncio.create_task(self._send())
        try:
            yield self
        finally:
            self._stop.set()
            await sending

    async def _send(self) -> None:
        async with self._kit.broker() as broker:
            producer = broker.producer()
            await producer.start()
            try:
                for number in itertools.cycle(range(PARTITIONS)):
                    if self._stop.is_set():
                        return
                    # A key is one partition's alone: its number ends in the partition's.
                    names = [f"{self._chance.randrange(self._keys)}-{number}" for _ in range(_BATCH)]
                    records = [(name.encode(), b"", (), broker.clock.time_ms()) for name in names]
                    for ack in await producer.send(TopicPartition(self._topic, number), records):
                        assert (await ack).base_offset == len(self.log[number])
                    self.log[number].extend(names)
                    try:
                        async with asyncio.timeout(_PAUSE_SEC):
                            await self._stop.wait()
                    except TimeoutError:
                        pass
            finally:
                await producer.stop()


class Commits:
    """Watches the group's committed offsets, which never go back."""

    def __init__(self, kit: Kit, topic: str) -> None:
        self.positions = [0] * PARTITIONS
        self._kit = kit
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._lock = asyncio.Lock()
        self._stop = asyncio.Event()

    async def look(self) -> list[int]:
        """What is committed now."""
        async with self._kit.broker() as broker:
            return await self._look(broker)

    async def until(self, log: Sequence[Sequence[str]]) -> None:
        """Wait until all of this input is committed."""
        ends = [len(keys) for keys in log]
        try:
            async with asyncio.timeout(60):
                while await self.look() != ends:
                    pass
        except TimeoutError:
            pytest.fail(f"not all is committed: {self.positions} of {ends}, by partition")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Self]:
        watching = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            self._stop.set()
            await watching

    async def _watch(self) -> None:
        async with self._kit.broker() as broker:
            while not self._stop.is_set():
                await self._look(broker)
                try:
                    async with asyncio.timeout(_PAUSE_SEC):
                        await self._stop.wait()
                except TimeoutError:
                    pass

    async def _look(self, broker: Any) -> list[int]:
        async with self._lock:  # or the older of two answers could come last
            found = await broker.committed(self._kit.group, self._partitions)
            now = [found[partition] or 0 for partition in self._partitions]
            back = {
                number: (self.positions[number], at) for number, at in enumerate(now) if at < self.positions[number]
            }
            assert not back, f"committed offsets went back, by partition: {back}"
            self.positions = now
            return now
