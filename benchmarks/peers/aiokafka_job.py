"""One workload with the bare client that paperboy is built on: what a loop of one's own would do. See `lines.Job`."""

import asyncio

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.peers.lines import LEAST_AMOUNT, Job, Live, Stretch, avro_reader, job_of_arguments

BATCH_BYTES = 256 * 1024
"""As paperboy's own producer has it."""


async def main(job: Job) -> None:
    consumer = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        await RUNS[job.workload](job, consumer)
    finally:
        await consumer.stop()


async def chunks(consumer, stretch):
    """What getmany brings, partition by partition, until all was brought; then everything is committed."""
    while stretch.seen < stretch.wanted:
        for partition, chunk in (await consumer.getmany(timeout_ms=1000)).items():
            if not stretch.seen:
                stretch.begin()
            stretch.seen += len(chunk)
            yield partition, chunk


async def getmany(job, consumer):
    stretch = Stretch(job.records)
    async for _ in chunks(consumer, stretch):
        pass
    await consumer.commit()
    stretch.tell()


async def getmany_json(job, consumer):
    await filtered(job, consumer, msgspec.json.decode)


async def getmany_avro(job, consumer):
    await filtered(job, consumer, avro_reader())


async def filtered(job, consumer, decode):
    stretch = Stretch(job.records)
    async for _, chunk in chunks(consumer, stretch):
        for record in chunk:
            if decode(record.value)["amount"] >= LEAST_AMOUNT:
                stretch.kept += 1
    await consumer.commit()
    stretch.tell()


async def getmany_send(job, consumer):
    """One `await send` per record: the client chooses the partition, and makes batches."""
    producer = AIOKafkaProducer(
        bootstrap_servers=job.bootstrap, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES, linger_ms=5
    )
    await producer.start()
    stretch = Stretch(job.records)
    async for _, chunk in chunks(consumer, stretch):
        for record in chunk:
            await producer.send(job.out, record.value, key=record.key)
    await producer.flush()
    await consumer.commit()
    stretch.tell()
    await producer.stop()


async def getmany_send_batch(job, consumer):
    """Ready-made batches for the partition that the record came from: no key is hashed."""
    producer = AIOKafkaProducer(
        bootstrap_servers=job.bootstrap, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES
    )
    await producer.start()
    stretch, acks = Stretch(job.records), []
    async for partition, chunk in chunks(consumer, stretch):
        batch = producer.create_batch()
        for record in chunk:
            if batch.append(key=record.key, value=record.value, timestamp=record.timestamp) is None:
                acks.append(await producer.send_batch(batch, job.out, partition=partition.partition))
                batch = producer.create_batch()
                batch.append(key=record.key, value=record.value, timestamp=record.timestamp)
        acks.append(await producer.send_batch(batch, job.out, partition=partition.partition))
    for ack in acks:
        await ack
    await consumer.commit()
    stretch.tell()
    await producer.stop()


async def getone(job, consumer):
    live = Live(job.records)
    while not live.handled((await consumer.getone()).value):
        pass
    await consumer.commit()
    live.tell()


async def getmany_live(job, consumer):
    live, is_over = Live(job.records), False
    while not is_over:
        for chunk in (await consumer.getmany(timeout_ms=1000)).values():
            for record in chunk:
                is_over = live.handled(record.value) or is_over
    await consumer.commit()
    live.tell()


RUNS = {
    "noop": getmany,
    "json": getmany_json,
    "avro": getmany_avro,
    "map-send": getmany_send,
    "map-send-batch": getmany_send_batch,
    "live-getone": getone,
    "live-getmany": getmany_live,
}

if __name__ == "__main__":
    asyncio.run(main(job_of_arguments()))
