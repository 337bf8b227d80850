"""Who gets which tasks: everything, to one member each, evenly, and with as little moving as that takes."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from time import process_time
from types import MappingProxyType
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperboy.brokers.protocol import Member, TopicPartition
from paperboy.engine.assignment import TaskAssignor, assign
from paperboy.engine.topology import TaskId, TopicGroup

T = TypeVar("T")
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


def test_a_member_alone_gets_everything() -> None:
    assert assign({"m": member([["a"]])}, {"a": 3}) == {"m": partitions("a", 0, 1, 2)}


def test_nobody_gets_nothing() -> None:
    assert assign({}, {"a": 3}) == {}


def test_a_topic_that_does_not_exist_has_no_tasks() -> None:
    assert assign({"m": member([["a"], ["b"]])}, {"a": 1, "b": 0}) == {"m": partitions("a", 0)}
    assert assign({"m": member([["a"], ["b"]])}, {"a": 1}) == {"m": partitions("a", 0)}


def test_a_task_is_given_whole() -> None:
    assigned = assign({"m": member([["a", "b"]]), "n": member([["a", "b"]])}, {"a": 4, "b": 4})
    for share in assigned.values():
        numbers = {topic: {each.partition for each in share if each.topic == topic} for topic in "ab"}
        assert numbers["a"] == numbers["b"]
        assert len(numbers["a"]) == 2


def test_a_new_member_gets_its_share_and_the_others_keep_the_rest() -> None:
    before = assign({"m": member([["a"]])}, {"a": 12})
    assigned = assign(again({"m": [["a"]], "n": [["a"]]}, before), {"a": 12})
    assert loads(assigned) == [6, 6]
    later = assign(again({"m": [["a"]], "n": [["a"]], "o": [["a"]]}, assigned), {"a": 12})
    assert loads(later) == [4, 4, 4]
    assert set(later["m"]) < set(assigned["m"])
    assert set(later["n"]) < set(assigned["n"])


def test_what_a_member_leaves_goes_to_the_others_and_they_keep_theirs() -> None:
    groups = {name: [["a"]] for name in "mno"}
    before = assign(again(groups, {}), {"a": 12})
    del groups["n"]
    after = assign(again(groups, before), {"a": 12})
    assert loads(after) == [6, 6]
    assert set(after["m"]) > set(before["m"])
    assert set(after["o"]) > set(before["o"])


def test_topics_are_spread_and_not_only_tasks() -> None:
    groups = [["a"], ["b"]]
    fresh = assign({"m": member(groups), "n": member(groups)}, {"a": 6, "b": 6})
    joined = assign({"m": member(groups, partitions("a", *range(6)) + partitions("b", *range(6))),
                     "n": member(groups), "o": member(groups)}, {"a": 6, "b": 6})  # fmt: skip
    for assigned, each in ((fresh, 3), (joined, 2)):
        for share in assigned.values():
            assert Counter(partition.topic for partition in share) == {"a": each, "b": each}


def test_a_member_that_is_not_subscribed_to_all_topics_of_a_task_does_not_get_it() -> None:
    assigned = assign({"m": member([["a", "b"]]), "n": member([["a"]])}, {"a": 4, "b": 4})
    assert loads(assigned) == [0, 8]
    assert assigned["n"] == []


def test_a_task_that_no_member_can_take_is_given_to_nobody() -> None:
    said = member([["a", "b"], ["c"]]).user_data
    members = {"m": Member(frozenset("ac"), said), "n": member([["a", "b"]]), "o": Member(frozenset("b"), said)}
    assigned = assign(members, {"a": 2, "b": 2, "c": 1})
    assert sorted(assigned["n"]) == partitions("a", 0, 1) + partitions("b", 0, 1)
    assert assign({"m": members["m"], "o": members["o"]}, {"a": 2, "b": 2, "c": 1}) == {
        "m": [*partitions("a", 0, 1), *partitions("c", 0)],
        "o": partitions("b", 0, 1),
    }


def test_workers_that_group_topics_differently_get_what_all_of_them_keep_together() -> None:
    members = {"old": member([["a"], ["b"], ["c"]]), "new": member([["a", "b"], ["c"]])}
    assigned = assign(members, {"a": 2, "b": 2, "c": 2})
    for share in assigned.values():
        assert {each.partition for each in share if each.topic == "a"} == {
            each.partition for each in share if each.topic == "b"
        }


def test_topics_that_are_now_together_go_to_who_has_most_of_them() -> None:
    groups = [["a", "b", "c"]]
    one, most = partitions("a", 0), partitions("b", 0) + partitions("c", 0)
    assigned = assign({"m": member(groups, one), "n": member(groups, most)}, {"a": 1, "b": 1, "c": 1})
    assert loads(assigned) == [0, 3]
    assert len(assigned["n"]) == 3


def test_of_two_that_claim_one_task_one_gets_it() -> None:
    everything = partitions("a", *range(4))
    assigned = assign({"m": member([["a"]], everything), "n": member([["a"]], everything)}, {"a": 4})
    assert sorted(each for share in assigned.values() for each in share) == everything
    assert loads(assigned) == [2, 2]


def test_a_task_that_moves_by_way_of_a_third_member_evens_loads_out() -> None:
    """m can pass on only to n, which is no lighter, but n can pass on to o."""
    groupings = {"m": [["a"]], "n": [["a"], ["b"]], "o": [["b"]]}
    held = {"m": partitions("a", 0, 1, 2), "n": partitions("a", 3) + partitions("b", 0), "o": []}
    assigned = assign(again(groupings, held), {"a": 4, "b": 1})
    assert {member_id: len(share) for member_id, share in assigned.items()} == {"m": 2, "n": 2, "o": 1}


def test_where_a_task_has_to_move_it_is_one_that_has_only_just_come() -> None:
    groupings: dict[str, Grouping] = {"m": [["a"], ["b"], ["c"]], "n": [["a"], ["c"]]}
    held = {"m": partitions("c", 0), "n": partitions("c", 1)}
    assigned = assign(again(groupings, held), {"a": 2, "b": 2, "c": 2})
    assert loads(assigned) == [3, 3]
    assert held["m"][0] in assigned["m"]
    assert held["n"][0] in assigned["n"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"7",
        b"[]",
        b'"groups"',
        b"{}",
        b'{"groups":null,"held":[]}',
        b'{"groups":[["a"]]}',
        b'{"groups":[[["a"]]],"held":[]}',
        b'{"groups":[{"a":1}],"held":[["a",0]]}',
        b'{"groups":[[],[]],"held":[]}',
        b'{"groups":[["a"]],"held":[["a",0,1]]}',
        b'{"groups":[["a"]],"held":[[["a"],0]]}',
        b'{"groups":[["a"]],"held":[["a","0"],["b",null],["z",-7]]}',
        b'{"groups":[["a"]],"held":7}',
        b'{"groups":[["a","elsewhere"]],"held":[]}',
        b'{"groups":[["elsewhere"]],"held":[["elsewhere",0]]}',
        b"[" * 100_000,
        b'{"groups":[],"held":[["a",' + b"9" * 5_000 + b"]]}",
    ],
    ids=lambda data: repr(data[:60]),
)
def test_a_member_that_says_something_senseless_has_each_topic_for_itself(garbage: bytes) -> None:
    assigned = assign({"odd": Member(frozenset("ab"), garbage), "m": member([["a"], ["b"]])}, {"a": 4, "b": 4})
    assert loads(assigned) == [4, 4]
    assert len({partition for share in assigned.values() for partition in share}) == 8


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["groups", "held", "x"]), inner),
)


@given(st.binary(max_size=60) | JSON.map(lambda said: json.dumps(said).encode()))
def test_nothing_that_a_member_says_keeps_the_others_from_their_tasks(said: bytes) -> None:
    assigned = assign({"m": member([["a"]]), "odd": Member(frozenset("a"), said)}, {"a": 4})
    assert loads(assigned) == [2, 2]


def test_a_member_tells_its_groups_what_it_holds_and_how_recent_its_stores_are() -> None:
    assignor = TaskAssignor([TopicGroup("x", ("a", "b"), ()), TopicGroup("c", ("c",), ())])
    assert json.loads(assignor.user_data()) == {"groups": [["a", "b"], ["c"]], "held": [], "stores": [[], []]}
    assignor.held = [TopicPartition("b", 1), TopicPartition("a", 1)]
    assignor.recency = lambda: {TaskId("x", 2): 7, TaskId("x", 1): 5}
    assignor.revoked()
    said = json.loads(assignor.user_data())
    assert (said["held"], said["stores"]) == ([["a", 1], ["b", 1]], [[[1, 5], [2, 7]], []])
    assert assignor.assign({"m": member([["a"]])}, {"a": 1}) == {"m": partitions("a", 0)}


def test_a_member_says_the_same_until_it_has_given_everything_back() -> None:
    assignor = TaskAssignor([TopicGroup("a", ("a",), ())])
    first = assignor.user_data()
    assignor.held = partitions("a", 0)
    assignor.recency = lambda: {TaskId("a", 0): 5}
    assert assignor.user_data() == first, "a join that is tried again says what it said before"
    assignor.revoked()
    second = assignor.user_data()
    assert second != first
    assignor.recency = lambda: {TaskId("a", 0): 6}
    assert assignor.user_data() == second


# Stores: a task goes to who has least of it to restore.

A: Grouping = [["a"]]


def test_a_task_goes_to_the_member_with_the_most_recent_stores_whoever_holds_it() -> None:
    m = member(A, partitions("a", 0, 1), {("a", 0): 100, ("a", 1): 50})
    n = member(A, (), {("a", 0): 50, ("a", 1): 100})
    for one, other in (("m", "n"), ("n", "m")):
        assigned = assign({one: m, other: n}, {"a": 2})
        assert assigned == {one: partitions("a", 0), other: partitions("a", 1)}


def test_of_members_with_equally_recent_stores_the_one_that_holds_the_task_has_it_and_then_the_first() -> None:
    stores = {("a", 0): 100, ("a", 1): 100}
    for holder, other in (("m", "n"), ("n", "m")):
        members = {holder: member(A, partitions("a", 0), stores), other: member(A, (), stores)}
        assert assign(members, {"a": 2}) == {holder: partitions("a", 0), other: partitions("a", 1)}
    assert assign({"n": member(A, (), stores), "m": member(A, (), stores)}, {"a": 1}) == {
        "m": partitions("a", 0),
        "n": [],
    }


def test_after_a_restart_of_all_each_gets_the_tasks_whose_stores_it_found() -> None:
    """Each has older copies of the others' too."""
    own = {"m": (3, 5), "n": (0, 6), "o": (1, 7), "p": (2, 4)}
    members = {
        name: member(A, (), {("a", number): 100 if number in numbers else 40 + number for number in range(8)})
        for name, numbers in own.items()
    }
    assert assign(members, {"a": 8}) == {name: partitions("a", *numbers) for name, numbers in own.items()}


