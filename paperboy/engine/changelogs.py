"""The changelogs of an engine's tables, and whether they are still those that its stores belong to."""

from collections.abc import Mapping
from dataclasses import dataclass

from paperboy.brokers.protocol import Broker, TopicDescription, TopicSpec
from paperboy.engine.topology import check_changelog
from paperboy.errors import TopicNotFound
from paperboy.log import get_logger

_log = get_logger("paperboy.membership")


@dataclass(frozen=True, slots=True)
class Changelog:
    """A table's changelog topic."""

    topic: str
    partitions: int
    max_record_bytes: int
    """The largest record it takes."""
    delete_retention_ms: int
    """How long it keeps tombstones."""
    topic_id: str
    """The broker's own id of it."""


def changelog_of(topic: TopicDescription) -> Changelog:
    return Changelog(topic.name, topic.partitions, topic.max_message_bytes, topic.delete_retention_ms, topic.id)


async def made_anew(changelogs: Mapping[str, Changelog], broker: Broker) -> dict[str, Changelog]:
    """Those that are another topic of the same name by now, as they are now: nothing says that they hold what the old
    ones did, whatever their offsets.

    Args:
        changelogs: by the name of the table, as they were when they were last looked at.

    Raises:
        TopicNotFound: one is gone.
        ConfigurationError: one was made anew, and cannot be a changelog.
        BrokerError: the broker does not say.
    """
    if not changelogs:
        return {}
    found = await broker.describe_topics([changelog.topic for changelog in changelogs.values()])
    others = {}
    for table, before in changelogs.items():
        now = found.get(before.topic)
        if now is None:
            raise gone(before.topic, table)
        if is_another(before.topic_id, now.id):
            _log.warning("changelog made anew", table=table, changelog=before.topic)
            check_changelog(TopicSpec(before.topic, before.partitions), now)
            others[table] = changelog_of(now)
    return others


def is_another(id_before: str, id_now: str) -> bool:
    """Whether these ids are two topics'. A broker that gives none does not tell."""
    return bool(id_before and id_now) and id_before != id_now


def gone(topic: str, table: str) -> TopicNotFound:
    return TopicNotFound(
        f"Changelog {topic!r} of table {table!r} is gone, and with it what the table holds: stop all workers, and run"
        " 'paperboy reset' for this engine."
    )
