"""Topics in which messages wait to be handled again, by one group alone."""

from paperboy.durations import written


def retry_topic(group_id: str, source: str, delay_sec: float = 0.0) -> str:
    """Where messages of topic `source` wait for `delay_sec`; for 0, where dead letters are replayed to.

    >>> retry_topic("billing", "orders", 60)
    'billing-orders-retry-1m'
    """
    name = f"{group_id}-{source}-retry"
    return f"{name}-{written(delay_sec)}" if delay_sec else name
