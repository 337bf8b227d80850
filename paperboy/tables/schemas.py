"""Tables whose keys or values are written in schemas of a registry."""

from collections.abc import Sequence
from typing import Any

from paperboy.brokers.protocol import Record
from paperboy.errors import IncompatibleSchema
from paperboy.serializers.framed import Framed, TopicSerializer
from paperboy.serializers.protocol import Serializer
from paperboy.serializers.schema import Part
from paperboy.tables.table import Table


async def open_schemas(table: Table, topic: str) -> None:
    """Before `table` is restored from `topic`, its changelog: have all that it holds readable, and our own schemas
    registered.

    Raises:
        IncompatibleSchema: a schema cannot read what is in the changelog; or keys are to be in another schema than they
            were, and what is there would not be found.
        RegistryError: the registry does not answer, or refuses a schema.
    """
    key = _of_topic(table.key_serializer, topic, "key")
    value = _of_topic(table.value_serializer, topic, "value")
    if isinstance(value, TopicSerializer):
        for earlier in await value.versions():
            try:
                value.check_reads(earlier)
            except IncompatibleSchema as error:
                raise IncompatibleSchema(
                    f"Table {table.name!r} may hold values that it could not read any more: {error} Change the schema"
                    " so that it reads them, as by a default for a new field, or give the table another"
                    " changelog_topic_name."
                ) from error
        await value.open()
    if isinstance(key, TopicSerializer):
        own = await key.look_up()
        for earlier in await key.versions():
            if earlier.id != own:
                raise IncompatibleSchema(
                    f"Table {table.name!r} may hold keys in version {earlier.version} (id {earlier.id}) of subject"
                    f" {key.subject!r}, which would not be found by keys in another schema: leave the schema of keys as"
                    " it was, or give the table a new changelog_topic_name."
                )
        await key.open()
    table.write_with(key, value)


async def open_to_read(table: Table, topic: str) -> None:
    """Before a copy of `topic` is shown as `table`: have what it holds readable, and keys found that are asked for.

    Raises:
        RegistryError: the registry does not answer, or refuses to.
    """
    key = _of_topic(table.key_serializer, topic, "key")
    if isinstance(key, TopicSerializer):
        await key.look_up()
    if isinstance(table.value_serializer, Framed):
        await table.value_serializer.fetch_ahead(topic, "value")
    table.write_with(key, table.value_serializer)


async def fetch_schemas(table: Table, records: Sequence[Record]) -> None:
    """Have what these records are written in, before they can be read: nobody can wait then.

    Raises:
        RegistryError: the registry does not answer, or refuses to.
    """
    if isinstance(table.key_serializer, Framed):
        await table.key_serializer.fetch_for(record.key for record in records if record.key is not None)
    if isinstance(table.value_serializer, Framed):
        await table.value_serializer.fetch_for(record.value for record in records if record.value is not None)


def has_schemas(table: Table) -> bool:
    """Whether its keys or values are in schemas of a registry."""
    return isinstance(table.key_serializer, Framed) or isinstance(table.value_serializer, Framed)


def _of_topic(serializer: Serializer | None, topic: str, part: Part) -> Any:
    return serializer.for_topic(topic, part) if isinstance(serializer, Framed) else serializer
