"""One workload with faust-streaming, by the Python of its environment. See `lines.Job`."""

import asyncio
import signal
import time

import faust

from benchmarks.peers.lines import LEAST_AMOUNT, Job, Live, Returning, Stretch, avro_reader, job_of_arguments, tell

BULK = 1_000
"""How many records `noop-bulk` takes at once."""
PARTITIONS = 4


def main(job: Job) -> None:
    app = faust.App(
        job.group,
        broker=f"kafka://{job.bootstrap}",
        datadir=job.state_dir,
        store="rocksdb://",
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=5_000,
        stream_buffer_maxsize=16_384,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        web_enabled=False,
    )
    source = app.topic(job.topic, key_serializer="raw", value_serializer=value_serializer(job.workload))
    asyncio.run(RUNS[job.workload](job, app, source))


def value_serializer(workload):
    if workload == "avro":
        codec = faust.Codec()
        codec._loads = avro_reader()
        return codec
    return "json" if workload == "json" else "raw"


async def run(app, is_over):
    await app.start()
    await is_over.wait()
    await asyncio.sleep(0)  # the last record is acknowledged when its agent asks for the next
    while not await app.consumer.commit():
        await asyncio.sleep(0.01)
    await app.stop()


async def no_op(job, app, source):
    stretch, is_over = Stretch(job.records), asyncio.Event()

    async def handle(stream):
        async for _ in stream:
            if stretch.handled():
                is_over.set()

    app.agent(source)(handle)
    await run(app, is_over)
    stretch.tell()


async def no_op_bulk(job, app, source):
    stretch, is_over = Stretch(job.records), asyncio.Event()

    async def handle(stream):
        async for values in stream.take(BULK, within=0.1):
            if not stretch.seen:
                stretch.begin()
            stretch.seen += len(values)
            if stretch.seen == job.records:
                is_over.set()

    app.agent(source)(handle)
    await run(app, is_over)
    stretch.tell()


async def filtered(job, app, source):
    stretch, is_over = Stretch(job.records), asyncio.Event()

    async def handle(stream):
        async for value in stream:
            if value["amount"] >= LEAST_AMOUNT:
                stretch.kept += 1
            if stretch.handled():
                is_over.set()

    app.agent(source)(handle)
    await run(app, is_over)
    stretch.tell()


async def map_to_topic(job, app, source):
    stretch, is_over = Stretch(job.records), asyncio.Event()
    out = app.topic(job.out, key_serializer="raw", value_serializer="raw")

    async def handle(stream):
        async for key, value in stream.items():
            await out.send(key=key, value=value)
            if stretch.handled():
                is_over.set()

    app.agent(source)(handle)
    await run(app, is_over)
    stretch.tell()


def counts_of(app):
    return app.Table("counts", default=int, partitions=PARTITIONS, key_type=bytes)


async def count(job, app, source):
    stretch, is_over, counts = Stretch(job.records), asyncio.Event(), counts_of(app)

    async def handle(stream):
        async for event in stream.events():
            counts[event.key] += 1
            if stretch.handled():
                is_over.set()

    app.agent(source)(handle)
    await run(app, is_over)
    stretch.tell()


async def restore(job, app, source):
    """From the first assignment until its recovery is complete."""
    counts, begun = counts_of(app), 0.0

    async def handle(stream):
        async for event in stream.events():
            counts[event.key] += 1

    app.agent(source)(handle)

    @app.on_partitions_assigned.connect
    async def assigned(_app, _partitions, **_):
        nonlocal begun
        begun = begun or time.perf_counter()

    await app.start()
    await app.tables.recovery.completed.wait()
    seconds = time.perf_counter() - begun
    tell(seconds=seconds, records=sum(offset + 1 for offset in app.tables.recovery.active_offsets.values()))
    await app.stop()


async def restart(job, app, source):
    returning, is_over, counts = Returning(job.records), asyncio.Event(), counts_of(app)

    async def handle(stream):
        async for event in stream.events():
            counts[event.key] += 1
            returning.handled()

    app.agent(source)(handle)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    await app.start()
    await is_over.wait()
    await app.stop()


async def live(job, app, source):
    noted, is_over = Live(job.records), asyncio.Event()

    async def handle(stream):
        async for value in stream:
            if noted.handled(value):
                is_over.set()

    app.agent(source)(handle)
    await run(app, is_over)
    noted.tell()


RUNS = {
    "noop": no_op,
    "noop-bulk": no_op_bulk,
    "json": filtered,
    "avro": filtered,
    "map": map_to_topic,
    "count": count,
    "restore": restore,
    "restart": restart,
    "live": live,
}

if __name__ == "__main__":
    main(job_of_arguments())