def test_what_moves_is_what_nobody_has_stores_of_and_then_what_is_least_to_restore() -> None:
    m = member(A, partitions("a", 0, 1, 2, 3), {("a", 0): 10, ("a", 1): 40, ("a", 3): 30})
    assert assign({"m": m, "n": member(A)}, {"a": 4})["n"] == partitions("a", 0, 2)


def test_who_comes_gets_what_it_is_least_behind_with() -> None:
    everything = partitions("a", *range(4))
    m = member(A, everything, {("a", 0): 1_000, ("a", 1): 1_000, ("a", 2): 10, ("a", 3): 1_000})
    n = member(A, (), {("a", 1): 995, ("a", 0): 500, ("a", 3): 999})
    assert assign({"m": m, "n": n}, {"a": 4})["n"] == partitions("a", 1, 3)


def test_of_two_that_come_each_gets_what_it_has_copies_of() -> None:
    m = member(A, partitions("a", *range(6)), {("a", number): 100 for number in range(6)})
    n = member(A, (), {("a", 0): 99, ("a", 1): 98, ("a", 2): 10})
    o = member(A, (), {("a", 0): 98, ("a", 3): 97, ("a", 4): 20})
    assigned = assign({"m": m, "n": n, "o": o}, {"a": 6})
    assert (assigned["n"], assigned["o"]) == (partitions("a", 0, 1), partitions("a", 3, 4))


