"""Types over the serializers of a schema registry, an embedded one: the schema is derived where none is given."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from paperboy import DeserializationError, Engine, Handler, IncompatibleSchema, Table, Topic
from paperboy.clock import random_id
from paperboy.serializers import Avro, JsonSchema, SchemaRegistry
from paperboy.serializers.avro_schema import avro_schema_of
from paperboy.testing import EngineTest
from tests.contract.engine.kit import Kit


@dataclass
class Order:
    id: str
    amount: float = 0.0


@dataclass
class Total:
    orders: int = 0
    amount: float = 0.0


@dataclass
class TotalWithNote:
    orders: int = 0
    amount: float = 0.0
    note: str | None = None


@pytest.fixture
def registry() -> SchemaRegistry:
    return SchemaRegistry(f"memory://{random_id()}")


def summing(source: Topic, totals: Table) -> type[Handler[Order]]:
    class Summing(Handler[Order]):
        topic = source
        value_type = Order

        @classmethod
        async def on_message(cls, msg, ctx):
            total = totals.get(msg.key)
            totals[msg.key] = type(total)(orders=total.orders + 1, amount=total.amount + msg.value.amount)

    return Summing


async def run(kit: Kit, source: Topic, registry: SchemaRegistry, kind: Any) -> dict[Any, Any]:
    """Send an order and sum it up in a table of this type, which is what comes back."""
    table = Table("totals", key_type=str, value_type=kind, value_serializer=Avro(registry), default=kind)
    engine = kit.engine(summing(source, table))
    engine.register_table(table)
    async with engine:
        await engine.send(source, Order("o-1", 2.5), key="anna")
        await engine.caught_up()
        return {key: value for _, key, value in table.snapshot()}


async def test_typed_messages_and_tables_are_in_avro_with_schemas_of_their_types(
    kit: Kit, registry: SchemaRegistry
) -> None:
    source = Topic(await kit.topic("orders"), key=str, value=Avro(registry).typed(Order))
    assert await run(kit, source, registry, Total) == {"anna": Total(1, 2.5)}
    assert await run(kit, source, registry, Total) == {"anna": Total(2, 5.0)}
    changelog = f"{kit.group}-totals-changelog"
    [version] = await registry.versions(f"{changelog}-value")
    assert json.loads(version.schema.text) == avro_schema_of(Total)
    reader = Avro(registry)
    await reader.fetch_ahead(changelog)
    assert [reader.deserialize(record.value) for record in await kit.read(changelog)][-1] == {
        "orders": 2,
        "amount": 5.0,
    }


async def test_a_table_of_another_type_that_cannot_read_what_it_holds_is_refused(
    kit: Kit, registry: SchemaRegistry
) -> None:
    source = Topic(await kit.topic("orders"), key=str, value=Avro(registry).typed(Order))
    await run(kit, source, registry, Total)
    with pytest.raises(IncompatibleSchema, match="'totals' may hold values that it could not read"):
        await run(kit, source, registry, TotalWithNote)  # its record has another name


async def test_a_field_with_a_default_may_be_added_to_the_type_of_a_table(kit: Kit, registry: SchemaRegistry) -> None:
    source = Topic(await kit.topic("orders"), key=str, value=Avro(registry).typed(Order))
    grown: Any = dataclass(type("Total", (TotalWithNote,), {}))
    assert await run(kit, source, registry, Total) == {"anna": Total(1, 2.5)}
    assert await run(kit, source, registry, grown) == {"anna": grown(2, 5.0)}


async def test_what_was_written_by_others_becomes_the_handler_s_type(registry: SchemaRegistry) -> None:
    """Their record has another name, and fields that the handler does not know."""
    fields = [{"name": "id", "type": "string"}, {"name": "more", "type": "int"}]
    theirs = Avro(registry, {"type": "record", "namespace": "com.shop", "name": "Ordered", "fields": fields})
    seen: list[object] = []

    class Orders(Handler[Order]):
        topic = "orders"
        value_type = Order
        value_serializer = Avro(registry)

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.value)

    engine = Engine(Orders, bootstrap_servers="kafka.example:9092", group_id="orders")
    async with EngineTest(engine) as t:
        await t.send("orders", {"id": "o-1", "more": 7}, serializer=theirs)
        await t.settle()
        assert seen == [Order("o-1", 0.0)]
        wrong = Avro(
            registry,
            {"type": "record", "name": "Wrong", "fields": [{"name": "id", "type": "int"}]},
            subject_strategy="record",
        )
        await t.send("orders", {"id": 7}, serializer=wrong)
        with pytest.raises(DeserializationError, match=r"orders\[0\] offset 1 could not be decoded .*Order.*`\$\.id`"):
            await t.settle()


async def test_a_type_over_json_schema_is_checked_by_both(registry: SchemaRegistry) -> None:
    schema = json.dumps(
        {"title": "Order", "type": "object", "properties": {"amount": {"type": "number", "minimum": 0}}}
    )
    orders = Topic("orders", key=str, value=JsonSchema(registry, schema))
    seen: list[object] = []

    class Orders(Handler[Order]):
        topic = orders
        value_type = Order

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append(msg.value)

    engine = Engine(Orders, bootstrap_servers="kafka.example:9092", group_id="orders")
    async with EngineTest(engine) as t:
        await t.send(orders, {"id": "o-1", "amount": 2.5}, key="anna")
        await t.settle()
        assert seen == [Order("o-1", 2.5)]
