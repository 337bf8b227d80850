"""``paperboy reset``: let a group begin anew, with offsets, changelogs and local stores in step with each other.

The order is what makes a reset safe that is interrupted, at whatever point:

1. the group's offsets are put where no log has a record. The broker refuses this while the group has members, and a
   worker that starts from now on stops at once: whatever is left half done, nobody works on it;
2. local stores are removed;
3. each changelog is deleted and made anew;
4. the group's offsets are put where they are to be.

So tables are never ahead of the offsets, nor behind them, for anybody who handles records. To run it again ends it.

A global table shows a topic that is not the group's own: neither is touched.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from paperboy.brokers.protocol import RESETTING, TopicPartition, TopicSpec
from paperboy.cli.administration import Administration
from paperboy.cli.loading import Definition
from paperboy.cli.local_state import held_homes, homes_of, remove_store, stores_in
from paperboy.cli.moments import milliseconds
from paperboy.cli.shown import counted
from paperboy.clock import in_thread
from paperboy.engine.topology import changelog_spec, check_changelog, partition_count, topic_groups
from paperboy.errors import BrokerError, ConfigurationError
from paperboy.handlers.dispatch import Dispatch

Start = Literal["earliest", "latest"] | datetime
"""Where a group is to begin; a datetime with its zone: at the first record of that time or later."""


@dataclass(frozen=True, slots=True)
class InputReset:
    """An input partition, and the offset that the group gets there."""

    partition: TopicPartition
    committed: int | None
    begins_at: int


@dataclass(frozen=True, slots=True)
class ChangelogReset:
    """A changelog as it is (None: it does not exist), and as it is made anew."""

    found: TopicSpec | None
    anew: TopicSpec


@dataclass(frozen=True, slots=True)
class Reset:
    """Everything that a reset does."""

    group_id: str
    inputs: Sequence[InputReset]
    changelogs: Sequence[ChangelogReset]
    state_dirs: Sequence[Path]
    stores: Sequence[Path]
    """Directories of local stores, under `state_dirs`."""

    @property
    def steps(self) -> int:
        """How often `carry_out` reports."""
        return 2 + len(self.stores) + len(self.changelogs)


async def plan(definition: Definition, broker: Administration, start: Start) -> Reset:
    """What there is to do. Only asks.

    Raises:
        ConfigurationError: an input topic is missing, or partition counts do not fit.
    """
    options, tables = definition.options, definition.tables
    found = await broker.describe_topics(sorted(definition.dispatches))
    retries = {name for name, dispatch in definition.dispatches.items() if dispatch.retries_of is not None}
    topics = [name for name in sorted(definition.dispatches) if name in found or name not in retries]
    absent = [name for name in topics if name not in found]
    if absent:
        raise ConfigurationError(
            f"Topic {absent[0]!r} to consume: not found on {broker.name}; create it, or correct the name."
        )
    specs = [
        changelog_spec(table, options.group_id, partition_count(group, found))
        for group in topic_groups(_handled(definition, topics), tables, definition.global_tables)
        for table in group.tables
    ]
    inputs = [TopicPartition(name, number) for name in topics for number in range(found[name].partitions)]
    committed = await broker.committed(options.group_id, inputs)
    begins = await _starts(broker, [partition for partition in inputs if partition.topic not in retries], start)
    # What waits there comes again out of the topic that it came from, or lies before where the group is to begin.
    begins |= await broker.end_offsets([partition for partition in inputs if partition.topic in retries])
    changelogs = await broker.topic_specs([spec.name for spec in specs])
    state_dirs = list(
        dict.fromkeys([Path(options.state_dir), *(t.store_path for t in tables.values() if t.store_path)])
    )
    return Reset(
        group_id=options.group_id,
        inputs=[InputReset(partition, committed[partition], begins[partition]) for partition in inputs],
        changelogs=[_changelog_reset(changelogs.get(spec.name), spec) for spec in specs],
        state_dirs=state_dirs,
        stores=[
            store
            for state_dir in state_dirs
            for home in homes_of(state_dir, options.group_id)
            for store in stores_in(home, list(tables))
        ],
    )


def described(reset: Reset) -> list[str]:
    """A plan as lines for a person."""
    lines = ["Input offsets of the group:"]
    lines += [
        f"  {each.partition}: {_COMMITTED.get(each.committed, each.committed)} -> {each.begins_at}"
        for each in reset.inputs
    ]
    if reset.changelogs:
        lines.append("Changelogs, deleted and made anew:")
        lines += [f"  {changelog.anew.name}: {_change(changelog)}" for changelog in reset.changelogs]
    if reset.stores:
        lines.append("Local stores, removed:")
        lines += [f"  {store}" for store in reset.stores]
    return lines


async def carry_out(reset: Reset, broker: Administration, report: Callable[[str], None] = lambda done: None) -> None:
    """Do it, in the order that this module explains.

    Args:
        report: told of each thing that is done.

    Raises:
        BrokerError: the group has members, or the broker refuses something.
        StoreError: a worker that runs holds a local store, or one cannot be removed.
    """
    nowhere = {each.partition: RESETTING for each in reset.inputs}
    with ExitStack() as homes:
        for state_dir in reset.state_dirs:
            homes.enter_context(held_homes(state_dir, reset.group_id))
        await broker.reset_committed(reset.group_id, nowhere)
        report(f"group {reset.group_id!r} is held back")
        for store in reset.stores:
            await in_thread(partial(remove_store, store))
            report(f"{store} is removed")
        for changelog in reset.changelogs:
            await _make_anew(changelog.anew, broker)
            report(f"{changelog.anew.name} is made anew")
        if await broker.committed(reset.group_id, nowhere) != nowhere:
            raise BrokerError(
                f"Somebody has worked in group {reset.group_id!r} while it was reset: stop its workers, and reset it"
                " again."
            )
        await broker.reset_committed(reset.group_id, {each.partition: each.begins_at for each in reset.inputs})
        report(f"group {reset.group_id!r} stands where it is to begin")


def _handled(definition: Definition, topics: Sequence[str]) -> list[Dispatch]:
    return list(dict.fromkeys(definition.dispatches[topic] for topic in topics))


_COMMITTED = {None: "none", RESETTING: "in the middle of a reset"}


async def _starts(broker: Administration, inputs: Sequence[TopicPartition], start: Start) -> dict[TopicPartition, int]:
    if start == "earliest":
        return await broker.beginning_offsets(inputs)
    if start == "latest":
        return await broker.end_offsets(inputs)
    return await broker.offsets_since(inputs, milliseconds(start))


def _changelog_reset(found: TopicSpec | None, spec: TopicSpec) -> ChangelogReset:
    """Made anew with the settings it has, over which those of its table go."""
    if found is None:
        return ChangelogReset(None, spec)
    replication = spec.replication_factor or found.replication_factor
    anew = replace(spec, replication_factor=replication, config={**found.config, **spec.config})
    return ChangelogReset(found, anew)


async def _make_anew(spec: TopicSpec, broker: Administration) -> None:
    await broker.delete_topics([spec.name])
    await broker.create_topics([spec])
    check_changelog(spec, (await broker.describe_topics([spec.name]))[spec.name])


def _change(changelog: ChangelogReset) -> str:
    partitions = counted(changelog.anew.partitions, "partition")
    settings = ", ".join(f"{name}={value}" for name, value in sorted(changelog.anew.config.items()))
    if changelog.found is None:
        return f"does not exist -> {partitions}, {settings}"
    grown = changelog.found.partitions != changelog.anew.partitions
    return f"{f'{changelog.found.partitions} -> ' if grown else ''}{partitions}, {settings}"
