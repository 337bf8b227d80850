"""Topics as the workloads need them: filled at once, or as time goes on."""

import asyncio
import time
from collections import Counter
from io import BytesIO

import fastavro
from aiokafka import AIOKafkaProducer

from benchmarks.peers.lines import AVRO_HEAD, AVRO_SCHEMA, END, LEAST_AMOUNT
from benchmarks.workloads import PARTITIONS, Input
from paperboy.brokers import open_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Outgoing, TopicPartition, TopicSpec

LIVE_PER_SEC = 1_000
_CHUNK = 20_000
_SCHEMA = fastavro.parse_schema(AVRO_SCHEMA)


def key_of(number: int, source: Input, records: int) -> bytes:
    return b"%07d" % (number % (source.keys or records))


def value_of(number: int, source: Input) -> bytes:
    match source.form:
        case "bytes":
            return b"v" * 100
        case "json":
            return b'{"id":%d,"user":"user-%d","amount":%d,"tags":["a","b"],"note":"%s"}' % (
                number,
                number % 1_000,
                _amount(number),
                b"n" * 30,
            )
        case "avro":
            return _avro(number)


def _avro(number: int) -> bytes:
    """As Confluent's serializer would write it, and not by ours."""
    stream = BytesIO()
    stream.write(AVRO_HEAD)
    fields = {
        "id": number,
        "user": f"user-{number % 1_000}",
        "amount": _amount(number),
        "tags": ["a", "b"],
        "note": "n" * 70,
    }
    fastavro.schemaless_writer(stream, _SCHEMA, fields)
    return stream.getvalue()


def _amount(number: int) -> int:
    return number * 7 % (2 * LEAST_AMOUNT)


def expected_counts(source: Input, records: int) -> Counter[bytes]:
    """How many records each key has."""
    return Counter(key_of(number, source, records) for number in range(records))


def expected_kept(source: Input, records: int) -> int:
    """How many records pass the filter."""
    amounts = Counter(map(_amount, range(records)))
    return sum(count for amount, count in amounts.items() if amount >= LEAST_AMOUNT)


async def create(bootstrap: str, *topics: str) -> None:
    broker = open_broker(bootstrap)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(topic, PARTITIONS) for topic in topics])
    finally:
        await broker.stop()


async def delete(bootstrap: str, *topics: str) -> None:
    broker = open_broker(bootstrap)
    await broker.start()
    try:
        await broker.delete_topics(topics)
    finally:
        await broker.stop()


async def fill(bootstrap: str, topic: str, source: Input, records: int) -> None:
    """Put `records` into a topic that is there."""
    broker = open_broker(bootstrap)
    await broker.start()
    producer = broker.producer()
    await producer.start()
    try:
        now_ms = broker.clock.time_ms()
        for start in range(0, records, _CHUNK):
            chunk: dict[int, list[Outgoing]] = {}
            for number in range(start, min(start + _CHUNK, records)):
                key = key_of(number, source, records)
                record: Outgoing = (key, value_of(number, source), (), now_ms)
                chunk.setdefault(partition_for_key(key, PARTITIONS), []).append(record)
            for partition, outgoing in chunk.items():
                for ack in await producer.send(TopicPartition(topic, partition), outgoing):
                    await ack
    finally:
        await producer.stop()
        await broker.stop()


async def go_live(bootstrap: str, topic: str, records: int) -> None:
    """Send so many at `LIVE_PER_SEC`, each value beginning with the time at which it is sent, and then the end."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=0)
    await producer.start()
    try:
        begun = time.perf_counter()
        for number in range(records):
            ahead = begun + number / LIVE_PER_SEC - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            value = b"%020d" % time.time_ns() + b"v" * 80
            await producer.send(topic, value, key=b"%07d" % (number % 1_000), partition=number % PARTITIONS)
        await producer.flush()
        await asyncio.sleep(1)  # what was sent before it is handled before it, in whichever partition
        await producer.send_and_wait(topic, END, partition=0)
    finally:
        await producer.stop()
