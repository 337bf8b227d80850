"""The commands ``paperboy dlt …``: what they print, and how they end."""

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from paperboy.brokers.memory import MemoryBroker, MemoryCluster, memory_cluster
from paperboy.brokers.protocol import Outgoing, Record, TopicPartition, TopicSpec
from paperboy.cli.main import main
from paperboy.clock import random_id
from paperboy.errors import BrokerError
from paperboy.handlers.failed_record import FailedRecord
from tests.unit.test_cli_reset import Terminal

APP = """
from paperboy import DeadLetter, Engine, Handler

class Charge(Handler):
    topic = "orders"
    dead_letter = DeadLetter()

class Ship(Handler):
    topic = "shipments"
    dead_letter = DeadLetter()

class Plain(Handler):
    topic = "plain"

engine = Engine(Charge, Ship, bootstrap_servers="memory://{cluster}", group_id="billing")
plain = Engine(Plain, bootstrap_servers="memory://{cluster}", group_id="plain")
"""
RETRY = TopicPartition("billing-orders-retry", 0)
DEAD = TopicPartition("orders-dlt", 0)


def failed(offset: int, error_class: str, group: str = "billing") -> FailedRecord:
    return FailedRecord(
        topic="orders",
        partition=0,
        offset=offset,
        timestamp_ms=1_700_000_000_000,
        group=group,
        handler="Charge",
        error_class=error_class,
        error="no account",
        stack="Traceback\n  in charge",
        attempts=1,
        first_ms=1_700_000_001_000 + offset,
        last_ms=1_700_000_002_000 + offset,
    )


def letter(offset: int, error_class: str, group: str = "billing") -> Outgoing:
    headers = failed(offset, error_class, group).headers([("trace", b"t%d" % offset)])
    return b"anna", b'{"amount": %d}' % offset, headers, 1_700_000_000_000


