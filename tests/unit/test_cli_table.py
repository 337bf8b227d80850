"""The commands ``paperboy table …``: what they print, and how they end."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paperboy.brokers.memory import MemoryBroker, MemoryCluster, memory_cluster
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.cli.main import main
from paperboy.clock import random_id
from paperboy.serializers import Avro, String
from paperboy.serializers.values import encode_value
from paperboy.tables.keys import Key, encode_key
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import StoreIdentity
from paperboy.tables.stores.rocksdb import RocksDBStore
from paperboy.tables.table import Table

CLICKS = "shop-clicks-changelog"
NAMES = "shop-names-changelog"
APP = """
from paperboy import Engine, GlobalTable, Handler, Table
from paperboy.serializers import Avro, String

class Utf16:
    def serialize(self, value):
        return value.encode("utf-16-le")

    def deserialize(self, data):
        return data.decode("utf-16-le")

class Views(Handler):
    topic = "views"

engine = Engine(Views, bootstrap_servers="memory://elsewhere", group_id="shop")
engine.register_table(Table("clicks"))
engine.register_table(Table("names", key_serializer=String(), value_serializer=Utf16()))
engine.register_table(GlobalTable("countries", topic="lands", key_serializer=String(), value_serializer=String()))
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryCluster]:
    """A cluster with the changelogs of two tables. The current directory has their engine."""
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    cluster = memory_cluster(random_id())
    compacted = {"cleanup.policy": "compact"}
    cluster.create_topics([TopicSpec(CLICKS, 2, config=compacted), TopicSpec(NAMES, 1, config=compacted)])
    cluster.create_topics([TopicSpec("views", 2), TopicSpec("no-changelog", 1)])
    write(cluster, CLICKS, 0, {"home": 1, b"home": 2})
    write(cluster, CLICKS, 0, {"home": 3, "gone": 4})
    write(cluster, CLICKS, 0, {"gone": None})
    write(cluster, CLICKS, 1, {("a", 7): [1.5, {"b": b"\xff"}]})
    write_bytes(cluster, NAMES, 0, {b"AA": "Américan".encode("utf-16-le")})
    yield cluster
    sys.modules.pop("shop", None)


def write(cluster: MemoryCluster, topic: str, partition: int, entries: Mapping[Any, Any]) -> None:
    write_bytes(cluster, topic, partition, {encode_key(key): in_bytes(value) for key, value in entries.items()})


def in_bytes(value: object) -> bytes | None:
    return None if value is None else encode_value(value)


def write_bytes(cluster: MemoryCluster, topic: str, partition: int, entries: Mapping[bytes, bytes | None]) -> None:
    async def send() -> None:
        producer = MemoryBroker(cluster).producer()
        await producer.start()
        records = [(key, value, (), cluster.clock.time_ms()) for key, value in entries.items()]
        await asyncio.gather(*await producer.send(TopicPartition(topic, partition), records))
        await producer.stop()

    asyncio.run(send())


def keep(
    cluster: MemoryCluster,
    home: str,
    partition: int,
    entries: Mapping[Key, object],
    offset: int,
    *,
    table: str = "clicks",
    in_step_ms: int | None = None,
    leave_open: bool = False,
) -> RocksDBStore:
    """A store of the table "clicks" below the current directory, as a worker leaves it."""
    changelog = f"shop-{table}-changelog"
    identity = StoreIdentity(table, partition, changelog, cluster.topic(changelog).id, Table("clicks").definition)
    path = Path("state", "shop", home, table, str(partition))
    store, _ = RocksDBStore.open(path, identity, RocksDBOptions())
    now_ms = cluster.clock.time_ms() if in_step_ms is None else in_step_ms
    store.write({encode_key(key): encode_value(value) for key, value in entries.items()}, offset, now_ms)
    store.flush()
    if not leave_open:
        store.close()
    return store


@pytest.fixture
def stores(cluster: MemoryCluster) -> None:
    """Stores in step with the changelogs of the table "clicks", in the directory "state"."""
    keep(cluster, "1", 0, {"home": 3, b"home": 2}, 5)
    keep(cluster, "1", 1, {("a", 7): [1.5, {"b": b"\xff"}]}, 1)


Output = pytest.CaptureFixture[str]


def lines(output: Output) -> list[str]:
    """What was printed; nothing went wrong."""
    out, err = output.readouterr()
    assert err == ""
    return out.splitlines()


def fields(output: Output) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(output)]


