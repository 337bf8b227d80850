"""Tests of the orders job, as they stand beside any job: ``pytest examples``. No broker, no registry, no waiting."""

from decimal import Decimal

from examples.orders_avro.demo import order
from examples.orders_avro.job import orders_job
from examples.orders_avro.schemas import ORDER
from paperboy.serializers import Avro, SchemaRegistry
from paperboy.testing import EngineTest


async def test_orders_are_added_up_by_customer(engine_test: type[EngineTest]) -> None:
    registry = SchemaRegistry("memory://")
    engine, _ = orders_job("kafka.example:9092", registry)
    # What other programs write, in the schema of last year.
    old = Avro(registry, ORDER).for_topic("shop-orders")
    await old.open()
    async with engine_test(engine, topics={"shop-large-orders": 1}) as t:
        await t.send("shop-orders", old.serialize(order(0, "anna", "20.00")), key="anna")
        await t.send("shop-orders", old.serialize(order(1, "anna", "120.00")), key="anna")
        await t.settle()
        assert t.table("customers") == {"anna": {"orders": 2, "spent": Decimal("140.00"), "currency": "EUR"}}
        (large,) = t.sent("shop-large-orders", value_deserializer=Avro(registry).deserialize)
        assert large.value == {**order(1, "anna", "120.00"), "currency": "EUR"}
        await t.crash()
        await t.restart()
        assert t.table("customers")["anna"]["orders"] == 2
