"""Whether a store is what its changelog says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from paperboy.brokers.protocol import Broker, TopicDescription, TopicPartition
from paperboy.cli.shown import counted
from paperboy.cli.spool import Said, spooled
from paperboy.engine.restore import uselessness
from paperboy.tables.stores.protocol import Store, StoreIdentity


@dataclass(frozen=True, slots=True)
class Equal:
    """Byte for byte."""

    compared: int
    gone: int
    """Further keys of the store: what the changelog said of them below its offset has been compacted away, because they
    were written again beyond it."""


@dataclass(frozen=True, slots=True)
class Outdated:
    """A store that a worker would throw away and restore; there is nothing to compare."""

    why: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """A store that cannot have come from this changelog."""

    why: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The first key, in the order of bytes, for which store and changelog have different values (None: none)."""

    key: bytes
    stored: bytes | None
    said: bytes | None
    offset: int | None
    """Of the changelog's record; None where it has none."""


Verdict = Equal | Outdated | Wrong | Difference


async def verify(
    store: Store,
    identity: StoreIdentity,
    broker: Broker,
    passed: Callable[[int], object] = lambda offsets: None,
) -> Verdict:
    """Compare a store with its changelog, up to the offset that the store stands for.

    Args:
        passed: told how many more offsets of the changelog were read.

    Raises:
        BrokerError: the changelog cannot be read.
        StoreError: the store cannot.
    """
    topic = (await broker.describe_topics([identity.changelog])).get(identity.changelog)
    if topic is None:
        return Wrong(f"its changelog {identity.changelog!r} does not exist on {broker.name}")
    unlike = _unlike(identity, topic)
    if unlike is not None:
        return unlike
    changelog = TopicPartition(topic.name, identity.partition)
    offset = store.changelog_offset or 0
    if offset < 0:
        return Outdated("it could not be brought up to date any more")
    begin = (await broker.beginning_offsets([changelog]))[changelog]
    end = (await broker.end_offsets([changelog]))[changelog]
    why = uselessness(offset, begin, end, store.in_step_ms, broker.clock.time_ms(), topic.delete_retention_ms)
    if why is not None:
        return Outdated(why) if begin <= offset <= end else Wrong(why)
    async with spooled(changelog, broker, up_to=offset, passed=passed) as spool:
        return compared(store.scan(), spool, forgetful="delete" in topic.config.get("cleanup.policy", ""))


def compared(
    stored: Iterable[tuple[bytes, bytes]], said: Iterable[tuple[bytes, Said]], *, forgetful: bool = False
) -> Equal | Difference:
    """Compare two listings, each in the order of keys.

    Args:
        forgetful: the topic drops the last record of a key as well, when it is old (``cleanup.policy`` has delete).
    """
    entries, sayings = iter(stored), iter(said)
    entry, saying = next(entries, None), next(sayings, None)
    count = gone = 0
    while entry is not None or saying is not None:
        if saying is None or (entry is not None and entry[0] < saying[0]):
            assert entry is not None
            if not forgetful:
                return Difference(entry[0], entry[1], None, None)
            gone, entry = gone + 1, next(entries, None)
            continue
        key, (offset, value, is_known) = saying
        saying = next(sayings, None)
        found = None
        if entry is not None and entry[0] == key:
            found, entry = entry[1], next(entries, None)
        if not is_known:
            gone += found is not None
        elif found != value:
            return Difference(key, found, value, offset)
        elif found is not None:
            count += 1
    return Equal(count, gone)


def _unlike(identity: StoreIdentity, topic: TopicDescription) -> Outdated | Wrong | None:
    if identity.changelog_id and topic.id and identity.changelog_id != topic.id:
        return Outdated(f"it is of an earlier changelog of this name: {topic.name!r} was made anew")
    if identity.partition >= topic.partitions:
        return Wrong(f"its changelog {topic.name!r} has {counted(topic.partitions, 'partition')}")
    return None
