"""``python -m benchmarks.state``: counting and restoring on RocksDB with a changelog, beside Quix Streams.

One Kafka, the same topics, in turns; each job in a process of its own, with the default options. Counting is timed from
the first record to the end of a clean stop, which leaves everything durable; restoring from the assignment (Quix: from
the beginning of its recovery) until the tables are ready. Quix Streams gets an environment of its own under build/.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.__main__ import PARTITIONS
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import Outgoing, TopicPartition, TopicSpec
from tests.kafka_server import KafkaServer

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
QUIX = "quixstreams==3.28.1"
JOBS = {"paperboy": "paperboy_job.py", "quix": "quix_job.py"}
HOT_KEYS = 1_000
GOALS = {"count, 1,000 keys": 5.0, "count, unique keys": 5.0, "restore": 5.0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.state", description=__doc__)
    parser.add_argument("--records", type=int, default=500_000, help="records to count (default: 500,000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    pythons = {"paperboy": Path(sys.executable), "quix": environment("quix", QUIX)}
    rates: dict[str, dict[str, list[float]]] = {workload: {job: [] for job in JOBS} for workload in GOALS}
    with contextlib.ExitStack() as stack:
        bootstrap = stack.enter_context(KafkaServer(heap="1g")).bootstrap
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        for repeat in range(arguments.repeats):
            for workload, keys in (("count, 1,000 keys", HOT_KEYS), ("count, unique keys", arguments.records)):
                topic = f"{keys}-{time.time_ns()}"
                asyncio.run(fill(bootstrap, topic, arguments.records, keys))
                for job, python in pythons.items():
                    group, state_dir = f"{job}-{topic}", work / job
                    shutil.rmtree(state_dir, ignore_errors=True)
                    rate = run(job, python, bootstrap, topic, group, state_dir, arguments.records)
                    note(rates, workload, job, rate, repeat)
                    if keys == arguments.records:
                        shutil.rmtree(state_dir)
                        restored = run(job, python, bootstrap, topic, group, state_dir, 0, entries=arguments.records)
                        note(rates, "restore", job, restored, repeat)
    report(rates, arguments.records, arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps({"records": arguments.records, "rates": rates}, indent=1))


def environment(name: str, requirement: str) -> Path:
    """The Python of an environment that holds this peer; made where it does not exist."""
    home = PEERS / name
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
    return python


def run(
    job: str, python: Path, bootstrap: str, topic: str, group: str, state_dir: Path, records: int, entries: int = 0
) -> float:
    """Records (or restored entries) per second of one run."""
    done = subprocess.run(
        [python, ROOT / "benchmarks" / "peers" / JOBS[job], bootstrap, topic, group, state_dir, str(records)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT) if job == "paperboy" else "", "PYTHONWARNINGS": "ignore"},
        check=True,
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    if records and figures["records"] != records:
        raise AssertionError(f"{job} handled {figures['records']} of {records} records")
    return float((records or entries) / figures["seconds"])


def note(rates: dict[str, dict[str, list[float]]], workload: str, job: str, rate: float, repeat: int) -> None:
    rates[workload][job].append(rate)
    print(f"  {repeat + 1}: {workload:<20}{job:<10}{rate:>12,.0f}/s", file=sys.stderr)


async def fill(bootstrap: str, topic: str, records: int, keys: int) -> None:
    """`records` of 100 bytes under so many keys, each in one partition."""
    broker = open_broker(bootstrap)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(topic, PARTITIONS)])
        producer = broker.producer()
        await producer.start()
        now_ms = broker.clock.time_ms()
        for partition in range(PARTITIONS):
            mine = range(partition, records, PARTITIONS)
            for start in range(0, len(mine), 50_000):
                batch: list[Outgoing] = [
                    (b"%07d" % (number % keys), b"v" * 100, (), now_ms) for number in mine[start : start + 50_000]
                ]
                for ack in await producer.send(TopicPartition(topic, partition), batch):
                    await ack
        await producer.stop()
    finally:
        await broker.stop()


def report(rates: dict[str, dict[str, list[float]]], records: int, repeats: int) -> None:
    print(f"{records:,} records of 100 bytes, {PARTITIONS} partitions, {QUIX}, medians of {repeats} runs in turns:\n")
    print("| workload | paperboy, /s | Quix Streams, /s | ratio | goal |")
    print("|---|---|---|---|---|")
    for workload, measured in rates.items():
        ours, theirs = (statistics.median(measured[job]) for job in ("paperboy", "quix"))
        print(f"| {workload} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.1f} | {GOALS[workload]:g} |")


if __name__ == "__main__":
    main()
