"""Topics in which messages wait to be handled again, by one group alone."""

from typing import Final

from paperboy.durations import written

KEPT_SEC: Final = 7 * 24 * 3600
"""How long messages that wait are kept, beyond their delay: a group that was away for so long loses none."""


def retry_topic(group_id: str, source: str, delay_sec: float = 0.0) -> str:
    """Where messages of topic `source` wait for `delay_sec`; for 0, where dead letters are replayed to.

    >>> retry_topic("billing", "orders", 60)
    'billing-orders-retry-1m'
    """
    name = f"{group_id}-{source}-retry"
    return f"{name}-{written(delay_sec)}" if delay_sec else name
