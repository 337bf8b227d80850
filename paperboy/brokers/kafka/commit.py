"""Requests to a group's coordinator to commit offsets, and to tell which are."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest

from paperboy.brokers.protocol import TopicPartition

NO_MEMBER = (OffsetCommitRequest.DEFAULT_GENERATION_ID, "")
"""Whoever commits for a group that has no members."""


def commit_request(group_id: str, membership: tuple[int, str], offsets: Mapping[TopicPartition, int]) -> Any:
    """To commit `offsets` as the member of this generation and id, and as none other."""
    by_topic: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for partition, offset in offsets.items():
        by_topic[partition.topic].append((partition.partition, offset, ""))
    return OffsetCommitRequest(
        group_id, *membership, OffsetCommitRequest.DEFAULT_RETENTION_TIME, list(by_topic.items())
    )


def commit_errors(response: Any) -> Iterable[type[Exception]]:
    """What the coordinator said of partitions that it did not commit."""
    return [kafka_errors.for_code(code) for _, partitions in response.topics for _, code in partitions if code]


def fetch_request(group_id: str, partitions: Collection[TopicPartition]) -> Any:
    """To hear which offsets are committed."""
    by_topic: dict[str, list[int]] = defaultdict(list)
    for partition in partitions:
        by_topic[partition.topic].append(partition.partition)
    return OffsetFetchRequest(group_id, list(by_topic.items()))


def fetched_offsets(response: Any) -> dict[TopicPartition, tuple[int, str]]:
    """The committed offsets, -1 for none, and their metadata.

    Raises:
        KafkaError: the coordinator did not answer, for the group or for a partition.
    """
    codes = [code for _, partitions in response.topics for *_, code in partitions]
    for code in (response.error_code, *codes):
        if code:
            raise kafka_errors.for_code(code)
    return {
        TopicPartition(topic, number): (offset, metadata or "")
        for topic, partitions in response.topics
        for number, offset, metadata, _ in partitions
    }
