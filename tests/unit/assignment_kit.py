"""Members of a group as the assignor sees them: what they say of themselves, and what they are given."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from paperboy.brokers.protocol import Member, TopicPartition
from paperboy.engine.assignment import TaskAssignor
from paperboy.engine.topology import TaskId, TopicGroup

Assigned = Mapping[str, Collection[TopicPartition]]
Grouping = Sequence[Sequence[str]]
Stores = Mapping[tuple[str, int], int]
"""The changelog offsets of a member's stores, summed for each task: by its group's first topic, and its number."""

COUNTS = {"a": 12, "b": 12, "c": 1, "d": 1}
"""Topics, and their partitions."""


def member(
    groups: Grouping,
    held: Iterable[TopicPartition] = (),
    stores: Stores | None = None,
    *,
    topics: Iterable[str] | None = None,
) -> Member:
    """A member with these topic groups, subscribed to all their topics (or to `topics`)."""
    assignor = TaskAssignor([TopicGroup(group[0], tuple(group), ()) for group in groups])
    assignor.held = list(held)
    assignor.recency = lambda: {TaskId(*task): offset for task, offset in (stores or {}).items()}
    subscribed = {topic for group in groups for topic in group} if topics is None else topics
    return Member(frozenset(subscribed), assignor.user_data())


def of_an_older_version(groups: Grouping, held: Iterable[TopicPartition] = ()) -> Member:
    """A member that does not tell what stores it has."""
    said = {"groups": groups, "held": [list(each) for each in held]}
    return Member(frozenset(topic for group in groups for topic in group), json.dumps(said).encode())


def again(
    groupings: Mapping[str, Grouping], held: Assigned, disks: Mapping[str, Stores] = MappingProxyType({})
) -> dict[str, Member]:
    """The members of the next rebalance: they say what they were given in the last one, and what is on their disks."""
    return {
        member_id: member(groups, held.get(member_id, ()), disks.get(member_id))
        for member_id, groups in groupings.items()
    }


def partitions(topic: str, *numbers: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in numbers]


def loads(assigned: Assigned) -> list[int]:
    return sorted(len(share) for share in assigned.values())