def test_of_equally_heavy_members_the_one_gives_that_has_least_to_lose() -> None:
    members = {
        "m": member(A, partitions("a", 0, 1, 2, 3), {("a", number): 100 for number in range(4)}),
        "n": member(A, partitions("a", 4, 5, 6, 7), {("a", number): 100 for number in range(4, 7)}),
        "o": member(A, partitions("a", 8, 9), {("a", number): 100 for number in range(8, 10)}),
    }
    assigned = assign(members, {"a": 10})
    assert assigned["o"] == partitions("a", 7, 8, 9)


def test_two_that_have_what_the_other_has_better_stores_of_change() -> None:
    """n alone had to give; what came to it from m and o is then dealt out by their copies."""
    members = {
        "m": member(A, (), {("a", 0): 100, ("a", 1): 100, ("a", 2): 100}),
        "n": member(A, (), {("a", 0): 100, ("a", 2): 90}),
        "o": member(A, (), {("a", 1): 100, ("a", 0): 10}),
    }
    assigned = assign(members, {"a": 3})
    assert assigned == {"m": partitions("a", 2), "n": partitions("a", 0), "o": partitions("a", 1)}


def test_a_member_of_an_older_version_keeps_what_it_holds_though_another_has_stores_of_it() -> None:
    for old, new in (("m", "n"), ("n", "m")):
        members = {
            old: of_an_older_version(A, partitions("a", 0, 1)),
            new: member(A, partitions("a", 2, 3), {("a", 0): 70, ("a", 1): 70, ("a", 2): 10, ("a", 3): 10}),
        }
        assigned = assign(members, {"a": 4})
        assert assigned == {old: partitions("a", 0, 1), new: partitions("a", 2, 3)}


