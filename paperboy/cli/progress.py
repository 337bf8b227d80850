"""What a command shows on standard error while it works."""

import sys
from typing import Any


def progress_bar(total: int | None, unit: str, description: str) -> Any:
    """A bar of tqdm's where standard error is a terminal, and nothing elsewhere.

    Args:
        total: how much there is to do, in `unit`; None where nobody knows.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread of its own

    return Bar(
        total=total, desc=description, unit=f" {unit}", unit_scale=True, leave=False, file=sys.stderr, disable=None
    )
