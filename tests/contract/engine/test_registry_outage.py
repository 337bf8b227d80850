"""A real registry that stops and starts while records flow: nothing is lost, nothing is passed over."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from paperboy import Handler, RegistryUnreachable, Table
from paperboy.clock import in_thread
from paperboy.serializers import Avro, SchemaRegistry, String
from tests.contract.engine.kit import Kit, said, until
from tests.registry_server import RegistryServer

pytestmark = pytest.mark.kafka  # the real registry comes by Maven, as Kafka does


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


def order_schema(*fields: str) -> dict[str, Any]:
    more = [{"name": name, "type": "string", "default": ""} for name in fields]
    return {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, *more]}


async def framed(registry: SchemaRegistry, topic: str, schema: Any, orders: list[dict[str, Any]]) -> list[bytes]:
    writing = Avro(registry, schema).for_topic(topic)
    await writing.open()
    return [writing.serialize(order) for order in orders]


def copying(source: str, target: str, table: Table, registry: SchemaRegistry) -> type[Handler]:
    reading, writing = Avro(registry), Avro(registry, order_schema())

    class Copying(Handler):
        topic = source
        value_serializer = reading

        @classmethod
        async def on_message(cls, msg, ctx):
            order = {"id": msg.value["id"]}
            await table.set(str(order["id"]), order)
            await ctx.send(target, order, serializer=writing)

    return Copying


@pytest.mark.time_limit(120)
async def test_a_registry_that_stops_and_starts_under_load_loses_nothing(
    kit: Kit, server: RegistryServer, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies")
    outside = SchemaRegistry(server.url)
    registry = SchemaRegistry(server.url, timeout_sec=60)
    table = Table("orders", key_serializer=String(), value_serializer=Avro(registry, order_schema()))
    engine = kit.engine(copying(source, target, table, registry), fail_on_exception=False)
    engine.register_table(table)
    orders = [{"id": number} for number in range(1500)]
    old = await framed(outside, source, order_schema(), orders[:1000])
    await kit.send_values(source, *old[:500])
    async with engine:
        await engine.caught_up()
        new = await framed(outside, source, order_schema("new"), orders[1000:])
        await in_thread(server.kill)
        await kit.send_values(source, *old[500:])  # in a schema that is known
        async with asyncio.timeout(30):
            await until(lambda: engine.status().handled == 1000)
            assert not said(caplog, "schema registry away")
            await kit.send_values(source, *new)  # in one that has to be asked for, of nobody
            await until(lambda: len(said(caplog, "schema registry away")) > 1)
        assert engine.status().handled == 1000
        await in_thread(server.start)
        await engine.caught_up()
        assert engine.status().passed_over == 0
        assert {key for _, key, _ in table.snapshot()} == {str(number) for number in range(1500)}
    sent = [Avro(outside).deserialize(record.value)["id"] for record in await _readable(outside, kit, target)]
    assert sorted(sent) == list(range(1500))


@pytest.mark.time_limit(120)
async def test_a_registry_that_stays_away_stops_the_engine_and_nothing_is_passed_over(
    kit: Kit, server: RegistryServer
) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies")
    outside, registry = SchemaRegistry(server.url), SchemaRegistry(server.url, timeout_sec=1)
    table = Table("orders", key_serializer=String(), value_serializer=Avro(registry, order_schema()))
    old = await framed(outside, source, order_schema(), [{"id": number} for number in range(10)])
    await kit.send_values(source, *old)
    engine = kit.engine(copying(source, target, table, registry), fail_on_exception=False)
    engine.register_table(table)

    async def run_into_the_outage() -> None:
        async with engine:
            await engine.caught_up()
            new = await framed(outside, source, order_schema("new"), [{"id": 10}])
            await in_thread(server.stop)
            await kit.send_values(source, *old, *new, *old)
            await engine.caught_up()

    with pytest.raises(RegistryUnreachable, match=server.url):
        await run_into_the_outage()
    assert await kit.committed(source) == 20
    with pytest.raises(RegistryUnreachable, match="within 1 s"):
        await kit.engine(copying(source, target, table, SchemaRegistry(server.url, timeout_sec=1))).start()
    await in_thread(server.start)
    again = SchemaRegistry(server.url)
    table = Table("orders", key_serializer=String(), value_serializer=Avro(again, order_schema()))
    engine = kit.engine(copying(source, target, table, again), fail_on_exception=False)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert {key for _, key, _ in table.snapshot()} == {str(number) for number in range(11)}
    assert await kit.committed(source) == 31


async def _readable(registry: SchemaRegistry, kit: Kit, topic: str) -> list[Any]:
    records = await kit.read(topic)
    await Avro(registry).fetch_for(record.value for record in records)
    return records
