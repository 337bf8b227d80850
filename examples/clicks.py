"""Counts clicks by user, in as many processes as you like.

    make kafka                                             a Kafka on port 9092, in another terminal
    python examples/clicks.py 100000                       makes the topic, with 4 partitions, and so many clicks
    paperboy worker examples.clicks:engine --workers 2     counts them, until Ctrl-C; kill -HUP restarts one by one

BOOTSTRAP_SERVERS in the environment names another Kafka.
"""

import argparse
import asyncio
import os

from paperboy import Context, Engine, Handler, Table
from paperboy.brokers import open_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Outgoing, TopicPartition, TopicSpec
from paperboy.handlers.handler import Message

BOOTSTRAP_SERVERS = os.environ.get("BOOTSTRAP_SERVERS", "localhost:9092")
PARTITIONS = 4
USERS = 1_000

# On disk: a worker that is restarted need not read all of it from Kafka again.
clicks = Table("clicks", store="rocksdb://")


class Clicks(Handler):
    topic = "clicks"
    key_serializer = bytes.decode

    @classmethod
    async def on_message(cls, msg: Message, ctx: Context) -> None:
        await clicks.set(msg.key, clicks.get(msg.key, 0) + 1)


# `paperboy worker` imports this module in each of its processes, and runs what stands here.
engine = Engine(Clicks, bootstrap_servers=BOOTSTRAP_SERVERS, group_id="clicks")
engine.register_table(clicks)


async def click(records: int) -> None:
    broker = open_broker(BOOTSTRAP_SERVERS)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(Clicks.topic, PARTITIONS)])
        producer = broker.producer()
        await producer.start()
        try:
            now = broker.clock.time_ms()
            clicked: list[list[Outgoing]] = [[] for _ in range(PARTITIONS)]
            for number in range(records):
                user = f"user-{number % USERS}".encode()
                clicked[partition_for_key(user, PARTITIONS)].append((user, b"clicked", (), now))
            for number, sent in enumerate(clicked):
                for ack in await producer.send(TopicPartition(Clicks.topic, number), sent):
                    await ack
        finally:
            await producer.stop()
    finally:
        await broker.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make clicks for the workers to count.")
    parser.add_argument("records", type=int, nargs="?", default=10_000)
    asyncio.run(click(parser.parse_args().records))
