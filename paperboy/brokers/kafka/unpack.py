"""Making records of what was fetched, a third quicker than aiokafka does: a chunk at once, in place of one by one."""

from collections import OrderedDict
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka_errors
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords

from paperboy.brokers.protocol import Record, TopicPartition, new_record


def unpack_chunks(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer that has started, and fetches nothing yet, hand out chunks that were unpacked here."""
    consumer._fetcher._records = _Fetched()


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What a fetcher has fetched and not handed out, by partition."""

    def __setitem__(self, partition: TopicPartition, result: Any) -> None:
        if type(result) is FetchResult:
            result.getall = _GetAll(result)
        super().__setitem__(partition, result)


class _GetAll:
    """In place of a result's own method."""

    def __init__(self, result: FetchResult) -> None:
        self._result = result
        self._begun = False
        """A part of it was handed out by aiokafka, which then has to hand out the rest."""

    def __call__(self, max_records: int | None = None) -> list[Record]:
        result = self._result
        if self._begun or max_records is not None:
            self._begun = True
            return FetchResult.getall(result, max_records)  # type: ignore[no-any-return]
        if not result.has_more() or not result.check_assignment(result._topic_partition):
            return []
        try:
            records = unpacked(result._partition_records)
            result._update_position()
        finally:  # a damaged batch is fetched anew: to go on behind it would pass over it, and what came before
            result._partition_records = None
        return records


def unpacked(fetched: PartitionRecords) -> list[Record]:
    """All records of what one fetch brought of a partition. Its ``next_fetch_offset`` moves behind them: past
    transaction markers, aborted records and compacted gaps as well.

    Raises:
        CorruptRecordException: a batch has another checksum than its bytes.
    """
    (topic, partition), batches = fetched._tp, fetched._records
    reads_committed = fetched._isolation_level == READ_COMMITTED
    aborted = fetched._aborted_producers
    records: list[Record] = []
    append = records.append
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
        if is_hidden:
            fetched.next_fetch_offset = batch.next_offset
            continue
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
        # Of a batch whose last records were compacted away, the end still tells.
        fetched.next_fetch_offset = batch.next_offset
    return records
