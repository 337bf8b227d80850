"""Our hot paths on an input of their own, in one process and without a Kafka.

``python -m benchmarks.hot`` shows what each takes, in microseconds a record: the least of several rounds.
``python -m benchmarks.hot PATH ROUNDS`` does one path so often, for a profiler or `benchmarks.instructions`.
"""

import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from benchmarks.inputs import value_of
from benchmarks.peers.lines import LEAST_AMOUNT
from benchmarks.workloads import JSON
from paperboy import Handler, Table
from paperboy.brokers import open_broker
from paperboy.brokers.kafka.producer import BATCH_BYTES, send_batches
from paperboy.brokers.kafka.unpack import unpacked
from paperboy.brokers.protocol import Ack, Outgoing, Producer, Record, TopicPartition, TopicSpec
from paperboy.clock import SystemClock
from paperboy.engine.outbox import FLUSH_BYTES, Outbox, Topics
from paperboy.engine.status import Counters
from paperboy.engine.work import Work
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.single import one_by_one
from paperboy.tables.layer import Undo, changelog_values
from paperboy.tables.partition import TablePartition
from paperboy.tables.stores.memory import MemoryStore

RECORDS = 10_000
"""In a round."""
TIMED_ROUNDS = 30

Round = Callable[[], Awaitable[None]]
"""Handles `RECORDS` records."""


class Builder:
    """What a producer is to `send_batches`: it makes batches, and takes them without a Kafka."""

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> "asyncio.Future[None]":
        delivery: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        delivery.set_result(None)
        return delivery


class Sink:
    """A `Producer` whose batches are made, and go nowhere."""

    async def send(self, partition: TopicPartition, records: list[Outgoing]) -> "list[asyncio.Future[Ack]]":
        return await send_batches(cast(Any, Builder()), partition, records, "nowhere")


async def work_of(undo: Undo, **tables: TablePartition) -> tuple[Work, Outbox]:
    broker = open_broker("memory://")
    await broker.start()
    await broker.create_topics([TopicSpec("out", 4)])
    topics = Topics(broker)
    await topics.learn(["out"])
    clock = SystemClock()
    outbox = Outbox(cast(Producer, Sink()), topics, clock, 1 << 40)
    work = Work(
        "hot",
        tables,
        undo,
        outbox,
        topics,
        clock,
        Counters(),
        "hot",
        is_ending=lambda: False,
        has_to_stop=lambda: False,
        turn_sec=math.inf,
    )
    work.turn_ends = math.inf
    return work, outbox


async def no_op() -> Round:
    class NoOp(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            pass

    return await handling(NoOp)


async def json_filter() -> Round:
    class Filter(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value["amount"] >= LEAST_AMOUNT:
                pass

        value_deserializer = msgspec.json.decode

    values = [value_of(number, JSON) for number in range(RECORDS)]
    return await handling(Filter, values)


async def handling(handler: type[Handler], values: list[bytes] | None = None) -> Round:
    work, _ = await work_of([])
    dispatch = Dispatch(handler, fail_on_exception=True)
    records = unpacked(fetched(1_000))

    async def handle() -> None:
        for record, value in zip(records, values or (), strict=False):
            record.value = value
        await one_by_one(dispatch, records, 0, work)

    return handle


async def map_to_topic() -> Round:
    class Map(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send("out", msg.value, key=msg.key)

    work, outbox = await work_of([])
    dispatch = Dispatch(Map, fail_on_exception=True)
    chunks = chunks_of(unpacked(fetched(1_000)), 1_000)

    async def handle() -> None:
        for chunk in chunks:
            await one_by_one(dispatch, chunk, 0, work)
            if outbox.bytes >= FLUSH_BYTES:
                await outbox.flush()
        await outbox.flush()

    return handle


async def count(keys: int = 1_000) -> Round:
    """Counts per key, and makes of the layer the batches of a checkpoint."""
    table = Table("counts")
    undo: Undo = []
    held = TablePartition(table, 0, undo, 1_048_588)
    held.store = MemoryStore()

    class Count(Handler):
        topic = "in"

        @classmethod
        async def on_message(cls, msg, ctx):
            table[msg.key] = table.get(msg.key, 0) + 1

    work, _ = await work_of(undo, counts=held)
    dispatch, sink = Dispatch(Count, fail_on_exception=True), Sink()
    records = unpacked(fetched(keys))

    async def handle() -> None:
        await one_by_one(dispatch, records, 0, work)
        changes = changelog_values(held.freeze())
        await sink.send(TopicPartition("changelog", 0), [(key, value, (), 1) for key, value in changes.items()])
        held.store.write(changes, 1, 1)
        held.thaw()

    return handle


async def count_unique() -> Round:
    return await count(RECORDS)


async def unpack() -> Round:
    """What aiokafka has fetched, as records."""
    data = batches(1_000)

    async def handle() -> None:
        unpacked(fetched_of(data))

    return handle


PATHS: dict[str, Callable[[], Awaitable[Round]]] = {
    "unpack": unpack,
    "noop": no_op,
    "json": json_filter,
    "map": map_to_topic,
    "count": count,
    "count-unique": count_unique,
}


def batches(keys: int) -> bytes:
    """A fetched chunk of `RECORDS` records of 100 bytes, in batches of about 16 KiB."""
    data = b""
    for start in range(0, RECORDS, 128):
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)
        for number in range(start, min(start + 128, RECORDS)):
            builder.append(number - start, 1_700_000_000_000, b"%07d" % (number % keys), b"v" * 100, [])
        encoded = bytearray(builder.build())
        encoded[:8] = start.to_bytes(8, "big")
        data += encoded
    return data


def fetched_of(data: bytes) -> PartitionRecords:
    return PartitionRecords(TopicPartition("in", 0), MemoryRecords(data), [], 0, None, None, True, READ_COMMITTED)


def fetched(keys: int) -> PartitionRecords:
    return fetched_of(batches(keys))


def chunks_of(records: list[Record], size: int) -> list[list[Record]]:
    return [records[start : start + size] for start in range(0, len(records), size)]


async def rounds(path: str, wanted: int) -> list[float]:
    """The seconds that each round took."""
    handle, seconds = await PATHS[path](), []
    for _ in range(wanted):
        begun = time.perf_counter()
        await handle()
        seconds.append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    if len(sys.argv) > 1:
        asyncio.run(rounds(sys.argv[1], int(sys.argv[2])))
        return
    for path in PATHS:
        least = min(asyncio.run(rounds(path, TIMED_ROUNDS)))
        print(f"{path:<16}{least / RECORDS * 1e6:8.3f} us a record")


if __name__ == "__main__":
    main()
