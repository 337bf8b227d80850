"""The topics for messages that failed: dead letters, and those that wait to be handled again."""

from collections.abc import Iterable, Mapping

from paperboy.brokers.protocol import TopicDescription, TopicSpec
from paperboy.errors import ConfigurationError
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.retry_topics import KEPT_SEC
from paperboy.topic import settings_as_kafka_writes

_HEADERS_BYTES = 16 * 1024
"""By how much a message that failed may outgrow its source's limit, for the headers that say why."""

_TIMESTAMP_LIMITS = ("message.timestamp.after.max.ms", "message.timestamp.before.max.ms")


def retry_specs(dispatches: Mapping[str, Dispatch], sources: Mapping[str, TopicDescription]) -> dict[str, TopicSpec]:
    """The topics, by name, out of which messages come again.

    Args:
        dispatches: by topic, those of retries included.
        sources: the topics that handlers name, as they are.
    """
    specs = {}
    for name, dispatch in dispatches.items():
        if dispatch.retries_of is not None:
            source = sources[dispatch.retries_of]
            retention_ms = round((KEPT_SEC + dispatch.delay_sec) * 1000)
            specs[name] = TopicSpec(name, source.partitions, config=_config(source, retention_ms))
    return specs


def dead_letter_specs(
    dispatches: Mapping[str, Dispatch], sources: Mapping[str, TopicDescription]
) -> dict[str, TopicSpec]:
    """The topics, by name, into which messages are put that are given up: with as many partitions as the largest of
    their sources, and room for the largest message of any. Arguments as for `retry_specs`.

    Raises:
        ConfigurationError: one is consumed by the engine itself.
    """
    specs: dict[str, TopicSpec] = {}
    for name in sorted(sources):
        dispatch, source = dispatches[name], sources[name]
        settings = dispatch.policy.dead_letter
        if settings is None:
            continue
        topic = settings.topic_for(name)
        if name in _ways(topic, dispatches):
            raise ConfigurationError(
                f"Dead letters of topic {name!r} go to {topic!r} and come back to it, for this engine consumes them:"
                " set dead_letter = False on the handler that reads dead letters."
            )
        # A message keeps its timestamp: what its source took of times to come, and of the past, is taken here.
        limits = {limit: source.config[limit] for limit in _TIMESTAMP_LIMITS if limit in source.config}
        config = {**_config(source, -1), **limits}
        partitions = source.partitions
        if topic in specs:
            before = specs[topic]
            partitions = max(before.partitions, partitions)
            for limit in ("max.message.bytes", *limits):
                config[limit] = str(max(int(config[limit]), int(before.config.get(limit, 0))))
        specs[topic] = TopicSpec(topic, partitions, config={**config, **settings_as_kafka_writes(settings.config)})
    return specs


def check_retry_topics(specs: Iterable[TopicSpec], found: Mapping[str, TopicDescription]) -> None:
    """Whether those that exist have the partitions of their sources, because each is part of the same task, and keep
    messages until they are due.

    Raises:
        ConfigurationError: one has more or fewer, is compacted, or deletes messages too soon.
    """
    for spec in specs:
        topic = found.get(spec.name)
        if topic is not None and topic.partitions != spec.partitions:
            raise ConfigurationError(
                f"The retry topic {spec.name!r} has {topic.partitions} partitions, but its source has"
                f" {spec.partitions}, and a message keeps its partition: give it as many."
            )
        _check_not_compacted("retry topic", topic)
        if topic is not None:
            _check_kept(spec, topic)


def check_dead_letter_topics(specs: Iterable[TopicSpec], found: Mapping[str, TopicDescription]) -> None:
    """Whether those that exist can take what is put into them, in the partition it came from.

    Raises:
        ConfigurationError: one has too few partitions, or is compacted.
    """
    for spec in specs:
        topic = found.get(spec.name)
        if topic is not None and topic.partitions < spec.partitions:
            raise ConfigurationError(
                f"The dead letter topic {spec.name!r} has {topic.partitions} partitions, but its source has"
                f" {spec.partitions}, and a message keeps its partition: give it as many."
            )
        _check_not_compacted("dead letter topic", topic)


def failure_topic_names(dispatches: Mapping[str, Dispatch]) -> list[str]:
    """All of these topics, sorted; known before their sources are."""
    names = set()
    for topic, dispatch in dispatches.items():
        if dispatch.retries_of is not None:
            names.add(topic)
        elif dispatch.policy.dead_letter is not None:
            names.add(dispatch.policy.dead_letter.topic_for(topic))
    return sorted(names)


def _check_not_compacted(what: str, topic: TopicDescription | None) -> None:
    policy = "delete" if topic is None else topic.config.get("cleanup.policy", "delete")
    if topic is not None and "compact" in policy:
        raise ConfigurationError(
            f"The {what} {topic.name!r} has cleanup.policy={policy!r}, with which messages of one key would be lost:"
            " set it to 'delete'."
        )


def _check_kept(spec: TopicSpec, topic: TopicDescription) -> None:
    kept_ms, wanted_ms = (int(each.config.get("retention.ms", -1)) for each in (topic, spec))
    waits_ms = wanted_ms - KEPT_SEC * 1000
    if 0 <= kept_ms <= waits_ms:
        raise ConfigurationError(
            f"The retry topic {topic.name!r} has retention.ms={kept_ms}, and messages wait in it for {waits_ms} ms, so"
            f" they would be deleted before they are handled: set it to {wanted_ms}."
        )


def _ways(topic: str, dispatches: Mapping[str, Dispatch]) -> list[str]:
    """Where a message may get to, from dead letter to dead letter."""
    ways = [topic]
    while (dispatch := dispatches.get(ways[-1])) is not None and (settings := dispatch.policy.dead_letter) is not None:
        following = settings.topic_for(ways[-1])
        if following in ways:
            break
        ways.append(following)
    return ways


def _config(source: TopicDescription, retention_ms: int) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "max.message.bytes": str(source.max_message_bytes + _HEADERS_BYTES),
    }
