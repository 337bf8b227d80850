"""Topics, declared once and used wherever a topic's name is taken."""

import re
from collections.abc import Mapping
from typing import Any, Final

from paperboy.errors import ConfigurationError
from paperboy.serializers.of_types import serializer_of
from paperboy.serializers.outgoing import Serialize
from paperboy.serializers.protocol import Serializer

__all__ = ["Topic", "addressed", "is_topic_name", "name_of_topic", "settings_as_kafka_writes"]

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class Topic:
    """What there is to say of a topic: what its keys and values are, and how it is set up.

    It stands for its name on a handler (``topic = orders``), in ``ctx.send(orders, …)`` and ``engine.send``, and as the
    topic of a `GlobalTable`, and brings its serializers there: those that are given beside it go over them.

        orders = Topic("orders", key=str, value=Order, partitions=6, config={"retention.ms": 604_800_000}, ensure=True)

    An engine reports at its start, and ``paperboy topics plan`` at any time, where the topic is not as declared. What
    exists is never changed.

    Args:
        name: up to 249 of ``a-z A-Z 0-9 . _ -``.
        key: what its keys are: a serializer, or a type (str is UTF-8, bytes are as they are, others are in JSON). None
            says nothing of them: they are bytes.
        value: the same for its values.
        partitions: how many it has; None says nothing of it.
        replication_factor: how many brokers have each; None says nothing of it, and takes the cluster's default.
        config: settings by Kafka's own names, as in ``{"cleanup.policy": "compact"}``.
        ensure: create it at the start of an engine that uses it, where it is missing. Needs `partitions`.

    Raises:
        ConfigurationError: one of them is not what it must be.
    """

    def __init__(
        self,
        name: str,
        *,
        key: Any = None,
        value: Any = None,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, object] | None = None,
        ensure: bool = False,
    ) -> None:
        if not is_topic_name(name):
            raise ConfigurationError(
                f"{name!r} cannot name a topic: it has up to 249 of a-z, A-Z, 0-9, '.', '_', '-', and is not '.' or"
                " '..'."
            )
        for setting, count in (("partitions", partitions), ("replication_factor", replication_factor)):
            if count is not None and (type(count) is not int or count < 1):
                raise ConfigurationError(f"Topic {name!r}: {setting}={count!r} must be a whole number above 0.")
        if ensure and partitions is None:
            raise ConfigurationError(f"Topic {name!r}: ensure=True needs partitions=…, to create it with.")
        self.name = name
        self.key = _serializer(name, "key", key)
        self.value = _serializer(name, "value", value)
        self.partitions = partitions
        self.replication_factor = replication_factor
        self.config = settings_as_kafka_writes(config or {})
        self.ensure = ensure

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"


def settings_as_kafka_writes(config: Mapping[str, object]) -> dict[str, str]:
    """Settings of a topic as text.

    >>> settings_as_kafka_writes({"retention.ms": 1000, "preallocate": True})
    {'retention.ms': '1000', 'preallocate': 'true'}

    Raises:
        ConfigurationError: one is neither text nor a number nor a bool.
    """
    for setting, given in config.items():
        if not isinstance(given, str | int | float):
            raise ConfigurationError(
                f"The topic setting {setting!r} is {given!r}: it must be text, a number, True or False; leave out what"
                " is to be as the cluster has it."
            )
    return {setting: str(given).lower() if isinstance(given, bool) else str(given) for setting, given in config.items()}


def addressed(
    topic: str | Topic, serializer: Serialize | None, key_serializer: Serialize | None
) -> tuple[str, Serialize | None, Serialize | None]:
    """What a record is sent by: the topic's name, and the serializers of value and key, which the topic brings where
    none are given."""
    if not isinstance(topic, Topic):
        return topic, serializer, key_serializer
    return (
        topic.name,
        topic.value if serializer is None else serializer,
        topic.key if key_serializer is None else key_serializer,
    )


def name_of_topic(topic: str | Topic) -> str:
    return topic.name if isinstance(topic, Topic) else topic


def is_topic_name(name: object) -> bool:
    """Whether Kafka takes it for one."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and name not in (".", "..")


def _serializer(topic: str, part: str, given: Any) -> Serializer | None:
    if given is None:
        return None
    if isinstance(given, type) and issubclass(given, Serializer):
        raise ConfigurationError(
            f"Topic {topic!r}: {part} is the class {given.__name__}: give an instance of it, {given.__name__}()."
        )
    if isinstance(given, Serializer):
        return given
    try:
        return serializer_of(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"Topic {topic!r}: {part}: {error}") from error