CLICKS_IN_STORES = [
    {"table": "clicks", "partition": 0, "offset": 5, "key": "home", "value": 3},
    {"table": "clicks", "partition": 0, "offset": 5, "key": {"bytes": "home"}, "value": 2},
    {
        "table": "clicks",
        "partition": 1,
        "offset": 1,
        "key": {"tuple": ["a", 7]},
        "value": [1.5, {"b": {"bytes": "\\xff"}}],
    },
]


@pytest.mark.usefixtures("stores")
def test_stores_are_listed(capsys: Output) -> None:
    assert main(["table", "ls", "state"]) == 0
    head, first, second = lines(capsys)
    assert head.split() == ["TABLE", "PARTITION", "ENTRIES", "OFFSET", "BYTES", "DIRECTORY"]
    assert first.split()[:4] == ["clicks", "0", "~2", "5"]
    assert first.split()[5] == "state/shop/1/clicks/0"
    assert int(first.split()[4]) == sum(file.stat().st_size for file in Path("state/shop/1/clicks/0").iterdir())
    assert second.split()[:4] == ["clicks", "1", "~1", "1"]


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("below", ["state/shop", "state/shop/1", "state/shop/1/clicks", "state/shop/1/clicks/1"])
def test_stores_are_found_from_any_directory_above_them(capsys: Output, below: str) -> None:
    assert main(["table", "ls", below]) == 0
    assert lines(capsys)[-1].split()[5] == "state/shop/1/clicks/1"


def test_partitions_are_listed_in_the_order_of_their_numbers(cluster: MemoryCluster, capsys: Output) -> None:
    for partition in (10, 9, 0):
        keep(cluster, "1", partition, {}, 0)
    assert main(["table", "ls", "state"]) == 0
    assert [line.split()[1] for line in lines(capsys)[1:]] == ["0", "9", "10"]


def test_changelogs_are_listed(cluster: MemoryCluster, capsys: Output) -> None:
    assert main(["table", "ls", str(cluster)]) == 0
    assert [line.split() for line in lines(capsys)] == [
        ["CHANGELOG", "PARTITION", "BEGIN", "END"],
        [CLICKS, "0", "0", "5"],
        [CLICKS, "1", "0", "1"],
        [NAMES, "0", "0", "1"],
    ]


@pytest.mark.usefixtures("stores")
def test_stores_are_dumped_as_lines_of_json(capsys: Output) -> None:
    assert main(["table", "dump", "state"]) == 0
    assert fields(capsys) == CLICKS_IN_STORES
    assert main(["table", "dump", "state", "clicks"]) == 0
    assert fields(capsys) == CLICKS_IN_STORES
    assert main(["table", "dump", "state", "names"]) == 0
    assert fields(capsys) == []


def test_a_changelog_is_dumped_with_the_offset_of_each_key(cluster: MemoryCluster, capsys: Output) -> None:
    assert main(["table", "dump", str(cluster), "clicks"]) == 0
    assert fields(capsys) == [
        {**line, "table": CLICKS, "offset": offset} for line, offset in zip(CLICKS_IN_STORES, (2, 1, 0), strict=True)
    ]


def test_an_engine_brings_its_tables_and_their_serializers(cluster: MemoryCluster, capsys: Output) -> None:
    assert main(["table", "dump", str(cluster), "names"]) == 0
    raw = {"raw": "A\\x00m\\x00\\xe9\\x00r\\x00i\\x00c\\x00a\\x00n\\x00"}
    assert fields(capsys) == [{"table": NAMES, "partition": 0, "offset": 0, "key": {"raw": "AA"}, "value": raw}]
    assert main(["table", "dump", str(cluster), "names", "--engine", "shop:engine"]) == 0
    read = {"table": "names", "partition": 0, "offset": 0, "key": "AA", "value": "Américan"}
    assert fields(capsys) == [read]
    assert main(["table", "get", str(cluster), "names", "AA", "--engine", "shop:engine"]) == 0
    assert fields(capsys) == [read]


def test_a_store_is_read_as_it_was_written_and_not_as_its_table_would_write_it_now(
    cluster: MemoryCluster, capsys: Output
) -> None:
    """It says itself that it is in our own format; the engine's table has serializers by now."""
    keep(cluster, "1", 0, {"AA": "American"}, 1, table="names")
    assert main(["table", "dump", "state", "--engine", "shop:engine"]) == 0
    assert fields(capsys) == [{"table": "names", "partition": 0, "offset": 1, "key": "AA", "value": "American"}]


