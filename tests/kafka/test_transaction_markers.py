"""Logs that end in transaction markers, as a real Kafka writes them: no record ever comes for their last offsets."""

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from paperboy import Handler, Table
from paperboy.clock import random_id
from paperboy.tables.keys import encode_key
from tests.contract.engine.kit import Kit


@pytest.fixture
def kit(kafka_bootstrap: str) -> Kit:
    return Kit(kafka_bootstrap, random_id()[:12])


async def write_transaction(kit: Kit, topic: str, *keys: bytes, abort: bool = False) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kit.bootstrap, transactional_id=f"writer-{random_id()}")
    await producer.start()
    try:
        await producer.begin_transaction()
        for key in keys:
            await (await producer.send(topic, b"x", key=key, partition=0))
        await (producer.abort_transaction() if abort else producer.commit_transaction())
    finally:
        await producer.stop()


def counting(source: str, table: Table, seen: list[Any]) -> type[Handler]:
    class Counting(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.key)
            table.update(msg.key, lambda count: count + 1, default=0)

    return Counting


async def test_a_step_over_committed_and_aborted_transactions_ends_and_commits_past_the_markers(kit: Kit) -> None:
    source, table = await kit.topic("transactions"), Table("counts")
    seen: list[Any] = []
    await write_transaction(kit, source, b"a", b"b")
    await write_transaction(kit, source, b"never", abort=True)
    handler = counting(source, table, seen)
    engine = kit.engine(handler, steps=[[handler]], stop_at_end=True)
    engine.register_table(table)
    await engine.start()
    assert seen == [b"a", b"b"]
    assert await kit.committed(source) == 5  # two records and a marker, one aborted record and its marker


async def test_a_changelog_that_ends_in_an_aborted_transaction_is_restored_to_its_end(kit: Kit) -> None:
    source, changelog = await kit.topic("views"), f"{kit.group}-counts-changelog"
    for run in range(1, 3):
        table = Table("counts")
        seen: list[Any] = []
        await kit.send(source, [(b"a", b"x")])
        engine = kit.engine(counting(source, table, seen))
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert [tuple(entry) for entry in table.snapshot()] == [(0, b"a", run)]
            assert engine.status().checkpoint_failures == 0
        await write_transaction(kit, changelog, encode_key(b"a"), abort=True)
