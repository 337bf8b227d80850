"""The assignor: which member of the group gets which tasks."""

import json
from collections.abc import Mapping, Sequence

from paperboy.brokers.protocol import Member, TopicPartition
from paperboy.engine.topology import TopicGroup

NAME = "paperboy-tasks"


class TaskAssignor:
    """Gives whole tasks, evenly, to members that know their topics, and leaves a task where it is if it can.

    One per engine: it tells the leader this worker's topic groups and the tasks it holds.
    """

    name = NAME

    def __init__(self, groups: Sequence[TopicGroup]) -> None:
        self._groups = [list(group.topics) for group in groups]
        self.held: list[TopicPartition] = []
        """The input partitions this worker has now (or had until the rebalance that is under way)."""

    def user_data(self) -> bytes:
        held = sorted([partition.topic, partition.partition] for partition in self.held)
        return json.dumps({"groups": self._groups, "held": held}, separators=(",", ":")).encode()

    def assign(
        self, members: Mapping[str, Member], partition_counts: Mapping[str, int]
    ) -> dict[str, list[TopicPartition]]:
        return assign(members, partition_counts)


def assign(members: Mapping[str, Member], partition_counts: Mapping[str, int]) -> dict[str, list[TopicPartition]]:
    """Every partition of every topic, by member id. Pure and deterministic.

    Members may group topics differently (a rolling change): groups that share a topic are merged, so that two members
    never write one table partition. A task goes to a member that is subscribed to all its topics; where none is, to
    nobody. Counts differ by one at most among members with the same topics, and a task stays with the member that
    says it holds it unless that would unbalance them.
    """
    known = {member_id: _read(member) for member_id, member in sorted(members.items())}
    assigned: dict[str, list[TopicPartition]] = {member_id: [] for member_id in known}
    load = dict.fromkeys(known, 0)
    tasks = [
        (topics, partition)
        for topics in _components([group for groups, _ in known.values() for group in groups])
        for partition in range(max((partition_counts.get(topic, 0) for topic in topics), default=0))
    ]
    eligible = {
        topics: [member_id for member_id in known if members[member_id].topics.issuperset(topics)]
        for topics, _ in tasks
    }
    waiting = []
    for topics, partition in tasks:
        able = eligible[topics]
        holder = next((m for m in able if TopicPartition(topics[0], partition) in known[m][1]), None)
        share = -(-sum(1 for other, _ in tasks if eligible[other] == able) // len(able)) if able else 0
        if holder is not None and load[holder] < share:
            _give(assigned[holder], topics, partition, partition_counts)
            load[holder] += 1
        elif able:
            waiting.append((topics, partition))
    for topics, partition in waiting:
        least = min(eligible[topics], key=lambda member_id: (load[member_id], member_id))
        _give(assigned[least], topics, partition, partition_counts)
        load[least] += 1
    _even_out(assigned, members, partition_counts, tasks)
    return assigned


def _even_out(
    assigned: dict[str, list[TopicPartition]],
    members: Mapping[str, Member],
    partition_counts: Mapping[str, int],
    tasks: Sequence[tuple[tuple[str, ...], int]],
) -> None:
    """Move one task at a time from a member to one that has two fewer, until there is none."""
    owner = {
        (topics, partition): member_id
        for topics, partition in tasks
        for member_id, partitions in assigned.items()
        if TopicPartition(topics[0], partition) in partitions
    }
    load = {member_id: sum(1 for holder in owner.values() if holder == member_id) for member_id in assigned}
    while True:
        move = next(
            (
                ((topics, partition), holder, other)
                for (topics, partition), holder in sorted(owner.items(), reverse=True)
                for other in sorted(load, key=lambda member_id: (load[member_id], member_id))
                if load[holder] - load[other] >= 2 and members[other].topics.issuperset(topics)
            ),
            None,
        )
        if move is None:
            return
        (topics, partition), holder, other = move
        for topic in topics:
            if partition < partition_counts.get(topic, 0):
                assigned[holder].remove(TopicPartition(topic, partition))
        _give(assigned[other], topics, partition, partition_counts)
        owner[topics, partition] = other
        load[holder] -= 1
        load[other] += 1


def _give(
    partitions: list[TopicPartition], topics: tuple[str, ...], partition: int, partition_counts: Mapping[str, int]
) -> None:
    partitions.extend(
        TopicPartition(topic, partition) for topic in topics if partition < partition_counts.get(topic, 0)
    )


def _components(groups: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Groups of topics, those that share one merged; sorted."""
    merged: list[set[str]] = []
    for group in groups:
        overlapping = [component for component in merged if not component.isdisjoint(group)]
        merged = [component for component in merged if component.isdisjoint(group)]
        merged.append(set(group).union(*overlapping))
    return sorted(tuple(sorted(component)) for component in merged)


def _read(member: Member) -> tuple[list[tuple[str, ...]], frozenset[TopicPartition]]:
    """A member's topic groups and held partitions; one that says nothing has each topic for itself."""
    try:
        said = json.loads(member.user_data)
        groups = [tuple(group) for group in said["groups"]]
        held = frozenset(TopicPartition(topic, partition) for topic, partition in said["held"])
    except (ValueError, KeyError, TypeError):
        return [(topic,) for topic in sorted(member.topics)], frozenset()
    return groups, held