def test_of_topics_that_are_together_for_some_members_the_stores_of_all_count() -> None:
    """A rolling change: m and n keep a and b apart still, and o has them together."""
    m = member([["a"], ["b"]], partitions("a", 0), {("a", 0): 60, ("b", 1): 10})
    n = member([["a"], ["b"]], partitions("b", 0), {("a", 0): 30, ("b", 0): 50})
    o = member([["a", "b"]], (), {("a", 0): 70, ("a", 1): 20})
    members = {"m": m, "n": n, "o": o}
    assigned = assign(members, {"a": 2, "b": 2})
    assert assigned["n"] == [TopicPartition("a", 0), TopicPartition("b", 0)]
    assert assigned["o"] == [TopicPartition("a", 1), TopicPartition("b", 1)]


def test_stores_of_a_member_that_is_not_subscribed_to_all_topics_of_a_task_do_not_count() -> None:
    members = {"m": member([["a"]], (), {("a", 0): 100}), "n": member([["a", "b"]]), "o": member([["a", "b"]])}
    assert assign(members, {"a": 1, "b": 1}) == {
        "m": [],
        "n": [TopicPartition("a", 0), TopicPartition("b", 0)],
        "o": [],
    }


@pytest.mark.parametrize(
    "stores",
    [
        "null", "7", '"x"', "{}", '{"a":1}', "[]", "[7]", "[[7]]", "[[[0]]]", "[[[0,1,2]]]", '[[["0",9]]]',
        "[[[0,null]]]", "[[[0,1e400]]]", "[[[0,NaN]]]", "[[[0,-9]]]", "[[[true,9]]]", "[[[0,9.5]]]", "[[[[],9]]]",
        "[[[-1,9]]]", "[[],[[0,9]]]",
    ],
)  # fmt: skip
def test_stores_that_make_no_sense_are_as_if_there_were_none(stores: str) -> None:
    odd = Member(frozenset("a"), b'{"groups":[["a"]],"held":[["a",1],["a",2]],"stores":' + stores.encode() + b"}")
    m = member(A, partitions("a", 0, 3), {("a", 0): 1, ("a", 1): 5, ("a", 2): 5, ("a", 3): 1})
    assert assign({"m": m, "odd": odd}, {"a": 4}) == {"m": partitions("a", 1, 2), "odd": partitions("a", 0, 3)}


# Histories: members join and leave, and each time the group is dealt out anew.

