"""The changelogs on a broker, and the topics of global tables, which are as good."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from paperboy.brokers.protocol import TopicPartition
from paperboy.cli.administration import Administration
from paperboy.cli.errors import Misuse
from paperboy.cli.loading import Definition
from paperboy.cli.parts import ChangelogPart
from paperboy.cli.progress import progress_bar
from paperboy.cli.shown import OWN, Reading
from paperboy.cli.spool import spooled
from paperboy.engine.topology import changelog_topic

_SUFFIX = "-changelog"
_NAMED = 10
"""How many changelogs an error names."""


class Changelog(NamedTuple):
    """A changelog topic, and what is known of its table."""

    topic: str
    partitions: int
    table: str
    """Its name; the topic's, where nobody says it."""
    reading: Reading

    def is_called(self, name: str) -> bool:
        return name in (self.topic, self.table) or self.topic.endswith(f"-{name}{_SUFFIX}")


async def changelogs_on(broker: Administration, table: str | None, definition: Definition | None) -> list[Changelog]:
    """Those of an engine, and the topics that its global tables show; without an engine, every compacted topic that is
    called like a changelog.

    Args:
        table: only this table's, by its name or its changelog's.

    Raises:
        Misuse: there is none.
    """
    known = await (_compacted(broker, table) if definition is None else _of_engine(broker, definition))
    chosen = [changelog for changelog in known if table is None or changelog.is_called(table)]
    if not chosen:
        there_are = ", ".join(changelog.topic for changelog in known[:_NAMED]) or "none"
        there_are += f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        of_table = "" if table is None else f" of table {table!r}"
        raise Misuse(f"There is no changelog{of_table} on {broker.name}; those there are: {there_are}.")
    return chosen


async def changelog_parts(
    broker: Administration, table: str | None, definition: Definition | None
) -> AsyncGenerator[ChangelogPart, None]:
    """Each partition of each of them, read whole."""
    chosen = await changelogs_on(broker, table, definition)
    offsets = sum(end - begin for _, begin, end in await extents(broker, chosen))
    with progress_bar(offsets, "offsets", "reading") as bar:
        for changelog in chosen:
            for number in range(changelog.partitions):
                async with spooled(TopicPartition(changelog.topic, number), broker, passed=bar.update) as spool:
                    bar.clear()  # something may be printed before the next one is read
                    yield ChangelogPart(changelog.table, number, spool, changelog.reading)


async def extents(broker: Administration, chosen: list[Changelog]) -> list[tuple[TopicPartition, int, int]]:
    """Each of their partitions, with the offsets where it begins and ends."""
    partitions = [
        TopicPartition(changelog.topic, number) for changelog in chosen for number in range(changelog.partitions)
    ]
    begins, ends = await broker.beginning_offsets(partitions), await broker.end_offsets(partitions)
    return [(partition, begins[partition], ends[partition]) for partition in partitions]


async def _of_engine(broker: Administration, definition: Definition) -> list[Changelog]:
    tables = {table.topic: table.kept_as for table in definition.global_tables.values()}
    tables |= {changelog_topic(table, definition.options.group_id): table for table in definition.tables.values()}
    return [
        Changelog(name, topic.partitions, tables[name].name, Reading(tables[name].codec, tables[name].codec))
        for name, topic in (await broker.describe_topics(list(tables))).items()
    ]


async def _compacted(broker: Administration, table: str | None) -> list[Changelog]:
    names = [name for name in await broker.topic_names() if name.endswith(_SUFFIX) or name == table]
    return [
        Changelog(name, topic.partitions, name, OWN)
        for name, topic in (await broker.describe_topics(names)).items()
        if "compact" in topic.config.get("cleanup.policy", "")
    ]
