"""The command ``paperboy topics plan``: what it prints, and how it ends."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paperboy.brokers.memory import MemoryCluster, memory_cluster
from paperboy.brokers.protocol import TopicSpec
from paperboy.cli.main import main
from paperboy.clock import random_id

APP = """
from paperboy import Engine, Handler, Table, Topic

orders = Topic("orders", partitions=6, config={{"retention.ms": 1000}})
paid = Topic("paid", partitions=3, replication_factor=2, ensure=True)

class Orders(Handler):
    topic = orders
    outputs = [paid, "mails"]

engine = Engine(Orders, bootstrap_servers="memory://{cluster}", group_id="shop")
engine.register_table(Table("totals"))
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryCluster]:
    """A cluster without topics, on which the engine "app:engine" in the current directory is."""
    name = random_id()
    (tmp_path / "app.py").write_text(APP.format(cluster=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "app", raising=False)
    yield memory_cluster(name)
    sys.modules.pop("app", None)


ALLOWED = """
What the engine's user has to be allowed: kafka-acls --add --allow-principal User:…
  --topic orders --operation Read --operation DescribeConfigs
  --topic mails --operation Write --operation DescribeConfigs
  --topic paid --operation Write --operation DescribeConfigs --operation Create
  --topic shop-totals-changelog --operation Read --operation Write --operation DescribeConfigs --operation Create
  --group shop --operation Read
  --cluster --operation DescribeConfigs
"""


def test_it_says_what_is_needed_and_what_is_missing_and_creates_nothing(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topics", "plan", "app:engine"]) == 1
    assert capsys.readouterr() == (
        f"""\
orders: input
  6 partitions, retention.ms=1000
  missing: create it
mails: output
  any number of partitions
  missing: create it
paid: output
  3 partitions, replication factor 2
  missing: the engine creates it
shop-totals-changelog: changelog
  6 partitions, replication factor of the cluster, cleanup.policy=compact
  missing: the engine creates it
{ALLOWED}""",
        "",
    )
    assert cluster.topics == {}


def test_it_says_what_is_not_as_declared(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.create_topics(
        [TopicSpec("orders", 4, 1, {"retention.ms": "2000"}), TopicSpec("mails", 2), TopicSpec("paid", 3, 2)]
    )
    assert main(["topics", "plan", "app:engine"]) == 1
    out, _ = capsys.readouterr()
    assert out.startswith(
        """\
orders: input
  6 partitions, retention.ms=1000
  not as declared: partitions is 4, and not 6; retention.ms is 2000, and not 1000
mails: output
  2 partitions
  exists
paid: output
  3 partitions, replication factor 2
  exists
shop-totals-changelog: changelog
  4 partitions, replication factor of the cluster, cleanup.policy=compact
  missing: the engine creates it
"""
    )


def test_where_all_is_as_declared_or_will_be_it_ends_with_0(cluster: MemoryCluster) -> None:
    cluster.create_topics([TopicSpec("orders", 6, None, {"retention.ms": "1000"}), TopicSpec("mails", 2)])
    assert main(["topics", "plan", "app:engine"]) == 0


def test_offline_nobody_is_asked(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.create_topics([TopicSpec("orders", 4)])
    assert main(["topics", "plan", "app:engine", "--offline"]) == 0
    out, _ = capsys.readouterr()
    assert "orders: input\n  6 partitions, retention.ms=1000\nmails:" in out
    assert out.endswith(ALLOWED)
    assert "missing" not in out


def test_programs_get_json(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.create_topics([TopicSpec("orders", 4, None, {"retention.ms": "1000"}), TopicSpec("mails", 2)])
    assert main(["topics", "plan", "app:engine", "--json"]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert plan["group_id"] == "shop"
    orders, mails, paid, _ = plan["topics"]
    assert orders["purposes"] == ["input"]
    assert (orders["partitions"], orders["found"]["partitions"]) == (6, 4)
    assert orders["found"]["config"]["retention.ms"] == "1000"
    assert orders["differences"] == [{"setting": "partitions", "declared": "6", "found": "4"}]
    assert (mails["partitions"], mails["is_created"]) == (None, False)
    assert paid == {
        "name": "paid", "purposes": ["output"], "partitions": 3, "replication_factor": 2, "config": {},
        "is_created": True, "found": None, "differences": [],
    }  # fmt: skip
    assert plan["permissions"][-2:] == [
        {"resource": "group", "name": "shop", "is_prefix": False, "operations": ["Read"]},
        {"resource": "cluster", "name": "kafka-cluster", "is_prefix": False, "operations": ["DescribeConfigs"]},
    ]


def test_exactly_once_needs_transactional_ids(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = (
        (tmp_path / "app.py")
        .read_text()
        .replace('group_id="shop"', 'group_id="shop", processing_guarantee="exactly_once"')
    )
    (tmp_path / "app.py").write_text(app)
    main(["topics", "plan", "app:engine"])
    line = "  --transactional-id shop: --resource-pattern-type prefixed --operation Write\n"
    assert line in capsys.readouterr().out


def test_what_does_not_go_together_is_one_sentence(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = (
        (tmp_path / "app.py").read_text().replace("topic = orders", 'topic = [orders, Topic("refunds", partitions=5)]')
    )
    (tmp_path / "app.py").write_text(app)
    assert main(["topics", "plan", "app:engine"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("paperboy: Topics that share a table need one partition count, but 'orders' has 6, 'refunds'")


def test_without_an_action_or_an_engine_it_is_misuse(cluster: MemoryCluster) -> None:
    assert main(["topics", "plan", "app"]) == 2
    for arguments in (["topics"], ["topics", "plan"], ["topics", "make", "app:engine"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
