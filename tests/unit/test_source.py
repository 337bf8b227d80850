"""One input partition of a task: nothing is lost, repeated or overtaken between the fetch and the handler."""

from paperboy.brokers.protocol import Record
from paperboy.engine.source import RECORD_BYTES, Source
from tests.unit.source_kit import offsets, record, records, source_at


def test_a_chunk_comes_out_as_it_was_put_in() -> None:
    source = source_at(3, records(3, 4, 5), records(6, 7))
    assert offsets(source.take_chunk(None)) == [3, 4, 5]
    assert offsets(source.take_chunk(None)) == [6, 7]
    assert source.head_timestamp is None


def test_a_chunk_ends_where_another_inputs_first_record_is_older() -> None:
    source = source_at(0, [record(0, 10), record(1, 20), record(2, 21), record(3, 15)])
    assert offsets(source.take_chunk(20)) == [0, 1]
    assert offsets(source.take_chunk(20)) == [2, 3]


def test_the_first_record_is_handed_over_even_if_it_is_younger_than_the_others() -> None:
    source = source_at(0, [record(0, 30), record(1, 40)])
    assert offsets(source.take_chunk(5)) == [0]


def test_what_lies_behind_the_limit_waits_until_the_limit_moves() -> None:
    source = source_at(0, records(0, 1, 2, 3), records(4, 5))
    source.limit = 2
    assert offsets(source.take_bulk(100)) == [0, 1]
    assert source.head_timestamp is None
    source.limit = 5
    assert offsets(source.take_chunk(None)) == [2, 3]
    assert offsets(source.take_chunk(None)) == [4]
    assert source.head_timestamp is None
    source.limit = None
    assert offsets(source.take_chunk(None)) == [5]


def test_a_limit_of_zero_holds_back_everything() -> None:
    source = source_at(0, records(0, 1))
    source.limit = 0
    assert source.head_timestamp is None
    assert source.at_known_end


def test_a_bulk_is_filled_from_several_chunks_and_is_no_larger_than_asked() -> None:
    source = source_at(0, records(0, 1, 2), records(3, 4, 5), records(6))
    assert offsets(source.take_bulk(5)) == [0, 1, 2, 3, 4]
    assert offsets(source.take_bulk(1)) == [5]
    assert offsets(source.take_bulk(5)) == [6]


def test_what_is_given_back_comes_first_again() -> None:
    source = source_at(0, records(0, 1, 2, 3), records(4))
    source.limit = 3
    taken = source.take_chunk(None)
    source.give_back(taken[1:])
    assert offsets(source.take_bulk(1)) == [1]
    source.limit = None
    assert offsets(source.take_bulk(100)) == [2, 3, 4]


def test_a_gap_before_the_limit_is_passed_so_that_a_step_can_end() -> None:
    source = source_at(0, records(0, 1))
    source.limit = 5
    source.take_chunk(None)
    source.position = 2
    source.skip_gaps()
    assert source.position == 2
    assert source.head_timestamp is None
    assert source.advance(5)  # offsets 2 to 4 are markers, or were compacted away
    source.skip_gaps()
    assert source.position == 5
    assert source.at_known_end


def test_a_record_held_back_behind_a_gap_shows_that_the_limit_is_reached() -> None:
    source = source_at(0, records(0, 7))
    source.limit = 5
    source.take_chunk(None)
    source.position = 1
    source.skip_gaps()
    assert source.position == 7
    assert source.at_known_end


def test_a_gap_is_not_skipped_over_records_that_wait() -> None:
    source = source_at(0, records(2, 3))
    source.advance(9)
    source.skip_gaps()
    assert source.position == 2


def test_where_the_consumer_stands_is_news_only_if_it_is_further_on() -> None:
    source = source_at(4, records(4, 5))
    assert not source.advance(None)
    assert not source.advance(6)
    assert source.advance(7)
    assert not source.advance(7)


def test_lag_is_not_known_before_the_end_is() -> None:
    source = source_at(4)
    assert source.lag() is None
    assert not source.at_known_end
    source.end_offset = 10
    assert source.lag() == 6
    source.end_offset = 3  # heard before the position moved past it
    assert source.lag() == 0
    assert source.at_known_end


def test_what_waits_is_counted_with_keys_and_values() -> None:
    source = source_at(0, [record(0, key_size=1_000, value_size=5_000), record(1, key_size=0, value_size=-1)])
    assert source.buffered == 2
    assert 6_000 <= source.buffered_bytes <= 6_000 + 2 * RECORD_BYTES


def test_starting_anew_forgets_what_was_fetched() -> None:
    source = source_at(0, records(0, 1, 2), records(3))
    source.take_bulk(2)
    source.bulk_deadline = 1.0
    source.start_at(1)
    assert (source.position, source.committed, source.fetched) == (1, 1, 1)
    assert (source.buffered, source.buffered_bytes, source.head_timestamp) == (0, 0, None)
    assert repr(source.bulk_deadline) == "None"
    source.put(records(1, 2))
    assert offsets(source.take_bulk(100)) == [1, 2]


def test_a_large_chunk_taken_in_small_pieces_is_not_copied_each_time() -> None:
    class Chunk(list[Record]):
        """Counts the records that are copied out of it."""

        copied = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            found = super().__getitem__(index)
            if isinstance(index, slice):
                Chunk.copied += len(found)
                return Chunk(found)
            return found

    by_timestamp = source_at(0, Chunk(record(offset, offset) for offset in range(1_000)))
    for offset in range(1_000):
        assert offsets(by_timestamp.take_chunk(offset)) == [offset]
    in_bulk = source_at(0, Chunk(record(offset) for offset in range(1_000)))
    while in_bulk.buffered:
        in_bulk.take_bulk(3)
    assert Chunk.copied <= 2_000


def isolated(*chunks: list[Record], begin: int, end: int) -> Source:
    source = source_at(chunks[0][0].offset, *chunks)
    source.isolated = (begin, end)
    return source


def test_a_bulk_ends_before_what_is_handled_one_by_one_and_another_begins_behind_it() -> None:
    source = isolated(records(0, 2, 5, 9, 12), begin=2, end=6)
    taken = [(source.is_isolated, offsets(source.take_bulk(100))) for _ in range(3)]
    assert taken == [(False, [0]), (True, [2, 5]), (False, [9, 12])]


def test_they_may_lie_in_several_chunks_and_be_gone_altogether() -> None:
    source = isolated(records(0, 1), records(3, 4), records(7), begin=1, end=4)
    assert offsets(source.take_bulk(100)) == [0]
    assert offsets(source.take_bulk(100)) == [1, 3]
    assert offsets(source.take_bulk(100)) == [4, 7]
    gone = isolated(records(0, 9), begin=2, end=6)
    assert offsets(gone.take_bulk(100)) == [0, 9]


def test_what_was_taken_of_them_and_given_back_is_still_of_them() -> None:
    source = isolated(records(0, 1, 2, 3), begin=1, end=3)
    assert offsets(source.take_chunk(None)) == [0]
    taken = source.take_chunk(None)
    assert offsets(taken) == [1, 2]
    source.give_back(taken[1:])
    assert source.is_isolated
    assert offsets(source.take_chunk(None)) == [2]
    assert offsets(source.take_chunk(None)) == [3]


def test_where_it_begins_anew_nothing_is_known_of_failures() -> None:
    source = isolated(records(0, 1), begin=0, end=2)
    source.held_until = 5.0
    source.start_at(0)
    left: list[object] = [source.isolated, source.held_until, source.failing]
    assert left == [None, None, None]
