"""Who gets which tasks: everything, to one member each, evenly, and with as little moving as that takes."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from time import process_time
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperboy.brokers.protocol import Member, TopicPartition
from paperboy.engine.assignment import TaskAssignor, assign
from paperboy.engine.topology import TopicGroup

T = TypeVar("T")
Assigned = Mapping[str, Collection[TopicPartition]]
Grouping = Sequence[Sequence[str]]

COUNTS = {"a": 12, "b": 12, "c": 1, "d": 1}
"""Topics, and their partitions."""


def member(groups: Grouping, held: Iterable[TopicPartition] = (), *, topics: Iterable[str] | None = None) -> Member:
    """A member with these topic groups, subscribed to all their topics (or to `topics`)."""
    assignor = TaskAssignor([TopicGroup(group[0], tuple(group), ()) for group in groups])
    assignor.held = list(held)
    subscribed = {topic for group in groups for topic in group} if topics is None else topics
    return Member(frozenset(subscribed), assignor.user_data())


def again(groupings: Mapping[str, Grouping], held: Assigned) -> dict[str, Member]:
    """The members of the next rebalance: they say what they were given in the last one."""
    return {member_id: member(groups, held.get(member_id, ())) for member_id, groups in groupings.items()}


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


def test_a_member_tells_its_groups_and_what_it_holds() -> None:
    assignor = TaskAssignor([TopicGroup("a", ("a", "b"), ()), TopicGroup("c", ("c",), ())])
    assert json.loads(assignor.user_data()) == {"groups": [["a", "b"], ["c"]], "held": []}
    assignor.held = [TopicPartition("b", 1), TopicPartition("a", 1)]
    assert json.loads(assignor.user_data())["held"] == [["a", 1], ["b", 1]]
    assert assignor.assign({"m": member([["a"]])}, {"a": 1}) == {"m": partitions("a", 0)}


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


@settings(max_examples=400)
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


@settings(max_examples=400)
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


SUBSCRIPTIONS = st.frozensets(st.sampled_from("abcd"), min_size=1)


@settings(max_examples=150)
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


@settings(max_examples=150)
@given(histories(GROUPINGS))
def test_when_nothing_has_changed_nothing_moves(history: list[dict[str, Grouping]]) -> None:
    held: Assigned = {}
    for groupings in history:
        held = assign(again(groupings, held), COUNTS)
        same = assign(again(groupings, held), COUNTS)
        assert {name: set(share) for name, share in same.items()} == {name: set(share) for name, share in held.items()}


@settings(max_examples=100)
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
        members = again(groupings, held)
        held = assign(members, COUNTS)
        assert assign(shuffled(members), shuffled(COUNTS)) == held


REPEATED = """
from tests.unit.test_assignment import COUNTS, GROUPINGS, NAMES, again, assign
held = {}
for groupings in (dict(zip(NAMES, GROUPINGS)), dict(zip(NAMES, reversed(GROUPINGS)))):
    held = assign(again(groupings, held), COUNTS)
    print(sorted(held.items()))
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
    assert process_time() - started < 2.0  # it takes a tenth of that
    assert loads(assigned) == [20] * 50
