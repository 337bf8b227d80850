"""Adds up orders by customer, from records in two versions of a schema.

python -m examples.orders_avro.demo
    on the embedded broker, with an embedded registry
python -m examples.orders_avro.demo --bootstrap-servers localhost:9092 --registry http://localhost:8081
    on a Kafka, with its schema registry
"""

import argparse
import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from examples.orders_avro.job import orders_job
from examples.orders_avro.schemas import ORDER, ORDER_WITH_CURRENCY
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicSpec
from paperboy.serializers import Avro, SchemaRegistry


async def main(bootstrap_servers: str, registry_url: str, prefix: str = "shop") -> dict[str, Any]:
    """Send orders, let the job handle them, and return what it knows of each customer."""
    await make_topics(bootstrap_servers, f"{prefix}-orders", f"{prefix}-large-orders")
    registry = SchemaRegistry(registry_url)
    engine, customers = orders_job(bootstrap_servers, registry, prefix)
    old, new = Avro(registry, ORDER), Avro(registry, ORDER_WITH_CURRENCY)
    async with engine:
        for number, (customer, amount) in enumerate([("anna", "20.00"), ("bert", "150.00"), ("anna", "7.50")]):
            await send_order(engine.send, f"{prefix}-orders", old, order(number, customer, amount))
        await send_order(engine.send, f"{prefix}-orders", new, {**order(3, "carla", "99.99"), "currency": "CHF"})
        await engine.caught_up()
        return {name: customer for _, name, customer in customers.snapshot()}


async def send_order(send: Any, topic: str, serializer: Avro, order: dict[str, Any]) -> None:
    await send(topic, order, key=order["customer"].encode(), serializer=serializer)


def order(number: int, customer: str, amount: str) -> dict[str, Any]:
    return {
        "id": UUID(int=number),
        "customer": customer,
        "amount": Decimal(amount),
        "at": datetime(2026, 1, 2, 3, 4, number, tzinfo=UTC),
    }


async def make_topics(bootstrap_servers: str, *topics: str) -> None:
    broker = open_broker(bootstrap_servers)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(topic, partitions=1) for topic in topics])
    finally:
        await broker.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Add up orders in Avro, by customer.")
    parser.add_argument("--bootstrap-servers", default="memory://orders", help="host:port of a Kafka")
    parser.add_argument("--registry", default="memory://orders", help="the address of its schema registry")
    given = parser.parse_args()
    for name, customer in asyncio.run(main(given.bootstrap_servers, given.registry)).items():
        print(f"{name}: {customer['orders']} orders, {customer['spent']} {customer['currency']}")
