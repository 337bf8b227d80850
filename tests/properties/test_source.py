"""An input partition against a list, whatever is fetched, taken, given back and held back in whatever order."""

from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paperboy.brokers.protocol import Record
from tests.unit.source_kit import offsets, record, source_at


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