def test_an_engine_brings_the_topics_of_its_global_tables(cluster: MemoryCluster, capsys: Output) -> None:
    cluster.create_topics([TopicSpec("lands", 1, config={"cleanup.policy": "compact,delete"})])
    write_bytes(cluster, "lands", 0, {b"FR": b"France"})
    assert main(["table", "get", str(cluster), "countries", "FR", "--engine", "shop:engine"]) == 0
    assert fields(capsys) == [{"table": "countries", "partition": 0, "offset": 0, "key": "FR", "value": "France"}]
    assert main(["table", "ls", str(cluster), "--engine", "shop:engine"]) == 0
    assert [line.split()[0] for line in lines(capsys)[1:]] == ["lands", CLICKS, CLICKS, NAMES]


@pytest.mark.usefixtures("stores")
def test_a_key_is_found_in_whatever_form_it_has(capsys: Output) -> None:
    assert main(["table", "get", "state", "clicks", "home"]) == 0
    assert fields(capsys) == CLICKS_IN_STORES[:2]
    assert main(["table", "get", "state", "clicks", "b'home'"]) == 0
    assert fields(capsys) == CLICKS_IN_STORES[1:2]
    assert main(["table", "get", "state", "clicks", "('a', 7)"]) == 0
    assert fields(capsys) == CLICKS_IN_STORES[2:]


def test_a_key_is_found_in_a_changelog(cluster: MemoryCluster, capsys: Output) -> None:
    assert main(["table", "get", str(cluster), CLICKS, "b'home'"]) == 0
    assert fields(capsys) == [{**CLICKS_IN_STORES[1], "table": CLICKS, "offset": 1}]


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("key", ["gone", "nowhere"])
def test_a_key_that_is_not_there_ends_with_1(cluster: MemoryCluster, capsys: Output, key: str) -> None:
    for source in ("state", str(cluster)):
        assert main(["table", "get", source, "clicks", key]) == 1
        assert capsys.readouterr() == ("", f"paperboy: table 'clicks' in {source} has no key {key}.\n")


@pytest.mark.usefixtures("stores")
def test_entries_are_counted_and_measured(cluster: MemoryCluster, capsys: Output) -> None:
    assert main(["table", "stats", "state"]) == 0
    head, first, second, both = (line.split("  ") for line in lines(capsys))
    assert [cell.strip() for cell in head if cell] == [
        "TABLE", "PARTITION", "ENTRIES", "KEY BYTES", "VALUE BYTES", "LARGEST VALUE", "OFFSET", "TAKES",
    ]  # fmt: skip
    keys = 2 * (2 + len("home"))
    assert [cell.strip() for cell in first if cell][:7] == ["clicks", "0", "2", str(keys), "4", "2", "5"]
    large = len(encode_value([1.5, {"b": b"\xff"}]))
    key = len(encode_key(("a", 7)))
    assert [cell.strip() for cell in second if cell][:7] == ["clicks", "1", "1", str(key), str(large), str(large), "1"]
    assert [cell.strip() for cell in both if cell] == [
        "clicks",
        "all",
        "3",
        str(keys + key),
        str(4 + large),
        str(large),
    ]
    assert main(["table", "stats", str(cluster), "clicks"]) == 0
    assert [line.rsplit("  ", 1)[1] for line in lines(capsys)[1:3]] == ["5 records", "1 record"]


@pytest.mark.usefixtures("stores")
def test_stores_that_their_changelogs_give_are_verified(cluster: MemoryCluster, capsys: Output) -> None:
    write(cluster, CLICKS, 0, {"home": 4})
    cluster.compact(CLICKS)
    assert main(["table", "verify", "state", str(cluster)]) == 0
    assert lines(capsys) == [
        "clicks[0] in state/shop/1/clicks/0: equal in 1 key, up to offset 5; 1 key compacted away there since",
        "clicks[1] in state/shop/1/clicks/1: equal in 1 key, up to offset 1",
    ]


def test_a_store_that_differs_is_named_with_its_first_key(cluster: MemoryCluster, capsys: Output) -> None:
    keep(cluster, "1", 0, {"home": 7, b"home": 2}, 5)
    keep(cluster, "1", 1, {}, 1)
    assert main(["table", "verify", "state", str(cluster)]) == 1
    first, second = lines(capsys)
    assert first == (
        'clicks[0] in state/shop/1/clicks/0: DIFFERS first in key "home": it has 7, its changelog 3 at offset 2'
    )
    assert second == (
        'clicks[1] in state/shop/1/clicks/1: DIFFERS first in key {"tuple": ["a", 7]}: it has nothing, its changelog'
        ' [1.5, {"b": {"bytes": "\\\\xff"}}] at offset 0'
    )


