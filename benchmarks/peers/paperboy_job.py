"""One workload with paperboy. See `lines.Job`."""

import asyncio
import time
from collections import Counter

import msgspec

from benchmarks.peers.lines import LEAST_AMOUNT, REGISTRY, Job, Live, Returning, job_of_arguments, tell
from paperboy import BulkHandler, Engine, Handler, Table


def main(job: Job) -> None:
    workload, _, guarantee = job.workload.partition("/")
    options = {"processing_guarantee": "exactly_once"} if guarantee == "exactly-once" else {}
    RUNS[workload](job, options)


def no_op(job, options):
    class NoOp(Handler):
        topic = job.topic

        @classmethod
        async def on_message(cls, msg, ctx):
            pass

    asyncio.run(handled(engine(job, NoOp, **options)))


def no_op_bulk(job, options):
    class NoOp(BulkHandler):
        topic = job.topic

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            pass

    asyncio.run(handled(engine(job, NoOp, **options)))


def json_filter(job, options):
    filtered(job, options, msgspec.json.decode)


def avro_filter(job, options):
    from paperboy.serializers import Avro  # here: the other workloads are not to pay for it

    filtered(job, options, Avro(REGISTRY))


def filtered(job, options, deserializer):
    kept = 0

    class Filter(Handler):
        topic = job.topic
        value_deserializer = deserializer

        @classmethod
        async def on_message(cls, msg, ctx):
            nonlocal kept
            if msg.value["amount"] >= LEAST_AMOUNT:
                kept += 1

    asyncio.run(handled(engine(job, Filter, **options), lambda: {"kept": kept}))


def map_to_topic(job, options):
    out = job.out

    class Map(Handler):
        topic = job.topic

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(out, msg.value, key=msg.key)

    asyncio.run(handled(engine(job, Map, **options)))


def counting(job):
    """A handler that counts per key, message by message, and its table."""
    counts = Table("counts", store="rocksdb://")

    class Count(Handler):
        topic = job.topic

        @classmethod
        async def on_message(cls, msg, ctx):
            counts[msg.key] = counts.get(msg.key, 0) + 1

    return Count, counts


def count(job, options):
    handler, counts = counting(job)
    asyncio.run(handled(engine(job, handler, counts, **options)))


def count_bulk(job, options):
    counts = Table("counts", store="rocksdb://")

    class Count(BulkHandler):
        topic = job.topic

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            added = Counter([msg.key for msg in msgs])
            before = counts.get_many(list(added), 0)
            counts.set_many((key, count + more) for count, (key, more) in zip(before, added.items(), strict=True))

    asyncio.run(handled(engine(job, Count, counts, **options)))


def restore(job, options):
    handler, counts = counting(job)

    async def run(engine):
        async with engine:
            while not (tasks := engine.status().tasks):
                await asyncio.sleep(0.001)
            begun = time.perf_counter()
            while not all(task.ready for task in tasks):
                await asyncio.sleep(0.001)
                tasks = engine.status().tasks
            tell(seconds=time.perf_counter() - begun, records=engine.status().restored)

    asyncio.run(run(engine(job, handler, counts, **options)))


def restart(job, options):
    returning = Returning(job.records)
    counts = Table("counts", store="rocksdb://")

    class Count(Handler):
        topic = job.topic

        @classmethod
        async def on_message(cls, msg, ctx):
            counts[msg.key] = counts.get(msg.key, 0) + 1
            returning.handled()

    asyncio.run(engine(job, Count, counts, **options).start())


def live(job, options):
    noted = Live(job.records)

    class Note(Handler):
        topic = job.topic

        @classmethod
        async def on_message(cls, msg, ctx):
            if noted.handled(msg.value):
                await running.stop()

    running = engine(job, Note, **options)
    asyncio.run(running.start())
    noted.tell()


def engine(job, handler, *tables, **options):
    made = Engine(handler, bootstrap_servers=job.bootstrap, group_id=job.group, state_dir=job.state_dir, **options)
    for table in tables:
        made.register_table(table)
    return made


async def handled(engine, more=dict):
    """From the moment its tasks are ready until everything is handled, and the engine has stopped."""
    async with engine:
        while not (tasks := engine.status().tasks) or not all(task.ready for task in tasks):
            await asyncio.sleep(0.001)
        begun = time.perf_counter()
        await engine.caught_up()
        records = engine.status().handled
    tell(records=records, seconds=time.perf_counter() - begun, **more())


RUNS = {
    "noop": no_op,
    "noop-bulk": no_op_bulk,
    "json": json_filter,
    "avro": avro_filter,
    "map": map_to_topic,
    "count": count,
    "count-bulk": count_bulk,
    "restore": restore,
    "restart": restart,
    "live": live,
}

if __name__ == "__main__":
    main(job_of_arguments())
