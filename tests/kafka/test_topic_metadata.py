"""What it takes to describe a real Kafka's topics, and to be sure of what was done to them."""

from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient

from paperboy.brokers.kafka import KafkaBroker
from paperboy.brokers.kafka.metadata import topic_metadata
from tests.contract.conftest import connected, new_topic, unique


async def test_topics_are_described_by_two_requests_however_many_they_are(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(lambda: KafkaBroker(kafka_bootstrap)) as connection:
        topics = [await new_topic(connection) for _ in range(5)]
        sent: list[str] = []
        send = AIOKafkaClient.send

        async def counted(client: Any, node: int, request: Any, **options: Any) -> Any:
            sent.append(type(request).__name__)
            return await send(client, node, request, **options)

        monkeypatch.setattr(AIOKafkaClient, "send", counted)
        described = await connection.describe_topics(topics)
        assert sent == ["MetadataRequest", "DescribeConfigsRequest"]
        assert list(described) == topics

        sent.clear()
        assert await connection.describe_topics([unique("topic")]) == {}
        assert sent == ["MetadataRequest"]


async def test_a_deletion_returns_when_the_brokers_have_heard_of_it(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(lambda: KafkaBroker(kafka_bootstrap)) as connection:
        topic = await new_topic(connection)
        assert isinstance(connection, KafkaBroker)
        outdated = [await topic_metadata(connection._connected, [topic])] * 3

        async def ask_one_that_hears_late(admin: Any, names: Any) -> Any:
            return outdated.pop() if outdated else await topic_metadata(admin, names)

        monkeypatch.setattr("paperboy.brokers.kafka.broker.topic_metadata", ask_one_that_hears_late)
        await connection.delete_topics([topic])
        assert await connection.describe_topics([topic]) == {}
