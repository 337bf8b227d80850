"""Making records of what was fetched, a third quicker than aiokafka does: a chunk at once, in place of one by one."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import dropwhile
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka_errors
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords

from paperboy.brokers.protocol import CHANGES_AT_ONCE, Changes, Record, TopicPartition, new_record


def unpack_chunks(consumer: AIOKafkaConsumer) -> "Fetched":
    """Let a consumer that has started, and fetches nothing yet, hand out chunks that were unpacked here."""
    fetched = consumer._fetcher._records = Fetched()
    return fetched


class Fetched(OrderedDict[TopicPartition, Any]):
    """What a fetcher has fetched and not handed out, by partition."""

    def __init__(self) -> None:
        super().__init__()
        self.unpack: Callable[[PartitionRecords], Any] = unpacked
        """What is handed out of a partition."""
        self.passed = False
        """Whether there was something of which nothing is handed out: a position has moved past it."""

    def __setitem__(self, partition: TopicPartition, result: Any) -> None:
        if type(result) is FetchResult:
            result.getall = _GetAll(result, self)
        super().__setitem__(partition, result)


class _GetAll:
    """In place of a result's own method."""

    def __init__(self, result: FetchResult, fetched: Fetched) -> None:
        self._result = result
        self._fetched = fetched
        self._begun = False
        """A part of it was handed out by aiokafka, which then has to hand out the rest."""

    def __call__(self, max_records: int | None = None) -> Any:
        chunk = self._chunk(max_records)
        self._fetched.passed = self._fetched.passed or not chunk
        return chunk

    def _chunk(self, max_records: int | None) -> Any:
        result = self._result
        if self._begun or max_records is not None:
            self._begun = True
            return FetchResult.getall(result, max_records)
        if not result.has_more() or not result.check_assignment(result._topic_partition):
            return []
        try:
            chunk = self._fetched.unpack(result._partition_records)
            result._update_position()
        finally:  # a damaged batch is fetched anew: to go on behind it would pass over it, and what came before
            result._partition_records = None
        return chunk


def unpacked(fetched: PartitionRecords) -> list[Record]:
    """All records of what one fetch brought of a partition. Its ``next_fetch_offset`` moves behind them: past
    transaction markers, aborted records and compacted gaps as well.

    Raises:
        CorruptRecordException: a batch has another checksum than its bytes.
    """
    topic, partition = fetched._tp
    records: list[Record] = []
    append = records.append
    for batch in _batches(fetched):
        first = fetched.next_fetch_offset
        for record in batch:
            offset = record.offset
            if offset < first:  # the batch began before what was asked for
                continue
            key, value, headers = record.key, record.value, record.headers
            append(
                new_record(
                    topic,
                    partition,
                    offset,
                    record.timestamp,
                    record.timestamp_type,
                    key,
                    value,
                    record.checksum,
                    -1 if key is None else len(key),
                    -1 if value is None else len(value),
                    tuple(headers) if headers else (),
                )
            )
    return records


def unpacked_changes(fetched: PartitionRecords) -> list[Changes]:
    """As `unpacked`, but what the records come to: less than half of the work, and nothing for the garbage collector.

    Raises:
        CorruptRecordException: a batch has another checksum than its bytes.
    """
    chunk: list[Changes] = []
    last: dict[bytes, bytes | None] = {}
    keyless: list[int] = []
    count = 0
    for batch in _batches(fetched):
        first = fetched.next_fetch_offset
        for record in dropwhile(lambda record: record.offset < first, batch):  # noqa: B023  # used up here
            key = record.key
            if key:
                last[key] = record.value
            else:
                keyless.append(record.offset)
            count += 1
        if count >= CHANGES_AT_ONCE:
            chunk.append(Changes(last, count, keyless, batch.next_offset))
            last, keyless, count = {}, [], 0
    if count:
        chunk.append(Changes(last, count, keyless, fetched.next_fetch_offset))
    return chunk


def _batches(fetched: PartitionRecords) -> Iterator[Any]:
    """The batches whose records are to be seen. When the next one is asked for, the position moves behind this one."""
    batches = fetched._records
    reads_committed = fetched._isolation_level == READ_COMMITTED
    aborted = fetched._aborted_producers
    while batches.has_next():
        batch = batches.next_batch()
        if fetched._check_crcs and not batch.validate_crc():
            raise kafka_errors.CorruptRecordException(f"Invalid CRC - {fetched._tp}")
        is_hidden = batch.is_control_batch
        producer_id = batch.producer_id
        if reads_committed and producer_id is not None:
            fetched._consume_aborted_up_to(batch.base_offset)
            if is_hidden and fetched._contains_abort_marker(batch):
                aborted.discard(producer_id)
            is_hidden = is_hidden or (batch.is_transactional and producer_id in aborted)
        if not is_hidden:
            yield batch
        # Of a batch whose last records were compacted away, the end still tells.
        fetched.next_fetch_offset = batch.next_offset
