"""One workload with FastStream, by the Python of its environment. See `lines.Job`."""

import asyncio
import logging

import msgspec
from faststream.kafka import KafkaBroker

from benchmarks.peers.lines import LEAST_AMOUNT, Job, Live, Stretch, avro_reader, job_of_arguments

BULK = 10_000
"""The most records that `noop-bulk` takes at once."""


async def main(job: Job) -> None:
    # Without its conversion of arguments, and a log line for each record.
    broker = KafkaBroker(job.bootstrap, apply_types=False, log_level=logging.DEBUG, logger=None)
    await RUNS[job.workload](job, broker)


def subscriber(job, broker, **options):
    return broker.subscriber(job.topic, group_id=job.group, auto_offset_reset="earliest", **options)


async def raw(message):
    """In place of a decoder that finds out what a value is."""
    return message.body


async def run(broker, is_over):
    await broker.start()
    await is_over.wait()
    await broker.stop()


async def no_op(job, broker):
    stretch, is_over = Stretch(job.records), asyncio.Event()

    @subscriber(job, broker, decoder=raw)
    async def handle(_value):
        if stretch.handled():
            is_over.set()

    await run(broker, is_over)
    stretch.tell()


async def no_op_bulk(job, broker):
    stretch, is_over = Stretch(job.records), asyncio.Event()

    @subscriber(job, broker, decoder=None, parser=None, batch=True, max_records=BULK)
    async def handle(values):
        if not stretch.seen:
            stretch.begin()
        stretch.seen += len(values)
        if stretch.seen == job.records:
            is_over.set()

    await run(broker, is_over)
    stretch.tell()


async def filtered(job, broker):
    stretch, is_over = Stretch(job.records), asyncio.Event()
    decode = avro_reader() if job.workload == "avro" else msgspec.json.decode

    async def decoded(message):
        return decode(message.body)

    @subscriber(job, broker, decoder=decoded)
    async def handle(value):
        if value["amount"] >= LEAST_AMOUNT:
            stretch.kept += 1
        if stretch.handled():
            is_over.set()

    await run(broker, is_over)
    stretch.tell()


async def map_to_topic(job, broker):
    stretch, is_over = Stretch(job.records), asyncio.Event()
    publisher = broker.publisher(job.out)

    async def keyed(message):
        return message.raw_message.key, message.body

    @subscriber(job, broker, decoder=keyed)
    async def handle(item):
        key, value = item
        await publisher.publish(value, key=key)
        if stretch.handled():
            is_over.set()

    await run(broker, is_over)
    stretch.tell()


async def live(job, broker):
    noted, is_over = Live(job.records), asyncio.Event()

    @subscriber(job, broker, decoder=raw)
    async def handle(value):
        if noted.handled(value):
            is_over.set()

    await run(broker, is_over)
    noted.tell()


RUNS = {
    "noop": no_op,
    "noop-bulk": no_op_bulk,
    "json": filtered,
    "avro": filtered,
    "map": map_to_topic,
    "live": live,
}

if __name__ == "__main__":
    asyncio.run(main(job_of_arguments()))
