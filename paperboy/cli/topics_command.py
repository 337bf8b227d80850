"""The command ``paperboy topics plan``: the topics that an engine needs, for those who create them."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from paperboy.brokers.protocol import TopicDescription, TopicSpec
from paperboy.cli.administration import open_administration
from paperboy.cli.loading import Definition, definition_of, load_engine
from paperboy.cli.shown import counted, line
from paperboy.engine.permissions import Permission, permissions_needed
from paperboy.engine.topics import NeededTopic, topics_needed

_DESCRIPTION = """\
Every topic that an engine reads, writes or creates, as it is to be and as it is, and what its user has to be allowed,
as arguments of kafka-acls. Changes nothing. Exit code 1 where a topic is missing that the engine does not create, or
one is not as declared."""


def add_to(commands: Any) -> None:
    """Add it to argparse's subparsers."""
    topics = commands.add_parser("topics", help="plan the topics of an engine")
    actions = topics.add_subparsers(metavar="ACTION", required=True)
    plan = actions.add_parser(
        "plan", help="the topics that an engine needs, with settings and ACLs", description=_DESCRIPTION
    )
    plan.add_argument("engine", metavar="MODULE:ENGINE", help="as in app:engine, looked for in this directory first")
    plan.add_argument("--offline", action="store_true", help="do not ask the broker what there is")
    plan.add_argument("--json", action="store_true", help="one object of JSON, for programs")
    plan.set_defaults(run=run)


async def run(given: argparse.Namespace) -> bool:
    definition = definition_of(await load_engine(given.engine))
    needed = _needed(definition, {})
    if not given.offline:
        needed = _needed(definition, await _found(definition, [each.spec.name for each in needed]))
    permissions = permissions_needed(definition.options, needed)
    if given.json:
        print(line(_as_json(definition.options.group_id, needed, permissions)))
    else:
        print(*_described(needed, given.offline), "", *_allowed(permissions), sep="\n")
    return not given.offline and any(_is_wrong(each) for each in needed)


def _needed(definition: Definition, found: Mapping[str, TopicDescription]) -> list[NeededTopic]:
    return topics_needed(definition.options, definition.dispatches, definition.tables, definition.global_tables, found)


async def _found(definition: Definition, names: Sequence[str]) -> dict[str, TopicDescription]:
    options = definition.options
    broker = open_administration(
        options.bootstrap_servers,
        client_options=options.client_options,
        connect_timeout_sec=options.connect_timeout_sec,
    )
    try:
        await broker.start()
        return await broker.describe_topics(names)
    finally:
        await broker.stop()


def _is_wrong(topic: NeededTopic) -> bool:
    return bool(topic.differences) or (topic.found is None and not topic.is_created)


def _described(needed: Sequence[NeededTopic], offline: bool) -> list[str]:
    lines = []
    for topic in needed:
        lines.append(f"{topic.spec.name}: {', '.join(topic.purposes)}")
        lines.append(f"  {_settings(topic)}")
        if not offline:
            lines.append(f"  {_state(topic)}")
    return lines


def _settings(topic: NeededTopic) -> str:
    """How it is to be; where nobody has said how many partitions that is, as many as it has."""
    spec = topic.spec
    count = spec.partitions or (topic.found.partitions if topic.found is not None else 0)
    said = [counted(count, "partition") if count else _unknown_count(topic)]
    if spec.replication_factor is not None:
        said.append(f"replication factor {spec.replication_factor}")
    elif topic.is_created:
        said.append("replication factor of the cluster")
    return ", ".join([*said, *(f"{name}={value}" for name, value in sorted(spec.config.items()))])


def _unknown_count(topic: NeededTopic) -> str:
    made_of_inputs = {"changelog", "retries", "replays", "dead letters"}
    return "as many partitions as its input" if made_of_inputs & set(topic.purposes) else "any number of partitions"


def _state(topic: NeededTopic) -> str:
    if topic.found is None:
        return "missing: the engine creates it" if topic.is_created else "missing: create it"
    if topic.differences:
        differing = (f"{setting} is {found}, and not {declared}" for setting, declared, found in topic.differences)
        return f"not as declared: {'; '.join(differing)}"
    return "exists"


def _allowed(permissions: Sequence[Permission]) -> list[str]:
    lines = ["What the engine's user has to be allowed: kafka-acls --add --allow-principal User:…"]
    for resource, name, operations, is_prefix in permissions:
        of_what = "--cluster" if resource == "cluster" else f"--{resource} {shlex.quote(name)}"
        if is_prefix:
            of_what += " --resource-pattern-type prefixed"
        lines.append(f"  {of_what} {' '.join(f'--operation {operation}' for operation in operations)}")
    return lines


def _as_json(group_id: str, needed: Sequence[NeededTopic], permissions: Sequence[Permission]) -> dict[str, Any]:
    return {
        "group_id": group_id,
        "topics": [
            {
                "name": topic.spec.name,
                "purposes": list(topic.purposes),
                **_spec_as_json(topic.spec),
                "is_created": topic.is_created,
                "found": None
                if topic.found is None
                else {
                    "partitions": topic.found.partitions,
                    "replication_factor": topic.found.replication_factor,
                    "config": dict(topic.found.config),
                },
                "differences": [difference._asdict() for difference in topic.differences],
            }
            for topic in needed
        ],
        "permissions": [
            {"resource": resource, "name": name, "is_prefix": is_prefix, "operations": list(operations)}
            for resource, name, operations, is_prefix in permissions
        ],
    }


def _spec_as_json(spec: TopicSpec) -> dict[str, Any]:
    return {
        "partitions": spec.partitions or None,
        "replication_factor": spec.replication_factor,
        "config": dict(spec.config),
    }
