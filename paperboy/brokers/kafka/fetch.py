"""Taking chunks of records from an aiokafka consumer."""

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors as kafka_errors

from paperboy.brokers.kafka.errors import translating
from paperboy.brokers.protocol import TopicPartition
from paperboy.errors import OffsetOutOfRange


async def fetch(
    consumer: AIOKafkaConsumer,
    partitions: Collection[TopicPartition],
    timeout_sec: float,
    max_records: int | None,
    name: str,
    woken: "asyncio.Future[None] | None" = None,
) -> dict[TopicPartition, Any]:
    """What is there for these partitions, as the consumer unpacks it; see `Reader.fetch`. `name` is the broker's, for
    messages.

    getmany is not left to wait: it would not return for `woken`, nor for a tail of nothing but markers.
    """
    named = [KafkaTopicPartition(*partition) for partition in partitions]
    fetched = consumer._fetcher._records
    fetched.passed = False
    try:
        with translating(f"Fetching from {name}"):
            chunks = await consumer.getmany(*named, timeout_ms=0, max_records=max_records)
            if not (chunks or fetched.passed) and timeout_sec > 0:
                something = consumer._fetcher._create_fetch_waiter()
                try:
                    await asyncio.wait(
                        [something] if woken is None else [something, woken],
                        timeout=timeout_sec,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    if something.done():
                        something.result()  # or what went wrong in the background
                finally:
                    something.cancel()
                chunks = await consumer.getmany(*named, timeout_ms=0, max_records=max_records)
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, kafka_errors.OffsetOutOfRangeError) and cause.args and isinstance(cause.args[0], dict):
            for partition, offset in cause.args[0].items():
                raise OffsetOutOfRange(
                    f"Offset {offset} of {partition.topic}[{partition.partition}] on {name} is not in the log:"
                    " it was deleted by retention, or the topic was made anew.",
                    partition.topic,
                    partition.partition,
                    offset,
                ) from cause
        raise
    return {TopicPartition(*partition): chunk for partition, chunk in chunks.items()}
