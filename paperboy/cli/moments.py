"""Moments as a person writes and reads them."""

from datetime import UTC, datetime, timedelta

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


def moment(text: str) -> datetime:
    """A moment in ISO 8601, as in ``2026-11-21T08:30:00+01:00``; in UTC where it names no zone.

    Raises:
        ValueError: it is none.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def milliseconds(when: datetime) -> int:
    """Since 1970, rounded up: a record of this time or later is one of this number or more."""
    return -((_EPOCH - when) // _MILLISECOND)


def shown(time_ms: int) -> str:
    """Milliseconds since 1970 as a moment in UTC; as a number, where no calendar has it."""
    try:
        return (_EPOCH + time_ms * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{time_ms} ms"
