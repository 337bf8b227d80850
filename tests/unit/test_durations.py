"""How long, as a person writes it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.durations import Duration, seconds, written
from paperboy.errors import ConfigurationError


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("1h", 3_600),
        ("10s", 10),
        ("250ms", 0.25),
        ("5m", 300),
        ("2d", 172_800),
        ("1.5h", 5_400),
        ("1h 30m", 5_400),
        ("1h30m", 5_400),
        (" 1 h ", 3_600),
        ("0s", 0),
        (0, 0),
        (2, 2),
        (0.5, 0.5),
        (timedelta(hours=1), 3_600),
    ],
)
def test_a_duration_is_so_many_seconds(duration: Duration, expected: float) -> None:
    assert seconds(duration) == expected


@pytest.mark.parametrize(
    "wrong",
    ["1 fortnight", "1 hour", "5min", "s", "", " ", "10", "1h!", "-1s", "1,5h", "١s", -1, float("inf"), True, None],
)
def test_what_is_none_is_refused_in_one_sentence(wrong: Duration) -> None:
    with pytest.raises(ConfigurationError, match="is no duration: write '1h', '10s', '250ms', '1h 30m' or '2d'"):
        seconds(wrong)


@pytest.mark.parametrize(
    ("duration_sec", "expected"),
    [
        (0, "0s"), (0.0001, "0s"), (0.001, "1ms"), (0.25, "250ms"), (1, "1s"), (1.5, "1500ms"), (60, "1m"), (90, "90s"),
        (3_600, "1h"), (5_400, "90m"), (86_400, "1d"), (90_000, "25h"), (172_800, "2d"), (0.1 + 0.2, "300ms"),
    ],
)  # fmt: skip
def test_seconds_are_written_in_the_largest_unit_that_makes_a_whole_number(duration_sec: float, expected: str) -> None:
    assert written(duration_sec) == expected


@given(st.integers(1, 10**12))
def test_what_is_written_is_read_as_the_same(milliseconds: int) -> None:
    assert round(seconds(written(milliseconds / 1000)) * 1000) == milliseconds
