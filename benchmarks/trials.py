"""One run of one contender in one workload, and what it took."""

import asyncio
import contextlib
import itertools
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import inputs, oracle
from benchmarks.contenders import Contender
from benchmarks.environments import ROOT
from benchmarks.oracle import WorkMissing
from benchmarks.process import JobProcess, Usage
from benchmarks.registry import Registry
from benchmarks.workloads import PARTITIONS, WORKLOADS, Workload
from paperboy.brokers import open_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import TopicPartition

Figures = dict[str, Any]
"""``rate`` in records/s (a restore: entries/s), ``seconds``, ``p50_ms``, ``p99_ms``; ``cpu_sec_per_million`` records,
``peak_mib``; ``records``; ``resident_mib``, each second, and its ``growth``, where the run was long enough to tell."""

_LIVE_RECORDS = 30_000
_RETURN_KEYS = 10
_LEAST_SAMPLES = 12


class Trials:
    """Runs contenders on one Kafka, each run in a process, under a group and with output topics of its own.

    Args:
        bootstrap: the Kafka.
        directory: where state and logs go.
        asked: how many records a workload has, before its share and a contender's limit.
    """

    def __init__(self, bootstrap: str, directory: Path, asked: int) -> None:
        self._bootstrap = bootstrap
        self._directory = directory
        self._asked = asked
        self._run = f"{time.time_ns():x}"
        """In all names: a Kafka may be used again."""
        self._environment = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        self._numbers = itertools.count(1)
        self._filled: dict[tuple[str, int], str] = {}
        self._counted: dict[tuple[str, str], tuple[str, str]] = {}
        """Group and topic of what was counted, to be restored."""

    def records(self, contender: Contender, workload: Workload) -> int:
        return min(workload.records(self._asked), contender.most_records or self._asked * 10)

    def run(self, contender: Contender, workload: Workload) -> Figures:
        """Raises JobFailed or WorkMissing."""
        with contextlib.ExitStack() as stack:
            if workload.input.form == "avro":
                self._environment["SCHEMA_REGISTRY_URL"] = stack.enter_context(Registry()).url
            return {
                "stretch": self._stretch,
                "restore": self._restore,
                "restart": self._restart,
                "live": self._live,
            }[workload.kind](contender, workload)

    # The kinds of workloads.

    def _stretch(self, contender: Contender, workload: Workload) -> Figures:
        records = self.records(contender, workload)
        topic, group = self._topic(workload, records), self._group(contender, workload)
        out = f"{group}-out"
        has_output = workload.check == "output"
        if has_output:
            asyncio.run(inputs.create(self._bootstrap, out))
        job = self._job(contender, contender.does[workload.name], topic, out, group, records)
        try:
            facts, usage = job.result()
        finally:
            job.kill()
        self._check(contender, workload, topic, out, group, records, facts)
        if has_output:
            asyncio.run(inputs.delete(self._bootstrap, out))
        shutil.rmtree(self._directory / group, ignore_errors=True)
        return {"rate": records / facts["seconds"], **_costs(usage, records)}

    def _restore(self, contender: Contender, workload: Workload) -> Figures:
        records = self.records(contender, workload)
        if (contender.name, workload.name) not in self._counted:
            topic, group = self._topic(workload, records), self._group(contender, workload)
            counting = WORKLOADS["count-unique"]
            job = self._job(contender, contender.does[counting.name], topic, "none", group, records)
            try:
                facts, _ = job.result()
            finally:
                job.kill()
            self._check(contender, counting, topic, "none", group, records, facts)
            self._counted[contender.name, workload.name] = group, topic
        group, topic = self._counted[contender.name, workload.name]
        shutil.rmtree(self._directory / group, ignore_errors=True)
        job = self._job(contender, contender.does[workload.name], topic, "none", group, records)
        try:
            facts, usage = job.result()
        finally:
            job.kill()
        if facts["records"] < records:
            raise WorkMissing(f"{facts['records']} of {records} entries were restored")
        return {"rate": facts["records"] / facts["seconds"], **_costs(usage, records)}

    def _restart(self, contender: Contender, workload: Workload) -> Figures:
        records = self.records(contender, workload)
        group = self._group(contender, workload)
        topic = f"{group}-in"
        asyncio.run(self._make(topic, workload, records))
        expected = inputs.expected_counts(workload.input, records)
        again = sorted(expected)[:_RETURN_KEYS]
        word = contender.does[workload.name]
        job = self._job(contender, word, topic, "none", group, records)
        try:
            job.event("handled")
            with asyncio.Runner() as runner:
                appender = runner.run(_Appender.opened(self._bootstrap, topic))
                begun = time.perf_counter()
                job.terminate()
                job.result()
                runner.run(appender.append(again))
                job = self._job(contender, word, topic, "none", group, len(again))
                job.event("first")
                seconds = time.perf_counter() - begun
                runner.run(appender.close())
            job.event("handled")
            job.terminate()
            _, usage = job.result()
        finally:
            job.kill()
        expected.update(again)
        self._check_counts(contender, topic, group, expected)
        shutil.rmtree(self._directory / group, ignore_errors=True)
        return {"seconds": seconds, "peak_mib": usage.peak_mib, "records": records}

    def _live(self, contender: Contender, workload: Workload) -> Figures:
        records = self.records(contender, workload)
        live = min(_LIVE_RECORDS, max(1, self._asked // 100))
        group = self._group(contender, workload)
        topic = f"{group}-in"
        asyncio.run(self._make(topic, workload, records))
        job = self._job(contender, contender.does[workload.name], topic, "none", group, records)
        try:
            caught_up = job.event("caught up")
            asyncio.run(inputs.go_live(self._bootstrap, topic, live))
            facts, usage = job.result()
        finally:
            job.kill()
        if facts["records"] != records or facts["live"] != live:
            raise WorkMissing(f"{facts['records']} of {records} and {facts['live']} of {live} live records handled")
        asyncio.run(oracle.check_committed(self._bootstrap, group, topic))
        asyncio.run(inputs.delete(self._bootstrap, topic))
        return {
            "p50_ms": facts["p50_ms"],
            "p99_ms": facts["p99_ms"],
            "rate": records / caught_up["seconds"],
            "peak_mib": usage.peak_mib,
            "records": records,
        }

    # What they have in common.

    def _job(self, contender: Contender, word: str, topic: str, out: str, group: str, records: int) -> JobProcess:
        arguments = [word, self._bootstrap, topic, out, group, str(self._directory / group), str(records)]
        return JobProcess(
            [*contender.peer.command(), *arguments],
            self._environment,
            self._directory / f"{group}.log",
            timeout_sec=180 + records / 100,
        )

    def _group(self, contender: Contender, workload: Workload) -> str:
        return f"{contender.name}-{workload.name}-{self._run}-{next(self._numbers)}"

    def _topic(self, workload: Workload, records: int) -> str:
        """The topic that all contenders read, who handle so many records."""
        kind = workload.input.name, records
        if kind not in self._filled:
            topic = f"{workload.input.name}-{records}-{self._run}"
            asyncio.run(self._make(topic, workload, records))
            self._filled[kind] = topic
        return self._filled[kind]

    async def _make(self, topic: str, workload: Workload, records: int) -> None:
        await inputs.create(self._bootstrap, topic)
        await inputs.fill(self._bootstrap, topic, workload.input, records)

    def _check(
        self,
        contender: Contender,
        workload: Workload,
        topic: str,
        out: str,
        group: str,
        records: int,
        facts: dict[str, Any],
    ) -> None:
        if facts["records"] != records:
            raise WorkMissing(f"{facts['records']} of {records} records were handled")
        asyncio.run(oracle.check_committed(self._bootstrap, group, topic))
        match workload.check:
            case "kept":
                if facts["kept"] != (expected := inputs.expected_kept(workload.input, records)):
                    raise WorkMissing(f"{facts['kept']} records passed the filter instead of {expected}")
            case "output":
                expected_keys = inputs.expected_counts(workload.input, records)
                asyncio.run(oracle.check_output(self._bootstrap, out, expected_keys))
            case "counts":
                self._check_counts(contender, topic, group, inputs.expected_counts(workload.input, records))
            case "handled":
                pass

    def _check_counts(self, contender: Contender, topic: str, group: str, expected: Counter[bytes]) -> None:
        assert contender.changelog is not None
        changelog = contender.changelog.format(group=group, topic=topic)
        asyncio.run(oracle.check_counts(self._bootstrap, changelog, contender.peer.name, expected))


class _Appender:
    """Puts a few more records into a topic without losing time over a connection."""

    def __init__(self, broker: Any, producer: Any, topic: str) -> None:
        self._broker = broker
        self._producer = producer
        self._topic = topic

    @classmethod
    async def opened(cls, bootstrap: str, topic: str) -> "_Appender":
        broker = open_broker(bootstrap)
        await broker.start()
        producer = broker.producer()
        await producer.start()
        return cls(broker, producer, topic)

    async def append(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            partition = TopicPartition(self._topic, partition_for_key(key, PARTITIONS))
            for ack in await self._producer.send(partition, [(key, b"again", (), self._broker.clock.time_ms())]):
                await ack

    async def close(self) -> None:
        await self._producer.stop()
        await self._broker.stop()


def _costs(usage: Usage, records: int) -> Figures:
    return {
        "cpu_sec_per_million": usage.cpu_sec / records * 1e6,
        "peak_mib": usage.peak_mib,
        "resident_mib": usage.resident_mib,
        "growth": growth(usage.resident_mib),
        "records": records,
    }


def growth(resident_mib: Sequence[float]) -> float | None:
    """What was resident in the last quarter of a run, over the second: in the first, buffers and caches fill."""
    if len(resident_mib) < _LEAST_SAMPLES:
        return None
    quarter = len(resident_mib) // 4
    second, last = resident_mib[quarter : 2 * quarter], resident_mib[-quarter:]
    return statistics.mean(last) / statistics.mean(second)