GROUPINGS: list[Grouping] = [
    [["a"], ["b"], ["c"], ["d"]],
    [["a", "b"], ["c"], ["d"]],
    [["a", "b"], ["c", "d"]],
    [["a", "c"], ["b", "d"]],
    [["a"], ["c"]],
    [["b"]],
    [["c", "d"]],
]
EQUAL: list[Grouping] = GROUPINGS[:3]
"""Those of workers that are subscribed to the same topics."""

NAMES = [f"worker-{number}" for number in range(7)]


def histories(groupings: Sequence[Grouping]) -> st.SearchStrategy[list[dict[str, Grouping]]]:
    """Who is in the group, rebalance after rebalance."""
    return st.lists(
        st.dictionaries(st.sampled_from(NAMES), st.sampled_from(groupings), max_size=len(NAMES)), min_size=1, max_size=6
    )


def components(groupings: Iterable[Grouping]) -> set[frozenset[str]]:
    merged: set[frozenset[str]] = set()
    for group in (frozenset(group) for grouping in groupings for group in grouping):
        touching = {component for component in merged if component & group}
        merged = (merged - touching) | {group.union(*touching)}
    return merged


def tasks_of(groupings: Mapping[str, Grouping]) -> dict[tuple[frozenset[str], int], set[str]]:
    """Every task, and the members that can take it."""
    topics = {name: {topic for group in grouping for topic in group} for name, grouping in groupings.items()}
    return {
        (component, number): {name for name in groupings if topics[name] >= component}
        for component in components(groupings.values())
        for number in range(max(COUNTS[topic] for topic in component))
    }


def owners(assigned: Assigned, tasks: Iterable[tuple[frozenset[str], int]]) -> dict[tuple[frozenset[str], int], str]:
    """Who was given each task, which must be whole."""
    found = {}
    for component, number in tasks:
        whole = {TopicPartition(topic, number) for topic in component if number < COUNTS[topic]}
        having = [name for name, share in assigned.items() if not whole.isdisjoint(share)]
        if having:
            [found[component, number]] = having
            assert whole <= set(assigned[having[0]])
    return found


@settings(max_examples=400, deadline=None)
@given(histories(GROUPINGS))
def test_every_task_that_somebody_can_take_is_given_whole_to_one_who_can(history: list[dict[str, Grouping]]) -> None:
    held: Assigned = {}
    for groupings in history:
        held = assign(again(groupings, held), COUNTS)
        assert set(held) == set(groupings)
        share = [partition for each in held.values() for partition in each]
        assert len(share) == len(set(share))
        tasks = tasks_of(groupings)
        found = owners(held, tasks)
        assert set(found) == {task for task, able in tasks.items() if able}
        assert all(owner in tasks[task] for task, owner in found.items())
        assert len(share) == sum(number < COUNTS[topic] for component, number in found for topic in component)


@settings(max_examples=400, deadline=None)
@given(histories(EQUAL))
def test_between_equals_loads_differ_by_one_and_no_task_moves_without_need(history: list[dict[str, Grouping]]) -> None:
    held: Assigned = {}
    for groupings in history:
        before, held = held, assign(again(groupings, held), COUNTS)
        tasks = tasks_of(groupings)
        found = owners(held, tasks)
        count = Counter(found.values())
        if groupings:
            assert max(count[name] for name in groupings) - min(count[name] for name in groupings) <= 1
        had = {
            (component, number): {
                name
                for name in groupings
                for topic in component
                if TopicPartition(topic, number) in before.get(name, ())
            }
            for component, number in tasks
        }
        if all(len(names) <= 1 for names in had.values()):  # no group was merged from what two members held
            stayed = sum(found[task] in names for task, names in had.items())
            holding = Counter(name for names in had.values() for name in names)
            assert stayed == most_that_can_stay(holding, groupings, tasks)


def most_that_can_stay(holding: Counter[str], members: Collection[str], tasks: Collection[object]) -> int:
    """Of the tasks that members hold, when all are to have equal loads: the floor each, and one more for some."""
    if not members:
        return 0
    floor, one_more = divmod(len(tasks), len(members))
    above = sum(holding[name] > floor for name in members)
    return sum(min(holding[name], floor) for name in members) + min(one_more, above)


