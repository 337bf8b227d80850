"""What the flights job, and stopping it at every moment, ran into."""

import asyncio
import json
import logging
from typing import Any

import pytest

from paperboy import Handler
from tests.contract.engine.kit import Kit


@pytest.mark.parametrize(
    ("decoder", "name"), [(json.loads, "value_serializer"), (bytes.decode, "value_deserializer")], ids=["json", "str"]
)
async def test_a_decoder_on_the_class_of_an_instance_is_given_the_bytes_alone(
    kit: Kit, decoder: Any, name: str
) -> None:
    source = await kit.topic("decoded")
    await kit.send_values(source, b"1")
    seen: list[Any] = []

    async def on_message(self: Handler, msg: Any, ctx: Any) -> None:
        seen.append(msg.value)

    decoded = type("Decoded", (Handler,), {"topic": source, name: decoder, "on_message": on_message})
    async with kit.engine(decoded()) as engine:
        await engine.caught_up()

    assert seen == [decoder(b"1")]


async def test_an_entry_that_is_cancelled_leaves_no_engine_behind(kit: Kit) -> None:
    source = await kit.topic("cancelled")

    class Idle(Handler):
        topic = source

    engine = kit.engine(Idle)
    entering = asyncio.create_task(engine.__aenter__())
    await asyncio.sleep(0)  # it has begun
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering

    left = [task for task in asyncio.all_tasks() if task.get_name() == "paperboy engine"]
    await engine.stop()
    await asyncio.gather(*left)
    assert left == []


async def test_a_stop_while_the_group_is_being_joined_says_nothing(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    source = await kit.topic("joining")

    class Idle(Handler):
        topic = source

    for turn in range(20):
        async with kit.engine(Idle):
            await asyncio.sleep(turn / 200)  # from before it is a member until after

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
