"""Charges orders at a payment service that is away at times: retries, a circuit breaker, dead letters.

    python examples/charges.py                                       on the embedded broker
    python examples/charges.py --bootstrap-servers localhost:9092    on a Kafka

On a Kafka the dead letter stays, to be looked at and replayed, from the directory of this file:

    paperboy dlt show charges:engine orders-dlt
    paperboy dlt replay charges:engine orders-dlt --yes
"""

import argparse
import asyncio
import json

from paperboy import CircuitBreaker, Context, DeadLetter, Engine, Exponential, Handler, Retry, Table
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicSpec
from paperboy.handlers.handler import Message

charged = Table("charged", store="memory://")


class PaymentService:
    """Somebody else's, as far as it matters here: it is away for its first calls, and knows no customer called Eve."""

    def __init__(self, away: int) -> None:
        self.away = away

    async def charge(self, order: str, customer: str, amount: float) -> None:
        """`order` is the name of this charge: done twice, it is charged once."""
        if self.away > 0:
            self.away -= 1
            raise ConnectionError("the payment service does not answer")
        if customer == "eve":
            raise LookupError(f"no account of {customer}")


service = PaymentService(away=2)


class Charge(Handler):
    topic = "orders"
    key_serializer = bytes.decode
    value_serializer = json.loads
    # A service that is away may be back in a moment. That there is no account will not change by itself.
    retry = Retry(attempts=4, backoff=Exponential("100ms", maximum="2s"), retry_on=(ConnectionError,))
    # If it stays away, wait for it, before the attempts at the first order are used up.
    circuit_breaker = CircuitBreaker(failures=3, within="1m", pause="10s", on=(ConnectionError,))
    dead_letter = DeadLetter()

    @classmethod
    async def on_message(cls, msg: Message, ctx: Context) -> None:
        if msg.value["amount"] <= 0:
            ctx.skip("there is nothing to charge")
        await service.charge(msg.key, msg.value["customer"], msg.value["amount"])
        charged[msg.key] = msg.value["amount"]


def charges(bootstrap_servers: str) -> Engine:
    engine = Engine(Charge, bootstrap_servers=bootstrap_servers, group_id="charges")
    engine.register_table(charged)
    return engine


engine = charges("localhost:9092")  # for the command


async def main(bootstrap_servers: str) -> None:
    await make_topic(bootstrap_servers, Charge.topic)
    engine = charges(bootstrap_servers)
    async with engine:
        for order, customer, amount in (("1", "anna", 7.5), ("2", "eve", 3.0), ("3", "bert", 0.0), ("4", "bert", 1.5)):
            value = json.dumps({"customer": customer, "amount": amount}).encode()
            await engine.send(Charge.topic, value, key=order.encode())
        await engine.caught_up()
        for _, order, amount in charged.snapshot():
            print("charged", order, amount)
        status = engine.status()
        print("retried", status.retried, "dead letters", status.dead_lettered, "passed over", status.passed_over)


async def make_topic(bootstrap_servers: str, topic: str) -> None:
    broker = open_broker(bootstrap_servers)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(topic, partitions=1)])
    finally:
        await broker.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Charge orders at a payment service that is away at times.")
    parser.add_argument("--bootstrap-servers", default="memory://charges", help="host:port of a Kafka")
    asyncio.run(main(parser.parse_args().bootstrap_servers))
