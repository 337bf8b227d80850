"""What is measured. Each takes the bootstrap address, the topic and its record count, and returns seconds."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer

from paperboy import BulkHandler, Engine, Handler, Table


class Contender(NamedTuple):
    name: str
    run: Callable[[str, str, int], Coroutine[Any, Any, float]]


async def getmany(bootstrap: str, source: str, records: int) -> float:
    """The bare client: nothing is done with a record."""
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=bootstrap,
        group_id=f"getmany-{time.time_ns()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        begun = time.perf_counter()
        seen = 0
        while seen < records:
            for chunk in (await consumer.getmany(timeout_ms=1000)).values():
                seen += len(chunk)
        await consumer.commit()
        return time.perf_counter() - begun
    finally:
        await consumer.stop()


async def bulk_noop(bootstrap: str, source: str, records: int) -> float:
    class NoOp(BulkHandler):
        topic = source

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            pass

    return await handled(Engine(NoOp, bootstrap_servers=bootstrap, group_id=f"bulk-{time.time_ns()}"), records)


async def single_noop(bootstrap: str, source: str, records: int) -> float:
    class NoOp(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            pass

    engine = Engine(NoOp, bootstrap_servers=bootstrap, group_id=f"single-{time.time_ns()}", with_bulk_mode=False)
    return await handled(engine, records)


async def single_count(bootstrap: str, source: str, records: int) -> float:
    """Counts per key in a memory table with its changelog, message by message."""
    counts = Table("counts")

    class Count(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            counts.set(msg.key, counts.get(msg.key, 0) + 1)

    engine = Engine(Count, bootstrap_servers=bootstrap, group_id=f"count-{time.time_ns()}", with_bulk_mode=False)
    engine.register_table(counts)
    return await handled(engine, records, counts)


async def bulk_count(bootstrap: str, source: str, records: int) -> float:
    """The same by a bulk handler, which reads and writes the table once per key and bulk."""
    counts = Table("counts")

    class Count(BulkHandler):
        topic = source

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            added = Counter([msg.key for msg in msgs])
            before = counts.get_many(list(added), 0)
            counts.set_many((key, count + more) for count, (key, more) in zip(before, added.items(), strict=True))

    engine = Engine(Count, bootstrap_servers=bootstrap, group_id=f"count-{time.time_ns()}")
    engine.register_table(counts)
    return await handled(engine, records, counts)


async def handled(engine: Engine, records: int, counts: Table | None = None) -> float:
    """From joining the group to everything handled and committed; the counts must be right."""
    async with engine:
        while not engine.status().tasks:
            await asyncio.sleep(0.001)
        begun = time.perf_counter()
        await engine.caught_up()
        seconds = time.perf_counter() - begun
        if engine.status().handled != records:
            raise AssertionError(f"{engine.status().handled} of {records} records were handled")
        if counts is not None and (total := sum(entry.value for entry in counts.snapshot())) != records:
            raise AssertionError(f"{total} of {records} records were counted")
        return seconds


CONTENDERS = [
    Contender("getmany", getmany),
    Contender("bulk no-op", bulk_noop),
    Contender("single no-op", single_noop),
    Contender("single count", single_count),
    Contender("bulk count", bulk_count),
]

GOALS = {"bulk no-op": 0.9, "single no-op": 0.6, "single count": 0.5}
"""As parts of getmany's rate."""
