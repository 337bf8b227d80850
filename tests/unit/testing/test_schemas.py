"""Schemas of a registry in virtual time."""

import pytest

from paperboy import Engine, Handler, RegistryUnreachable
from paperboy.serializers import Avro, SchemaRegistry
from paperboy.testing import EngineTest


def reading(registry: SchemaRegistry) -> Engine:
    class Names(Handler):
        topic = "names"
        value_serializer = Avro(registry, "string")

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send("copies", msg.value, serializer=cls.value_serializer)

    return Engine(Names, bootstrap_servers="kafka.example:9092", group_id="names")


async def test_an_embedded_registry_does_its_work(engine_test: type[EngineTest]) -> None:
    registry = SchemaRegistry("memory://")
    names = Avro(registry, "string").for_topic("names")
    await names.open()
    async with engine_test(reading(registry), topics={"copies": 1}) as t:
        await t.send("names", names.serialize("anna"))
        await t.settle()
        (copy,) = t.sent("copies", value_deserializer=Avro(registry).deserialize)
        assert copy.value == "anna"


async def test_a_real_registry_cannot_be_waited_for_and_the_error_says_what_to_take(
    engine_test: type[EngineTest],
) -> None:
    with pytest.raises(RegistryUnreachable, match=r"SchemaRegistry\('memory://test'\)"):
        async with engine_test(reading(SchemaRegistry("http://localhost:8081"))):
            pass
