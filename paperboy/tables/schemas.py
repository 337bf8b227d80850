"""Tables whose keys or values are written in schemas of a registry."""

from collections.abc import Mapping

from paperboy.errors import IncompatibleSchema
from paperboy.serializers.framed import TopicSerializer, framed_in, of_topic
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
    key = _framed_of_topic(table.key_serializer, topic, "key")
    value = _framed_of_topic(table.value_serializer, topic, "value")
    if value is not None:
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
    if key is not None:
        own = await key.look_up()
        for earlier in await key.versions():
            if earlier.id != own:
                raise IncompatibleSchema(
                    f"Table {table.name!r} may hold keys in version {earlier.version} (id {earlier.id}) of subject"
                    f" {key.subject!r}, which would not be found by keys in another schema: leave the schema of keys as"
                    " it was, or give the table a new changelog_topic_name."
                )
        await key.open()
    table.write_with(of_topic(table.key_serializer, topic, "key"), of_topic(table.value_serializer, topic, "value"))


async def open_to_read(table: Table, topic: str) -> None:
    """Before a copy of `topic` is shown as `table`: have what it holds readable, and keys found that are asked for.

    Raises:
        RegistryError: the registry does not answer, or refuses to.
    """
    key, value = _framed_of_topic(table.key_serializer, topic, "key"), framed_in(table.value_serializer)
    if key is not None:
        await key.look_up()
    if value is not None:
        await value.fetch_ahead(topic, "value")
    table.write_with(of_topic(table.key_serializer, topic, "key"), table.value_serializer)


async def fetch_schemas(table: Table, entries: Mapping[bytes, bytes | None]) -> None:
    """Have what these are written in, before they can be read: nobody can wait then.

    Raises:
        RegistryError: the registry does not answer, or refuses to.
    """
    key, value = framed_in(table.key_serializer), framed_in(table.value_serializer)
    if key is not None:
        await key.fetch_for(entries)
    if value is not None:
        await value.fetch_for(each for each in entries.values() if each is not None)


def has_schemas(table: Table) -> bool:
    """Whether its keys or values are in schemas of a registry."""
    return framed_in(table.key_serializer) is not None or framed_in(table.value_serializer) is not None


def _framed_of_topic(serializer: Serializer | None, topic: str, part: Part) -> TopicSerializer | None:
    framed = framed_in(serializer)
    return None if framed is None else framed.for_topic(topic, part)
