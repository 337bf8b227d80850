"""What decoding, and perhaps a hook, changes of a record."""

from typing import Any, cast

from paperboy.brokers.protocol import Headers, Record

Raw = tuple[bytes | None, bytes | None, Headers]
"""A record's key, value and headers, as they were fetched."""


def raw_of(record: Record) -> Raw:
    """To be kept; the headers may be a list."""
    return record.key, record.value, record.headers[:]


def restore_raw(record: Record, raw: Raw) -> None:
    """As it was fetched: to be handled again."""
    key, value, headers = raw
    record.key, record.value, record.headers = key, value, cast(Any, headers[:])
