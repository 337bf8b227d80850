"""Requests to a group's coordinator to commit offsets."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.protocol.commit import OffsetCommitRequest

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
