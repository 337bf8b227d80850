"""What a value is made of, down to types and bits: two values are the same when their anatomies are equal."""

import struct
from datetime import datetime, time, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo


def anatomy(value: object) -> object:
    """Something comparable by `==` that keeps what `==` on the value itself overlooks: types, NaN, folds and zones."""
    kind = type(value)
    if isinstance(value, float):
        return kind, struct.pack(">d", value)
    if isinstance(value, Decimal):
        return kind, value.as_tuple()
    if isinstance(value, list | tuple):
        return kind, [anatomy(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(anatomy(item)) for item in value)
    if isinstance(value, dict):
        return kind, [(anatomy(key), anatomy(item)) for key, item in value.items()]
    if isinstance(value, datetime | time):
        return kind, value.replace(tzinfo=None), value.fold, _zone(value.tzinfo)
    return kind, value


def _zone(zone: object) -> object:
    if isinstance(zone, ZoneInfo):
        return ZoneInfo, id(zone)
    if isinstance(zone, timezone):
        return timezone, zone.utcoffset(None), zone.tzname(None)
    assert zone is None
    return None
