"""Before an engine joins its group: schemas are fetched, and those of tables registered."""

from collections.abc import Mapping

from paperboy.engine.topology import changelog_topic
from paperboy.handlers.dispatch import Dispatch
from paperboy.serializers.framed import framed_in
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.schemas import open_schemas, open_to_read
from paperboy.tables.table import Table


async def fetch_ahead(
    group_id: str,
    dispatches: Mapping[str, Dispatch],
    tables: Mapping[str, Table],
    global_tables: Mapping[str, GlobalTable],
) -> None:
    """Fetch and register, so that no record has to wait for it.

    Raises:
        IncompatibleSchema: a table could not read any more what it may hold, or a registry refuses a schema.
        RegistryError: a registry does not answer, or refuses to.
    """
    for dispatch in dict.fromkeys(dispatches.values()):
        for (topic, part), serializer in dispatch.serializers.items() if dispatch.retries_of is None else ():
            framed = framed_in(serializer)
            if framed is not None:
                await framed.fetch_ahead(topic, part)
    for table in tables.values():
        await open_schemas(table, changelog_topic(table, group_id))
    for global_table in global_tables.values():
        await open_to_read(global_table.kept_as, global_table.topic)
