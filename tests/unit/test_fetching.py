"""When an engine fetches: at once where there is room, whatever other partitions are waited for meanwhile."""

from typing import Any

from paperboy import Engine, Handler
from paperboy.brokers.memory.log import FETCH_BYTES
from paperboy.testing import EngineTest

RECORDS = 10
A_FETCH_EACH = b"v" * (FETCH_BYTES // 2 + 1)


async def test_a_partition_that_gets_room_does_not_wait_for_one_without_records() -> None:
    class Full(Handler):
        topic = "full"

        @classmethod
        async def on_message(cls, msg: Any, ctx: Any) -> None:
            pass

    class Empty(Full):
        topic = "empty"

    engine = Engine(Full, Empty, bootstrap_servers="memory://", group_id="g", max_buffer_bytes=2)  # one by one
    async with EngineTest(engine) as t:
        await t.settle()
        began_ms = t.time_ms()
        for _ in range(RECORDS):
            await t.send("full", A_FETCH_EACH)
        await t.settle()
        assert engine.status().handled == RECORDS
        assert t.time_ms() - began_ms < 100
