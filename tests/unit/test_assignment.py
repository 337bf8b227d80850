"""Who gets which tasks: everything, to one member each, evenly, and with as little moving as that takes."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.protocol import Member, TopicPartition
from paperboy.engine.assignment import TaskAssignor, assign
from paperboy.engine.topology import TaskId, TopicGroup
from tests.unit.assignment_kit import (
    Grouping,
    again,
    loads,
    member,
    of_an_older_version,
    partitions,
)


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
