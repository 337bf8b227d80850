"""Schemas of a registry in handlers, sends and tables: embedded beside the memory broker, a real one beside Kafka."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf import struct_pb2
from schema_registry.client import SchemaRegistryClient
from schema_registry.client.schema import AvroSchema
from schema_registry.serializers.message_serializer import AvroMessageSerializer

from paperboy import (
    DeserializationError,
    GlobalTable,
    Handler,
    IncompatibleSchema,
    RegistryError,
    SerializationError,
    Table,
)
from paperboy.brokers.protocol import TopicPartition
from paperboy.serializers import Avro, JsonSchema, Protobuf, SchemaRegistry, String, Typed
from paperboy.serializers.framed import Framed
from paperboy.serializers.registry import Level
from tests.contract.engine.kit import Kit, until


@pytest.fixture
def registry_address(kit: Kit, request: pytest.FixtureRequest) -> str:
    if kit.bootstrap.startswith("memory:"):
        return f"memory://{kit.unique}"
    url: str = request.getfixturevalue("registry_url")
    return url


@pytest.fixture
def registry(registry_address: str) -> SchemaRegistry:
    return SchemaRegistry(registry_address)


def order_schema(*fields: dict[str, Any], name: str = "Order") -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "shop", "fields": [{"name": "id", "type": "long"}, *fields]}


ORDER = order_schema({"name": "amount", "type": "double"})
WITH_NOTE = order_schema({"name": "amount", "type": "double"}, {"name": "note", "type": "string", "default": "none"})
WITHOUT_AMOUNT = order_schema()
NOTED = order_schema({"name": "note", "type": "string", "default": ""})
AMOUNT_IN_TEXT = order_schema({"name": "amount", "type": "string"})


async def framed(serializer: Framed, topic: str, value: Any) -> bytes:
    """As another program would write it."""
    writing = serializer.for_topic(topic)
    await writing.open()
    return writing.serialize(value)


class Collecting(Handler):
    """Puts what it is given into a list."""

    def __init__(self, topic: str, serializer: Any) -> None:
        self.topic = topic
        self.value_serializer = serializer
        self.seen: list[Any] = []
        self.failed: list[tuple[Exception, Any]] = []

    async def on_message(self, msg, ctx):  # type: ignore[override]
        self.seen.append(msg.value)

    async def on_error(self, e, msg, ctx):  # type: ignore[override]
        self.failed.append((e, msg.value))


async def handled(kit: Kit, handler: Any, **options: Any) -> Any:
    async with kit.engine(handler, **options) as engine:
        await engine.caught_up()
    return handler


@pytest.mark.parametrize("bulk_mode_threshold", [1, 10_000])
async def test_a_handler_reads_what_another_program_wrote(
    kit: Kit, registry_address: str, registry: SchemaRegistry, bulk_mode_threshold: int
) -> None:
    source = await kit.topic("orders")
    orders = [{"id": number, "amount": number / 4} for number in range(10)]
    await kit.send_values(source, *[await framed(Avro(registry, ORDER), source, order) for order in orders])
    reading = Avro(SchemaRegistry(registry_address))
    handler = await handled(kit, Collecting(source, reading), bulk_mode_threshold=bulk_mode_threshold)
    assert handler.seen == orders


@pytest.mark.parametrize("strategy", ["topic", "topic_record"])
async def test_what_inputs_are_written_in_is_fetched_before_their_first_record(
    kit: Kit, registry_address: str, registry: SchemaRegistry, strategy: Any
) -> None:
    source = await kit.topic("orders")
    data = await framed(Avro(registry, ORDER, subject_strategy=strategy), source, {"id": 1, "amount": 1.5})
    fresh = SchemaRegistry(registry_address)
    handler = Collecting(source, Avro(fresh, ORDER, subject_strategy=strategy))
    async with kit.engine(handler):
        assert fresh.known(int.from_bytes(data[1:5], "big")) is not None


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_schema_that_comes_while_the_engine_runs_is_fetched(
    kit: Kit, registry_address: str, registry: SchemaRegistry, concurrency: int
) -> None:
    source = await kit.topic("orders")
    handler = Collecting(source, Avro(SchemaRegistry(registry_address)))
    handler.concurrency = concurrency
    async with kit.engine(handler) as engine:
        await kit.send_values(source, await framed(Avro(registry, ORDER), source, {"id": 1, "amount": 1.5}))
        await kit.send_values(
            source, await framed(Avro(registry, WITH_NOTE), source, {"id": 2, "amount": 2.5, "note": "new"})
        )
        await engine.caught_up()
    assert sorted(handler.seen, key=lambda order: order["id"]) == [
        {"id": 1, "amount": 1.5},
        {"id": 2, "amount": 2.5, "note": "new"},
    ]


async def test_a_key_and_a_value_in_two_new_schemas_are_both_fetched(
    kit: Kit, registry_address: str, registry: SchemaRegistry
) -> None:
    source = await kit.topic("orders")
    fresh = SchemaRegistry(registry_address)
    handler = Collecting(source, Avro(fresh))
    handler.key_serializer = Avro(fresh)
    keys = Avro(registry, "string").for_topic(source, "key")
    async with kit.engine(handler) as engine:
        await keys.open()
        value = await framed(Avro(registry, ORDER), source, {"id": 1, "amount": 1.5})
        await kit.send(source, [(keys.serialize("anna"), value)])
        await engine.caught_up()
    assert handler.failed == []
    assert handler.seen == [{"id": 1, "amount": 1.5}]


async def test_old_records_are_read_in_a_new_schema_and_new_ones_in_an_old_one(
    kit: Kit, registry: SchemaRegistry
) -> None:
    source = await kit.topic("orders")
    old, new = Avro(registry, ORDER), Avro(registry, WITH_NOTE)
    await kit.send_values(
        source,
        await framed(old, source, {"id": 1, "amount": 1.5}),
        await framed(new, source, {"id": 2, "amount": 2.5, "note": "new"}),
    )
    handler = await handled(kit, Collecting(source, Avro(registry, WITH_NOTE)))
    assert handler.seen == [{"id": 1, "amount": 1.5, "note": "none"}, {"id": 2, "amount": 2.5, "note": "new"}]
    kit.group += "-old"
    handler = await handled(kit, Collecting(source, Avro(registry, ORDER)))
    assert handler.seen == [{"id": 1, "amount": 1.5}, {"id": 2, "amount": 2.5}]


async def test_the_serializer_of_python_schema_registry_client_is_a_handlers_serializer(
    kit: Kit, registry_url: str
) -> None:
    """As the reference's snippet has it: its method, on a registry that really is one."""
    source = await kit.topic("orders")
    serializer = AvroMessageSerializer(SchemaRegistryClient(url=registry_url))
    order = {"id": 1, "amount": 1.5}
    data = serializer.encode_record_with_schema(f"{source}-value", AvroSchema(ORDER), order)
    await kit.send(source, [(data, data), (data, None), (data, b"{}")])

    class Orders(Handler):
        topic = source
        key_serializer = serializer.decode_message
        value_serializer = serializer.decode_message

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append((msg.key, msg.value))

        @classmethod
        async def on_tombstone(cls, msg, ctx):
            seen.append((msg.key, msg.value))

        @classmethod
        async def on_error(cls, e, msg, ctx):
            failed.append(e)

    seen: list[Any] = []
    failed: list[Exception] = []
    await handled(kit, Orders)
    assert seen == [(order, order), (order, None)]
    assert [type(error) for error in failed] == [DeserializationError]


