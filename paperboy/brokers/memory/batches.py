"""Batches of records, and how many bytes they are, in Kafka's format v2 without compression."""

from collections.abc import Iterator, Sequence

from paperboy.brokers.protocol import Headers, Outgoing

BATCH_BYTES = 256 * 1024
BATCH_OVERHEAD = 61
RECORD_OVERHEAD = 12
"""What a record costs beside its key, value and headers, about."""
MOST_OVERHEAD = 36
"""And at most."""

Batch = tuple[list[Outgoing], list[int]]
"""Records, and the bytes of each, about."""


def batches(records: Sequence[Outgoing]) -> Iterator[Batch]:
    """Split into batches of at most `BATCH_BYTES`, or one record."""
    batch: list[Outgoing] = []
    sizes: list[int] = []
    total = 0
    for record in records:
        key, value, headers, _ = record
        size = RECORD_OVERHEAD + (len(key) if key else 0) + (len(value) if value else 0)
        if headers:
            size += _headers_size(headers)
        if batch and total + size > BATCH_BYTES:
            yield batch, sizes
            batch, sizes, total = [], [], 0
        batch.append(record)
        sizes.append(size)
        total += size
    if batch:
        yield batch, sizes


def exceeds(batch: Batch, limit: int) -> bool:
    """Whether a batch is more than `limit` bytes as Kafka counts them."""
    records, sizes = batch
    if BATCH_OVERHEAD + sum(sizes) + (MOST_OVERHEAD - RECORD_OVERHEAD) * len(records) <= limit:
        return False
    first = records[0][3]
    exact = sum(_exact_size(record, index, record[3] - first) for index, record in enumerate(records))
    return BATCH_OVERHEAD + exact > limit


def _exact_size(record: Outgoing, offset_delta: int, timestamp_delta: int) -> int:
    key, value, headers, _ = record
    body = 1 + _varint(timestamp_delta) + _varint(offset_delta) + _field(key) + _field(value)
    body += _varint(len(headers)) + _headers_size(headers)
    return _varint(body) + body


def _headers_size(headers: Headers) -> int:
    return sum(_field(name.encode()) + _field(value) for name, value in headers)


def _field(data: bytes | None) -> int:
    return 1 if data is None else _varint(len(data)) + len(data)


def _varint(number: int) -> int:
    zigzag = number * 2 if number >= 0 else -number * 2 - 1
    return max(1, (zigzag.bit_length() + 6) // 7)
