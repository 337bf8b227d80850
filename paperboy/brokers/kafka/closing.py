"""Stopping aiokafka's consumers."""

import asyncio

from aiokafka import AIOKafkaConsumer


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop it whole.

    aiokafka's own ``stop`` cancels tasks and awaits them: where one had not begun yet, or was in a back-off, their
    CancelledError comes out of ``stop`` as if the caller had been cancelled, and the connections stay open.
    """
    stopping = asyncio.create_task(consumer.stop(), name="stop aiokafka consumer")
    try:
        await asyncio.wait([stopping])
    finally:
        if not stopping.done():
            stopping.cancel()
    if stopping.cancelled():
        await consumer._client.close()
    else:
        stopping.result()