async def test_what_cannot_be_read_names_its_place_and_its_schema(kit: Kit, registry: SchemaRegistry) -> None:
    source = await kit.topic("orders")
    good = await framed(Avro(registry, ORDER), source, {"id": 1, "amount": 1.5})
    schema_id = int.from_bytes(good[1:5], "big")
    bad = [b'{"id": 1}', b"\x00\x01", b"\x00\x77\x35\x94\x01\x02", b"\x00\xff\xff\xff\xff", good[:-1], good[:5]]
    await kit.send_values(source, good, *bad, good)
    handler = await handled(kit, Collecting(source, Avro(registry)))
    assert handler.seen == [{"id": 1, "amount": 1.5}] * 2
    assert [value for _, value in handler.failed] == bad
    reasons = [
        "magic byte",
        "magic byte",
        "no schema with id 2000000001",
        "larger than ids are",
        *[f"schema id {schema_id}"] * 2,
    ]
    for offset, ((error, _), reason) in enumerate(zip(handler.failed, reasons, strict=True), 1):
        assert isinstance(error, DeserializationError)
        assert f"{source}[0] offset {offset}" in str(error)
        assert reason in str(error)


async def test_a_record_in_a_schema_that_does_not_go_with_ours_is_an_error(kit: Kit, registry: SchemaRegistry) -> None:
    source = await kit.topic("orders")
    await kit.send_values(source, await framed(Avro(registry, AMOUNT_IN_TEXT), source, {"id": 1, "amount": "much"}))
    handler = await handled(kit, Collecting(source, Avro(registry, ORDER)))
    ((error, _),) = handler.failed
    assert isinstance(error, DeserializationError)


