"""What serializers lean on of a schema registry: the same of a real one and of the embedded one."""

import json
from typing import Any

import pytest

from paperboy.clock import random_id
from paperboy.errors import DeserializationError, IncompatibleSchema, RegistryError
from paperboy.serializers.registry import Level, SchemaRegistry
from paperboy.serializers.schema import Reference, Schema


@pytest.fixture(params=["memory", "apicurio"])
def registry_address(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return f"memory://{random_id()}"
    url: str = request.getfixturevalue("registry_url")
    return url


@pytest.fixture
def registry(registry_address: str) -> SchemaRegistry:
    return SchemaRegistry(registry_address)


@pytest.fixture
def subject() -> str:
    """A name that no other test uses, in a registry that many share."""
    return f"subject-{random_id()[:12]}-value"


def record(*fields: dict[str, Any], name: str = "Order") -> Schema:
    return Schema(json.dumps({"type": "record", "name": name, "fields": list(fields)}))


ID = {"name": "id", "type": "long"}
TEXT_ID = {"name": "id", "type": "string"}
NOTE = {"name": "note", "type": "string"}
NOTE_OR_NOT = {"name": "note", "type": "string", "default": ""}


async def test_a_registered_schema_is_found_by_its_id(registry: SchemaRegistry, subject: str) -> None:
    schema_id = await registry.register(subject, record(ID))
    assert registry.known(schema_id) == record(ID)
    assert subject in await registry.subjects()


async def test_another_client_finds_it(registry_address: str, subject: str) -> None:
    schema_id = await SchemaRegistry(registry_address).register(subject, record(ID))
    other = SchemaRegistry(registry_address)
    assert other.known(schema_id) is None
    assert await other.schema(schema_id) == record(ID)
    assert other.known(schema_id) == record(ID)
    assert await other.lookup(subject, record(ID)) == schema_id


async def test_an_id_that_there_is_not_is_an_error_that_names_it(registry: SchemaRegistry) -> None:
    with pytest.raises(DeserializationError, match="no schema with id 2000000001"):
        await registry.schema(2_000_000_001)


async def test_registering_again_gives_the_same_id(registry_address: str, subject: str) -> None:
    ids = {await SchemaRegistry(registry_address).register(subject, record(ID)) for _ in range(2)}
    assert len(ids) == 1
    assert len(await SchemaRegistry(registry_address).versions(subject)) == 1


async def test_looking_up_registers_nothing(registry: SchemaRegistry, subject: str) -> None:
    assert await registry.lookup(subject, record(ID)) is None
    assert await registry.versions(subject) == []
    await registry.register(subject, record(ID))
    assert await registry.lookup(subject, record(ID, NOTE_OR_NOT)) is None


async def test_versions_come_oldest_first(registry: SchemaRegistry, subject: str) -> None:
    await registry.set_compatibility("other-subject", "NONE")
    schemas = [record(ID), record(ID, NOTE_OR_NOT)]
    ids = [await registry.register(subject, schema) for schema in schemas]
    versions = await registry.versions(subject)
    assert [(each.subject, each.version, each.id, each.schema) for each in versions] == [
        (subject, 1, ids[0], schemas[0]),
        (subject, 2, ids[1], schemas[1]),
    ]
    assert await registry.versions(subject, latest=1) == versions[1:]


async def test_versions_that_were_listed_are_known_by_id(registry_address: str, subject: str) -> None:
    schema_id = await SchemaRegistry(registry_address).register(subject, record(ID))
    other = SchemaRegistry(registry_address)
    await other.versions(subject)
    assert other.known(schema_id) == record(ID)


def json_schema(**more: Any) -> Schema:
    draft = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    return Schema(json.dumps({**draft, "properties": {"id": {"type": "integer"}}, **more}), "JSON")


@pytest.mark.parametrize(
    ("level", "first", "second", "allowed"),
    [
        ("BACKWARD", json_schema(), json_schema(title="Order"), True),
        ("BACKWARD", json_schema(), json_schema(required=["id"]), False),
        ("BACKWARD", json_schema(), json_schema(properties={"id": {"type": "string"}}), False),
        ("BACKWARD", record(ID), record(ID, NOTE_OR_NOT), True),
        ("BACKWARD", record(ID), record(ID, NOTE), False),
        ("BACKWARD", record(ID), record(TEXT_ID), False),
        ("BACKWARD", record(ID, NOTE), record(ID), True),
        ("FORWARD", record(ID), record(ID, NOTE), True),
        ("FORWARD", record(ID, NOTE), record(ID), False),
        ("FULL", record(ID), record(ID, NOTE_OR_NOT), True),
        ("FULL", record(ID, NOTE), record(ID), False),
        ("NONE", record(ID), record(TEXT_ID), True),
    ],
)
async def test_a_level_decides_what_may_follow(
    registry: SchemaRegistry, subject: str, level: Level, first: Schema, second: Schema, allowed: bool
) -> None:
    await registry.register(subject, first)
    await registry.set_compatibility(subject, level)
    assert await registry.compatibility(subject) == level
    if allowed:
        await registry.register(subject, second)
        return
    with pytest.raises(IncompatibleSchema, match=subject):
        await registry.register(subject, second)
    assert len(await registry.versions(subject)) == 1


async def test_transitive_levels_look_at_all_versions(registry: SchemaRegistry, subject: str) -> None:
    await registry.register(subject, record(ID))
    await registry.set_compatibility(subject, "NONE")
    await registry.register(subject, record(ID, NOTE))
    await registry.set_compatibility(subject, "BACKWARD_TRANSITIVE")
    with pytest.raises(IncompatibleSchema):
        await registry.register(subject, record(NOTE, ID, {"name": "n", "type": "int", "default": 0}))
    await registry.set_compatibility(subject, "BACKWARD")
    await registry.register(subject, record(NOTE, ID, {"name": "n", "type": "int", "default": 0}))


async def test_what_is_no_schema_is_refused(registry: SchemaRegistry, subject: str) -> None:
    with pytest.raises(RegistryError, match=subject):
        await registry.register(subject, Schema('{"type": "rec'))


async def test_schemas_that_refer_to_others_come_with_them(registry_address: str, subject: str) -> None:
    first = SchemaRegistry(registry_address)
    money = Schema(json.dumps({"type": "fixed", "name": "Money", "size": 8}))
    await first.register(f"money-{subject}", money)
    order = Schema(
        json.dumps({"type": "record", "name": "Order", "fields": [{"name": "total", "type": "Money"}]}),
        references=(Reference("Money", f"money-{subject}", 1),),
    )
    schema_id = await first.register(subject, order)
    second = SchemaRegistry(registry_address)
    fetched = await second.schema(schema_id)
    assert fetched == order
    assert second.referenced(fetched) == [("Money", money)]


async def test_names_may_hold_anything(registry: SchemaRegistry, subject: str) -> None:
    odd = f"{subject}/a b?c%#é"
    schema_id = await registry.register(odd, record(ID))
    assert [each.id for each in await registry.versions(odd)] == [schema_id]