LETTERS = [letter(7, "LookupError"), letter(8, "shop.Refused"), letter(9, "LookupError"), letter(3, "Gone", "audit")]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryCluster]:
    """A cluster with four dead letters of orders, one of them another group's; the engine is "app:engine" in the
    current directory, and was started before."""
    name = random_id()
    cluster = memory_cluster(name)
    (tmp_path / "app.py").write_text(APP.format(cluster=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "app", raising=False)
    cluster.create_topics([TopicSpec(topic, 1) for topic in ("orders", "orders-dlt", RETRY.topic)])
    put(cluster, LETTERS)
    yield cluster
    sys.modules.pop("app", None)


def put(cluster: MemoryCluster, letters: Sequence[Outgoing]) -> None:
    async def send() -> None:
        producer = MemoryBroker(cluster).producer()
        await producer.start()
        await asyncio.gather(*await producer.send(DEAD, letters))
        await producer.stop()

    asyncio.run(send())


def values(cluster: MemoryCluster, partition: TopicPartition = RETRY) -> list[bytes]:
    log = cluster.log(partition)
    records: list[Record] = log.read(log.start_offset)[0]
    return [record.value for record in records]


def test_ls_counts_letters_by_topic_group_and_error(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--error", "refused", "--yes"]) == 0
    cluster.create_topics([TopicSpec("shipments-dlt", 1)])
    capsys.readouterr()
    assert main(["dlt", "ls", "app:engine"]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["TOPIC", "LETTERS", "REPLAYED", "FIRST", "FAILURE", "LAST", "FAILURE", "GROUP", "ERROR"],
        ["orders-dlt", "1", "0", "2023-11-14T22:13:21.003Z", "2023-11-14T22:13:22.003Z", "audit", "Gone"],
        ["orders-dlt", "2", "0", "2023-11-14T22:13:21.007Z", "2023-11-14T22:13:22.009Z", "billing", "LookupError"],
        ["orders-dlt", "1", "1", "2023-11-14T22:13:21.008Z", "2023-11-14T22:13:22.008Z", "billing", "shop.Refused"],
        ["shipments-dlt", "0", "0", "-", "-", "-", "-"],
    ]
    assert err == ""


def test_ls_names_topics_that_do_not_exist(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlt", "ls", "app:engine"]) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["shipments-dlt", "does", "not", "exist", *"-----"]


def test_show_tells_what_failed_and_why(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlt", "show", "app:engine", "orders-dlt", "--offset", "0:1", "--stack"]) == 0
    assert capsys.readouterr() == (
        """\
orders-dlt[0] offset 1
  message   orders[0] offset 8, of 2023-11-14T22:13:20.000Z
  failed    in Charge of group billing
  attempts  once, from 2023-11-14T22:13:21.008Z to 2023-11-14T22:13:22.008Z
  error     shop.Refused: no account
  replayed  no
  key       "anna"
  value     {"amount": 8}
  header    trace: "t8"
  stack
    Traceback
      in charge

1 dead letter of orders-dlt.
""",
        "",
    )


def test_show_ends_at_its_limit_and_says_how_many_more_there_are(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dlt", "show", "app:engine", "orders-dlt", "--limit", "1", "--error", "lookup"]) == 0
    out = capsys.readouterr().out
    assert out.count("offset 7") == 1
    assert "stack" not in out
    assert out.endswith("\n1 dead letter of orders-dlt, and 1 more: raise --limit.\n")


@pytest.mark.parametrize(
    ("arguments", "offsets"),
    [
        (["--since", "2023-11-14T22:13:22.008"], [8, 9]),
        (["--until", "2023-11-14T22:13:22.008Z"], [7, 3]),
        (["--key", "anna", "--key", "bert", "--error", "gone"], [3]),
        (["--key", "bert"], []),
        (["--offset", "0:1-2", "--offset", "0:3"], [8, 9, 3]),
    ],
)
def test_filters_choose(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str], arguments: list[str], offsets: list[int]
) -> None:
    assert main(["dlt", "show", "app:engine", "orders-dlt", *arguments]) == 0
    out = capsys.readouterr().out
    assert [int(line.split()[3].rstrip(",")) for line in out.splitlines() if line.startswith("  message")] == offsets


def test_without_yes_replay_says_what_it_would_do_and_does_nothing(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = set(cluster.topics)
    assert main(["dlt", "replay", "app:engine", "orders-dlt"]) == 0
    assert capsys.readouterr() == (
        """\
3 dead letters of orders-dlt would be replayed.
  to billing-orders-retry: 2 letters, LookupError
  to billing-orders-retry: 1 letter, shop.Refused
Left where they are:
  1 letter: of group 'audit': replay them with its engine
Nothing was sent: --yes does it.
""",
        "",
    )
    assert values(cluster) == []
    assert set(cluster.topics) == topics


def test_with_yes_replay_does_it_and_the_next_one_has_nothing_to_do(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("3 dead letters of orders-dlt are replayed now.\n")
    assert out.endswith("\n3 dead letters of orders-dlt replayed, all committed.\n")
    assert err == ""
    assert values(cluster) == [b'{"amount": 7}', b'{"amount": 8}', b'{"amount": 9}']
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 dead letters of orders-dlt are replayed now.\n")
    assert "  3 letters: replayed before (--again replays them again)\n" in out
    assert len(values(cluster)) == 3
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--again", "--offset", "0:0", "--yes"]) == 0
    assert values(cluster)[3:] == [b'{"amount": 7}']


def test_to_the_original_topic_it_warns(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cluster, [letter(11, "New")])
    cluster.topics["orders"].config["retention.ms"] = "-1"
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--error", "new", "--to-original"]) == 0
    out = capsys.readouterr().out
    assert "  to orders: 1 letter, New\nWARNING: every reader of these topics gets them again" in out
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--error", "new", "--to-original", "--yes"]) == 0
    assert values(cluster, TopicPartition("orders", 0)) == [b'{"amount": 11}']


def test_to_an_original_topic_that_is_compacted_is_misuse(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.delete_topics(["orders"])
    cluster.create_topics([TopicSpec("orders", 1, config={"cleanup.policy": "compact,delete"})])
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--to-original", "--yes"]) == 2
    assert capsys.readouterr().err == (
        "paperboy: Topic 'orders' is compacted, and an old message would take the place of a newer one of its key:"
        " replay to the group, without --to-original.\n"
    )


def test_a_replay_that_breaks_off_says_how_to_end_it(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.fail_next("create", BrokerError("The broker is away."))
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 1
    assert capsys.readouterr().err == (
        "paperboy: 0 of 3 dead letters replayed; run the same replay again to end it: none goes twice.\n"
        "paperboy: The broker is away.\n"
    )
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 0
    assert len(values(cluster)) == 3


def test_an_acknowledgement_that_does_not_come_is_no_replay_and_no_second_letter(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """The letters arrive, but nobody hears of it: the next replay finds them where they were sent to."""
    cluster.fail_next("produce_ack", BrokerError("Nobody answers."))
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 1
    assert "0 of 3 dead letters replayed" in capsys.readouterr().err
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 0
    assert len(values(cluster)) == 3


def test_progress_is_shown_on_a_terminal_and_not_among_the_results(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 0
    assert "replaying" in terminal.shown
    assert "replaying" not in capsys.readouterr().out


def test_purge_says_what_it_would_do_and_with_yes_does_it(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dlt", "purge", "app:engine", "orders-dlt"]) == 0
    assert capsys.readouterr() == (
        """\
4 dead letters of orders-dlt would be deleted.
  orders-dlt[0]: below offset 4
  1 letter of group 'audit'
  3 letters of group 'billing'
Nothing was deleted: --yes does it, and nothing brings them back.
""",
        "",
    )
    assert len(values(cluster, DEAD)) == 4
    assert main(["dlt", "purge", "app:engine", "orders-dlt", "--until", "2023-11-14T22:13:22.008Z", "--yes"]) == 0
    assert capsys.readouterr().out.endswith(
        "  1 letter more stand behind letters that stay, and stay with them\n1 dead letter of orders-dlt deleted.\n"
    )
    assert len(values(cluster, DEAD)) == 3
    assert main(["dlt", "replay", "app:engine", "orders-dlt", "--yes"]) == 0
    assert main(["dlt", "purge", "app:engine", "orders-dlt", "--replayed", "--yes"]) == 0
    assert values(cluster, DEAD) == [b'{"amount": 3}']
    assert main(["dlt", "purge", "app:engine", "orders-dlt", "--offset", "0:-3", "--yes"]) == 0
    assert values(cluster, DEAD) == []


def test_a_topic_that_does_not_exist_is_misuse(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("show", "replay", "purge"):
        assert main(["dlt", action, "app:engine", "orders-dtl"]) == 2
        assert capsys.readouterr().err == (
            f"paperboy: There is no topic 'orders-dtl' on {cluster}; the engine's dead letter topics: orders-dlt,"
            " shipments-dlt. A broker in memory lives inside the process that runs the engine: a command does not see"
            " what it holds.\n"
        )


def test_a_broker_that_is_away_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        (tmp_path / "app.py").write_text(
            APP.replace("memory://{cluster}", address).replace('group_id="', 'connect_timeout_sec=0.5, group_id="')
        )
        said = subprocess.run(
            [sys.executable, "-m", "paperboy.cli", "dlt", "ls", "app:engine"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert said.returncode == 1
    assert re.fullmatch(rf"paperboy: .*{address}.*\n", said.stderr), said.stderr


def test_an_engine_that_puts_nothing_with_dead_letters_is_misuse(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dlt", "ls", "app:plain"]) == 2
    assert capsys.readouterr().err == (
        "paperboy: app:plain puts nothing with dead letters: neither it nor a handler of it has a dead_letter.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--since", "yesterday"], "'yesterday' is no time such as"),
        (["--offset", "3:"], "'3:' names no offsets: write"),
        (["--limit", "0"], "'0' is no whole number above 0"),
        (["--limit", "²"], "is no whole number above 0"),
    ],
)
def test_a_filter_that_is_none_is_misuse(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dlt", "show", "app:engine", "orders-dlt", *arguments])
    assert caught.value.code == 2
    assert why in capsys.readouterr().err