def forwarding(source: str, target: str, reading: Any, writing: Any) -> type[Handler]:
    class Forwarding(Handler):
        topic = source
        value_serializer = reading

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(target, msg.value, key=msg.value["id"], serializer=writing, key_serializer=keys)

    keys = Avro(writing.registry, "long")
    return Forwarding


@pytest.mark.parametrize(
    ("strategy", "subject"), [("topic", "{target}-value"), ("record", "{name}"), ("topic_record", "{target}-{name}")]
)
@pytest.mark.parametrize("target_config", [{}, {"cleanup_policy": "compact"}])
async def test_sends_are_in_a_schema_that_is_registered_with_the_first(
    kit: Kit, registry: SchemaRegistry, strategy: Any, subject: str, target_config: dict[str, str]
) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies", 3, **target_config)
    name = f"Order{kit.unique.replace('-', '')}"
    schema = order_schema({"name": "amount", "type": "double"}, name=name)
    orders = [{"id": number, "amount": number / 4} for number in range(20)]
    plain = Avro(None, schema)
    await kit.send_values(source, *[plain.serialize(order) for order in orders])
    writing = Avro(registry, schema, subject_strategy=strategy)
    await handled(kit, forwarding(source, target, plain, writing))
    records = await kit.read(target)
    assert sorted((writing.deserialize(record.value) for record in records), key=lambda order: order["id"]) == orders
    assert len(await registry.versions(subject.format(target=target, name=f"shop.{name}"))) == 1
    assert len(await registry.versions(f"{target}-key")) == 1
    # The key's bytes choose the partition: each was complete by then.
    async with kit.broker() as broker:
        ends = await broker.end_offsets([TopicPartition(target, number) for number in range(3)])
    assert all(ends.values())


