"""The contract of every broker: what is written is what is read."""

import asyncio

import pytest

from paperboy.brokers.protocol import Ack, ConsumerRecord, Outgoing
from paperboy.errors import BrokerError, RecordTooLarge
from tests.contract.conftest import (
    OpenBroker,
    connected,
    new_partition,
    producing,
    read,
    read_all,
    reading,
    write,
    write_records,
)

HOUR_MS = 60 * 60 * 1000
SENDERS = 400


async def test_records_come_back_in_the_order_and_at_the_offsets_they_were_written(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a", b"b")
        await write(connection, partition, b"c")
        records = await read_all(connection, partition)
        assert [(record.offset, record.value) for record in records] == [(0, b"a"), (1, b"b"), (2, b"c")]


async def test_a_record_has_every_field_as_it_was_sent(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        sent: Outgoing = (b"key", b"value!", (("name", b"1"),), 1_700_000_000_123)
        await write_records(connection, partition, [sent])
        assert await read_all(connection, partition) == [
            ConsumerRecord(
                partition.topic,
                partition=0,
                offset=0,
                timestamp=1_700_000_000_123,
                timestamp_type=0,
                key=b"key",
                value=b"value!",
                checksum=None,
                serialized_key_size=3,
                serialized_value_size=6,
                headers=(("name", b"1"),),
            )
        ]


async def test_none_and_empty_keys_and_values_stay_apart(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        pairs = [(None, b"value"), (b"", b"value"), (b"key", None), (b"key", b""), (None, None), (b"", b"")]
        now = connection.clock.time_ms()
        await write_records(connection, partition, [(key, value, (), now) for key, value in pairs])
        records = await read_all(connection, partition)
        assert [(record.key, record.value) for record in records] == pairs
        sizes = [(record.serialized_key_size, record.serialized_value_size) for record in records]
        assert sizes == [(-1, 5), (0, 5), (3, -1), (3, 0), (-1, -1), (0, 0)]


async def test_headers_keep_their_order_and_their_duplicates(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        headers = [("b", b"1"), ("a", b""), ("b", b"2"), ("é", b"\xff")]
        now = connection.clock.time_ms()
        await write_records(connection, partition, [(None, b"x", headers, now), (None, b"y", (), now)])
        first, second = await read_all(connection, partition)
        assert first.headers == tuple(headers)
        assert second.headers == ()


async def test_timestamps_are_the_senders_and_need_not_grow(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection, {"retention.ms": "-1"})
        now = connection.clock.time_ms()
        timestamps = [now, now - 5, 0, now + HOUR_MS // 2, 1]
        await write_records(connection, partition, [(None, b"x", (), timestamp) for timestamp in timestamps])
        assert [record.timestamp for record in await read_all(connection, partition)] == timestamps


async def test_every_reader_gets_records_of_its_own(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"x")
        (mine,) = await read_all(connection, partition)
        mine.value = b"spoiled"
        (again,) = await read_all(connection, partition)
        assert again.value == b"x"


async def test_an_ack_says_where_its_batch_stands(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        three = await write_records(connection, partition, [(None, b"x", (), now)] * 3)
        two = await write_records(connection, partition, [(None, b"x", (), now)] * 2)
        assert (three, two) == ([Ack(0, 3)], [Ack(3, 2)])


async def test_nothing_to_send_is_no_batch(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        assert await write_records(connection, partition, []) == []


async def test_more_than_256_kib_become_several_batches_that_follow_one_another(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        values = [bytes([number]) * 100_000 for number in range(7)]
        acks = await write_records(connection, partition, [(None, value, (), now) for value in values])
        assert acks == [Ack(0, 2), Ack(2, 2), Ack(4, 2), Ack(6, 1)]
        assert [record.value for record in await read_all(connection, partition)] == values


async def test_a_record_of_more_than_256_kib_is_a_batch_of_its_own(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        sizes = [10, 300_000, 10, 10]
        acks = await write_records(connection, partition, [(None, b"x" * size, (), now) for size in sizes])
        assert acks == [Ack(0, 1), Ack(1, 1), Ack(2, 2)]


async def test_sends_to_one_partition_keep_their_order_without_waiting_for_acks(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        async with producing(connection) as producer:
            acks = []
            for number in range(50):
                acks += await producer.send(partition, [(None, b"%d" % number, (), now)])
            assert [ack.base_offset for ack in await asyncio.gather(*acks)] == list(range(50))
        assert [record.value for record in await read_all(connection, partition)] == [b"%d" % n for n in range(50)]


async def test_stopping_a_producer_delivers_what_was_sent(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        producer = connection.producer()
        await producer.start()
        (ack,) = await producer.send(partition, [(None, b"x", (), now)])
        await producer.stop()
        assert await ack == Ack(0, 1)


async def test_a_record_that_is_too_large_fails_its_ack_and_nothing_else(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection, {"max.message.bytes": "1000"})
        now = connection.clock.time_ms()
        async with producing(connection) as producer:
            (refused,) = await producer.send(partition, [(None, b"x" * 1000, (), now)])
            with pytest.raises(RecordTooLarge):
                await refused
            (accepted,) = await producer.send(partition, [(None, b"x" * 900, (), now)])
            assert await accepted == Ack(0, 1)


@pytest.mark.parametrize(("headers", "headers_size"), [([], 0), ([("né", b"12")], 7)], ids=["bare", "with-headers"])
async def test_a_topics_limit_counts_bytes_as_its_format_does(
    broker: OpenBroker, headers: list[tuple[str, bytes]], headers_size: int
) -> None:
    fitting = 900
    # Of the record: its length (2), attributes, timestamp, offset, key length, value length (2), header count.
    limit = 61 + 9 + fitting + headers_size
    async with connected(broker) as connection:
        partition = await new_partition(connection, {"max.message.bytes": str(limit)})
        now = connection.clock.time_ms()
        async with producing(connection) as producer:
            (accepted,) = await producer.send(partition, [(None, b"x" * fitting, headers, now)])
            assert await accepted == Ack(0, 1)
            (refused,) = await producer.send(partition, [(None, b"x" * (fitting + 1), headers, now)])
            with pytest.raises(RecordTooLarge):
                await refused


async def test_a_timestamp_far_in_the_future_refuses_the_whole_batch(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        async with producing(connection) as producer:
            (refused,) = await producer.send(
                partition, [(None, b"good", (), now), (None, b"late", (), now + 2 * HOUR_MS)]
            )
            with pytest.raises(BrokerError):
                await refused
        assert await connection.end_offsets([partition]) == {partition: 0}


async def test_a_compacted_topic_takes_no_record_without_a_key(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection, {"cleanup.policy": "compact"})
        now = connection.clock.time_ms()
        async with producing(connection) as producer:
            (refused,) = await producer.send(partition, [(None, b"x", (), now)])
            with pytest.raises(BrokerError):
                await refused
            (accepted,) = await producer.send(partition, [(b"key", None, (), now)])
            assert await accepted == Ack(0, 1)


async def test_a_topic_can_take_its_timestamps_from_the_broker(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection, {"message.timestamp.type": "LogAppendTime"})
        before = connection.clock.time_ms()
        await write_records(connection, partition, [(None, b"x", (), 1)])
        (record,) = await read_all(connection, partition)
        assert record.timestamp_type == 1
        assert before <= record.timestamp <= connection.clock.time_ms()


async def test_what_is_read_in_many_chunks_has_no_gap_and_no_double(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()
        await write_records(connection, partition, [(None, b"x" * 10_000, (), now)] * 500)
        async with reading(connection, {partition: 0}) as reader:
            chunks = 0
            offsets: list[int] = []
            while len(offsets) < 500:
                offsets += [record.offset for record in await read(reader, partition, 1)]
                chunks += 1
        assert offsets == list(range(500))
        assert chunks > 2, "one fetch hands out about 1 MiB of a partition"


async def test_however_many_send_to_one_partition_at_once_each_gets_its_turn(broker: OpenBroker) -> None:
    """With aiokafka's own queue the time each may wait shrinks with every batch of the others: 40 s are over in one."""
    async with connected(broker) as connection, producing(connection) as producer:
        partition = await new_partition(connection)
        now = connection.clock.time_ms()

        async def send(number: int) -> None:
            for ack in await producer.send(partition, [(None, b"%d" % number, (), now)]):
                await ack

        await asyncio.gather(*map(send, range(SENDERS)))
        assert sorted(int(record.value) for record in await read_all(connection, partition)) == list(range(SENDERS))
