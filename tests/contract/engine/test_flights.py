"""The flights job of examples/ comes out right: in every mode, on 1 and 4 partitions, through stops and kills."""

import asyncio
import signal
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from examples.flights import data, oracle
from examples.flights.job import Flights, Mode
from examples.flights.load import load
from paperboy import Engine
from paperboy import Mode as EngineMode
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import random_id
from tests.contract.engine.kit import Kit, until

ROOT = Path(__file__).parents[3]
FLIGHTS = 12_000
SOME_MORE_FLIGHTS = 30_000
"""So many that an engine is still in the middle of them when its first progress is seen."""
MANY_FLIGHTS = 60_000
"""So many that it is when its first progress is seen from another process."""
QUICK: dict[str, Any] = {"commit_interval_sec": 0.1, "session_timeout_sec": 6, "heartbeat_interval_sec": 1}

expected = cache(oracle.group_by)

WORKER = f"""
import asyncio, sys
from examples.flights.job import Flights

bootstrap, prefix = sys.argv[1:]
asyncio.run(Flights(prefix).engine(bootstrap, "single", **{QUICK}).start())
"""


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("mode", ["bulk", "single", "step"])
async def test_every_total_equals_the_group_by(kit: Kit, mode: Mode, partitions: int) -> None:
    job = await loaded(kit.bootstrap, kit.unique, partitions, FLIGHTS)
    modes = set()
    watch = {"on_mode_change": lambda task, before, now: modes.add(now), "bulk_mode_threshold": 500}

    async with job.engine(kit.bootstrap, mode, **watch, **QUICK) as engine:
        await engine.caught_up()
        assert oracle.totals_of(job.tables) == expected(FLIGHTS)

    # Airlines, airports and planes are taken in steps at all events.
    assert EngineMode.STEP in modes
    assert (EngineMode.BULK in modes) == (mode == "bulk")


async def test_a_stop_in_the_middle_and_two_more_starts(kit: Kit) -> None:
    job = await loaded(kit.bootstrap, kit.unique, 4, SOME_MORE_FLIGHTS)
    looked_up = len(list(data.airlines())) + 4 * (len(list(data.airports())) + len(list(data.planes())))

    async with job.engine(kit.bootstrap, "single", **QUICK) as first:
        await until(lambda: finished(first, job.topics.flights) > 0)
    assert 0 < await committed(kit.bootstrap, job) < SOME_MORE_FLIGHTS

    async with job.engine(kit.bootstrap, **QUICK) as second:
        await second.caught_up()
        assert oracle.totals_of(job.tables) == expected(SOME_MORE_FLIGHTS)
    assert first.status().handled + second.status().handled == looked_up + 2 * SOME_MORE_FLIGHTS

    async with job.engine(kit.bootstrap, **QUICK) as third:
        await third.caught_up()
        assert oracle.totals_of(job.tables) == expected(SOME_MORE_FLIGHTS)
        assert third.status().handled == 0


async def test_at_4_partitions_no_route_stands_in_two(kit: Kit) -> None:
    job = await loaded(kit.bootstrap, kit.unique, 4, FLIGHTS)

    async with job.engine(kit.bootstrap, **QUICK) as engine:
        await engine.caught_up()
        routes, airlines = list(job.tables.routes.snapshot()), list(job.tables.flights.snapshot())

    assert Counter(entry.key for entry in routes) == dict.fromkeys(expected(FLIGHTS).routes, 1)
    # Which says something, because routes and airlines both stand in several partitions, and not in the same ones.
    assert len({entry.partition for entry in routes}) == 4
    assert len({entry.partition for entry in airlines}) > 1


