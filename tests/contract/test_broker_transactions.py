"""The contract of every broker: records and offsets that are committed together."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from paperboy.brokers.protocol import Broker, TopicPartition, TransactionalProducer
from paperboy.clock import SystemClock
from paperboy.errors import BrokerError, ProducerFenced, RecordTooLarge
from tests.contract.conftest import (
    PATIENCE_SEC,
    OpenBroker,
    connected,
    member,
    new_partition,
    new_topic,
    read,
    reading,
    unique,
    write,
)


@asynccontextmanager
async def transactions(
    connection: Broker, transactional_id: str, timeout_sec: float = 60.0
) -> AsyncIterator[TransactionalProducer]:
    producer = connection.transactional_producer(transactional_id, timeout_sec)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: TransactionalProducer, partition: TopicPartition, *values: bytes) -> None:
    """Send, and wait for the acks."""
    now_ms = SystemClock().time_ms()
    await asyncio.gather(*await producer.send(partition, [(None, value, (), now_ms) for value in values]))


async def values(connection: Broker, partition: TopicPartition, count: int) -> list[bytes]:
    """What a reader finds, when it has found so much, and stands at the end. A commit shows a moment after it."""
    found: list[bytes] = []
    async with asyncio.timeout(PATIENCE_SEC), reading(connection, {partition: 0}) as reader:
        while len(found) < count or reader.position(partition) < await end_of(connection, partition):
            chunks = await reader.fetch([partition], 0.2)
            found += [record.value for record in chunks.get(partition, [])]
    return found


async def end_of(connection: Broker, partition: TopicPartition) -> int:
    return (await connection.end_offsets([partition]))[partition]


async def until_committed(connection: Broker, group: str, partition: TopicPartition, offset: int) -> None:
    async with asyncio.timeout(PATIENCE_SEC):
        while await connection.committed(group, [partition]) != {partition: offset}:
            pass


async def test_records_and_offsets_are_there_when_their_transaction_is_committed(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        source, target = await new_partition(connection), await new_partition(connection)
        group = unique("group")
        async with transactions(connection, unique("id")) as producer:
            await send(producer, target, b"1", b"2")
            assert await connection.end_offsets([target]) == {target: 0}
            assert await connection.committed(group, [source]) == {source: None}
            await producer.commit(group, {source: 7})
        assert await values(connection, target, 2) == [b"1", b"2"]
        await until_committed(connection, group, source, 7)


async def test_a_fetch_returns_when_nothing_but_a_marker_has_come(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target = await new_partition(connection)
        async with reading(connection, {target: 0}) as reader, transactions(connection, unique("id")) as producer:
            fetch = asyncio.create_task(reader.fetch([target], 10 * PATIENCE_SEC))
            await send(producer, target, b"1")
            await producer.abort()
            async with asyncio.timeout(PATIENCE_SEC):
                assert await fetch == {}
                while reader.position(target) < 2:  # a broker may tell of the record and of its marker one by one
                    assert await reader.fetch([target], 10 * PATIENCE_SEC) == {}


async def test_what_is_aborted_is_never_seen_and_holds_nothing_up(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target = await new_partition(connection)
        async with transactions(connection, unique("id")) as producer:
            await send(producer, target, b"never")
            await producer.abort()
            await send(producer, target, b"1")
            await producer.commit(unique("group"), {})
        await write(connection, target, b"2")
        assert await values(connection, target, 2) == [b"1", b"2"]


async def test_several_transactions_follow_one_another(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        source, target = await new_partition(connection), await new_partition(connection)
        group = unique("group")
        async with transactions(connection, unique("id")) as producer:
            for number in range(5):
                await send(producer, target, b"%d" % number)
                await producer.commit(group, {source: number})
                await until_committed(connection, group, source, number)
        assert await values(connection, target, 5) == [b"0", b"1", b"2", b"3", b"4"]


async def test_batches_that_are_filled_while_a_transaction_is_committed_are_of_the_next(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target, group, now_ms = await new_partition(connection), unique("group"), SystemClock().time_ms()
        async with transactions(connection, unique("id")) as producer:
            batches = producer.batches(target)
            await send(producer, target, b"0")
            committing = asyncio.ensure_future(producer.commit(group, {}))
            while not committing.done():
                batches.extend([(None, b"1", (), now_ms)])
                await asyncio.sleep(0)
            await committing
            batches.extend([(None, b"2", (), now_ms)])
            assert await values(connection, target, 1) == [b"0"]
            await asyncio.gather(*await batches.send())
            assert await values(connection, target, 1) == [b"0"], "they are not committed yet"
            await producer.commit(group, {})
        found = await values(connection, target, 3)
        assert [value for value, _ in itertools.groupby(found)] == [b"0", b"1", b"2"]


async def test_a_transaction_of_offsets_alone_commits_them(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        source, group = await new_partition(connection), unique("group")
        async with transactions(connection, unique("id")) as producer:
            await producer.commit(group, {source: 3})
        await until_committed(connection, group, source, 3)


async def test_an_abort_without_a_transaction_does_nothing(broker: OpenBroker) -> None:
    async with connected(broker) as connection, transactions(connection, unique("id")) as producer:
        await producer.abort()
        await producer.commit(unique("group"), {})
        await producer.abort()


async def test_readers_wait_before_an_open_transaction_and_go_on_behind_it(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target = await new_partition(connection)
        await write(connection, target, b"before")
        async with transactions(connection, unique("id")) as producer, reading(connection, {target: 0}) as reader:
            await send(producer, target, b"within")
            await write(connection, target, b"behind")
            assert [record.value for record in await read(reader, target, 1)] == [b"before"]
            assert await reader.fetch([target], 0.2) == {}
            assert await connection.end_offsets([target]) == {target: 1}
            await producer.commit(unique("group"), {})
            assert [record.value for record in await read(reader, target, 2)] == [b"within", b"behind"]


async def test_who_begins_anew_fences_the_one_before_and_aborts_what_it_left_open(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        source, target, group = await new_partition(connection), await new_partition(connection), unique("group")
        name = unique("id")
        async with transactions(connection, name) as zombie:
            await send(zombie, target, b"never")
            async with transactions(connection, name) as owner:
                await send(owner, target, b"1")
                with pytest.raises(ProducerFenced):
                    await zombie.commit(group, {source: 5})
                await owner.commit(group, {source: 2})
        assert await values(connection, target, 1) == [b"1"]
        await until_committed(connection, group, source, 2)


async def test_a_fenced_producer_can_send_nothing(broker: OpenBroker, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(broker) as connection:
        target, name = await new_partition(connection), unique("id")
        async with transactions(connection, name) as zombie, transactions(connection, name) as owner:
            with pytest.raises(ProducerFenced):
                await send(zombie, target, b"never")
            with pytest.raises(BrokerError):  # nor later, in the transaction that it takes for open
                await send(zombie, target, b"never")
            await send(owner, target, b"1")
            await owner.commit(unique("group"), {})
        assert await values(connection, target, 1) == [b"1"]
    gc.collect()
    assert "never retrieved" not in caplog.text, "what was told is told again, with a stack for each future"


async def test_a_fenced_producer_may_begin_anew_and_fences_in_turn(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target, name = await new_partition(connection), unique("id")
        async with transactions(connection, name) as one, transactions(connection, name) as other:
            await send(other, target, b"never")
            await one.start()
            await send(one, target, b"1")
            await one.commit(unique("group"), {})
            with pytest.raises(BrokerError):
                await other.commit(unique("group"), {})
        assert await values(connection, target, 1) == [b"1"]


async def test_a_transaction_of_which_a_record_was_refused_is_aborted_and_the_next_one_passes(
    broker: OpenBroker,
) -> None:
    async with connected(broker) as connection:
        target = await new_partition(connection, {"max.message.bytes": "1000"})
        async with transactions(connection, unique("id")) as producer:
            with pytest.raises(RecordTooLarge):
                await send(producer, target, bytes(2000))
            with suppress(BrokerError):
                await producer.abort()
            await producer.start()
            await send(producer, target, b"1")
            await producer.commit(unique("group"), {})
        assert await values(connection, target, 1) == [b"1"]


async def test_other_ids_are_not_disturbed(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target = await new_partition(connection)
        async with transactions(connection, unique("one")) as one, transactions(connection, unique("two")) as two:
            await send(one, target, b"1")
            await send(two, target, b"2")
            await two.commit(unique("group"), {})
            assert await connection.end_offsets([target]) == {target: 0}
            await one.commit(unique("group"), {})
        assert await values(connection, target, 2) == [b"1", b"2"]


async def test_what_stands_open_for_too_long_is_aborted_and_its_producer_fenced(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target = await new_partition(connection)
        async with transactions(connection, unique("id"), timeout_sec=1.0) as producer:
            await send(producer, target, b"never")
            await write(connection, target, b"1")
            async with reading(connection, {target: 0}) as reader:
                assert [record.value for record in await read(reader, target, 1)] == [b"1"]
            with pytest.raises(ProducerFenced):
                await producer.commit(unique("group"), {})
            await producer.start()
            await send(producer, target, b"2")
            await producer.commit(unique("group"), {})
        assert await values(connection, target, 2) == [b"1", b"2"]


async def test_whose_transaction_committed_an_offset_is_remembered(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic, group, name = await new_topic(connection, partitions=2), unique("group"), unique("id")
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        assert await connection.committed_by(group, [first, second]) == {first: None, second: None}
        async with transactions(connection, name) as producer:
            await producer.commit(group, {first: 1, second: 1})
        await until_committed(connection, group, first, 1)
        await until_committed(connection, group, second, 1)
        assert await connection.committed_by(group, [first, second]) == {first: name, second: name}
        async with member(connection, group, topic) as one:
            await one.until_assigned(2)
            await one.consumer.commit({second: 2}, one.generation)
        assert await connection.committed_by(group, [first, second]) == {first: name, second: None}


async def test_offsets_behind_a_transaction_leave_room_for_its_marker(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target = await new_partition(connection)
        async with transactions(connection, unique("id")) as producer:
            await send(producer, target, b"0")
            await producer.commit(unique("group"), {})
            await send(producer, target, b"2")
            await producer.commit(unique("group"), {})
        async with reading(connection, {target: 0}) as reader:
            records = await read(reader, target, 2)
            assert [(record.offset, record.value) for record in records] == [(0, b"0"), (2, b"2")]
            assert await reader.fetch([target], 0.5) == {}
            assert reader.position(target) == 4


async def test_a_transaction_longer_than_the_broker_allows_is_refused_before_it_begins(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        with pytest.raises(BrokerError, match=r"transaction_timeout_sec=1000 .*transaction\.max\.timeout\.ms"):
            await connection.check_transactions([unique("id")], 1000)
        with pytest.raises(BrokerError, match=r"transaction_timeout_sec.*transaction\.max\.timeout\.ms"):
            await connection.transactional_producer(unique("id"), 1000).start()
        await connection.check_transactions([unique("id")], 900)


async def test_a_check_fences_nobody(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        target, name = await new_partition(connection), unique("id")
        async with transactions(connection, name) as producer:
            await send(producer, target, b"1")
            await connection.check_transactions([name], 60)
            await producer.commit(unique("group"), {})
        assert await values(connection, target, 1) == [b"1"]
