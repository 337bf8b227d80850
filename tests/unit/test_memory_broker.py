"""The memory broker's addresses, its named clusters, and the faults that tests can order."""

import asyncio

import pytest

from paperboy.brokers.memory import MemoryBroker, MemoryCluster, memory_cluster, open_memory_broker
from paperboy.brokers.protocol import Ack, Outgoing, TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.errors import BrokerError, BrokerUnreachable, ConfigurationError, TopicNotFound
from tests.contract.conftest import OPTIONS, InTurn, connected, member, write

PARTITION = TopicPartition("t", 0)
RECORDS: list[Outgoing] = [(None, b"x", (), 0)]


@pytest.fixture
def cluster() -> MemoryCluster:
    cluster = MemoryCluster()
    cluster.create_topics([TopicSpec("t", 1)])
    return cluster


def test_an_address_without_a_name_is_a_new_cluster_every_time() -> None:
    assert open_memory_broker("memory://").cluster is not open_memory_broker("memory://").cluster


def test_an_address_with_a_name_is_the_same_cluster_every_time() -> None:
    name = random_id()
    broker = open_memory_broker(f"memory://{name}")
    assert broker.cluster is memory_cluster(name)
    assert broker.cluster is open_memory_broker(f"memory://{name}?partitions=2").cluster
    assert broker.name == f"memory://{name}"


def test_an_address_says_how_many_partitions_a_new_topic_gets() -> None:
    assert open_memory_broker("memory://").new_topic_partitions == 1
    assert open_memory_broker("memory://?partitions=4").new_topic_partitions == 4
    name = random_id()
    memory_cluster(name, partitions=3)
    assert open_memory_broker(f"memory://{name}").new_topic_partitions == 3
    assert open_memory_broker(f"memory://{name}?partitions=5").new_topic_partitions == 5


