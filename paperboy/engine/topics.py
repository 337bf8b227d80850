"""The topics that an engine needs: what each is for, how it is to be, and how it differs from that."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from paperboy.brokers.protocol import TopicDescription, TopicSpec
from paperboy.engine.failure_topics import dead_letter_specs, retry_specs
from paperboy.engine.options import Options
from paperboy.engine.topology import changelog_spec, partition_count, topic_groups
from paperboy.errors import ConfigurationError
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.hooks import inputs_of, outputs_of
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.table import Table
from paperboy.topic import Topic, name_of_topic

Purpose = Literal["input", "output", "global table", "changelog", "retries", "replays", "dead letters"]

_OPERATIONS: Final[Mapping[Purpose, tuple[str, ...]]] = {
    "input": ("Read", "DescribeConfigs"),
    "output": ("Write", "DescribeConfigs"),
    "global table": ("Read", "DescribeConfigs"),
    "changelog": ("Read", "Write", "DescribeConfigs"),
    "retries": ("Read", "Write", "DescribeConfigs"),
    "replays": ("Read", "DescribeConfigs"),
    "dead letters": ("Write", "DescribeConfigs"),
}
"""What a worker does with a topic, as Kafka's ACLs call it. Who may read or write may describe as well."""

_OURS: Final[frozenset[Purpose]] = frozenset({"changelog", "retries", "replays", "dead letters"})
"""What the engine creates unasked, where it is missing."""

_COMPACTED: Final = {"cleanup.policy": "compact"}


class Difference(NamedTuple):
    """A setting of a topic that is not as it was declared."""

    setting: str
    declared: str
    found: str


@dataclass(frozen=True, slots=True)
class NeededTopic:
    """A topic that an engine needs."""

    spec: TopicSpec
    """As it is to be; with 0 partitions where nobody says how many, and without settings that nobody has named."""
    purposes: tuple[Purpose, ...]
    is_created: bool
    """Whether the engine creates it at its start, where it is missing."""
    found: TopicDescription | None
    """As it is; None where it does not exist, or nobody has looked."""

    @property
    def operations(self) -> tuple[str, ...]:
        """What a worker has to be allowed on it, in the words of Kafka's ACLs."""
        needed = dict.fromkeys(operation for purpose in self.purposes for operation in _OPERATIONS[purpose])
        return (*needed, *(["Create"] if self.is_created else []))

    @property
    def differences(self) -> list[Difference]:
        return [] if self.found is None else differences(self.spec, self.found)


def topics_needed(
    options: Options,
    dispatches: Mapping[str, Dispatch],
    tables: Mapping[str, Table],
    global_tables: Mapping[str, GlobalTable],
    found: Mapping[str, TopicDescription],
) -> list[NeededTopic]:
    """Every topic that an engine reads, writes or creates, so far as it was told: in the order of their purposes, and
    by name.

    Args:
        dispatches: by topic, those of retries included.
        found: the topics that exist, so far as somebody has looked.

    Raises:
        ConfigurationError: they do not go together.
    """
    declared = declared_topics(dispatches, global_tables)
    shown = {table.topic for table in global_tables.values()}
    inputs = [name for name, dispatch in dispatches.items() if dispatch.retries_of is None]
    sources = {name: found.get(name) or _as_declared(name, declared.get(name)) for name in inputs}
    retries = retry_specs(dispatches, sources)
    named: dict[Purpose, Iterable[str]] = {
        "input": inputs,
        "output": declared_outputs(dispatches),
        "global table": shown,
    }
    made: dict[Purpose, Mapping[str, TopicSpec]] = {
        "changelog": _changelogs(options, dispatches, tables, global_tables, {**sources, **_described(retries)}),
        "retries": {name: spec for name, spec in retries.items() if dispatches[name].delay_sec},
        "replays": {name: spec for name, spec in retries.items() if not dispatches[name].delay_sec},
        "dead letters": dead_letter_specs(dispatches, sources),
    }
    specs: dict[str, TopicSpec] = {name: spec for each in made.values() for name, spec in each.items()}
    for names in named.values():
        for name in names:
            specs.setdefault(name, declared_spec(name, declared.get(name), compacted=name in shown))
    purposes: dict[str, list[Purpose]] = {}
    for purpose, names in [*named.items(), *made.items()]:
        for name in sorted(names):
            purposes.setdefault(name, []).append(purpose)
    return [
        NeededTopic(
            spec=specs[name],
            purposes=tuple(its),
            is_created=options.create_topics == "auto"
            and (not _OURS.isdisjoint(its) or (name in declared and declared[name].ensure)),
            found=found.get(name),
        )
        for name, its in purposes.items()
    ]