class Cluster:
    """Workers with disks that come, go and come back, and records that come in between.

    Their tables are such that every topic group has one, and all workers of a history group topics alike.
    """

    def __init__(self, grouping: Grouping, random: Random) -> None:
        self.grouping = grouping
        self.random = random
        self.tasks = {
            (group[0], number): [TopicPartition(topic, number) for topic in group if number < COUNTS[topic]]
            for group in grouping
            for number in range(max(COUNTS[topic] for topic in group))
        }
        self.ends = dict.fromkeys(self.tasks, 0)
        """Of the changelogs."""
        self.disks: dict[str, dict[tuple[str, int], int]] = {name: {} for name in NAMES}
        self.held: Assigned = {}
        self.owners: dict[tuple[str, int], str] = {}

    def members(self, names: Iterable[str]) -> dict[str, Member]:
        return again(dict.fromkeys(names, self.grouping), self.held, self.disks)

    def rebalance(self, names: Sequence[str]) -> None:
        """Each restores what it is given."""
        self.held = assign(self.members(names), COUNTS)
        self.owners = {
            task: name for task, whole in self.tasks.items() for name, share in self.held.items() if whole[0] in share
        }
        assert sorted(each for share in self.held.values() for each in share) == (
            sorted(each for whole in self.tasks.values() for each in whole) if names else []
        )
        for task, name in self.owners.items():
            assert set(self.tasks[task]) <= set(self.held[name])

    def go_on(self) -> None:
        """Owners restore their tasks and handle more."""
        for task, name in self.owners.items():
            self.ends[task] += self.random.randint(1, 50)
            self.disks[name][task] = self.ends[task]

    def next_members(self) -> list[str]:
        """Who is there next; those that were killed hold nothing, and some have lost their disks."""
        names = [name for name in NAMES if self.random.random() < 0.6]
        self.held = {name: share for name, share in self.held.items() if name in names and self.random.random() < 0.7}
        for name in NAMES:
            if self.random.random() < 0.1:
                self.disks[name] = {}
                self.held = {each: share for each, share in self.held.items() if each != name}
        return names

    def freshest(self, names: Iterable[str]) -> dict[tuple[str, int], set[str]]:
        """Who has the most recent stores of each task that somebody has stores of."""
        found = {}
        for task in self.tasks:
            offsets = {name: self.disks[name][task] for name in names if task in self.disks[name]}
            if offsets:
                found[task] = {name for name, offset in offsets.items() if offset == max(offsets.values())}
        return found

    def to_restore(self, names: Iterable[str], owners: Mapping[tuple[str, int], str]) -> int:
        """How much further the members' stores had come together than those of the owners."""
        return sum(
            max(self.disks[name].get(task, 0) for name in names) - self.disks[owner].get(task, 0)
            for task, owner in owners.items()
        )


HISTORIES = [(grouping, seed) for grouping in EQUAL for seed in range(8)]


@pytest.mark.parametrize(("grouping", "seed"), HISTORIES)
def test_the_most_recent_copy_wins_as_often_as_even_loads_allow(grouping: Grouping, seed: int) -> None:
    cluster = Cluster(grouping, Random(seed))
    for _ in range(100):
        names = cluster.next_members()
        freshest = cluster.freshest(names)
        cluster.rebalance(names)
        count = Counter(cluster.owners.values())
        assert not names or max(count[name] for name in names) - min(count[name] for name in names) <= 1
        assert all(len(having) == 1 for having in freshest.values())
        having = Counter(name for [name] in freshest.values())
        stayed = sum(cluster.owners[task] in names for task, names in freshest.items())
        assert stayed == most_that_can_stay(having, names, cluster.tasks)
        cluster.go_on()


