"""Chunks unpacked by us are those that aiokafka unpacks, and leave the position where it does."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers import protocol
from paperboy.brokers.kafka import unpack as unpack_module
from paperboy.brokers.kafka.unpack import Fetched, unpacked, unpacked_changes
from paperboy.brokers.protocol import Changes, TopicPartition

PARTITION = TopicPartition("views", 3)

Unpacking = Callable[[PartitionRecords], object]
UNPACKINGS = (unpacked, unpacked_changes)

_CONTROL = 0x20
_CRC_AT, _ATTRIBUTES_AT, _LAST_DELTA_AT = 17, 21, 23


@dataclass(frozen=True)
class Batch:
    """What a batch holds; `cut_off` records at its end were compacted away."""

    records: tuple[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]], ...]
    producer_id: int = 1
    is_transactional: bool = False
    marker: int | None = None
    """0 for an abort marker, 1 for a commit; None for records."""
    cut_off: int = 0
    compression: int = 0


def log_of(batches: list[Batch], first_offset: int) -> bytes:
    """The bytes of these batches, one behind the other."""
    data, offset = b"", first_offset
    for batch in batches:
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0 if batch.marker is not None else batch.compression,
            is_transactional=int(batch.is_transactional or batch.marker is not None),
            producer_id=batch.producer_id,
            producer_epoch=0,
            base_sequence=0,
            batch_size=1 << 20,
        )
        if batch.marker is not None:
            builder.append(0, 7, struct.pack(">hh", 0, batch.marker), struct.pack(">hi", 0, 0), [])
        for number, (key, value, headers) in enumerate(batch.records if batch.marker is None else ()):
            builder.append(number, 1_700_000_000_000 + number, key, value, list(headers))
        encoded = bytearray(builder.build())
        encoded[:8] = struct.pack(">q", offset)
        (last,) = struct.unpack_from(">i", encoded, _LAST_DELTA_AT)
        struct.pack_into(">i", encoded, _LAST_DELTA_AT, last + batch.cut_off)
        if batch.marker is not None:
            (attributes,) = struct.unpack_from(">h", encoded, _ATTRIBUTES_AT)
            struct.pack_into(">h", encoded, _ATTRIBUTES_AT, attributes | _CONTROL)
        struct.pack_into(">I", encoded, _CRC_AT, checksum(bytes(encoded[_ATTRIBUTES_AT:])))
        data += bytes(encoded)
        offset += last + 1 + batch.cut_off
    return data


def checksum(data: bytes) -> int:
    from aiokafka.record.util import calc_crc32c

    return int(calc_crc32c(data))


def fetched(data: bytes, offset: int, aborted: list[tuple[int, int]], isolation: int) -> PartitionRecords:
    return PartitionRecords(PARTITION, MemoryRecords(data), list(aborted), offset, None, None, True, isolation)


def come_to(chunk: list[Changes]) -> tuple[dict[bytes, bytes | None], int, list[int]]:
    last: dict[bytes, bytes | None] = {}
    for changes in chunk:
        last |= changes.last
    return last, sum(changes.records for changes in chunk), [offset for changes in chunk for offset in changes.keyless]


small = st.binary(max_size=8)
batches = st.lists(
    st.builds(
        Batch,
        records=st.lists(
            st.tuples(
                st.none() | small,
                st.none() | small,
                st.lists(st.tuples(st.text(max_size=3), small), max_size=2).map(tuple),
            ),
            min_size=1,
            max_size=5,
        ).map(tuple),
        producer_id=st.integers(1, 3),
        is_transactional=st.booleans(),
        marker=st.none() | st.integers(0, 1),
        cut_off=st.integers(0, 3),
        compression=st.sampled_from([0, 1]),
    ),
    max_size=6,
)


@given(
    batches=batches,
    first_offset=st.integers(0, 50),
    skip=st.integers(0, 6),
    aborted=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 60)), max_size=3),
    isolation=st.sampled_from([READ_COMMITTED, READ_UNCOMMITTED]),
)
def test_we_unpack_what_aiokafka_unpacks(
    batches: list[Batch], first_offset: int, skip: int, aborted: list[tuple[int, int]], isolation: int
) -> None:
    data = log_of(batches, first_offset)
    theirs, ours, as_changes = (fetched(data, first_offset + skip, aborted, isolation) for _ in range(3))
    expected = list(theirs)
    assert unpacked(ours) == expected
    assert come_to(unpacked_changes(as_changes)) == come_to(Changes.of(expected))
    assert ours.next_fetch_offset == as_changes.next_fetch_offset == theirs.next_fetch_offset


def test_each_slice_of_changes_ends_before_what_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_module, "CHANGES_AT_ONCE", 2)
    pairs = Batch(((b"a", b"1", ()), (b"a", b"2", ())), cut_off=1)
    data = log_of([pairs, Batch(((b"b", b"1", ()),)), Batch((), marker=1), pairs, Batch((), marker=1)], 10)
    assert unpacked_changes(fetched(data, 11, [], READ_COMMITTED)) == [
        Changes({b"a": b"2", b"b": b"1"}, 2, [], end=14),
        Changes({b"a": b"2"}, 2, [], end=18),
    ]


def test_changes_of_records_are_sliced_and_end_behind_their_last_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CHANGES_AT_ONCE", 2)
    batch = Batch(((b"a", b"1", ()), (b"a", None, ()), (None, b"1", ())), cut_off=1)
    records = unpacked(fetched(log_of([batch], 10), 10, [], READ_COMMITTED))
    assert Changes.of(records) == [Changes({b"a": None}, 2, [], end=12), Changes({}, 1, [12], end=13)]


@pytest.mark.parametrize("unpack", UNPACKINGS)
def test_a_damaged_batch_is_refused(unpack: Unpacking) -> None:
    data = bytearray(log_of([Batch(((b"key", b"value", ()),))], 0))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="views"):
        unpack(fetched(bytes(data), 0, [], READ_COMMITTED))


@pytest.mark.parametrize("unpack", UNPACKINGS)
@pytest.mark.parametrize("damaged", [1, 2, 3])
async def test_a_chunk_with_a_damaged_batch_is_fetched_anew_and_not_gone_on_with_behind_it(
    damaged: int, unpack: Unpacking
) -> None:
    data = bytearray(log_of([Batch(((b"key", b"value", ()),)) for _ in range(3)], 0))
    data[len(data) * damaged // 3 - 1] ^= 1  # its end
    subscription = SubscriptionState()
    subscription.assign_from_user([PARTITION])
    assignment = subscription.subscription.assignment
    assignment.state_value(PARTITION).seek(0)
    result = FetchResult(
        PARTITION, assignment=assignment, partition_records=fetched(bytes(data), 0, [], READ_COMMITTED), backoff=0
    )
    waiting = Fetched()
    waiting.unpack = unpack
    waiting[PARTITION] = result
    take = result.getall
    with pytest.raises(CorruptRecordException):
        take()
    assert take() == []
    assert not result.has_more(), "which has it fetched anew"
    assert assignment.state_value(PARTITION).position == 0


def test_headers_come_in_their_order_with_duplicates() -> None:
    headers = (("a", b"1"), ("b", b"2"), ("a", b"3"))
    (record,) = unpacked(fetched(log_of([Batch(((None, b"value", headers),))], 7), 7, [], READ_COMMITTED))
    assert (record.offset, record.key, record.value, record.headers) == (7, None, b"value", headers)