def declared_topics(dispatches: Mapping[str, Dispatch], global_tables: Mapping[str, GlobalTable]) -> dict[str, Topic]:
    """The `Topic` of each name for which there is one.

    Raises:
        ConfigurationError: there are two of a name, which do not say the same.
    """
    handlers = dict.fromkeys(dispatch.handler for dispatch in dispatches.values())
    given = [topic for handler in handlers for topic in (*inputs_of(handler), *outputs_of(handler))]
    declared: dict[str, Topic] = {}
    for topic in [*given, *(table.declared for table in global_tables.values())]:
        if isinstance(topic, Topic):
            before = declared.setdefault(topic.name, topic)
            if _setup(before) != _setup(topic):
                raise ConfigurationError(
                    f"Topic {topic.name!r} is declared twice, and not in the same way: make one Topic of it, and use"
                    " that everywhere."
                )
    return declared


def declared_outputs(dispatches: Mapping[str, Dispatch]) -> set[str]:
    """The names of the topics that handlers say they send to."""
    return {name_of_topic(topic) for dispatch in dispatches.values() for topic in outputs_of(dispatch.handler)}


def declared_spec(name: str, topic: Topic | None, *, compacted: bool = False) -> TopicSpec:
    """A topic as it was declared.

    Args:
        compacted: whether it is to be compacted where nothing else was said.
    """
    config = _COMPACTED if compacted else {}
    if topic is None:
        return TopicSpec(name, 0, config=config)
    return TopicSpec(name, topic.partitions or 0, topic.replication_factor, {**config, **topic.config})


def differences(spec: TopicSpec, found: TopicDescription) -> list[Difference]:
    """In what a topic differs from what was declared of it; what nobody has said does not count."""
    counts = [
        ("partitions", spec.partitions or None, found.partitions),
        ("replication factor", spec.replication_factor, found.replication_factor),
    ]
    differing = [
        Difference(what, str(declared), str(actual))
        for what, declared, actual in counts
        if declared is not None and actual is not None and declared != actual
    ]
    for setting, declared in sorted(spec.config.items()):
        actual = found.config.get(setting)
        if actual is None:
            differing.append(Difference(setting, declared, "no such setting"))
        elif not _same_setting(declared, actual):
            differing.append(Difference(setting, declared, actual))
    return differing


def _setup(topic: Topic) -> tuple[object, ...]:
    return topic.partitions, topic.replication_factor, topic.config, topic.ensure


def _same_setting(one: str, other: str) -> bool:
    """Kafka takes numbers and lists in more than one spelling."""
    if one == other:
        return True
    try:
        return float(one) == float(other)
    except ValueError:
        return _items(one) == _items(other)


def _items(setting: str) -> list[str]:
    return sorted(item.strip() for item in setting.split(","))


def _as_declared(name: str, topic: Topic | None) -> TopicDescription:
    """A topic that does not exist, as if it did."""
    spec = declared_spec(name, topic)
    return TopicDescription(name, spec.partitions, spec.config)


def _described(specs: Mapping[str, TopicSpec]) -> dict[str, TopicDescription]:
    return {name: TopicDescription(name, spec.partitions, spec.config) for name, spec in specs.items()}


def _changelogs(
    options: Options,
    dispatches: Mapping[str, Dispatch],
    tables: Mapping[str, Table],
    global_tables: Mapping[str, GlobalTable],
    inputs: Mapping[str, TopicDescription],
) -> dict[str, TopicSpec]:
    specs = {}
    groups = topic_groups(list(dict.fromkeys(dispatches.values())), tables, global_tables)
    for group in groups:
        known = [name for name in group.topics if inputs[name].partitions]
        count = partition_count(replace(group, topics=tuple(known)), inputs) if known else 0
        for table in group.tables:
            spec = changelog_spec(table, options.group_id, count or table.changelog_topic_num_partitions or 0)
            specs[spec.name] = spec
    return specs
