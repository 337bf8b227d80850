"""Where dead letters are replayed to, and as what: to the group that failed, or to the topics they came from."""

from typing import NamedTuple, Protocol

from paperboy.brokers.protocol import Broker, Outgoing, TopicDescription, TopicPartition
from paperboy.cli.dead_letters import Letter, Origin
from paperboy.cli.errors import Misuse
from paperboy.cli.loading import Definition
from paperboy.handlers.retry_topics import retry_topic


class Target(NamedTuple):
    """Where letters go."""

    partition: TopicPartition
    since_ms: int = 0
    """Messages that are older would be deleted as soon as they are there."""


class Way(Protocol):
    """How letters are replayed."""

    async def target(self, origin: Origin, broker: Broker) -> Target | str:
        """Where letters of this origin go; as a clause, why they do not.

        Raises:
            Misuse: nothing may go this way.
        """
        ...

    def outgoing(self, letter: Letter, now_ms: int) -> Outgoing:
        """As what a letter goes."""
        ...


class ToGroup:
    """To the retry topics of the engine's group, which nobody else reads."""

    def __init__(self, definition: Definition) -> None:
        self._group_id = definition.options.group_id
        self._dispatches = definition.dispatches
        self._topics = _Topics()

    async def target(self, origin: Origin, broker: Broker) -> Target | str:
        if not origin.group:
            return "of Kafka Streams, which say no group (--to-original replays them to everybody)"
        if origin.group != self._group_id:
            return f"of group {origin.group!r}: replay them with its engine"
        name = retry_topic(self._group_id, origin.topic)
        if name not in self._dispatches:
            return f"the engine declares no dead_letter for topic {origin.topic!r} any more, and reads none of it again"
        topic = await self._topics.described(name, broker)
        if topic is None:
            return f"{name!r} does not exist: start the engine once, which creates it"
        if not 0 <= origin.partition < topic.partitions:
            return f"{name!r} has no partition {origin.partition}: start the engine once, which says what is to be done"
        return Target(TopicPartition(name, origin.partition))

    def outgoing(self, letter: Letter, now_ms: int) -> Outgoing:
        """With the time of now: retry topics keep records for some days, and messages may be older. The headers hold
        the message's own."""
        assert letter.failed is not None
        return letter.key, letter.value, letter.failed.anew().headers(letter.headers), now_ms


class ToOriginal:
    """To the topics that the messages came from: every reader of theirs gets them again."""

    def __init__(self, definition: Definition) -> None:
        self._group_id = definition.options.group_id
        self._topics = _Topics()

    async def target(self, origin: Origin, broker: Broker) -> Target | str:
        if origin.group not in ("", self._group_id):
            return f"of group {origin.group!r}: replay them with its engine"
        topic = await self._topics.described(origin.topic, broker)
        if topic is None or not 0 <= origin.partition < topic.partitions:
            return f"{origin.topic}[{origin.partition}] does not exist any more"
        if "compact" in topic.config.get("cleanup.policy", ""):
            raise Misuse(
                f"Topic {topic.name!r} is compacted, and an old message would take the place of a newer one of its key:"
                " replay to the group, without --to-original."
            )
        return Target(TopicPartition(topic.name, origin.partition), _kept_since(topic, broker.clock.time_ms()))

    def outgoing(self, letter: Letter, now_ms: int) -> Outgoing:
        """As the message was."""
        return letter.key, letter.value, letter.headers, letter.timestamp_ms


class _Topics:
    """Topics as they are, each asked for once."""

    def __init__(self) -> None:
        self._found: dict[str, TopicDescription | None] = {}

    async def described(self, name: str, broker: Broker) -> TopicDescription | None:
        if name not in self._found:
            self._found[name] = (await broker.describe_topics([name])).get(name)
        return self._found[name]


def _kept_since(topic: TopicDescription, now_ms: int) -> int:
    retention_ms = int(topic.config.get("retention.ms", -1))
    by_append_time = topic.config.get("message.timestamp.type") == "LogAppendTime"
    return 0 if retention_ms < 0 or by_append_time else now_ms - retention_ms
