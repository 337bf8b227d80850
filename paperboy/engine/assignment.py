"""The assignor: which member of the group gets which tasks."""

import json
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import groupby
from typing import NamedTuple

from paperboy.brokers.protocol import Member, TopicPartition
from paperboy.engine.topology import TaskId, TopicGroup

NAME = "paperboy-tasks"

Recency = Mapping[TaskId, int]
"""How recent a member's stores are: for each task it has stores of, the sum of the changelog offsets they stand at.

Offsets of one changelog count its records, so between two members the difference of their sums is, but for what
compaction removed, how many records the one has to read that the other has already.
"""


class TaskAssignor:
    """Gives whole tasks, evenly, to members that know their topics, and each to who has the least of it to restore.

    One per engine: it tells the leader this worker's topic groups, the tasks it holds, and how recent its stores are.
    """

    name = NAME

    def __init__(self, groups: Sequence[TopicGroup]) -> None:
        self._groups = groups
        self._said: bytes | None = None
        self.held: Collection[TopicPartition] = ()
        """The input partitions this worker has now (or had until the rebalance that is under way)."""
        self.recency: Callable[[], Recency] = dict
        """Asked when this worker first joins, and after each `revoked`."""

    def revoked(self) -> None:
        """The worker has given everything back: tell the leader anew how it stands."""
        self._said = None

    def user_data(self) -> bytes:
        """The same bytes until `revoked`: a join that is tried again with others would begin the rebalance again."""
        if self._said is None:
            self._said = self._say()
        return self._said

    def assign(
        self, members: Mapping[str, Member], partition_counts: Mapping[str, int]
    ) -> dict[str, list[TopicPartition]]:
        return assign(members, partition_counts)

    def _say(self) -> bytes:
        stores: dict[str, list[tuple[int, int]]] = {group.name: [] for group in self._groups}
        for task, offset in sorted(self.recency().items()):
            stores[task.group].append((task.partition, offset))
        said = {
            "groups": [group.topics for group in self._groups],
            "held": sorted([partition.topic, partition.partition] for partition in self.held),
            "stores": list(stores.values()),
        }
        return json.dumps(said, separators=(",", ":")).encode()


def assign(members: Mapping[str, Member], partition_counts: Mapping[str, int]) -> dict[str, list[TopicPartition]]:
    """Every partition of every topic, by member id, sorted. Pure and deterministic.

    Members may group topics differently (a rolling change): groups that share a topic are merged, so that two members
    never write one table partition. A task goes to a member that is subscribed to all its topics; where none is, to
    nobody. Loads are as even as subscriptions allow, and so differ by one at most among members with the same topics.

    Within that, a task goes to the member with the most recent stores of it; of equals, to the one that says it holds
    it. As few as possible go elsewhere, and those of which the taker has the least to restore.
    """
    said = {member_id: _read(members[member_id]) for member_id in sorted(members)}
    components = _components(group for each in said.values() for group in each.groups)
    claims = _claims(said, components)
    shares = _Shares(said, claims)
    homeless: list[_Task] = []
    for topics in components:
        able = tuple(member_id for member_id in said if members[member_id].topics.issuperset(topics))
        shares.add(topics, able)
        for number in range(max(partition_counts.get(topic, 0) for topic in topics) if able else 0):
            task = (topics, number)
            claimants = [member_id for member_id in claims.get(task, ()) if member_id in shares.able(topics)]
            if claimants:
                shares.give(max(claimants, key=lambda member_id: claims[task][member_id]), task)
            else:
                homeless.append(task)
    for task in homeless:
        shares.give(shares.lightest(task[0]), task)
    shares.even_out()
    shares.trade()
    return {
        member_id: sorted(
            TopicPartition(topic, number)
            for topics, number in shares.of(member_id)
            for topic in topics
            if number < partition_counts.get(topic, 0)
        )
        for member_id in said
    }


_Topics = tuple[str, ...]
"""A component: topics of which one partition number goes to one member. Sorted."""
_Task = tuple[_Topics, int]
_Claims = Mapping[_Task, Mapping[str, "_Claim"]]
"""By task and member, in the order of their ids."""


class _Claim(NamedTuple):
    """What speaks for leaving a task to a member: the greater claim has it."""

    recency: int
    held: int
    """How many of its topics the member holds."""


class _Price(NamedTuple):
    """What it costs that one member has a task and not another: the lower it is, the rather it moves."""

    records: int
    """How many more the one has to restore, about."""
    held: int
    """How many more topics the other holds."""


class _Given(NamedTuple):
    """A task that a member has, the least claimed last."""

    minus_recency: int
    minus_held: int
    number: int

    @property
    def price(self) -> _Price:
        """Of giving it to one who has no claim."""
        return _Price(-self.minus_recency, -self.minus_held)


_NO_CLAIM = _Claim(0, 0)
_NOTHING = _Price(0, 0)


