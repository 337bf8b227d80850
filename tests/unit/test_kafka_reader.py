"""Kafka's reader, where it needs no Kafka."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer

from paperboy.brokers.kafka.reader import KafkaReader
from paperboy.brokers.protocol import TopicPartition


async def test_a_reader_that_is_connecting_at_a_stop_is_given_a_moment_and_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client of Kafka's that is cut off while it connects leaves its connection open."""
    events: list[str] = []
    asked, answer = asyncio.Event(), asyncio.Event()

    async def connecting(self: AIOKafkaConsumer) -> None:
        events.append("connecting")
        asked.set()
        await answer.wait()
        events.append("connected")

    monkeypatch.setattr(AIOKafkaConsumer, "start", connecting)
    reader = KafkaReader("localhost:1", {})
    starting = asyncio.create_task(reader.start({TopicPartition("t", 0): 0}))
    await asked.wait()
    starting.cancel()
    await asyncio.sleep(0)
    assert not starting.done()
    answer.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert events == ["connecting", "connected"]
    await reader.stop()
