"""Step mode: which records may be handled now, and when a step is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.protocol import TopicPartition
from paperboy.engine.steps import HELD_BACK, Steps, reached

A0, A1, B0, C0, X0 = (TopicPartition(*each) for each in [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("x", 0)])
STEPS = [frozenset({"a"}), frozenset({"b", "c"})]


def limits(steps: Steps) -> dict[TopicPartition, int | None]:
    return {partition: steps.limit(partition) for partition in (A0, A1, B0, C0, X0)}


def test_without_steps_nothing_is_held_back() -> None:
    steps = Steps([])
    assert steps.current is None
    assert steps.topics == frozenset()
    assert set(limits(steps).values()) == {None}


def test_before_its_ends_are_known_a_step_holds_back_everything() -> None:
    steps = Steps(STEPS)
    assert (steps.current, steps.topics) == (0, frozenset({"a"}))
    assert set(limits(steps).values()) == {HELD_BACK}


def test_in_a_step_its_topics_run_to_their_ends_and_the_others_wait() -> None:
    steps = Steps(STEPS)
    steps.begin({A0: 7, A1: 0})
    assert limits(steps) == {A0: 7, A1: 0, B0: HELD_BACK, C0: HELD_BACK, X0: HELD_BACK}


def test_topics_of_earlier_steps_go_on_while_a_later_one_is_under_way() -> None:
    steps = Steps(STEPS)
    steps.begin({A0: 7, A1: 0})
    steps.pass_on()
    assert (steps.current, steps.topics) == (1, frozenset({"b", "c"}))
    assert limits(steps) == {A0: None, A1: None, B0: HELD_BACK, C0: HELD_BACK, X0: HELD_BACK}
    steps.begin({B0: 3, C0: 4})
    assert limits(steps) == {A0: None, A1: None, B0: 3, C0: 4, X0: HELD_BACK}


def test_ends_of_one_step_are_none_of_the_next() -> None:
    steps = Steps([frozenset({"a"}), frozenset({"b"})])
    steps.begin({A0: 7, B0: 9})
    steps.pass_on()
    assert steps.limit(B0) == HELD_BACK


def test_a_partition_that_appeared_after_the_step_began_is_held_back_until_it_ends() -> None:
    steps = Steps([frozenset({"a"})])
    steps.begin({A0: 7})
    assert steps.limit(A1) == HELD_BACK
    steps.pass_on()
    assert steps.limit(A1) is None


def test_after_the_last_step_nothing_is_held_back() -> None:
    steps = Steps(STEPS)
    for _ in STEPS:
        steps.begin({})
        steps.pass_on()
    assert steps.current is None
    assert steps.topics == frozenset()
    assert set(limits(steps).values()) == {None}


@given(st.lists(st.frozensets(st.sampled_from("abcdef")), max_size=5))
def test_a_topic_once_let_through_is_never_held_back_again(topics_of_steps: list[frozenset[str]]) -> None:
    steps = Steps(topics_of_steps)
    free: set[str] = set()
    while steps.current is not None:
        assert all(steps.limit(TopicPartition(topic, 0)) is None for topic in free)
        free |= steps.topics
        steps.pass_on()


@pytest.mark.parametrize(
    ("committed", "begins", "ends", "expected"),
    [
        ({}, {}, {}, True),
        ({A0: 5}, {A0: 0}, {A0: 5}, True),
        ({A0: 6}, {A0: 0}, {A0: 5}, True),
        ({A0: 4}, {A0: 0}, {A0: 5}, False),
        ({A0: None}, {A0: 0}, {A0: 0}, True),
        ({A0: None}, {A0: 0}, {A0: 1}, False),
        ({A0: None}, {A0: 5}, {A0: 5}, True),
        ({}, {A0: 5}, {A0: 5}, True),
        ({}, {A0: 5}, {A0: 6}, False),
        ({A0: 0}, {A0: 0}, {A0: 0}, True),
        ({A0: 5, A1: 2}, {A0: 0, A1: 0}, {A0: 5, A1: 3}, False),
        ({A0: 5, A1: 3}, {A0: 0, A1: 0}, {A0: 5, A1: 3}, True),
        ({A0: 5, A1: None}, {A0: 0, A1: 3}, {A0: 5, A1: 3}, True),
    ],
)
def test_ends_are_reached_by_commits_and_without_one_by_a_log_that_holds_nothing(
    committed: dict[TopicPartition, int | None],
    begins: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
    expected: bool,
) -> None:
    assert reached(committed, begins, ends) is expected
