"""The memory broker's logs: what no client can ask of a real broker, but every client has to live with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.memory.batches import batches
from paperboy.brokers.memory.log import PartitionLog
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.errors import BrokerError, OffsetOutOfRange

PARTITION = TopicPartition("t", 0)
HOUR_MS = 60 * 60 * 1000


def append(log: PartitionLog, *pairs: tuple[bytes | None, bytes | None]) -> None:
    for batch in batches([(key, value, (), 0) for key, value in pairs]):
        log.append(batch)


def contents(log: PartitionLog) -> list[tuple[int, object, object]]:
    records, _ = log.read(log.start_offset)
    return [(record.offset, record.key, record.value) for record in records]


def test_compaction_keeps_the_last_record_of_each_key_where_it_was() -> None:
    log = PartitionLog(PARTITION)
    append(log, (b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"), (b"a", b"5"))
    log.compact(now_ms=0, delete_retention_ms=HOUR_MS)
    assert contents(log) == [(1, b"b", b"2"), (3, b"c", b"4"), (4, b"a", b"5")]
    assert (log.start_offset, log.end_offset) == (0, 5)


def test_what_compaction_has_not_reached_is_left_alone() -> None:
    log = PartitionLog(PARTITION)
    append(log, (b"a", b"1"), (b"a", b"2"), (b"a", b"3"), (b"a", b"4"))
    log.compact(now_ms=0, delete_retention_ms=HOUR_MS, before=2)
    assert [offset for offset, _, _ in contents(log)] == [1, 2, 3]


def test_compaction_leaves_what_stands_before_an_open_transaction_that_may_yet_be_aborted() -> None:
    log = PartitionLog(PARTITION)
    append(log, (b"a", b"1"))
    for batch in batches([(b"a", b"2", (), 0)]):
        log.append(batch, transactional_id="id")
    log.compact(now_ms=0, delete_retention_ms=HOUR_MS)
    log.end_transaction("id", commits=False)
    assert contents(log) == [(0, b"a", b"1")]


def test_a_tombstone_goes_a_while_after_the_first_compaction_that_met_it() -> None:
    log = PartitionLog(PARTITION)
    append(log, (b"a", b"1"), (b"a", None))
    log.compact(now_ms=5 * HOUR_MS, delete_retention_ms=HOUR_MS)
    log.compact(now_ms=6 * HOUR_MS - 1, delete_retention_ms=HOUR_MS)
    assert contents(log) == [(1, b"a", None)]
    log.compact(now_ms=6 * HOUR_MS, delete_retention_ms=HOUR_MS)
    assert contents(log) == []
    assert log.end_offset == 2


def test_a_read_passes_gaps_markers_and_the_end_of_a_compacted_log() -> None:
    log = PartitionLog(PARTITION)
    append(log, (b"a", b"1"), (b"a", b"2"), (b"b", None))
    assert log.append_marker() == 3
    log.compact(now_ms=0, delete_retention_ms=0)
    records, position = log.read(0)
    assert [record.offset for record in records] == [1]
    assert position == 4
    assert log.read(2) == ([], 4)


def test_a_marker_alone_moves_the_position_and_gives_no_record() -> None:
    log = PartitionLog(PARTITION)
    append(log, (None, b"x"))
    log.append_marker()
    log.append_marker()
    append(log, (None, b"y"))
    assert contents(log) == [(0, None, b"x"), (3, None, b"y")]
    assert log.read(0, max_records=1)[1] == 1
    assert log.read(1, max_records=1)[1] == 4


def test_one_read_hands_out_about_one_mebibyte_and_at_least_one_record() -> None:
    log = PartitionLog(PARTITION)
    append(log, *[(None, b"x" * 100_000)] * 30, (None, b"x" * 3_000_000), (None, b"x"))
    position, counts = 0, []
    while position < log.end_offset:
        records, position = log.read(position)
        counts.append(len(records))
    assert counts == [10, 10, 10, 1, 1]


def test_the_bytes_of_a_read_are_counted_from_where_it_begins_even_after_a_deletion() -> None:
    log = PartitionLog(PARTITION)
    append(log, *[(None, b"x" * 100_000)] * 40)
    log.delete_before(25)
    assert len(log.read(25)[0]) == 10
    append(log, (None, b"y"))
    assert len(log.read(40)[0]) == 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans()))),
            st.tuples(st.just("marker"), st.just([])),
            st.tuples(st.just("delete"), st.integers(0, 30)),
            st.tuples(st.just("compact"), st.integers(0, 30)),
        )
    ),
    st.integers(1, 5),
)
def test_any_history_reads_as_a_plain_list_of_its_records(steps: list[tuple[str, object]], chunk: int) -> None:
    log = PartitionLog(PARTITION)
    plain: dict[int, tuple[bytes, bytes | None]] = {}
    for step, detail in steps:
        if step == "append":
            assert isinstance(detail, list)
            pairs = [(key, b"x" if full else None) for key, full in detail]
            plain.update(enumerate(pairs, start=log.end_offset))
            append(log, *pairs)
        elif step == "marker":
            log.append_marker()
        elif step == "delete":
            assert isinstance(detail, int)
            log.delete_before(detail)
            plain = {offset: pair for offset, pair in plain.items() if offset >= detail}
        else:
            assert isinstance(detail, int)
            log.compact(0, HOUR_MS, before=detail)
            last = {key: offset for offset, (key, _) in plain.items() if offset < detail}
            plain = {at: pair for at, pair in plain.items() if at >= detail or last[pair[0]] == at}
    for begin in range(log.start_offset, log.end_offset + 1):
        read, position = [], begin
        while position < log.end_offset:
            records, after = log.read(position, max_records=chunk)
            assert after > position
            position = after
            read += [(record.offset, (record.key, record.value)) for record in records]
        assert read == [(offset, pair) for offset, pair in sorted(plain.items()) if offset >= begin]


def test_only_a_compacted_topic_is_compacted() -> None:
    cluster = MemoryCluster()
    cluster.create_topics([TopicSpec("t", 1), TopicSpec("c", 2, config={"cleanup.policy": "compact,delete"})])
    with pytest.raises(BrokerError, match="not compacted"):
        cluster.compact("t")
    log = cluster.log(TopicPartition("c", 1))
    append(log, (b"a", b"1"), (b"a", b"2"))
    cluster.compact("c")
    assert contents(log) == [(1, b"a", b"2")]


def test_a_negative_timestamp_refuses_the_whole_batch() -> None:
    """As Kafka's own clients do; its broker would take it."""
    cluster = MemoryCluster()
    cluster.create_topics([TopicSpec("t", 1)])
    (batch,) = batches([(None, b"x", (), 0), (None, b"x", (), -5)])
    with pytest.raises(BrokerError, match="Timestamp -5"):
        cluster.topic("t").append(0, batch, now_ms=HOUR_MS)
    assert cluster.log(PARTITION).end_offset == 0


async def test_a_readers_position_reaches_the_end_over_a_tail_of_markers() -> None:
    cluster = MemoryCluster()
    cluster.create_topics([TopicSpec("t", 1)])
    append(cluster.log(PARTITION), (None, b"x"))
    broker = MemoryBroker(cluster)
    await broker.start()
    reader = broker.reader()
    await reader.start({PARTITION: 1})
    cluster.append_marker(PARTITION)
    assert await reader.fetch([PARTITION], 0.05) == {}
    assert reader.position(PARTITION) == 2
    assert await broker.end_offsets([PARTITION]) == {PARTITION: 2}
    await reader.stop()


async def test_one_partition_out_of_range_moves_no_other() -> None:
    cluster = MemoryCluster()
    cluster.create_topics([TopicSpec("t", 2)])
    good, bad = TopicPartition("t", 0), TopicPartition("t", 1)
    append(cluster.log(good), (None, b"x"))
    reader = MemoryBroker(cluster).reader()
    await reader.start({good: 0, bad: 7})
    with pytest.raises(OffsetOutOfRange, match=r"Offset 7 of t\[1\]"):
        await reader.fetch([good, bad], 1.0)
    assert reader.position(good) == 0
    await reader.stop()
