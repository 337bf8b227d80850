"""Looking into changelogs before the start: what is read, and that it holds up nobody."""

import asyncio
from collections.abc import Sequence

import pytest

from paperboy.brokers.memory import MemoryBroker, MemoryCluster, memory_cluster
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.engine.written import SAMPLED_PARTITIONS, SAMPLED_RECORDS, check_written
from paperboy.errors import BrokerError, ConfigurationError
from paperboy.serializers import Json, String
from paperboy.tables import Table
from tests.contract.engine.kit import said

GOOD, BAD = (b"k", b"{}"), (b"k", b"{")


def cluster_with(*partitions: Sequence[tuple[bytes | None, bytes | None]]) -> MemoryCluster:
    """A cluster whose changelog "log" holds these records."""
    cluster = memory_cluster(random_id())
    cluster.create_topics([TopicSpec("log", len(partitions), config={"cleanup.policy": "compact"})])

    async def fill() -> None:
        producer = MemoryBroker(cluster).producer()
        await producer.start()
        for number, records in enumerate(partitions):
            outgoing = [(key, value, (), 1000) for key, value in records]
            if outgoing:
                await asyncio.gather(*await producer.send(TopicPartition("log", number), outgoing))
        await producer.stop()

    asyncio.run(fill())
    return cluster


def check(cluster: MemoryCluster, table: Table | None = None) -> None:
    async def main() -> None:
        broker = MemoryBroker(cluster)
        await broker.start()
        tables = {"log": table or Table("t", key_serializer=String(), value_serializer=Json())}
        await check_written(broker, tables, await broker.describe_topics(["log"]))
        await broker.stop()

    asyncio.run(main())


def test_what_can_be_read_is_fine_and_so_is_nothing() -> None:
    check(cluster_with([GOOD, (b"k", None), (b"", b"no entry's")], []))
    check(cluster_with([], []))


def distinct(count: int) -> list[tuple[bytes | None, bytes | None]]:
    """Readable records of as many keys."""
    return [(b"k%d" % number, b"{}") for number in range(count)]


@pytest.mark.parametrize("place", [(0, 0), (0, 9), (SAMPLED_PARTITIONS - 1, 5)], ids=str)
def test_a_record_that_cannot_be_read_is_named(place: tuple[int, int]) -> None:
    partitions = [distinct(10) for _ in range(SAMPLED_PARTITIONS)]
    partition, offset = place
    partitions[partition][offset] = BAD
    with pytest.raises(ConfigurationError, match=rf"'t' .* the value b'{{' of log\[{partition}\] offset {offset}: "):
        check(cluster_with(*partitions))
    partitions[partition][offset] = (b"\xff", b"{}")
    with pytest.raises(ConfigurationError, match=rf"the key b'\\xff' of log\[{partition}\] offset {offset}: .*UTF-8"):
        check(cluster_with(*partitions))


@pytest.mark.parametrize("later", [b"{}", None], ids=["written over", "deleted"])
@pytest.mark.parametrize("between", [0, 2 * SAMPLED_RECORDS])
def test_what_was_written_over_or_deleted_need_not_be_readable(
    later: bytes | None, between: int, caplog: pytest.LogCaptureFixture
) -> None:
    check(cluster_with([BAD, (b"\xff", b"{}"), *distinct(between), (b"k", later), (b"\xff", None)]))
    assert said(caplog, "changelog holds what its table cannot read") == []


def test_the_newest_records_are_the_last_of_their_keys_however_long_the_changelog_is() -> None:
    with pytest.raises(ConfigurationError, match=r"log\[0\] offset 1000: "):
        check(cluster_with([*distinct(1000), BAD]))
    with pytest.raises(ConfigurationError, match=r"log\[0\] offset 900: "):
        check(cluster_with([*distinct(900), BAD, *distinct(SAMPLED_RECORDS - 1)]))


def test_an_old_record_that_may_have_been_written_over_is_told_and_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check(cluster_with([], [GOOD, (b"a", b"{"), (b"b", b"{"), *distinct(300)]))
    [line] = said(caplog, "changelog holds what its table cannot read")
    assert (line["table"], line["changelog"], line["offset"], line["records"]) == ("t", "log[1]", 1, 2)
    assert "DeserializationError" in line["error"]


def test_what_lies_between_the_oldest_and_the_newest_records_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    check(cluster_with([*distinct(SAMPLED_RECORDS), BAD, *distinct(SAMPLED_RECORDS)]))
    assert said(caplog, "changelog holds what its table cannot read") == []


def test_only_the_first_partitions_that_have_any_records_are_read() -> None:
    check(cluster_with(*[[GOOD]] * SAMPLED_PARTITIONS, [BAD]))
    with pytest.raises(ConfigurationError):
        check(cluster_with([], [], *[[GOOD]] * (SAMPLED_PARTITIONS - 1), [BAD]))


def test_tables_in_our_own_format_are_left_out() -> None:
    check(cluster_with([BAD]), Table("t"))


def test_a_broker_that_fails_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    cluster = cluster_with([BAD])
    cluster.fail_next("fetch", BrokerError("no leader"))
    check(cluster)
    [line] = said(caplog, "changelogs not looked into")
    assert line["changelogs"] == ["log"]
    assert "no leader" in line["error"]
    with pytest.raises(ConfigurationError):
        check(cluster)
