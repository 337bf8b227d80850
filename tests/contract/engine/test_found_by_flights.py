"""What the flights job ran into."""

import json
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