@pytest.mark.parametrize(("grouping", "seed"), HISTORIES)
def test_no_two_members_could_change_tasks_and_restore_less(grouping: Grouping, seed: int) -> None:
    """Nor could one give a task away that way to one that has fewer: but for tasks whose newest stores it has."""
    cluster = Cluster(grouping, Random(seed))
    for _ in range(20):
        names = cluster.next_members()
        freshest = cluster.freshest(names)
        cluster.rebalance(names)
        load = Counter(cluster.owners.values())
        least = cluster.to_restore(names, cluster.owners)
        for task, owner in cluster.owners.items():
            movable = owner not in freshest.get(task, ())
            for other, taker in cluster.owners.items():
                if movable and taker not in freshest.get(other, ()):
                    changed = {**cluster.owners, task: taker, other: owner}
                    assert cluster.to_restore(names, changed) >= least
            for taker in names if movable else ():
                if load[taker] < load[owner]:
                    assert cluster.to_restore(names, {**cluster.owners, task: taker}) >= least
        cluster.go_on()


@pytest.mark.parametrize(("grouping", "seed"), HISTORIES)
def test_who_comes_without_stores_gets_what_is_least_to_restore(grouping: Grouping, seed: int) -> None:
    cluster = Cluster(grouping, Random(seed))
    cluster.rebalance(NAMES[:1])
    cluster.go_on()
    for number in range(2, len(NAMES) + 1):
        before = dict(cluster.owners)
        cluster.rebalance(NAMES[:number])
        moved = [task for task, owner in cluster.owners.items() if owner != before[task]]
        assert {cluster.owners[task] for task in moved} == ({NAMES[number - 1]} if moved else set())
        for task in moved:
            stayed = [each for each, owner in cluster.owners.items() if owner == before[task]]
            assert all(cluster.ends[task] <= cluster.ends[each] for each in stayed)
        cluster.disks[NAMES[number - 1]] = {}
        cluster.go_on()


@pytest.mark.parametrize(("grouping", "seed"), HISTORIES)
def test_when_stores_are_restored_nothing_moves_any_more(grouping: Grouping, seed: int) -> None:
    cluster = Cluster(grouping, Random(seed))
    for _ in range(30):
        names = cluster.next_members()
        cluster.rebalance(names)
        for task, owner in cluster.owners.items():
            cluster.disks[owner][task] = max(cluster.ends[task], 1)
        owners = cluster.owners
        cluster.rebalance(names)
        assert cluster.owners == owners
        cluster.go_on()
        cluster.rebalance(names)
        assert cluster.owners == owners


@settings(max_examples=300, deadline=None)
@given(histories(GROUPINGS), st.randoms(use_true_random=False))
def test_whatever_stores_members_claim_every_task_is_given_whole_to_one_who_can_take_it(
    history: list[dict[str, Grouping]], random: Random
) -> None:
    held: Assigned = {}
    for groupings in history:
        members = {}
        for name, groups in groupings.items():
            if random.random() < 0.2:
                members[name] = of_an_older_version(groups, held.get(name, ()))
                continue
            stores = {
                (group[0], number): random.choice([0, 1, 7, 7, 500])
                for group in groups
                for number in range(-1, 14)
                if random.random() < 0.4
            }
            members[name] = member(groups, held.get(name, ()), stores)
        held = assign(members, COUNTS)
        tasks = tasks_of(groupings)
        found = owners(held, tasks)
        assert set(found) == {task for task, able in tasks.items() if able}
        assert all(owner in tasks[task] for task, owner in found.items())
        assert sum(map(len, held.values())) == sum(
            number < COUNTS[topic] for component, number in found for topic in component
        )
        if groupings and all({t for g in each for t in g} == set("abcd") for each in groupings.values()):
            count = Counter(found.values())
            assert max(count[name] for name in groupings) - min(count[name] for name in groupings) <= 1


SUBSCRIPTIONS = st.frozensets(st.sampled_from("abcd"), min_size=1)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from("mnopq"), SUBSCRIPTIONS.map(lambda topics: [[topic] for topic in sorted(topics)])),
    st.fixed_dictionaries({topic: st.integers(0, 4) for topic in "abcd"}),
    st.data(),
)
def test_between_unequals_loads_are_as_even_as_they_can_be(
    groupings: dict[str, Grouping], counts: dict[str, int], data: st.DataObject
) -> None:
    everything = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    claims = {
        name: data.draw(st.lists(st.sampled_from(everything), unique=True)) if everything else [] for name in groupings
    }
    assigned = assign(again(groupings, claims), counts)
    order = sorted(groupings)
    possible = {tuple(0 for _ in order)}
    for partition in everything:
        able = [index for index, name in enumerate(order) if [partition.topic] in groupings[name]]
        if able:
            possible = {
                tuple(load + (index == taker) for index, load in enumerate(each)) for each in possible for taker in able
            }
    best = min(possible, key=lambda each: sum(load * load for load in each))
    assert loads(assigned) == sorted(best)