def test_a_store_that_is_ahead_of_its_changelog_is_wrong(cluster: MemoryCluster, capsys: Output) -> None:
    keep(cluster, "1", 1, {}, 2)
    assert main(["table", "verify", "state", str(cluster)]) == 1
    assert lines(capsys) == [
        "clicks[1] in state/shop/1/clicks/1: WRONG: it stands at offset 2, and the changelog holds 0 to 1"
    ]


def test_a_store_that_is_thrown_away_at_the_next_start_is_not_wrong(cluster: MemoryCluster, capsys: Output) -> None:
    keep(cluster, "1", 1, {"a": 1}, 1)
    cluster.delete_topics([CLICKS])
    cluster.create_topics([TopicSpec(CLICKS, 2, config={"cleanup.policy": "compact"})])
    assert main(["table", "verify", "state", str(cluster)]) == 0
    (line,) = lines(capsys)
    assert line == (
        "clicks[1] in state/shop/1/clicks/1: outdated, and restored when its worker starts: it is of an earlier"
        f" changelog of this name: '{CLICKS}' was made anew"
    )


def test_a_store_that_its_worker_has_open_is_read_as_it_was_flushed(cluster: MemoryCluster, capsys: Output) -> None:
    store = keep(cluster, "1", 0, {"home": 1, b"home": 2}, 2, leave_open=True)
    store.write({encode_key("home"): encode_value(3)}, 3, 0)  # not flushed yet
    assert main(["table", "get", "state", "clicks", "home"]) == 0
    assert [(line["offset"], line["value"]) for line in fields(capsys)] == [(2, 1), (2, 2)]
    assert main(["table", "verify", "state", str(cluster)]) == 0
    assert "equal in 2 keys, up to offset 2" in lines(capsys)[0]
    store.flush()
    assert main(["table", "get", "state", "clicks", "home"]) == 0
    assert [(line["offset"], line["value"]) for line in fields(capsys)] == [(3, 3), (3, 2)]
    store.close()


def test_a_store_of_which_nothing_was_flushed_yet_is_not_wrong(cluster: MemoryCluster, capsys: Output) -> None:
    keep(cluster, "1", 0, {"home": 3, b"home": 2}, 5)
    identity = StoreIdentity("clicks", 1, CLICKS, "", Table("clicks").definition)
    store, _ = RocksDBStore.open(Path("state/shop/1/clicks/1"), identity, RocksDBOptions())
    store.write({encode_key("home"): encode_value(3)}, 3, 0)
    assert main(["table", "verify", "state", str(cluster)]) == 0
    out, err = capsys.readouterr()
    assert out == "clicks[0] in state/shop/1/clicks/0: equal in 2 keys, up to offset 5\n"
    assert err.startswith("paperboy: The store in state/shop/1/clicks/1 is empty")
    store.close()


def test_of_a_partition_that_has_moved_between_workers_the_newest_store_counts(
    cluster: MemoryCluster, capsys: Output
) -> None:
    keep(cluster, "1", 0, {"home": 1}, 1, in_step_ms=1000)
    keep(cluster, "2", 0, {"home": 3}, 5, in_step_ms=2000)
    assert main(["table", "get", "state", "clicks", "home"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["value"] for line in out.splitlines()] == [3]
    assert err == "paperboy: left out state/shop/1/clicks/0, of which there is a newer one.\n"


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("action", ["ls", "dump", "stats"])
def test_a_store_that_cannot_be_read_is_named_and_the_others_are_read(capsys: Output, action: str) -> None:
    Path("state/shop/1/clicks/0/CURRENT").write_text("MANIFEST-999999\n")
    assert main(["table", action, "state"]) == 1
    out, err = capsys.readouterr()
    assert "state/shop/1/clicks/0" in err
    assert err.startswith("paperboy: The store in ")
    assert "clicks" in out


TO_VERIFY = "a state directory and a broker: paperboy table verify .paperboy localhost:9092"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ls", "nowhere"], "'nowhere' is neither a directory nor a broker's address, such as localhost:9092."),
        (["dump", "."], "There is no store in '.': name a state_dir, or a directory in one."),
        (["verify", ".", "."], f"verify takes {TO_VERIFY}"),
        (["verify", "memory://a", "memory://a"], f"verify takes {TO_VERIFY}"),
        (["ls", ".", "--engine", "shop:X"], "Module 'shop' has no 'X': name what you have called your Engine(…)."),
    ],
)
@pytest.mark.usefixtures("cluster")
def test_what_cannot_be_looked_into_is_misuse(capsys: Output, arguments: list[str], said: str) -> None:
    assert main(["table", *arguments]) == 2
    assert capsys.readouterr() == ("", f"paperboy: {said}\n")