async def test_a_message_that_fails_sends_nothing_that_waited_for_a_schema(kit: Kit, registry: SchemaRegistry) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies")
    writing = Avro(registry, ORDER)

    class Failing(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            order = {"id": int(msg.value), "amount": 0.5}
            await ctx.send(target, order, serializer=writing)
            order["amount"] = 99.0  # what was sent is sent
            if msg.value == b"1":
                raise ValueError("after sending")

        @classmethod
        async def on_error(cls, e, msg, ctx):
            await ctx.send(target, b"failed")

    await kit.send_values(source, b"1", b"2")
    await handled(kit, Failing)
    failed, sent = [record.value for record in await kit.read(target)]
    assert failed == b"failed"
    assert writing.deserialize(sent) == {"id": 2, "amount": 0.5}


async def test_engine_send_writes_in_a_schema(kit: Kit, registry: SchemaRegistry) -> None:
    source = await kit.topic("orders")
    orders = Avro(registry, ORDER)
    handler = Collecting(source, orders)
    async with kit.engine(handler) as engine:
        await engine.send(source, {"id": 1, "amount": 1.5}, serializer=orders)
        await engine.caught_up()
    assert handler.seen == [{"id": 1, "amount": 1.5}]


async def test_a_value_that_does_not_go_with_the_schema_is_refused_where_it_is_sent(
    kit: Kit, registry: SchemaRegistry
) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies")
    writing = Avro(registry, ORDER)
    refused: list[Exception] = []

    class Sending(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            for wrong in ({"id": "1", "amount": 1.5}, {"id": 1}, {"id": 1, "amount": 1.5, "more": 2}):
                try:
                    await ctx.send(target, wrong, serializer=writing)
                except SerializationError as error:
                    refused.append(error)

    await kit.send_values(source, b"1")
    await handled(kit, Sending)
    assert len(refused) == 3
    assert all(target in str(error) for error in refused)


async def test_a_send_that_the_registry_refuses_stops_the_engine_and_commits_nothing(
    kit: Kit, registry: SchemaRegistry
) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies")
    level: Level = "BACKWARD"
    await registry.register(f"{target}-value", Avro(None, AMOUNT_IN_TEXT).schema)  # type: ignore[arg-type]
    await registry.set_compatibility(f"{target}-value", level)
    await kit.send_values(source, Avro(None, ORDER).serialize({"id": 1, "amount": 1.5}))
    with pytest.raises(IncompatibleSchema, match=target):
        await kit.engine(
            forwarding(source, target, Avro(None, ORDER), Avro(registry, ORDER)), fail_on_exception=False
        ).start()
    assert await kit.committed(source) in (None, 0)


async def test_with_registering_off_a_schema_has_to_be_there(kit: Kit, registry: SchemaRegistry) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies")
    writing = Avro(registry, ORDER, register=False)
    await kit.send_values(source, Avro(None, ORDER).serialize({"id": 1, "amount": 1.5}))
    with pytest.raises(RegistryError, match="register=False"):
        await kit.engine(forwarding(source, target, Avro(None, ORDER), writing)).start()
    assert writing.schema is not None
    await registry.register(f"{target}-value", writing.schema)
    await handled(kit, forwarding(source, target, Avro(None, ORDER), writing))
    assert [writing.deserialize(record.value) for record in await kit.read(target)] == [{"id": 1, "amount": 1.5}]


@dataclass
class Order:
    id: int
    amount: float


async def test_types_of_ones_own_go_round_in_schemas(kit: Kit, registry_address: str) -> None:
    source, target = await kit.topic("orders"), await kit.topic("copies")
    orders = Typed(Avro(SchemaRegistry(registry_address), ORDER), Order)
    table = Table("orders", key_serializer=String(), value_serializer=orders)
    outside = Avro(SchemaRegistry(registry_address), ORDER)

    class Copying(Handler):
        topic = source
        value_serializer = orders

        @classmethod
        async def on_message(cls, msg, ctx):
            assert type(msg.value) is Order
            await table.set(str(msg.value.id), msg.value)
            await ctx.send(target, msg.value, serializer=orders)

    await kit.send_values(source, await framed(outside, source, {"id": 1, "amount": 1.5}))
    for _ in range(2):
        engine = kit.engine(Copying)
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert entries(table) == {"1": Order(1, 1.5)}
    (sent,) = await kit.read(target)
    await outside.fetch_for([sent.value])
    assert outside.deserialize(sent.value) == {"id": 1, "amount": 1.5}


def keeping(source: str, table: Table) -> type[Handler]:
    class Keeping(Handler):
        topic = source
        key_serializer = bytes.decode

        @classmethod
        async def on_message(cls, msg, ctx):
            before = table.get(msg.key, {"id": 0, "amount": 0.0})
            await table.set(msg.key, {**before, "id": before["id"] + 1})

    return Keeping


def totals(registry: SchemaRegistry, schema: Any, store: str = "memory://") -> Table:
    return Table("totals", store, key_serializer=String(), value_serializer=Avro(registry, schema))


def entries(table: Table) -> dict[Any, Any]:
    return {key: value for _, key, value in table.snapshot()}


async def run_table(kit: Kit, source: str, table: Table, **options: Any) -> dict[Any, Any]:
    engine = kit.engine(keeping(source, table), **options)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        return entries(table)


async def test_a_tables_changelog_is_in_a_schema_that_any_tool_finds(kit: Kit, registry: SchemaRegistry) -> None:
    source = await kit.topic("views")
    await kit.send(source, [(b"a", b"1"), (b"b", b"1"), (b"a", b"1")])
    assert await run_table(kit, source, totals(registry, ORDER)) == {
        "a": {"id": 2, "amount": 0.0},
        "b": {"id": 1, "amount": 0.0},
    }
    changelog = f"{kit.group}-totals-changelog"
    (version,) = await registry.versions(f"{changelog}-value")
    by_key = {record.key: record.value for record in await kit.read(changelog)}
    assert {key: Avro(registry).deserialize(value) for key, value in by_key.items()} == {
        b"a": {"id": 2, "amount": 0.0},
        b"b": {"id": 1, "amount": 0.0},
    }
    assert {value[:5] for value in by_key.values()} == {b"\x00" + version.id.to_bytes(4, "big")}


@pytest.mark.parametrize("store", ["memory://", "rocksdb://"])
async def test_a_table_is_read_in_its_new_schema(kit: Kit, registry_address: str, store: str, tmp_path: Any) -> None:
    source = await kit.topic("views")
    await kit.send(source, [(b"a", b"1"), (b"b", b"1")])
    await run_table(kit, source, totals(SchemaRegistry(registry_address), ORDER, store), state_dir=str(tmp_path))
    await kit.send(source, [(b"a", b"1")])
    fresh = SchemaRegistry(registry_address)
    assert await run_table(kit, source, totals(fresh, WITH_NOTE, store), state_dir=str(tmp_path)) == {
        "a": {"id": 2, "amount": 0.0, "note": "none"},
        "b": {"id": 1, "amount": 0.0, "note": "none"},
    }


async def test_a_table_that_could_not_read_what_it_holds_does_not_start(kit: Kit, registry: SchemaRegistry) -> None:
    source = await kit.topic("views")
    await kit.send(source, [(b"a", b"1")])
    await run_table(kit, source, totals(registry, ORDER))
    committed = await kit.committed(source)
    await kit.send(source, [(b"a", b"1")])
    # Whatever the registry thinks of it: this is about what the table holds.
    await registry.set_compatibility(f"{kit.group}-totals-changelog-value", "NONE")
    engine = kit.engine(keeping(source, table := totals(registry, AMOUNT_IN_TEXT)))
    engine.register_table(table)
    with pytest.raises(IncompatibleSchema, match=r"Table 'totals'.*version 1.*double at amount.*changelog_topic_name"):
        await engine.start()
    assert await kit.committed(source) == committed
    assert len(await registry.versions(f"{kit.group}-totals-changelog-value")) == 1


async def test_keys_of_a_table_keep_their_schema(kit: Kit, registry: SchemaRegistry) -> None:
    source = await kit.topic("views")
    await kit.send(source, [(b"a", b"1")])

    def keyed(schema: Any) -> Table:
        return Table("keyed", key_serializer=Avro(registry, schema), value_serializer=Avro(registry, ORDER))

    assert await run_table(kit, source, keyed("string")) == {"a": {"id": 1, "amount": 0.0}}
    await kit.send(source, [(b"a", b"1")])
    assert await run_table(kit, source, keyed("string")) == {"a": {"id": 2, "amount": 0.0}}
    engine = kit.engine(keeping(source, table := keyed({"type": "string", "doc": "another"})))
    engine.register_table(table)
    with pytest.raises(IncompatibleSchema, match="Table 'keyed' may hold keys"):
        await engine.start()


async def test_an_old_worker_reads_what_a_new_one_left_in_a_table(kit: Kit, registry_address: str) -> None:
    """A rolling change: the task comes back to a worker that was started before the new schema was."""
    source = await kit.topic("views")
    await kit.send(source, [(b"a", b"1")])
    old = totals(SchemaRegistry(registry_address), ORDER)
    engine = kit.engine(keeping(source, old))
    engine.register_table(old)
    async with engine:
        await engine.caught_up()
        other = SchemaRegistry(registry_address)
        writing = Avro(other, WITH_NOTE).for_topic(f"{kit.group}-totals-changelog")
        await writing.open()
        value = writing.serialize({"id": 7, "amount": 7.0, "note": "new"})
    # As if the new worker had had the task meanwhile; the old one's serializer has not heard of the schema.
    await kit.send(f"{kit.group}-totals-changelog", [(b"z", value)])
    engine = kit.engine(keeping(source, old))
    engine.register_table(old)
    async with engine:
        await engine.caught_up()
        assert entries(old)["z"] == {"id": 7, "amount": 7.0}


async def test_a_global_table_reads_schemas_as_they_come(kit: Kit, registry_address: str) -> None:
    source, target = await kit.topic("views"), await kit.topic("countries", cleanup_policy="compact")
    other = SchemaRegistry(registry_address)
    keys, names = Avro(other, "string").for_topic(target, "key"), Avro(other, WITHOUT_AMOUNT).for_topic(target)
    await keys.open()
    await names.open()
    await kit.send(target, [(keys.serialize("NL"), names.serialize({"id": 31}))])
    registry = SchemaRegistry(registry_address)
    countries = GlobalTable(
        "countries", target, key_serializer=Avro(registry, "string"), value_serializer=Avro(registry)
    )
    engine = kit.engine(Collecting(source, None))
    engine.register_table(countries)
    async with engine:
        await engine.caught_up()
        assert countries.get("NL") == {"id": 31}
        later = Avro(other, NOTED).for_topic(target)
        await later.open()
        await kit.send(target, [(keys.serialize("DE"), later.serialize({"id": 49, "note": "a later schema"}))])
        async with asyncio.timeout(20):
            await until(lambda: "DE" in countries)
        assert countries["DE"] == {"id": 49, "note": "a later schema"}


def _struct(**content: Any) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(content)
    return message


PERSON = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}
EVERY: dict[str, tuple[Any, Any, Any]] = {
    "avro": (lambda registry: Avro(registry, ORDER), {"id": 1, "amount": 0.5}, b"\x00"),
    "json schema": (lambda registry: JsonSchema(registry, PERSON), {"name": "änna", "tags": [1, None]}, b"{}"),
    "protobuf": (
        lambda registry: Protobuf(struct_pb2.Struct, registry),
        _struct(name="anna", n=[1.5, None]),
        b"\x00\x01",
    ),
}


@pytest.mark.parametrize("name", EVERY)
async def test_every_serializer_goes_round_through_handler_table_and_send(
    kit: Kit, registry_address: str, name: str
) -> None:
    source, target = await kit.topic("things"), await kit.topic("copies")
    make, thing, wrong_body = EVERY[name]
    outside, inside = make(SchemaRegistry(registry_address)), make(SchemaRegistry(registry_address))
    table = Table("things", key_serializer=String(), value_serializer=inside)
    failed: list[Exception] = []

    class Copying(Handler):
        topic = source
        value_serializer = inside

        @classmethod
        async def on_message(cls, msg, ctx):
            await table.set("last", msg.value)
            await ctx.send(target, table.get("last"), serializer=inside)

        @classmethod
        async def on_error(cls, e, msg, ctx):
            failed.append(e)

    data = await framed(outside, source, thing)
    await kit.send_values(source, data, data[:5] + wrong_body, data)
    for again in range(2):
        engine = kit.engine(Copying)
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
            assert [value for _, _, value in table.snapshot()] == [thing], again
    (error,) = failed
    assert f"{source}[0] offset 1" in str(error)
    assert f"schema id {int.from_bytes(data[1:5], 'big')}" in str(error)
    for record in await kit.read(target):
        await outside.fetch_for([record.value])
        assert outside.deserialize(record.value) == thing