@settings(max_examples=150, deadline=None)
@given(histories(GROUPINGS))
def test_when_nothing_has_changed_nothing_moves(history: list[dict[str, Grouping]]) -> None:
    held: Assigned = {}
    for groupings in history:
        held = assign(again(groupings, held), COUNTS)
        same = assign(again(groupings, held), COUNTS)
        assert {name: set(share) for name, share in same.items()} == {name: set(share) for name, share in held.items()}


@settings(max_examples=100, deadline=None)
@given(histories(GROUPINGS), st.randoms(use_true_random=False))
def test_the_order_in_which_members_and_topics_are_named_makes_no_difference(
    history: list[dict[str, Grouping]], random: Random
) -> None:
    def shuffled(mapping: Mapping[str, T]) -> dict[str, T]:
        pairs = list(mapping.items())
        random.shuffle(pairs)
        return dict(pairs)

    held: Assigned = {}
    for groupings in history:
        disks = {
            name: {(group[0], number): random.choice([5, 5, 9]) for group in groups for number in range(12)}
            for name, groups in groupings.items()
            if random.random() < 0.5
        }
        members = again(groupings, held, disks)
        held = assign(members, COUNTS)
        assert assign(shuffled(members), shuffled(COUNTS)) == held


REPEATED = """
from random import Random
from tests.unit.test_assignment import COUNTS, EQUAL, GROUPINGS, NAMES, Cluster, again, assign
held = {}
for groupings in (dict(zip(NAMES, GROUPINGS)), dict(zip(NAMES, reversed(GROUPINGS)))):
    disks = {name: {(group[0], 0): 5 for group in groups} for name, groups in groupings.items()}
    held = assign(again(groupings, held, disks), COUNTS)
    print(sorted(held.items()))
alike = {name: {(topic, number): 5 for topic, count in COUNTS.items() for number in range(count)} for name in NAMES}
print(sorted(assign(again(dict.fromkeys(NAMES, EQUAL[0]), {}, alike), COUNTS).items()))
cluster = Cluster(EQUAL[0], Random(1))
for _ in range(20):
    cluster.rebalance(cluster.next_members())
    cluster.go_on()
    print(sorted(cluster.owners.items()))
"""


def test_it_is_the_same_in_every_process() -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", REPEATED],
            cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in (1, 2)
    }
    assert len(answers) == 1


@pytest.mark.parametrize("topics", [1, 20, 1_000])
def test_a_thousand_tasks_among_fifty_members_are_dealt_out_in_a_moment(topics: int) -> None:
    counts = {f"topic-{number}": 1_000 // topics for number in range(topics)}
    groups = [[topic] for topic in counts]
    everything = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    members = again({f"worker-{number:02}": groups for number in range(50)}, {"worker-00": everything})
    started = process_time()
    assigned = assign(members, counts)
    assert process_time() - started < 2.0  # it takes a quarter of that, at most
    assert loads(assigned) == [20] * 50


@pytest.mark.parametrize("topics", [1, 20])
def test_a_thousand_tasks_among_a_hundred_members_with_copies_are_dealt_out_in_a_moment(topics: int) -> None:
    counts = {f"topic-{number}": 1_000 // topics for number in range(topics)}
    everything = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    random = Random(1)
    names = [f"worker-{number:03}" for number in range(100)]
    disks = {
        name: {(topic, number): random.randrange(10**6) for topic, number in random.sample(everything, 50)}
        for name in names
    }
    disks[names[0]] = dict.fromkeys(everything, 10**6)
    members = again({name: [[topic] for topic in counts] for name in names}, {names[0]: everything}, disks)
    started = process_time()
    assigned = assign(members, counts)
    assert process_time() - started < 2.0  # it takes a quarter of that, at most
    assert loads(assigned) == [10] * 100
