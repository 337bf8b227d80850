"""Who gets which tasks, whatever a group has been through: all, to one member each, evenly, and with little moving."""

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
from paperboy.engine.assignment import assign
from tests.unit.assignment_kit import (
    COUNTS,
    Assigned,
    Grouping,
    again,
    loads,
    member,
    of_an_older_version,
)

T = TypeVar("T")

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
from paperboy.engine.assignment import assign
from tests.properties.test_assignment import EQUAL, GROUPINGS, NAMES, Cluster
from tests.unit.assignment_kit import COUNTS, again
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
