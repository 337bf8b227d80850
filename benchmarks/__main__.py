"""``python -m benchmarks``: how fast the engine hands records over, beside a bare aiokafka getmany loop.

Everything runs on one Kafka, on the same topic, in turns; what counts is the ratio of the medians of one run.
"""

import argparse
import asyncio
import contextlib
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.contenders import CONTENDERS, GOALS, Contender
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import Outgoing, TopicPartition, TopicSpec
from tests.kafka_server import KafkaServer

PARTITIONS = 4
HOT_KEYS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--bootstrap-servers", help="a Kafka to use; one is started otherwise")
    parser.add_argument("--records", type=int, default=1_000_000, help="records in the topic (default: 1,000,000)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender (default: 5)")
    parser.add_argument("--only", help="comma-separated names of contenders beside getmany")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    chosen = [
        contender
        for contender in CONTENDERS
        if not arguments.only or contender.name in {"getmany", *arguments.only.split(",")}
    ]
    with contextlib.ExitStack() as stack:
        bootstrap = arguments.bootstrap_servers or stack.enter_context(KafkaServer(heap="1g")).bootstrap
        topic = f"benchmark-{time.time_ns()}"
        asyncio.run(fill(bootstrap, topic, arguments.records))
        rates: dict[str, list[float]] = {contender.name: [] for contender in chosen}
        for contender in chosen:  # one round to warm up, not counted
            run(contender, bootstrap, topic, arguments.records)
        for repeat in range(arguments.repeats):
            for contender in chosen:
                rate = run(contender, bootstrap, topic, arguments.records)
                rates[contender.name].append(rate)
                print(f"  {repeat + 1}: {contender.name:<24}{rate:>12,.0f} records/s", file=sys.stderr)
    report(rates, arguments.records)
    if arguments.json:
        arguments.json.write_text(json.dumps({"records": arguments.records, "rates": rates}, indent=1))


def run(contender: Contender, bootstrap: str, topic: str, records: int) -> float:
    """Records per second of one run, from the start of the client to the last record handled and committed."""
    return records / asyncio.run(contender.run(bootstrap, topic, records))


async def fill(bootstrap: str, topic: str, records: int) -> None:
    """`records` of 100 bytes under 1,000 keys, spread over the partitions by key."""
    broker = open_broker(bootstrap)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(topic, PARTITIONS)])
        producer = broker.producer()
        await producer.start()
        now_ms = broker.clock.time_ms()
        value = b"v" * 100
        for partition in range(PARTITIONS):
            keys = [b"%07d" % key for key in range(partition, HOT_KEYS, PARTITIONS)]
            left = records // PARTITIONS
            while left:
                count = min(left, 50_000)
                batch: list[Outgoing] = [(keys[number % len(keys)], value, (), now_ms) for number in range(count)]
                for ack in await producer.send(TopicPartition(topic, partition), batch):
                    await ack
                left -= count
        await producer.stop()
    finally:
        await broker.stop()


def report(rates: dict[str, list[float]], records: int) -> None:
    medians = {name: statistics.median(measured) for name, measured in rates.items()}
    print(f"Python {platform.python_version()}, aiokafka {version('aiokafka')}, {records:,} records of 100 bytes,")
    print(f"{PARTITIONS} partitions, medians of {len(rates['getmany'])} runs in turns:\n")
    print("| contender | records/s (min to max) | of getmany | goal |")
    print("|---|---|---|---|")
    for name, measured in rates.items():
        goal = GOALS.get(name)
        print(
            f"| {name} | {medians[name]:,.0f} ({min(measured):,.0f} to {max(measured):,.0f})"
            f" | {medians[name] / medians['getmany']:.2f} | {goal if goal is not None else ''} |"
        )


if __name__ == "__main__":
    main()
