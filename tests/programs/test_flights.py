"""The parts of examples/flights that need no broker, and what its programs print and return."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM

import pytest

from examples.flights import data, oracle
from examples.flights.job import Flights
from examples.flights.load import load
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import random_id
from paperboy.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def test_the_source_has_every_flight_of_2013() -> None:
    flights = list(data.flights())
    assert len(flights) == data.FLIGHTS
    assert flights[0] == {
        "carrier": "UA",
        "flight": "1545",
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "time_hour": "2013-01-01T10:00:00Z",
        "dep_delay": "2",
    }
    assert sum(flight["dep_delay"] is None for flight in flights) == 8_255
    assert sum(flight["tailnum"] is None for flight in flights) == 2_512


def test_the_group_by_adds_up() -> None:
    totals = oracle.group_by(1_000)
    assert sum(totals.flights.values()) == sum(route["flights"] for route in totals.routes.values()) == 1_000
    assert totals.flights["United Air Lines Inc."] == sum(row["carrier"] == "UA" for row in data.flights(1_000))
    assert totals.cancellations.keys() == totals.delays.keys() == totals.flights.keys()


def test_differences_name_the_total_and_both_numbers() -> None:
    expected = oracle.Totals({"A": 1}, {"A": 5}, {"A": 0}, {"X-Y": {"flights": 1}})
    assert expected.differences(expected) == []
    wrong = replace(expected, flights={"A": 2, "B": 1}, routes={})
    assert wrong.differences(expected) == [
        "flights of A: 2 instead of 1",
        "flights of B: 1 instead of None",
        "routes of X-Y: None instead of {'flights': 1}",
    ]


async def test_a_load_sends_only_what_is_not_there() -> None:
    bootstrap, topics = f"memory://{random_id()}", Flights().topics

    async def held() -> dict[str, int]:
        broker = open_broker(bootstrap)
        await broker.start()
        try:
            ends = await broker.end_offsets([TopicPartition(name, number) for name in topics for number in (0, 1)])
        finally:
            await broker.stop()
        return {name: ends[TopicPartition(name, 0)] + ends[TopicPartition(name, 1)] for name in topics}

    await load(bootstrap, topics, partitions=2, limit=100)
    first = await held()
    assert first[topics.flights] == 100
    assert first[topics.airlines] == len(list(data.airlines()))
    assert first[topics.planes] == 2 * len(list(data.planes()))

    await load(bootstrap, topics, partitions=2, limit=100)
    assert await held() == first
    await load(bootstrap, topics, partitions=2, limit=150)
    assert await held() == first | {topics.flights: 150}
    with pytest.raises(ConfigurationError, match="holds more than these 100 rows"):
        await load(bootstrap, topics, partitions=2, limit=100)
    with pytest.raises(ConfigurationError, match="has 2 partitions, not 3"):
        await load(bootstrap, topics, partitions=3, limit=100)


def test_the_demo_prints_totals_and_that_they_are_right() -> None:
    done = run("examples/flights/demo.py", "--limit", "2000", "--partitions", "2")
    assert done.returncode == 0, done.stderr
    assert "2,000 flights: every total equals the group-by." in done.stdout
    assert "JetBlue Airways" in done.stdout
    assert "Los Angeles Intl" in done.stdout


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--partitions", "x"], ["--mode", "other"]])
def test_the_demo_refuses_arguments_that_make_no_sense(arguments: list[str]) -> None:
    done = run("examples/flights/demo.py", *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


async def test_the_demo_returns_1_when_a_total_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from examples.flights import demo

    wrong = replace(oracle.group_by(100), delays={})
    monkeypatch.setattr(oracle, "group_by", lambda limit: wrong)
    code = await demo.demo(demo.parse(["--limit", "100", "--bootstrap-servers", f"memory://{random_id()}"]))
    assert code == 1
    assert "totals differ from the group-by" in capsys.readouterr().err


async def test_a_sigterm_ends_the_demo_cleanly() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "examples/flights/demo.py",
        "--mode",
        "single",
        "--limit",
        "150000",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        while not (await process.stdout.readline()).startswith(b"single"):
            assert not process.stdout.at_eof()
        process.send_signal(SIGTERM)
        rest = await process.stdout.read()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"Stopped: what was handled is committed." in rest


def test_page_views_counts() -> None:
    done = run("examples/page_views.py")
    assert (done.returncode, done.stdout) == (0, "docs 1\nhome 3\npricing 1\n"), done.stderr


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
