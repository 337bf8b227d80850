"""The assignor: which member of the group gets which tasks."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

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
    nobody. Loads are as even as subscriptions allow, and so differ by one at most among members with the same topics.
    A task stays with the member that says it holds it unless that would unbalance them.
    """
    said = {member_id: _read(members[member_id]) for member_id in sorted(members)}
    claimants: dict[TopicPartition, list[str]] = defaultdict(list)
    for member_id, (_, held) in said.items():
        for partition in held:
            claimants[partition].append(member_id)
    shares = _Shares(said)
    homeless: list[tuple[_Topics, int]] = []
    for topics in _components(group for groups, _ in said.values() for group in groups):
        able = tuple(member_id for member_id in said if members[member_id].topics.issuperset(topics))
        shares.add(topics, able)
        for number in range(max(partition_counts.get(topic, 0) for topic in topics) if able else 0):
            claims = Counter(
                member_id
                for topic in topics
                for member_id in claimants.get(TopicPartition(topic, number), ())
                if member_id in able
            )
            if claims:
                shares.give(min(claims, key=lambda member_id: (-claims[member_id], member_id)), topics, number)
            else:
                homeless.append((topics, number))
    shares.kept_until_here()
    for topics, number in homeless:
        shares.give(shares.lightest(topics), topics, number)
    shares.even_out()
    return {
        member_id: [
            TopicPartition(topic, number)
            for topics, numbers in shares.of(member_id).items()
            for number in numbers
            for topic in topics
            if number < partition_counts.get(topic, 0)
        ]
        for member_id in said
    }


_Topics = tuple[str, ...]
"""A component: topics of which one partition number goes to one member. Sorted."""


class _Shares:
    """The members' tasks while they are being dealt out."""

    def __init__(self, members: Iterable[str]) -> None:
        self._numbers: dict[str, dict[_Topics, list[int]]] = {member_id: defaultdict(list) for member_id in members}
        self._load = dict.fromkeys(self._numbers, 0)
        self._able: dict[_Topics, Mapping[str, None]] = {}
        """Who can take a component's tasks, in order; one object for all components that the same members can take."""
        self._distinct: dict[tuple[str, ...], Mapping[str, None]] = {}
        self._kept: dict[str, dict[_Topics, int]] = {}

    def of(self, member_id: str) -> Mapping[_Topics, list[int]]:
        return self._numbers[member_id]

    def add(self, topics: _Topics, able: tuple[str, ...]) -> None:
        """A component, and the members that are subscribed to all of it."""
        self._able[topics] = self._distinct.setdefault(able, dict.fromkeys(able))

    def give(self, member_id: str, topics: _Topics, number: int) -> None:
        self._numbers[member_id][topics].append(number)
        self._load[member_id] += 1

    def kept_until_here(self) -> None:
        """What was given so far is where it was before; what comes later moves first, if something has to."""
        self._kept = {
            member_id: {topics: len(numbers) for topics, numbers in by_topics.items()}
            for member_id, by_topics in self._numbers.items()
        }

    def lightest(self, topics: _Topics) -> str:
        """Of the members that can take this task, the one with the fewest; of those, that with the fewest like it."""
        return min(
            self._able[topics],
            key=lambda member_id: (self._load[member_id], len(self._numbers[member_id].get(topics, ())), member_id),
        )

    def even_out(self) -> None:
        """Move tasks, each from a heavier member to one that has two fewer, until there is no such pair."""
        while any(
            self._relieve(member_id) for member_id in sorted(self._load, key=lambda each: (-self._load[each], each))
        ):
            pass

    def _relieve(self, heavy: str) -> bool:
        """Make this member's load one less, and that of the lightest it can pass a task to one more.

        Where subscriptions differ, a task may have to go by way of a third member, which passes one of its own on.
        """
        came_from = {heavy: heavy}
        reached = [heavy]
        seen: set[int] = set()
        for member_id in reached:
            for topics, numbers in self._numbers[member_id].items():
                able = self._able[topics]
                if not numbers or id(able) in seen:
                    continue
                seen.add(id(able))
                for other in able:
                    if other not in came_from:
                        came_from[other] = member_id
                        reached.append(other)
        light = min(reached, key=lambda member_id: self._load[member_id])
        if self._load[heavy] - self._load[light] < 2:
            return False
        while light != heavy:
            self._pass_on(came_from[light], light)
            light = came_from[light]
        return True

    def _pass_on(self, giver: str, taker: str) -> None:
        """One task, of those that `taker` can take: one that has only just come, or of what `giver` has most of."""
        mine, theirs, kept = self._numbers[giver], self._numbers[taker], self._kept[giver]
        topics = max(
            (topics for topics, numbers in mine.items() if numbers and taker in self._able[topics]),
            key=lambda topics: (
                len(mine[topics]) > kept.get(topics, 0),
                len(mine[topics]) - len(theirs.get(topics, ())),
                topics,
            ),
        )
        self._load[giver] -= 1
        self.give(taker, topics, mine[topics].pop())
        kept[topics] = min(kept.get(topics, 0), len(mine[topics]))


def _components(groups: Iterable[_Topics]) -> list[_Topics]:
    """Groups of topics, those that share one merged; sorted."""
    component_of: dict[str, set[str]] = {}
    for group in dict.fromkeys(groups):
        merged = set(group).union(*(component_of[topic] for topic in group if topic in component_of))
        component_of.update(dict.fromkeys(merged, merged))
    distinct = {id(component): component for component in component_of.values()}
    return sorted(tuple(sorted(component)) for component in distinct.values())


def _read(member: Member) -> tuple[list[_Topics], Collection[TopicPartition]]:
    """A member's topic groups and held partitions; a topic that it names no group for stands alone."""
    groups: list[_Topics] = []
    held: frozenset[TopicPartition] = frozenset()
    try:
        said = json.loads(member.user_data)
        groups = [tuple(topic for topic in group if topic in member.topics) for group in said["groups"]]
        held = frozenset(TopicPartition(topic, partition) for topic, partition in said["held"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    grouped = {topic for group in groups for topic in group}
    return [*filter(None, groups), *((topic,) for topic in sorted(member.topics - grouped))], held
