"""What topics there are: Kafka's Metadata request in a version that aiokafka does not have, with topic ids."""

import base64
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_ABSENT = (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.InvalidTopicError)
_NO_ID = bytes(16)


@dataclass(frozen=True, slots=True)
class TopicMetadata:
    """A topic, as one broker of the cluster knows it."""

    partitions: int
    replication_factor: int
    id: str
    """As Kafka's own tools print it; empty where the broker gives none."""
    usable: bool
    """Whether every partition has a leader."""


async def topic_metadata(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, TopicMetadata]:
    """Those of these topics that exist, in this order, by one request, which creates none.

    Raises:
        KafkaError: the broker does not say.
    """
    asked = list(dict.fromkeys(names))
    if not asked:
        return {}
    found = parsed(await admin._client.send(admin._client.get_random_node(), MetadataRequest(asked)))
    return {name: found[name] for name in asked if name in found}


def parsed(response: Any) -> dict[str, TopicMetadata]:
    """The topics of a response to a `MetadataRequest`, by name.

    Raises:
        KafkaError: one of them is refused.
    """
    found = {}
    for topic in response.to_object()["topics"]:
        name = topic["topic"]
        error = kafka_errors.for_code(topic["error_code"])
        if error in _ABSENT:
            continue
        if error is not kafka_errors.NoError:
            raise error(f"topic {name!r}")
        partitions = topic["partitions"]
        usable = bool(partitions) and not any(partition["error_code"] for partition in partitions)
        replicas = len(partitions[0]["replicas"]) if partitions else 0
        found[name] = TopicMetadata(len(partitions), replicas, topic.get("topic_id", ""), usable)
    return found


class Uuid(AbstractType):  # type: ignore[misc]
    """16 bytes, as Kafka prints them: base64 for URLs, without padding. All zero is none."""

    @classmethod
    def encode(cls, value: str) -> bytes:
        return base64.urlsafe_b64decode(value + "==") if value else _NO_ID

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        raw = data.read(16)
        return "" if raw == _NO_ID else base64.urlsafe_b64encode(raw).decode().rstrip("=")


class MetadataResponse_v10(Response):  # type: ignore[misc]  # noqa: N801 - named as aiokafka's own
    """Kafka 2.8 and later."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString()),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class MetadataRequest_v10(RequestStruct):  # type: ignore[misc]  # noqa: N801 - named as aiokafka's own
    """Topics by name. By their id they can be asked for from version 12 on only."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponse_v10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("topic", CompactString()), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataRequest(Request[MetadataRequest_v5 | MetadataRequest_v10]):  # type: ignore[misc]
    """Asks for topics by name, in the newest version that the broker knows as well; creates none."""

    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, struct: type) -> Any:
        if struct is MetadataRequest_v5:
            return struct(self._names, False)
        return struct([("", name, {}) for name in self._names], False, False, False, {})
