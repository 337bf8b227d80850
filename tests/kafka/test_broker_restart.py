"""A Kafka that goes away and comes back under a running engine."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from paperboy import DeadLetter, Handler, Table
from tests.contract.engine.kit import Kit, until
from tests.kafka_server import KafkaServer


@pytest.mark.time_limit(120)
async def test_an_engine_outlives_its_brokers_death_and_counts_on() -> None:
    with KafkaServer() as server:
        kit = Kit(server.bootstrap, "restart")
        source, table = await kit.topic("views", partitions=2), Table("views")
        seen: list[Any] = []

        class Views(Handler):
            topic = source

            @classmethod
            async def on_message(cls, msg, ctx):
                table.update(msg.key, lambda count: count + 1, default=0)
                seen.append((msg.partition, msg.offset))

        engine = kit.engine(Views)
        engine.register_table(table)
        async with engine:
            for partition in range(2):
                await kit.send(source, [(b"key", b"x")] * 100, partition)
            await engine.caught_up()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            for partition in range(2):
                await kit.send(source, [(b"key", b"x")] * 100, partition)
            await until(lambda: len(set(seen)) == 400)
            await engine.caught_up()
            counts = {entry.partition: entry.value for entry in table.snapshot()}
    # At least once: what was in a checkpoint whose commit the death of the broker prevented is counted again.
    times_seen = Counter(partition for partition, _ in seen)
    assert all(200 <= counts[partition] <= times_seen[partition] for partition in range(2)), (counts, times_seen)


@pytest.mark.time_limit(120)
async def test_a_stop_ends_within_its_time_though_the_broker_is_gone() -> None:
    with KafkaServer() as server:
        kit = Kit(server.bootstrap, "gone")
        source, table = await kit.topic("views"), Table("views")
        handled = asyncio.Event()

        class Views(Handler):
            topic = source

            @classmethod
            async def on_message(cls, msg, ctx):
                table["key"] = msg.offset
                handled.set()

        engine = kit.engine(Views, drain_timeout_sec=1, commit_interval_sec=60)
        engine.register_table(table)
        loop = asyncio.get_running_loop()
        async with engine:
            await kit.send_values(source, b"x")
            await handled.wait()
            await asyncio.to_thread(server.kill)
            begun = loop.time()
        assert loop.time() - begun < 60


@pytest.mark.time_limit(120)
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
async def test_each_dead_letter_is_there_though_the_broker_died_before_it_took_them(guarantee: str) -> None:
    with KafkaServer() as server:
        kit = Kit(server.bootstrap, "letters")
        source = await kit.topic("orders")
        died = False

        class Orders(Handler):
            topic = source
            dead_letter = DeadLetter()

            @classmethod
            async def on_message(cls, msg, ctx):
                nonlocal died
                if msg.offset == 50 and not died:
                    await asyncio.to_thread(server.kill)
                    died = True
                if msg.offset % 2 == 0:
                    raise ValueError("even")

        engine = kit.engine(Orders, processing_guarantee=guarantee)
        await kit.send_values(source, *(b"%d" % number for number in range(100)))
        async with engine:
            await until(lambda: died)
            await asyncio.to_thread(server.start)
            await engine.caught_up()
        assert await kit.committed(source) == 100
        letters = Counter(record.value for record in await kit.read(f"{source}-dlt"))
    assert set(letters) == {b"%d" % number for number in range(0, 100, 2)}
    if guarantee == "exactly_once":
        assert set(letters.values()) == {1}