class _Shares:
    """The members' tasks while they are being dealt out."""

    def __init__(self, members: Iterable[str], claims: _Claims) -> None:
        self._claims = claims
        self._given: dict[str, dict[_Topics, list[_Given]]] = {member_id: {} for member_id in members}
        self._load = dict.fromkeys(self._given, 0)
        self._owner: dict[_Task, str] = {}
        self._able: dict[_Topics, Mapping[str, None]] = {}
        """Who can take a component's tasks, in order; one object for all components that the same members can take."""
        self._distinct: dict[tuple[str, ...], Mapping[str, None]] = {}
        self._wanted: dict[tuple[str, str], list[tuple[_Price, _Task]]] = defaultdict(list)
        """By who has them and who claims them: a heap of tasks. Some have gone to others since."""

    def of(self, member_id: str) -> Iterator[_Task]:
        return ((topics, each.number) for topics, given in self._given[member_id].items() for each in given)

    def able(self, topics: _Topics) -> Mapping[str, None]:
        return self._able[topics]

    def add(self, topics: _Topics, able: tuple[str, ...]) -> None:
        """A component, and the members that are subscribed to all of it."""
        self._able[topics] = self._distinct.setdefault(able, dict.fromkeys(able))

    def give(self, member_id: str, task: _Task) -> None:
        topics = task[0]
        insort(self._given[member_id].setdefault(topics, []), self._as_given(member_id, task))
        self._load[member_id] += 1
        self._owner[task] = member_id
        for claimant in self._claims.get(task, ()):
            if claimant != member_id and claimant in self._able[topics]:
                heappush(self._wanted[member_id, claimant], (self._price(task, member_id, claimant), task))

    def lightest(self, topics: _Topics) -> str:
        """Of the members that can take this task, the one with the fewest; of those, that with the fewest like it."""
        return min(
            self._able[topics],
            key=lambda member_id: (self._load[member_id], len(self._given[member_id].get(topics, ())), member_id),
        )

    def even_out(self) -> None:
        """Move tasks, each from a heavier member to one that has two fewer, until there is no such pair."""
        while any(self._relieve(member_id) for member_id in self._heaviest_first()):
            pass

    def trade(self) -> None:
        """Give a task to a member with a better claim, for one of that member's own if need be, where the two then have
        less to restore together, or as much and more of what they had. Loads stay as even as they are."""
        while sum(self._traded(*offer) for offer in self._better_claims()):
            pass

    def _claim(self, member_id: str, task: _Task) -> _Claim:
        return self._claims.get(task, {}).get(member_id, _NO_CLAIM)

    def _as_given(self, member_id: str, task: _Task) -> _Given:
        claim = self._claim(member_id, task)
        return _Given(-claim.recency, -claim.held, task[1])

    def _price(self, task: _Task, giver: str, taker: str) -> _Price:
        given, taken = self._claim(giver, task), self._claim(taker, task)
        return _Price(given.recency - taken.recency, given.held - taken.held)

    def _heaviest_first(self) -> Iterator[str]:
        """The members by load; of equals, the one first that has what is cheapest to move."""
        least = min(self._load.values(), default=0)
        light = [member_id for member_id, load in self._load.items() if load == least]

        def cheapest(member_id: str) -> tuple[_Price, str]:
            wanted = [found[0] for taker in light if (found := self._most_wanted(member_id, taker))]
            least_claimed = max(given[-1] for given in self._given[member_id].values())
            return min([*wanted, least_claimed.price]), member_id

        for load, members in groupby(sorted(self._load, key=lambda each: -self._load[each]), self._load.__getitem__):
            if load < least + 2:
                return
            equals = list(members)
            yield from sorted(equals, key=cheapest) if len(equals) > 1 else equals

    def _relieve(self, heavy: str) -> bool:
        """Make this member's load one less, and that of the lightest it can pass a task to one more.

        Where subscriptions differ, a task may have to go by way of a third member, which passes one of its own on.
        """
        came_from = {heavy: heavy}
        reached = [heavy]
        seen: set[int] = set()
        for member_id in reached:
            for topics in self._given[member_id]:
                able = self._able[topics]
                if id(able) in seen:
                    continue
                seen.add(id(able))
                for other in able:
                    if other not in came_from:
                        came_from[other] = member_id
                        reached.append(other)
        least = min(self._load[member_id] for member_id in reached)
        if self._load[heavy] - least < 2:
            return False
        lightest = [member_id for member_id in reached if self._load[member_id] == least]
        wanted = [
            (found[0], member_id)
            for member_id in lightest
            if came_from[member_id] == heavy and (found := self._most_wanted(heavy, member_id))
        ]
        light = min(wanted)[1] if wanted else lightest[0]
        while light != heavy:
            self._pass_on(came_from[light], light)
            light = came_from[light]
        return True

    def _pass_on(self, giver: str, taker: str) -> None:
        """One task, of those that `taker` can take: the cheapest; of equals, one of what `giver` has most of."""
        mine, theirs = self._given[giver], self._given[taker]
        *_, topics = max(
            (each[-1].minus_recency, each[-1].minus_held, len(each) - len(theirs.get(topics, ())), topics)
            for topics, each in mine.items()
            if taker in self._able[topics]
        )
        task = (topics, mine[topics][-1].number)
        wanted = self._most_wanted(giver, taker)
        if wanted is not None and wanted[0] < mine[topics][-1].price:
            task = wanted[1]
        self._move(task, taker)

    def _move(self, task: _Task, taker: str) -> None:
        topics, giver = task[0], self._owner[task]
        self._load[giver] -= 1
        self._given[giver][topics].remove(self._as_given(giver, task))
        if not self._given[giver][topics]:
            del self._given[giver][topics]
        self.give(taker, task)

    def _most_wanted(self, giver: str, taker: str) -> tuple[_Price, _Task] | None:
        """Of the giver's tasks that the taker claims, the one that is cheapest to move."""
        heap = self._wanted.get((giver, taker))
        while heap and self._owner[heap[0][1]] != giver:
            heappop(heap)
        return heap[0] if heap else None

    def _better_claims(self) -> list[tuple[_Task, str]]:
        """Tasks, and members that have better claims to them than those who have them."""
        return [
            (task, claimant)
            for task, owner in self._owner.items()
            for claimant, claim in self._claims.get(task, {}).items()
            if claim > self._claim(owner, task) and claimant in self._able[task[0]]
        ]

    def _traded(self, task: _Task, claimant: str) -> bool:
        owner = self._owner[task]
        gain = self._price(task, claimant, owner)
        if gain <= _NOTHING:  # something was traded since
            return False
        if self._load[owner] > self._load[claimant]:
            self._move(task, claimant)
            return True
        in_return = [
            (self._price(other, claimant, owner), other)
            for other in self.of(claimant)
            if owner in self._able[other[0]] and self._may_leave(other, claimant, owner)
        ]
        if not in_return or min(in_return)[0] >= gain:
            return False
        self._move(min(in_return)[1], owner)
        self._move(task, claimant)
        return True

    def _may_leave(self, task: _Task, giver: str, taker: str) -> bool:
        """Whether nobody loses by it the task that it has the most recent stores of."""
        newest = max((claim.recency for claim in self._claims.get(task, {}).values()), default=0)
        recency = self._claim(giver, task).recency
        return recency < newest or recency == self._claim(taker, task).recency


