"""When a worker is started again: the decisions."""

import pytest

from paperboy.cli.worker_restarts import Limits, Restarts, delay_sec, has_settled


def test_each_wait_is_twice_the_last_and_none_is_longer_than_half_a_minute() -> None:
    assert [delay_sec(failures) for failures in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert delay_sec(1000) == 30


def test_failures_in_a_row_are_given_up_at_the_set_number() -> None:
    assert [Restarts(attempts=3).gives_up(failures) for failures in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("ready_sec", "settled"), [(None, False), (0.0, False), (59.9, False), (60.0, True), (3600.0, True)]
)
def test_one_that_had_been_ready_for_a_minute_begins_a_new_row(ready_sec: float | None, settled: bool) -> None:
    assert has_settled(ready_sec) is settled


def test_workers_that_started_together_do_not_grow_old_together() -> None:
    restarts = Restarts(max_age_sec=1000.0, max_memory_mb=1000.0)
    drawn = [restarts.limits() for _ in range(200)]
    ages = [limits.age_sec for limits in drawn if limits.age_sec is not None]
    sizes = [limits.memory_mb for limits in drawn if limits.memory_mb is not None]
    assert 800 < min(ages) < 850 < 950 < max(ages) <= 1000
    assert 900 < min(sizes) < 925 < 975 < max(sizes) <= 1000


def test_what_is_not_set_is_no_limit() -> None:
    assert Restarts().limits() == (None, None)
    assert Limits(None, None).passed(1e9, 1e9) is None


@pytest.mark.parametrize(
    ("age_sec", "memory_mb", "passed"),
    [(9.9, 99.0, None), (10.0, 99.0, "age"), (9.9, 100.0, "memory"), (10.0, 100.0, "age"), (9.9, None, None)],
)
def test_the_limit_that_is_passed_is_named(age_sec: float, memory_mb: float | None, passed: str | None) -> None:
    assert Limits(10.0, 100.0).passed(age_sec, memory_mb) == passed
