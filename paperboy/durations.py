"""How long, as a person writes it."""

import math
import re
from datetime import timedelta

from paperboy.errors import ConfigurationError

Duration = str | float | timedelta
"""``"1h"``, ``"1h 30m"``, ``"10s"``, ``"250ms"``; a number of seconds; a timedelta."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*", re.ASCII)


def seconds(duration: Duration) -> float:
    """A duration in seconds.

        >>> seconds("1h 30m")
        5400.0

    Raises:
        ConfigurationError: it is none, or it is negative.
    """
    found: float = math.nan
    if isinstance(duration, timedelta):
        found = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        found = float(duration)
    elif isinstance(duration, str) and duration and not _PART.sub("", duration):
        found = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(duration))
    if not 0 <= found < math.inf:
        raise ConfigurationError(
            f"{duration!r} is no duration: write '1h', '10s', '250ms', '1h 30m' or '2d', a number of seconds, or a"
            " timedelta."
        )
    return found


def written(duration_sec: float) -> str:
    """Seconds as a person writes them, in the largest unit that makes a whole number of them.

    >>> written(5400)
    '90m'
    """
    milliseconds = round(duration_sec * 1000)
    for unit, size_sec in reversed(_SECONDS.items()):
        size = round(size_sec * 1000)
        if milliseconds % size == 0 and milliseconds >= size:
            return f"{milliseconds // size}{unit}"
    return "0s"