@pytest.mark.parametrize(
    ("url", "about"),
    [
        ("memory://x?partition=4", "'partition'"),
        ("memory://x?partitions=0", "'0'"),
        ("memory://x?partitions=four", "'four'"),
        ("memory://x?partitions=", "''"),
        ("memory://x/y", "memory://name"),
        ("memory://x y", "memory://name"),
        ("memory:x", "memory://name"),
        ("kafka://x", "memory://name"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_a_sentence(url: str, about: str) -> None:
    with pytest.raises(ConfigurationError, match=about) as caught:
        open_memory_broker(url)
    assert url in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_named_cluster_serves_one_event_loop_after_another() -> None:
    url = f"memory://{random_id()}"

    async def write_and_commit() -> None:
        async with connected(lambda: open_memory_broker(url)) as connection:
            await connection.create_topics([TopicSpec("t", 1)])
            producer = connection.producer()
            await producer.start()
            await asyncio.gather(*await producer.send(PARTITION, RECORDS))
            await producer.stop()
            async with member(connection, "g", "t") as one:
                await one.until_assigned(1)
                offset = (await connection.committed("g", [PARTITION]))[PARTITION] or 0
                one.release(offset)
                chunks = await one.consumer.fetch([PARTITION], 1.0)
                assert [record.offset for record in chunks[PARTITION]] == [offset]
                await one.consumer.commit({PARTITION: offset + 1}, one.generation)

    for _ in range(3):
        asyncio.run(write_and_commit())
    assert open_memory_broker(url).cluster.committed("g", [PARTITION]) == {PARTITION: 3}


async def test_a_connection_is_of_use_only_while_it_is_open(cluster: MemoryCluster) -> None:
    broker = MemoryBroker(cluster)
    with pytest.raises(BrokerError, match="not open"):
        await broker.describe_topics(["t"])
    await broker.start()
    assert list(await broker.describe_topics(["t"])) == ["t"]
    await broker.stop()
    with pytest.raises(BrokerError, match="not open"):
        await broker.committed("g", [])
    with pytest.raises(BrokerError, match="not open"):
        await broker.producer().send(PARTITION, RECORDS)
    with pytest.raises(BrokerError, match="not open"):
        await broker.reader().fetch([PARTITION], 0.0)
    with pytest.raises(BrokerError, match="not open"):
        await broker.consumer("g", ["t"], InTurn(), OPTIONS).fetch([PARTITION], 0.0)


async def test_a_topic_or_partition_that_does_not_exist_is_named(cluster: MemoryCluster) -> None:
    async with connected(lambda: MemoryBroker(cluster)) as connection:
        producer = connection.producer()
        await producer.start()
        with pytest.raises(TopicNotFound, match="'nowhere'"):
            await producer.send(TopicPartition("nowhere", 0), RECORDS)
        with pytest.raises(TopicNotFound, match=r"t\[1\]"):
            await connection.end_offsets([TopicPartition("t", 1)])
        await producer.stop()


async def test_a_send_can_be_made_to_fail_once(cluster: MemoryCluster) -> None:
    producer = MemoryBroker(cluster).producer()
    await producer.start()
    cluster.fail_next("produce", BrokerError("down"))
    (failed,) = await producer.send(PARTITION, RECORDS)
    (went_on,) = await producer.send(PARTITION, RECORDS)
    with pytest.raises(BrokerError, match="down"):
        await failed
    assert await went_on == Ack(0, 1)
    await producer.stop()


async def test_an_ack_can_be_lost_while_its_batch_is_in_the_log(cluster: MemoryCluster) -> None:
    producer = MemoryBroker(cluster).producer()
    await producer.start()
    cluster.fail_next("produce_ack", BrokerError("lost"))
    (lost,) = await producer.send(PARTITION, RECORDS)
    with pytest.raises(BrokerError, match="lost"):
        await lost
    assert cluster.log(PARTITION).end_offset == 1
    await producer.stop()


async def test_what_is_held_waits_until_it_is_released(cluster: MemoryCluster) -> None:
    producer = MemoryBroker(cluster).producer()
    await producer.start()
    cluster.hold("produce_ack")
    (ack,) = await producer.send(PARTITION, RECORDS)
    await asyncio.wait([ack], timeout=0.05)
    assert not ack.done()
    assert cluster.log(PARTITION).end_offset == 1
    cluster.release("produce_ack")
    assert await ack == Ack(0, 1)
    cluster.hold("produce")
    (ack,) = await producer.send(PARTITION, RECORDS)
    await asyncio.wait([ack], timeout=0.05)
    assert cluster.log(PARTITION).end_offset == 1
    cluster.release("produce")
    assert await ack == Ack(1, 1)
    await producer.stop()


async def test_a_commit_can_fail_before_or_after_it_counts(cluster: MemoryCluster) -> None:
    async with connected(lambda: MemoryBroker(cluster)) as connection, member(connection, "g", "t") as one:
        await one.until_assigned(1)
        cluster.fail_next("commit", BrokerError("before"))
        cluster.fail_next("commit_ack", BrokerError("after"))
        with pytest.raises(BrokerError, match="before"):
            await one.consumer.commit({PARTITION: 1}, one.generation)
        assert cluster.committed("g", [PARTITION]) == {PARTITION: None}
        with pytest.raises(BrokerError, match="after"):
            await one.consumer.commit({PARTITION: 2}, one.generation)
        assert cluster.committed("g", [PARTITION]) == {PARTITION: 2}
        assert one.consumer.owns(one.generation)


async def test_a_start_can_fail(cluster: MemoryCluster) -> None:
    cluster.fail_next("start", BrokerUnreachable("nobody there"))
    broker = MemoryBroker(cluster)
    with pytest.raises(BrokerUnreachable):
        await broker.start()
    await broker.start()
    await broker.stop()


async def test_a_crash_takes_with_it_what_was_not_delivered(cluster: MemoryCluster) -> None:
    broker = MemoryBroker(cluster)
    producer = broker.producer()
    await producer.start()
    cluster.hold("produce")
    (ack,) = await producer.send(PARTITION, RECORDS)
    await asyncio.wait([ack], timeout=0.01)
    broker.crash()
    cluster.release("produce")
    assert ack.cancelled()
    await producer.stop()
    assert cluster.log(PARTITION).end_offset == 0


async def test_stopping_a_producer_waits_for_its_last_ack(cluster: MemoryCluster) -> None:
    producer = MemoryBroker(cluster).producer()
    await producer.start()
    (ack,) = await producer.send(PARTITION, RECORDS)
    await producer.stop()
    assert ack.done()


async def test_a_short_fetch_takes_partitions_in_turn(cluster: MemoryCluster) -> None:
    cluster.create_partitions("t", 3)
    partitions = [TopicPartition("t", number) for number in range(3)]
    broker = MemoryBroker(cluster)
    for partition in partitions:
        await write(broker, partition, b"x", b"x")
    reader = broker.reader()
    await reader.start(dict.fromkeys(partitions, 0))
    served = [list(await reader.fetch(partitions, 1.0, max_records=1)) for _ in range(3)]
    assert sorted(served) == [[partition] for partition in partitions]
    await reader.stop()


async def test_a_full_queue_makes_senders_wait(cluster: MemoryCluster) -> None:
    producer = MemoryBroker(cluster).producer()
    await producer.start()
    cluster.hold("produce")
    sending = asyncio.create_task(producer.send(PARTITION, [(None, b"x" * 300_000, (), 0)] * 1100))
    await asyncio.wait([sending], timeout=0.05)
    assert not sending.done()
    cluster.release("produce")
    acks = await asyncio.gather(*await sending)
    assert [ack.base_offset for ack in acks] == list(range(1100))
    await producer.stop()