@dataclass(frozen=True, slots=True)
class _Said:
    """What a member says of itself."""

    groups: Sequence[_Topics]
    held: Collection[TopicPartition]
    stores: Sequence[tuple[_Topics, Mapping[int, int]]] | None
    """Of each topic group, the recency of its tasks; None from a version that does not tell."""


def _claims(said: Mapping[str, _Said], components: Iterable[_Topics]) -> _Claims:
    component_of = {topic: topics for topics in components for topic in topics}
    recency: dict[_Task, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    held: dict[_Task, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for member_id, each in said.items():
        for topics, stores in each.stores or ():
            for number, offset in stores.items():
                recency[component_of[topics[0]], number][member_id] += offset
        for partition in each.held:
            if partition.topic in component_of:
                held[component_of[partition.topic], partition.partition][member_id] += 1
    claims: dict[_Task, dict[str, _Claim]] = {}
    for task in [*recency, *(task for task in held if task not in recency)]:
        offsets, holders = recency[task], held[task]
        newest = max(offsets.values(), default=0)
        # Who holds it and tells no more has been writing to it until now: nobody has it more recent.
        offsets.update((member_id, newest) for member_id in holders if said[member_id].stores is None)
        claimants = sorted({**offsets, **holders})
        claims[task] = {each: _Claim(offsets.get(each, 0), holders.get(each, 0)) for each in claimants}
    return claims


def _components(groups: Iterable[_Topics]) -> list[_Topics]:
    """Groups of topics, those that share one merged; sorted."""
    component_of: dict[str, set[str]] = {}
    for group in dict.fromkeys(groups):
        merged = set(group).union(*(component_of[topic] for topic in group if topic in component_of))
        component_of.update(dict.fromkeys(merged, merged))
    distinct = {id(component): component for component in component_of.values()}
    return sorted(tuple(sorted(component)) for component in distinct.values())


def _read(member: Member) -> _Said:
    """What makes no sense is as if it was not said; a topic that a member names no group for stands alone."""
    groups: list[_Topics] = []
    held: Collection[TopicPartition] = ()
    stores: list[tuple[_Topics, Mapping[int, int]]] | None = None
    try:
        said = json.loads(member.user_data)
        groups = [tuple(topic for topic in group if topic in member.topics) for group in said["groups"]]
        held = dict.fromkeys(TopicPartition(topic, number) for topic, number in said["held"] if type(number) is int)
        if "stores" in said:
            stores = []
            for topics, offsets in zip(groups, said["stores"], strict=False):
                if topics:
                    stores.append(
                        (topics, {number: offset for number, offset in offsets if _is_offset(number, offset)})
                    )
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    grouped = {topic for group in groups for topic in group}
    return _Said([*filter(None, groups), *((topic,) for topic in sorted(member.topics - grouped))], held, stores)


def _is_offset(number: object, offset: object) -> bool:
    return type(number) is int and type(offset) is int and offset > 0
