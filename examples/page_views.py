"""Counts page views in a table.

    python examples/page_views.py                                       on the embedded broker
    python examples/page_views.py --bootstrap-servers localhost:9092    on a Kafka

On a Kafka a second run goes on counting where the first one stopped: the table is kept there, in a topic of its own.
"""

import argparse
import asyncio

from paperboy import Context, Engine, Handler, Message, Table
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicSpec

views = Table("views", store="memory://")


class PageViews(Handler):
    topic = "page-views"
    key_serializer = bytes.decode

    @classmethod
    async def on_message(cls, msg: Message, ctx: Context) -> None:
        # Read a key of the table: None, or what stands beside it, if it was never set.
        count = views.get(msg.key, 0)
        # Set it. If this message failed, its writes would be taken back.
        await views.set(msg.key, count + 1)

    @classmethod
    async def on_tombstone(cls, msg: Message, ctx: Context) -> None:
        # A message without a value: the page is gone.
        await views.delete(msg.key)


def page_views(bootstrap_servers: str) -> Engine:
    engine = Engine(PageViews, bootstrap_servers=bootstrap_servers, group_id="page-views")
    # The table is restored from its topic before the first message is handled.
    engine.register_table(views)
    return engine


async def main(bootstrap_servers: str) -> None:
    await make_topic(bootstrap_servers, PageViews.topic)
    engine = page_views(bootstrap_servers)
    # A service runs until it is stopped, by `await engine.start()`. This one runs beside us, as long as the block does.
    async with engine:
        for page in ("home", "pricing", "home", "old", "docs", "home"):
            await engine.send(PageViews.topic, b"viewed", key=page.encode())
        await engine.send(PageViews.topic, None, key=b"old")
        await engine.caught_up()
        for _, page, count in views.snapshot():
            print(page, count)


async def make_topic(bootstrap_servers: str, topic: str) -> None:
    broker = open_broker(bootstrap_servers)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(topic, partitions=1)])
    finally:
        await broker.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count page views in a table.")
    parser.add_argument("--bootstrap-servers", default="memory://page-views", help="host:port of a Kafka")
    asyncio.run(main(parser.parse_args().bootstrap_servers))