def test_a_table_without_a_changelog_is_misuse(cluster: MemoryCluster, capsys: Output) -> None:
    for name in ("nothing", "no-changelog", "views"):
        assert main(["table", "dump", str(cluster), name]) == 2
        said = f"There is no changelog of table '{name}' on {cluster}; those there are: {CLICKS}, {NAMES}."
        assert capsys.readouterr() == ("", f"paperboy: {said}\n")


def test_an_error_names_ten_changelogs_at_most(capsys: Output) -> None:
    cluster = memory_cluster(random_id())
    names = [f"t{number:02}-changelog" for number in range(12)]
    cluster.create_topics([TopicSpec(name, 1, config={"cleanup.policy": "compact"}) for name in names])
    assert main(["table", "ls", str(cluster), "nothing"]) == 2
    assert capsys.readouterr().err.endswith(f"those there are: {', '.join(names[:10])} and 2 more.\n")


def test_a_changelog_may_have_any_name(cluster: MemoryCluster, capsys: Output) -> None:
    cluster.create_topics([TopicSpec("clicks-log", 1, config={"cleanup.policy": "compact,delete"})])
    write(cluster, "clicks-log", 0, {"home": 1})
    assert main(["table", "get", str(cluster), "clicks-log", "home"]) == 0
    assert [line["value"] for line in fields(capsys)] == [1]


def test_tables_can_be_looked_at_whose_keys_are_strings_of_bytes(cluster: MemoryCluster, capsys: Output) -> None:
    definition = Table("names", key_serializer=String(), value_serializer=String()).definition
    identity = StoreIdentity("names", 0, NAMES, cluster.topic(NAMES).id, definition)
    store, _ = RocksDBStore.open(Path("state/shop/1/names/0"), identity, RocksDBOptions())
    store.write({b"AA": b"American"}, 1, cluster.clock.time_ms())
    store.close()
    assert main(["table", "get", "state", "names", "AA"]) == 0
    assert [(line["key"], line["value"]) for line in fields(capsys)] == [("AA", "American")]


def test_whoever_has_read_enough_ends_a_dump(cluster: MemoryCluster) -> None:
    keep(cluster, "1", 0, dict.fromkeys(range(5000), "x" * 100), 5)
    command = [sys.executable, "-m", "paperboy.cli", "table", "dump", "state"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dump:
        assert dump.stdout is not None
        assert dump.stderr is not None
        assert json.loads(dump.stdout.readline())["key"] == 0
        dump.stdout.close()
        assert dump.stderr.read() == b""
        assert dump.wait() == 0


ORDERS = "orders-orders-changelog"
ORDERS_APP = """
from paperboy import Engine, Handler, Table
from paperboy.serializers import Avro, SchemaRegistry, String

class Orders(Handler):
    topic = "orders"

engine = Engine(Orders, bootstrap_servers="memory://elsewhere", group_id="orders")
registry = SchemaRegistry({address!r}, timeout_sec=0.1)
engine.register_table(Table("orders", key_serializer=String(), value_serializer=Avro(registry, "string")))
"""


@pytest.mark.parametrize("is_up", [True, False])
def test_values_in_schemas_are_read_where_the_registry_answers(
    cluster: MemoryCluster, capsys: Output, monkeypatch: pytest.MonkeyPatch, is_up: bool
) -> None:
    address = f"memory://{random_id()}"
    values = Avro(address, "string").for_topic(ORDERS)
    asyncio.run(values.open())
    cluster.create_topics([TopicSpec(ORDERS, 1, config={"cleanup.policy": "compact"})])
    write_bytes(cluster, ORDERS, 0, {b"7": values.serialize("two shoes")})
    Path("orders.py").write_text(ORDERS_APP.format(address=address if is_up else "http://127.0.0.1:9"))
    monkeypatch.delitem(sys.modules, "orders", raising=False)
    assert main(["table", "dump", str(cluster), "orders", "--engine", "orders:engine"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["value"] == ("two shoes" if is_up else {"raw": "\\x00\\x00\\x00\\x00\\x01\\x12two shoes"})
    assert ("No schema registry answered" in err) is not is_up
    sys.modules.pop("orders", None)
