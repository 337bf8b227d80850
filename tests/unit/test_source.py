"""One input partition of a task: nothing is lost, repeated or overtaken between the fetch and the handler."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paperboy.brokers.protocol import ConsumerRecord, Record, TopicPartition
from paperboy.engine.source import RECORD_BYTES, Source
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.handler import Handler


class Views(Handler):
    topic = "views"


DISPATCH = Dispatch(Views, fail_on_exception=True)


def record(offset: int, timestamp: int = 0, key_size: int = -1, value_size: int = 10) -> Record:
    return ConsumerRecord("views", 0, offset, timestamp, 0, None, b"", None, key_size, value_size, ())


def records(*offsets: int, timestamp: int = 0) -> list[Record]:
    return [record(offset, timestamp) for offset in offsets]


def offsets(chunk: Sequence[Record]) -> list[int]:
    return [each.offset for each in chunk]


def source_at(offset: int, *chunks: list[Record]) -> Source:
    source = Source(TopicPartition("views", 0), DISPATCH)
    source.start_at(offset)
    for chunk in chunks:
        source.put(chunk)
    return source


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


class SourceMachine(RuleBasedStateMachine):
    """A source against a plain list: of what was fetched, and of where the gaps are."""

    def __init__(self) -> None:
        super().__init__()
        self.source = source_at(0)
        self.waiting: list[Record] = []
        self.finished: list[int] = []
        self.put_in: list[int] = []
        self.fetched = 0
        self.limit: int | None = None

    @initialize(offset=st.integers(0, 1_000))
    def begin(self, offset: int) -> None:
        self.source = source_at(offset)
        self.fetched = offset

    @rule(gaps=st.lists(st.integers(0, 3), min_size=1, max_size=6), data=st.data())
    def put(self, gaps: list[int], data: st.DataObject) -> None:
        chunk = []
        for gap in gaps:
            self.fetched += gap
            size = data.draw(st.integers(-1, 1_000))
            chunk.append(record(self.fetched, data.draw(st.integers(0, 5)), size, size))
            self.fetched += 1
        self.waiting += chunk
        self.put_in += offsets(chunk)
        self.source.put(chunk)

    @rule(position=st.none() | st.integers(-3, 5))
    def advance(self, position: int | None) -> None:
        told = None if position is None else self.fetched + position
        assert self.source.advance(told) is (told is not None and told > self.fetched)
        self.fetched = max(self.fetched, told or 0)

    @rule(limit=st.none() | st.integers(-5, 10))
    def move_the_limit(self, limit: int | None) -> None:
        self.limit = self.source.limit = None if limit is None else max(0, self.fetched + limit)

    @precondition(lambda self: self.source.head_timestamp is not None)
    @rule(until=st.none() | st.integers(0, 5), unfinished=st.integers(0, 6))
    def handle_a_chunk(self, until: int | None, unfinished: int) -> None:
        chunk = self.source.take_chunk(until)
        assert chunk
        if until is not None:
            assert all(each.timestamp <= until for each in chunk[1:])
        self.handled(chunk, unfinished)

    @precondition(lambda self: self.source.head_timestamp is not None)
    @rule(most=st.integers(1, 12), unfinished=st.integers(0, 6))
    def handle_a_bulk(self, most: int, unfinished: int) -> None:
        bulk = self.source.take_bulk(most)
        assert len(bulk) == min(most, len(self.open()))
        self.handled(bulk, unfinished)

    def handled(self, taken: list[Record], unfinished: int) -> None:
        """It is what waited first; of it, all but the last few finish."""
        assert taken == self.waiting[: len(taken)]
        done = max(0, len(taken) - unfinished)
        if done:
            self.source.position = taken[done - 1].offset + 1
        if done < len(taken):
            self.source.give_back(taken[done:])
        self.finished += offsets(taken[:done])
        del self.waiting[:done]

    @rule()
    def skip_gaps(self) -> None:
        self.source.skip_gaps()
        assert self.source.position == (self.waiting[0].offset if self.waiting else self.fetched)

    @rule()
    def begin_again(self) -> None:
        """A checkpoint failed: everything since it comes again."""
        self.source.start_at(self.source.committed)
        self.fetched = self.source.committed
        self.waiting = []
        self.finished = [offset for offset in self.finished if offset < self.fetched]
        self.put_in = list(self.finished)

    @rule()
    def commit(self) -> None:
        self.source.committed = self.source.position

    def open(self) -> list[Record]:
        return [each for each in self.waiting if self.limit is None or each.offset < self.limit]

    @invariant()
    def nothing_is_lost_repeated_or_overtaken(self) -> None:
        assert self.finished + offsets(self.waiting) == self.put_in
        assert all(earlier < later for earlier, later in pairwise(self.put_in))

    @invariant()
    def the_position_is_past_no_unfinished_record(self) -> None:
        assert self.source.committed <= self.source.position <= self.source.fetched == self.fetched
        assert not self.waiting or self.source.position <= self.waiting[0].offset
        assert not self.finished or self.source.position > self.finished[-1]

    @invariant()
    def what_waits_is_counted(self) -> None:
        assert self.source.buffered == len(self.waiting)
        assert (self.source.buffered_bytes > 0) is bool(self.waiting)

    @invariant()
    def the_head_is_the_first_that_is_not_held_back(self) -> None:
        open_ = self.open()
        assert self.source.head_timestamp == (open_[0].timestamp if open_ else None)


TestASourceAgainstAList = SourceMachine.TestCase


# Records that are handled one by one, because one of them made a bulk fail.


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
