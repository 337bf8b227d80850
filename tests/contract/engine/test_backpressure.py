"""What is fetched ahead is bounded, for each task and for the whole worker, and nothing of it is thrown away."""

import asyncio

import pytest

from paperboy import Handler
from tests.contract.engine.kit import Kit, until

PARTITIONS = 4
VALUE_BYTES = 10_000
RECORDS = 400
"""Of each partition: 4 MB."""
FETCH_BYTES = 1024 * 1024
"""What one fetch brings of a partition at most: a partition with room is fetched whole."""


@pytest.mark.parametrize("at_once", [1, 8])
async def test_a_worker_whose_handlers_stand_still_holds_what_it_may_and_then_handles_all_of_it(
    kit: Kit, at_once: int
) -> None:
    source = await kit.topic("in", PARTITIONS)
    for partition in range(PARTITIONS):
        await kit.send(source, [(b"%d" % number, b"v" * VALUE_BYTES) for number in range(RECORDS)], partition)
    go_on, handled = asyncio.Event(), list[int]()

    class Slow(Handler):
        topic = source
        concurrency = at_once

        @classmethod
        async def on_message(cls, msg, ctx):
            await go_on.wait()
            handled.append(msg.offset)

    limit = 4 * 1024 * 1024
    async with kit.engine(Slow, max_buffer_bytes=limit, with_bulk_mode=False) as engine:
        membership = engine._membership
        assert membership is not None

        def held() -> list[int]:
            return [source.buffered_bytes for task in membership.tasks.values() for source in task.sources]

        def is_full() -> bool:
            ready = len(membership.tasks) == PARTITIONS and all(task.ready for task in membership.tasks.values())
            return ready and not any(task.sources.wanted() for task in membership.tasks.values())

        await until(is_full)
        # What a partition may have, and one fetch that began when it had a little less.
        assert all(bytes_held < limit / PARTITIONS + 2 * FETCH_BYTES for bytes_held in held())
        assert sum(held()) < RECORDS * PARTITIONS * VALUE_BYTES * 0.75
        fetched = sum(source.fetched for task in membership.tasks.values() for source in task.sources)
        go_on.set()
        await engine.caught_up()
    assert fetched < PARTITIONS * RECORDS
    assert len(handled) == PARTITIONS * RECORDS
