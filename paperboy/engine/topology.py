"""Which topics belong together, and whether the broker's topics are as the engine needs them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from paperboy.brokers.protocol import TopicDescription, TopicPartition, TopicSpec
from paperboy.errors import ConfigurationError
from paperboy.handlers.dispatch import Dispatch
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.table import Table

_NO_GLOBAL_TABLES: Final[Mapping[str, GlobalTable]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TopicGroup:
    """Topics that share a table, and so have one partition count; a topic that shares none stands alone.

    Partition number p of all of them is one task. (Kafka Streams: a sub-topology.)
    """

    name: str
    topics: tuple[str, ...]
    """Sorted; those of retries included."""
    tables: tuple[Table, ...]
    """Sorted by name."""


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """A task: partition number `partition` of topic group `group`."""

    group: str
    partition: int

    def __str__(self) -> str:
        return f"{self.group}[{self.partition}]"


def topic_groups(
    dispatches: Sequence[Dispatch],
    tables: Mapping[str, Table],
    global_tables: Mapping[str, GlobalTable] = _NO_GLOBAL_TABLES,
) -> list[TopicGroup]:
    """The connected components of topics and tables, sorted by name. Global tables connect nothing.

    Raises:
        ConfigurationError: a handler names a table that is not registered, one group gets two names, or two get one.
    """
    components: dict[str, set[str]] = {topic: {topic} for dispatch in dispatches for topic in dispatch.topics}
    users: dict[str, list[str]] = {name: [] for name in tables}
    names: dict[str, str] = {}
    for dispatch in dispatches:
        for name in _tables_of(dispatch, tables, global_tables):
            users[name].extend(dispatch.topics)
        if dispatch.group_name is not None:
            names.update(dict.fromkeys(dispatch.topics, dispatch.group_name))
    retried = [[dispatch.retries_of, *dispatch.topics] for dispatch in dispatches if dispatch.retries_of is not None]
    for sharing in [*users.values(), *retried]:
        merged = set().union(*(components[topic] for topic in sharing))
        for topic in sorted(merged):
            components[topic] = merged
    of_retries = {topic for dispatch in dispatches if dispatch.retries_of is not None for topic in dispatch.topics}
    distinct = {id(component): component for component in components.values()}
    groups = []
    for component in distinct.values():
        topics = tuple(sorted(component))
        given = sorted({names[topic] for topic in topics if topic in names})
        if len(given) > 1:
            raise ConfigurationError(
                f"Topics {_listed(topics)} share tables and form one group, but its handlers name it"
                f" {' and '.join(map(repr, given))}: give one group_name."
            )
        held = tuple(tables[name] for name in sorted(users) if not component.isdisjoint(users[name]))
        sources = [topic for topic in topics if topic not in of_retries]
        groups.append(TopicGroup(given[0] if given else sources[0], topics, held))
    groups.sort(key=lambda group: (group.name, group.topics))
    for one, other in pairwise(groups):
        if one.name == other.name:
            raise ConfigurationError(
                f"Topics {_listed(one.topics)} and topics {_listed(other.topics)} share no table and form two groups,"
                f" but both are called {one.name!r}: give each its own group_name, or leave it out."
            )
    return groups


def partition_count(group: TopicGroup, topics: Mapping[str, TopicDescription]) -> int:
    """How many tasks the group has.

    Raises:
        ConfigurationError: its topics' counts differ.
    """
    counts = {name: topics[name].partitions for name in group.topics}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name!r} has {count}" for name, count in sorted(counts.items()))
        shared = ", ".join(repr(table.name) for table in group.tables)
        raise ConfigurationError(
            f"Topics that share a table need one partition count, but {found} (they share {shared}): make the counts"
            " equal, or say with tables=[…] on each handler which tables it uses."
        )
    return next(iter(counts.values()))


def changelog_topic(table: Table, group_id: str) -> str:
    return table.changelog_topic_name or f"{group_id}-{table.name}-changelog"


def transactional_id(group_id: str, partition: TopicPartition) -> str:
    """The id of whoever handles this partition. A format that is for ever; no topic has a colon in its name, so no two
    groups have one id."""
    return f"{transactional_ids_prefix(group_id)}{partition.topic}:{partition.partition}"


def transactional_ids_prefix(group_id: str) -> str:
    """What all ids of a group begin with."""
    return f"{group_id}:"


def changelog_spec(table: Table, group_id: str, partitions: int) -> TopicSpec:
    """The changelog as it is created.

    Raises:
        ConfigurationError: the table asks for another partition count than its input topics have.
    """
    name = changelog_topic(table, group_id)
    wanted = table.changelog_topic_num_partitions
    if wanted is not None and wanted != partitions:
        raise ConfigurationError(
            f"Table {table.name!r} sets changelog_topic_num_partitions={wanted}, but its input topics have"
            f" {partitions}: a changelog has as many partitions as the input, so leave it out."
        )
    config = {"cleanup.policy": "compact", **table.changelog_config}
    return TopicSpec(name, partitions, table.changelog_topic_replication_factor, config)


def check_changelog(spec: TopicSpec, found: TopicDescription) -> None:
    """Whether a changelog that exists is one.

    Raises:
        ConfigurationError: its partition count is wrong, or it is not compacted.
    """
    if found.partitions != spec.partitions:
        raise ConfigurationError(
            f"Changelog {found.name!r} has {found.partitions} partitions, but the input topics have"
            f" {spec.partitions}: the table's entries would be in the wrong places; stop all workers, and run"
            " 'paperboy reset' for this engine, or use another table name."
        )
    policy = found.config.get("cleanup.policy", "delete")
    if policy.replace(" ", "") != "compact":
        raise ConfigurationError(
            f"Changelog {found.name!r} has cleanup.policy={policy!r}, with which the table would lose entries:"
            " set it to 'compact'."
        )


def missing_topics(missing: Iterable[TopicSpec]) -> str:
    """A list of topics to create, for a person."""
    lines = []
    for spec in missing:
        count = (
            f"{spec.partitions} partition{'s' if spec.partitions != 1 else ''}" if spec.partitions else "as its input"
        )
        replication = f", replication factor {spec.replication_factor}" if spec.replication_factor else ""
        settings = "".join(f", {name}={value}" for name, value in sorted(spec.config.items()))
        lines.append(f"{spec.name!r} ({count}{replication}{settings})")
    return "; ".join(lines)


def check_global_topic(table: GlobalTable, found: TopicDescription | None, broker: str) -> None:
    """Whether the topic of a global table is there, and can be one.

    Raises:
        ConfigurationError: it does not exist, or is not compacted.
    """
    if found is None:
        raise ConfigurationError(
            f"Topic {table.topic!r} of global table {table.name!r}: not found on {broker}; create it with"
            " cleanup.policy=compact, or correct the name."
        )
    policy = found.config.get("cleanup.policy", "delete")
    if "compact" not in policy.replace(" ", "").split(","):
        raise ConfigurationError(
            f"Topic {table.topic!r} of global table {table.name!r} has cleanup.policy={policy!r}, with which the table"
            " would lose entries: set it to 'compact'."
        )


def _tables_of(dispatch: Dispatch, tables: Mapping[str, Table], global_tables: Mapping[str, GlobalTable]) -> list[str]:
    if dispatch.tables is None:
        return list(tables)
    for table in dispatch.tables:
        if tables.get(table.name, global_tables.get(table.name)) is not table:
            raise ConfigurationError(
                f"{dispatch.name} uses table {table.name!r}, which is not registered: call engine.register_table first."
            )
    return [table.name for table in dispatch.tables if table.name in tables]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
