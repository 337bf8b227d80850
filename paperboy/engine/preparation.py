"""Before an engine joins its group: the broker's topics are looked at, and what cannot work is refused."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from paperboy.brokers.protocol import Broker, TopicDescription, TopicPartition, TopicSpec
from paperboy.engine.changelogs import Changelog, changelog_of
from paperboy.engine.failure_topics import (
    check_dead_letter_topics,
    check_retry_topics,
    dead_letter_specs,
    failure_topic_names,
    retry_specs,
)
from paperboy.engine.left_behind import report_left_behind
from paperboy.engine.options import Options
from paperboy.engine.schemas import fetch_ahead
from paperboy.engine.topics import declared_outputs, declared_spec, declared_topics, differences
from paperboy.engine.topology import (
    TopicGroup,
    changelog_spec,
    changelog_topic,
    check_changelog,
    check_global_topic,
    missing_topics,
    partition_count,
    topic_groups,
    transactional_id,
)
from paperboy.engine.written import check_written
from paperboy.errors import ConfigurationError
from paperboy.handlers.dispatch import Dispatch
from paperboy.log import get_logger
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.table import Table
from paperboy.topic import is_topic_name

_log = get_logger("paperboy.engine")


@dataclass(frozen=True, slots=True)
class Prepared:
    groups: Sequence[TopicGroup]
    inputs: Sequence[TopicPartition]
    """Every partition of every input topic, but for those in which messages wait for a time."""
    changelogs: Mapping[str, Changelog]
    """By table name."""
    global_topics: Mapping[str, TopicDescription]
    """By global table name."""


async def prepare(
    broker: Broker,
    options: Options,
    dispatches: Mapping[str, Dispatch],
    tables: Mapping[str, Table],
    global_tables: Mapping[str, GlobalTable],
) -> Prepared:
    """Check the topics, and create the changelogs that are missing.

    Raises:
        ConfigurationError: a topic is missing or is not as it must be; the sentence names it and the remedy.
        RegistryError: a schema registry does not answer, or refuses a schema.
        BrokerError: transactions are wanted, and the broker will refuse them.
    """
    groups = topic_groups(list(dict.fromkeys(dispatches.values())), tables, global_tables)
    ours = {changelog_topic(table, options.group_id) for table in tables.values()}
    await _declared_topics(broker, options, dispatches, global_tables)
    global_topics = await _global_topics(
        broker, options, [table for table in global_tables.values() if table.topic not in ours]
    )
    sources = sorted(name for name, dispatch in dispatches.items() if dispatch.retries_of is None)
    inputs = await _input_topics(broker, options, sources, dispatches, tables)
    inputs = {**inputs, **await _failure_topics(broker, options, dispatches, inputs, tables)}
    specs = {}
    for group in groups:
        count = partition_count(group, inputs)
        for table in group.tables:
            specs[table.name] = changelog_spec(table, options.group_id, count)
    for name in tables:
        if name not in specs:
            raise ConfigurationError(f"Table {name!r} is registered, but no handler uses it: name it in tables=[…].")
    await fetch_ahead(options.group_id, dispatches, tables, global_tables)
    if options.is_exact:
        ids = [transactional_id(options.group_id, TopicPartition(group.topics[0], 0)) for group in groups]
        await broker.check_transactions(ids, options.transaction_timeout_sec)
    described = await _changelogs(broker, options, list(specs.values()), inputs)
    await report_left_behind(broker, options.group_id, dispatches)
    await check_written(broker, {spec.name: tables[name] for name, spec in specs.items()}, described)
    return Prepared(
        groups=groups,
        inputs=_partitions({name: topic for name, topic in inputs.items() if not dispatches[name].delay_sec}),
        changelogs={table: changelog_of(described[spec.name]) for table, spec in specs.items()},
        global_topics={
            name: global_topics.get(table.topic) or described[table.topic] for name, table in global_tables.items()
        },
    )


async def _declared_topics(
    broker: Broker, options: Options, dispatches: Mapping[str, Dispatch], global_tables: Mapping[str, GlobalTable]
) -> None:
    """Create what was declared and is to be there; report what is not as it was declared."""
    declared, outputs = declared_topics(dispatches, global_tables), declared_outputs(dispatches)
    if not declared and not outputs:
        return
    shown = {table.topic for table in global_tables.values()}
    specs = {name: declared_spec(name, declared.get(name), compacted=name in shown) for name in {*declared, *outputs}}
    found = await broker.describe_topics(specs)
    for name in sorted(found):
        _report_differences(specs[name], found[name])
    absent = [specs[name] for name in sorted(specs) if name not in found]
    ensured = [spec for spec in absent if spec.name in declared and declared[spec.name].ensure]
    if ensured and options.create_topics == "never":
        raise ConfigurationError(
            f"create_topics='never', and on {broker.name} these topics are missing: {missing_topics(ensured)}."
        )
    if broker.new_topic_partitions is not None and options.create_topics == "auto":
        ensured = [replace(spec, partitions=spec.partitions or broker.new_topic_partitions) for spec in absent]
    await broker.create_topics(ensured)
    lacking = [
        spec.name for spec in absent if spec.name in outputs and spec.name not in {each.name for each in ensured}
    ]
    if lacking:
        raise ConfigurationError(
            f"Topic {lacking[0]!r}, which handlers name in outputs=[…]: not found on {broker.name}; create it, let its"
            " Topic(…) have ensure=True, or correct the name."
        )


def _report_differences(spec: TopicSpec, found: TopicDescription) -> None:
    for setting, declared, actual in differences(spec, found):
        _log.warning("topic not as declared", topic=spec.name, setting=setting, declared=declared, found=actual)


async def _global_topics(
    broker: Broker, options: Options, tables: Sequence[GlobalTable]
) -> dict[str, TopicDescription]:
    """The topics of these global tables, by their names. Looked at before inputs are: where both are ours to create,
    a topic that is both is compacted."""
    if not tables:
        return {}
    names = {table.topic for table in tables}
    if broker.new_topic_partitions is not None and options.create_topics == "auto":
        compacted = {"cleanup.policy": "compact"}
        await broker.create_topics(
            [TopicSpec(name, broker.new_topic_partitions, config=compacted) for name in sorted(names)]
        )
    found = await broker.describe_topics(names)
    for table in tables:
        check_global_topic(table, found.get(table.topic), broker.name)
    return found


async def _input_topics(
    broker: Broker,
    options: Options,
    names: Sequence[str],
    dispatches: Mapping[str, Dispatch],
    tables: Mapping[str, Table],
) -> dict[str, TopicDescription]:
    found = await broker.describe_topics(names)
    absent = [name for name in names if name not in found]
    if absent and broker.new_topic_partitions is not None and options.create_topics == "auto":
        await broker.create_topics([TopicSpec(name, broker.new_topic_partitions) for name in absent])
        return await broker.describe_topics(names)
    if absent:
        listed = ", ".join(map(repr, absent))
        raise ConfigurationError(
            f"Topic{'s' if len(absent) > 1 else ''} {listed} to consume: not found on {broker.name};"
            f" create {'them' if len(absent) > 1 else 'it'}, or correct the name."
            + await _missing_beside(broker, options, dispatches, tables)
        )
    return found


async def _failure_topics(
    broker: Broker,
    options: Options,
    dispatches: Mapping[str, Dispatch],
    sources: Mapping[str, TopicDescription],
    tables: Mapping[str, Table],
) -> dict[str, TopicDescription]:
    """The retry topics, by name; those and the dead letter topics that were missing are created."""
    retries = retry_specs(dispatches, sources)
    dead = dead_letter_specs(dispatches, sources)
    specs = [*retries.values(), *dead.values()]
    if not specs:
        return {}
    _check_names(retries, "a retry topic", "group_id")
    _check_names(dead, "a dead letter topic", "DeadLetter(topic=…)")
    found = await broker.describe_topics([spec.name for spec in specs])
    missing = [spec for spec in specs if spec.name not in found]
    if missing and options.create_topics == "never":
        raise ConfigurationError(
            f"create_topics='never', and on {broker.name} these topics are missing: {missing_topics(missing)}."
            + await _missing_beside(broker, options, {}, tables)
        )
    check_retry_topics(retries.values(), found)
    check_dead_letter_topics(dead.values(), found)
    for spec in dead.values():
        if spec.name in found and found[spec.name].config.get("retention.ms", "-1") != "-1":
            _log.warning(
                "dead letters are deleted after a time",
                topic=spec.name,
                retention_ms=found[spec.name].config["retention.ms"],
                meaning="they have the timestamps of their messages, and old ones may be deleted at once",
            )
    await broker.create_topics(missing)
    return await broker.describe_topics(list(retries)) if retries else {}


async def _missing_beside(
    broker: Broker, options: Options, dispatches: Mapping[str, Dispatch], tables: Mapping[str, Table]
) -> str:
    """Who creates topics by hand wants to hear of all at once: those for messages that fail, and changelogs."""
    if options.create_topics == "auto":
        return ""
    specs = [
        *(TopicSpec(name, 0, config={"cleanup.policy": "delete"}) for name in failure_topic_names(dispatches)),
        *(
            changelog_spec(table, options.group_id, table.changelog_topic_num_partitions or 0)
            for table in tables.values()
        ),
    ]
    existing = await broker.describe_topics([spec.name for spec in specs])
    missing = [spec for spec in specs if spec.name not in existing]
    if not missing:
        return ""
    return f" With create_topics='never' these are missing as well: {missing_topics(missing)}."


async def _changelogs(
    broker: Broker, options: Options, specs: Sequence[TopicSpec], inputs: Mapping[str, TopicDescription]
) -> dict[str, TopicDescription]:
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names) or not inputs.keys().isdisjoint(names):
        raise ConfigurationError(
            f"The changelogs {sorted(names)} must differ from each other and from the input topics."
        )
    _check_names(names, "a changelog", "group_id, table name, or changelog_topic_name")
    existing = await broker.describe_topics(names)
    missing = [spec for spec in specs if spec.name not in existing]
    if missing and options.create_topics == "never":
        raise ConfigurationError(
            f"create_topics='never', and on {broker.name} these topics are missing: {missing_topics(missing)}."
        )
    for spec in specs:
        if spec.name in existing:
            check_changelog(spec, existing[spec.name])
            _report_differences(spec, existing[spec.name])
    await broker.create_topics(missing)
    if missing and any(
        offset is not None for offset in (await broker.committed(options.group_id, _partitions(inputs))).values()
    ):
        _log.warning(
            "changelogs created for a group with committed offsets",
            changelogs=[spec.name for spec in missing],
            meaning="these tables begin empty, behind what was handled before",
        )
    return {**existing, **await broker.describe_topics([spec.name for spec in missing])}


def _check_names(names: Iterable[str], what: str, remedy: str) -> None:
    for name in names:
        if not is_topic_name(name):
            raise ConfigurationError(
                f"{name!r} cannot name {what}: a topic's name has up to 249 of a-z, A-Z, 0-9, '.', '_', '-'; choose"
                f" another {remedy}."
            )


def _partitions(topics: Mapping[str, TopicDescription]) -> list[TopicPartition]:
    return [TopicPartition(name, number) for name, topic in topics.items() for number in range(topic.partitions)]
