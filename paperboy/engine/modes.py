"""Modes: how the next chunk of records is handed to a handler. A policy from lag, and nothing more."""

from enum import StrEnum


class Mode(StrEnum):
    SINGLE = "single"
    """One message at a time: little lag."""
    BULK = "bulk"
    """Lists of messages: much lag."""
    STEP = "step"
    """Lists of messages, of the topics whose turn it is."""


def next_mode(current: Mode, lag: int | None, *, threshold: int, low_mark: int) -> Mode:
    """Single or bulk, for a task that is in no step.

    Bulk when the lag goes over `threshold`, single again when it falls under `low_mark`; between the two marks, and
    while the lag is not known (None), it stays as it is.

        >>> next_mode(Mode.SINGLE, 10_001, threshold=10_000, low_mark=5_000)
        <Mode.BULK: 'bulk'>
    """
    if lag is None:
        return Mode.BULK if current is Mode.BULK else Mode.SINGLE
    if lag > threshold:
        return Mode.BULK
    if current is Mode.SINGLE or lag < low_mark:
        return Mode.SINGLE
    return Mode.BULK
