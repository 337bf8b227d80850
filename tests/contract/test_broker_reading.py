"""The contract of every broker: readers, their positions, and what they are told of a log's ends."""

import asyncio

import pytest

from paperboy.brokers.protocol import Reader, TopicPartition
from paperboy.errors import OffsetOutOfRange
from tests.contract.conftest import (
    PATIENCE_SEC,
    OpenBroker,
    connected,
    new_partition,
    new_topic,
    read,
    reading,
    truncate,
    write,
    write_records,
)


async def test_a_reader_starts_where_it_is_told_to(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a", b"b", b"c")
        async with reading(connection, {partition: 1}) as reader:
            assert reader.position(partition) == 1
            assert [record.value for record in await read(reader, partition, 2)] == [b"b", b"c"]


async def test_the_position_is_behind_the_last_record_handed_out(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a", b"b", b"c")
        async with reading(connection, {partition: 0}) as reader:
            await read(reader, partition, 3)
            assert reader.position(partition) == 3


async def test_a_fetch_finds_nothing_and_says_so_after_its_time_out(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        async with reading(connection, {partition: 0}) as reader, asyncio.timeout(PATIENCE_SEC):
            began = asyncio.get_running_loop().time()
            assert await reader.fetch([partition], 0.2) == {}
            assert asyncio.get_running_loop().time() - began >= 0.19
            assert reader.position(partition) == 0


async def test_a_fetch_ends_as_soon_as_there_is_something(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        async with reading(connection, {partition: 0}) as reader, asyncio.timeout(PATIENCE_SEC):
            fetch = asyncio.create_task(reader.fetch([partition], 10 * PATIENCE_SEC))
            await write(connection, partition, b"a")
            chunks = await fetch
            assert [record.value for record in chunks[partition]] == [b"a"]


async def test_only_named_partitions_are_fetched_and_the_others_lose_nothing(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=3)
        partitions = [TopicPartition(topic, number) for number in range(3)]
        for partition in partitions:
            await write(connection, partition, b"a", b"b")
        async with reading(connection, dict.fromkeys(partitions, 0)) as reader:
            for partition in reversed(partitions):
                assert [record.offset for record in await read(reader, partition, 2)] == [0, 1]


async def test_a_fetch_hands_out_no_more_than_max_records_of_all_partitions(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2)
        partitions = [TopicPartition(topic, number) for number in range(2)]
        for partition in partitions:
            await write(connection, partition, *[b"x"] * 5)
        async with reading(connection, dict.fromkeys(partitions, 0)) as reader, asyncio.timeout(PATIENCE_SEC):
            offsets: dict[TopicPartition, list[int]] = {partition: [] for partition in partitions}
            while sum(map(len, offsets.values())) < 10:
                chunks = await reader.fetch(partitions, 1.0, max_records=3)
                assert sum(map(len, chunks.values())) <= 3
                for partition, records in chunks.items():
                    offsets[partition] += [record.offset for record in records]
                    assert reader.position(partition) == records[-1].offset + 1
            assert list(offsets.values()) == [[0, 1, 2, 3, 4]] * 2


async def test_changes_are_what_the_records_come_to(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now_ms = connection.clock.time_ms()
        pairs = ((b"a", b"1"), (b"b", b"1"), (None, b"lost"), (b"", b"lost"), (b"b", None), (b"a", b"2"))
        await write_records(connection, partition, [(key, value, (), now_ms) for key, value in pairs])
        async with reading(connection, {partition: 1}) as reader, asyncio.timeout(PATIENCE_SEC):
            last: dict[bytes, bytes | None] = {}
            records, keyless = 0, list[int]()
            while reader.position(partition) < 6:
                for changes in (await reader.fetch_changes([partition], 1.0))[partition]:
                    last |= changes.last
                    records += changes.records
                    keyless += changes.keyless
                    assert changes.end <= reader.position(partition)
            assert (last, records, keyless) == ({b"b": None, b"a": b"2"}, 5, [2, 3])
            assert await reader.fetch_changes([partition], 0.2) == {}


async def test_changes_go_on_where_a_fetch_has_ended(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        now_ms = connection.clock.time_ms()
        await write_records(connection, partition, [(b"%d" % number, b"", (), now_ms) for number in range(5)])
        async with reading(connection, {partition: 0}) as reader, asyncio.timeout(PATIENCE_SEC):
            (chunk,) = (await reader.fetch([partition], PATIENCE_SEC, max_records=2)).values()
            seen = [record.key for record in chunk]
            while reader.position(partition) < 5:
                (rest,) = (await reader.fetch_changes([partition], PATIENCE_SEC)).values()
                seen += [key for changes in rest for key in changes.last]
            assert seen == [b"0", b"1", b"2", b"3", b"4"]


async def test_changes_of_a_position_that_is_out_of_range_are_refused(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a")
        async with reading(connection, {partition: 2}) as reader, asyncio.timeout(PATIENCE_SEC):
            with pytest.raises(OffsetOutOfRange):
                await reader.fetch_changes([partition], PATIENCE_SEC)


async def test_chunks_are_keyed_by_partitions_that_were_asked_for(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a")
        async with reading(connection, {partition: 0}) as reader, asyncio.timeout(PATIENCE_SEC):
            chunks = await reader.fetch([partition], PATIENCE_SEC)
            assert list(chunks) == [partition]


async def test_beginning_and_end_offsets_enclose_what_can_be_read(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        topic = await new_topic(connection, partitions=2)
        full, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await write(connection, full, b"a", b"b", b"c")
        await truncate(connection, full, before=1)
        assert await connection.beginning_offsets([full, empty]) == {full: 1, empty: 0}
        assert await connection.end_offsets([full, empty]) == {full: 3, empty: 0}


async def test_the_offsets_of_no_partitions_are_none(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        assert await connection.beginning_offsets([]) == {}
        assert await connection.end_offsets([]) == {}


async def test_a_position_beyond_the_end_is_out_of_range(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a")
        async with reading(connection, {partition: 2}) as reader:
            error = await out_of_range(reader, partition)
            assert (error.topic, error.partition, error.offset) == (partition.topic, 0, 2)


async def test_a_position_below_the_start_is_out_of_range(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a", b"b", b"c")
        await truncate(connection, partition, before=2)
        async with reading(connection, {partition: 1}) as reader:
            error = await out_of_range(reader, partition)
            assert (error.topic, error.partition, error.offset) == (partition.topic, 0, 1)


async def test_a_position_at_either_end_is_in_range(broker: OpenBroker) -> None:
    async with connected(broker) as connection:
        partition = await new_partition(connection)
        await write(connection, partition, b"a", b"b", b"c")
        await truncate(connection, partition, before=2)
        async with reading(connection, {partition: 2}) as reader:
            assert [record.value for record in await read(reader, partition, 1)] == [b"c"]
        async with reading(connection, {partition: 3}) as reader:
            assert await reader.fetch([partition], 0.2) == {}


async def out_of_range(reader: Reader, partition: TopicPartition) -> OffsetOutOfRange:
    """The error that a fetch ends with, which may not be the first."""
    async with asyncio.timeout(PATIENCE_SEC):
        while True:
            try:
                assert await reader.fetch([partition], 1.0) == {}
            except OffsetOutOfRange as error:
                return error
