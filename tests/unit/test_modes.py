"""When a task works singly and when in bulk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.engine.modes import Mode, next_mode

THRESHOLD, LOW_MARK = 10_000, 5_000


@pytest.mark.parametrize(
    ("current", "lag", "expected"),
    [
        (Mode.SINGLE, 0, Mode.SINGLE),
        (Mode.SINGLE, 4_999, Mode.SINGLE),
        (Mode.SINGLE, 5_000, Mode.SINGLE),
        (Mode.SINGLE, 10_000, Mode.SINGLE),
        (Mode.SINGLE, 10_001, Mode.BULK),
        (Mode.SINGLE, None, Mode.SINGLE),
        (Mode.BULK, 10_001, Mode.BULK),
        (Mode.BULK, 10_000, Mode.BULK),
        (Mode.BULK, 5_000, Mode.BULK),
        (Mode.BULK, 4_999, Mode.SINGLE),
        (Mode.BULK, 0, Mode.SINGLE),
        (Mode.BULK, None, Mode.BULK),
        (Mode.STEP, 10_001, Mode.BULK),
        (Mode.STEP, 4_999, Mode.SINGLE),
        (Mode.STEP, None, Mode.SINGLE),
    ],
)
def test_bulk_begins_over_the_threshold_and_ends_under_the_low_mark(
    current: Mode, lag: int | None, expected: Mode
) -> None:
    assert next_mode(current, lag, threshold=THRESHOLD, low_mark=LOW_MARK) is expected


@given(st.sampled_from([Mode.SINGLE, Mode.BULK]), st.integers(1, 50), st.lists(st.none() | st.integers(0, 120)))
def test_it_switches_only_at_the_marks(mode: Mode, threshold: int, lags: list[int | None]) -> None:
    low_mark = threshold // 2
    for lag in lags:
        before, mode = mode, next_mode(mode, lag, threshold=threshold, low_mark=low_mark)
        if mode is not before:
            assert lag is not None
            assert lag > threshold if mode is Mode.BULK else lag < low_mark
        elif lag is not None and lag > threshold:
            assert mode is Mode.BULK


@given(st.integers(1, 20_000), st.integers(0, 40_000))
def test_it_never_switches_twice_at_one_lag(threshold: int, lag: int) -> None:
    for current in Mode:
        first = next_mode(current, lag, threshold=threshold, low_mark=threshold // 2)
        assert next_mode(first, lag, threshold=threshold, low_mark=threshold // 2) is first
