"""Batches as we fill them, and as aiokafka fills them by its public ``append``."""

import asyncio
import itertools
from typing import Any, cast

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.kafka.producer import send_batches
from paperboy.brokers.kafka.transactions import KafkaTransactionalProducer
from paperboy.brokers.protocol import Outgoing, TopicPartition

BATCH_BYTES = 300

texts = st.none() | st.binary(max_size=100)
headers = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple)
records = st.lists(st.tuples(texts, texts, headers, st.integers(0, 2**40)), max_size=20)


class Taker:
    """In place of a producer: takes batches, and acknowledges them."""

    def __init__(self) -> None:
        self.taken: list[BatchBuilder] = []

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, 0)

    async def begin_transaction(self) -> None: ...

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        self.taken.append(batch)
        delivery = asyncio.get_running_loop().create_future()
        delivery.set_result(None)
        return delivery


def by_aiokafka(outgoing: list[Outgoing]) -> list[BatchBuilder]:
    batches: list[BatchBuilder] = []
    for key, value, pairs, timestamp_ms in outgoing:
        record = {"timestamp": timestamp_ms, "key": key, "value": value, "headers": list(pairs)}
        if not batches or batches[-1].append(**record) is None:
            batches.append(BatchBuilder(BATCH_BYTES, 0))
            batches[-1].append(**record)
    return batches


@given(outgoing=records)
def test_batches_are_those_that_aiokafka_would_have_made(outgoing: list[Outgoing]) -> None:
    taker = Taker()

    async def send() -> list[int]:
        acks = await send_batches(taker, TopicPartition("out", 0), outgoing, "kafka")
        return [(await ack).records for ack in acks]

    counts = asyncio.run(send())
    expected = by_aiokafka(outgoing)
    assert counts == [batch.record_count() for batch in taker.taken] == [batch.record_count() for batch in expected]
    assert all(batch.closed() for batch in taker.taken)
    assert [bytes(batch._build()) for batch in taker.taken] == [bytes(batch._build()) for batch in expected]


@given(pieces=st.lists(records, max_size=5))
def test_what_is_put_into_batches_piece_by_piece_makes_the_same_ones(pieces: list[list[Outgoing]]) -> None:
    taker = Taker()
    producer = KafkaTransactionalProducer("kafka", "id", 60, {})
    producer._producer = cast(AIOKafkaProducer, taker)

    async def send() -> list[int]:
        batches = producer.batches(TopicPartition("out", 0))
        for piece in pieces:
            batches.extend(piece)
        assert taker.taken == [], "nothing goes out before it is to"
        return [(await ack).records for ack in await batches.send()]

    counts = asyncio.run(send())
    expected = by_aiokafka(list(itertools.chain(*pieces)))
    assert counts == [batch.record_count() for batch in expected]
    assert [bytes(batch._build()) for batch in taker.taken] == [bytes(batch._build()) for batch in expected]