@pytest.mark.time_limit(120)
@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("mode", ["bulk", "single", "step"])
async def test_a_sigterm_in_the_middle_and_two_more_starts(
    kafka_bootstrap: str, unique: str, mode: Mode, partitions: int
) -> None:
    job = await loaded(kafka_bootstrap, unique, partitions, MANY_FLIGHTS)

    assert await worker_signalled_in_the_middle(kafka_bootstrap, job, signal.SIGTERM) == 0

    async with job.engine(kafka_bootstrap, mode, **QUICK) as second:
        await second.caught_up()
        assert oracle.totals_of(job.tables) == expected(MANY_FLIGHTS)

    async with job.engine(kafka_bootstrap, mode, **QUICK) as third:
        await third.caught_up()
        assert oracle.totals_of(job.tables) == expected(MANY_FLIGHTS)
        assert third.status().handled == 0


@pytest.mark.time_limit(120)
async def test_after_a_kill_in_the_middle_no_total_is_below_the_group_by(kafka_bootstrap: str, unique: str) -> None:
    job = await loaded(kafka_bootstrap, unique, 4, MANY_FLIGHTS)

    assert await worker_signalled_in_the_middle(kafka_bootstrap, job, signal.SIGKILL) == -signal.SIGKILL

    async with job.engine(kafka_bootstrap, **QUICK) as second:
        await second.caught_up()
        totals = oracle.totals_of(job.tables)
    assert below(totals, expected(MANY_FLIGHTS)) == []


async def test_the_demo_run_again_with_its_prefix_finds_nothing_new(kafka_bootstrap: str, unique: str) -> None:
    arguments = ("--bootstrap-servers", kafka_bootstrap, "--prefix", f"{unique}-", "--limit", "1000")
    for news in (True, False):
        demo = await asyncio.create_subprocess_exec(
            sys.executable, "examples/flights/demo.py", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await demo.communicate()
        assert demo.returncode == 0
        assert b"1,000 flights: every total equals the group-by." in printed
        assert (b"Handled 0 records" not in printed) == news


async def loaded(bootstrap: str, unique: str, partitions: int, flights: int) -> Flights:
    job = Flights(f"{unique}-")
    await load(bootstrap, job.topics, partitions=partitions, limit=flights)
    return job


def finished(engine: Engine, topic: str) -> int:
    """How many of a topic's records the engine has handled."""
    return sum(
        position
        for task in engine.status().tasks
        for partition, position in task.positions.items()
        if partition.startswith(f"{topic}[")
    )


async def committed(bootstrap: str, job: Flights) -> int:
    """How many flights the job's group has committed."""
    broker = open_broker(bootstrap)
    await broker.start()
    try:
        partitions = [TopicPartition(job.topics.flights, number) for number in range(4)]
        offsets = await broker.committed(job.group_id, partitions)
    finally:
        await broker.stop()
    return sum(offset or 0 for offset in offsets.values())


async def worker_signalled_in_the_middle(bootstrap: str, job: Flights, number: signal.Signals) -> int:
    """Start a worker in a process of its own, and signal it when it has committed some of the flights.

    Returns:
        Its exit code.
    """
    prefix = job.group_id.removesuffix("flights")
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, bootstrap, prefix, cwd=ROOT)
    try:
        while await committed(bootstrap, job) == 0:
            assert worker.returncode is None
        worker.send_signal(number)
        code = await worker.wait()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    assert 0 < await committed(bootstrap, job) < MANY_FLIGHTS
    return code


def below(totals: oracle.Totals, least: oracle.Totals) -> list[str]:
    """Each number that is less than it should be at least."""
    have, need = numbers(totals), numbers(least)
    return [f"{name}: {have.get(name)} of {number}" for name, number in need.items() if have.get(name, -1) < number]


def numbers(totals: oracle.Totals) -> dict[str, int]:
    named = {
        f"{name} of {key}": number
        for name in ("flights", "delays", "cancellations")
        for key, number in getattr(totals, name).items()
    }
    for route, total in totals.routes.items():
        named |= {f"{name} of {route}": total[name] for name in ("flights", "seats")}
    return named


@pytest.fixture
def unique() -> str:
    return f"flights-{random_id()[:12]}"
