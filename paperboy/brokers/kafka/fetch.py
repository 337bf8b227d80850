"""Taking chunks of records from an aiokafka consumer."""

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
) -> dict[TopicPartition, Any]:
    """What is there for these partitions, as the consumer unpacks it; see `Reader.fetch`. `name` is the broker's, for
    messages."""
    named = [KafkaTopicPartition(*partition) for partition in partitions]
    try:
        with translating(f"Fetching from {name}"):
            chunks = await consumer.getmany(*named, timeout_ms=int(timeout_sec * 1000), max_records=max_records)
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
