"""Which record of a partition may begin next, where several are handled at the same time."""

from collections import deque
from collections.abc import Iterable

from paperboy.brokers.protocol import Record
from paperboy.engine.source import RECORD_BYTES
from paperboy.handlers.outcome import Failing


class Taken:
    """A record that was taken, its raw key, and how far it has come."""

    __slots__ = ("begun", "failing", "finished", "key", "record", "size")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.key: bytes | None = record.key
        self.size = record.serialized_key_size + record.serialized_value_size + RECORD_BYTES
        self.begun = False
        self.failing: Failing | None = None
        """How it failed, if it is to be handled again."""
        self.finished = False


class Window:
    """The records from the lowest unfinished one to the last that was taken.

    Records of one key begin in order, each when the one before has finished. A record without a key is in nobody's way.
    """

    def __init__(self) -> None:
        self.position: int | None = None
        """Everything below is finished; None before anything was."""
        self.bytes = 0
        """What the unfinished records cost in memory, about."""
        self._taken: deque[Taken] = deque()
        self._ready: deque[Taken] = deque()
        self._behind: dict[bytes, deque[Taken]] = {}
        """For each key that is ready or begun: who waits for it."""

    def __len__(self) -> int:
        """How many records it spans, finished ones above the position included."""
        return len(self._taken)

    @property
    def ready(self) -> int:
        """How many records may begin."""
        return len(self._ready)

    @property
    def has_gaps(self) -> bool:
        """Whether a record has finished behind one that has not."""
        return any(taken.finished for taken in self._taken)

    @property
    def end(self) -> int | None:
        """The offset behind the last record that was taken; None where all have finished."""
        return self._taken[-1].record.offset + 1 if self._taken else None

    def add(self, records: Iterable[Record]) -> None:
        """Take these in, in the order of their offsets."""
        for record in records:
            taken = Taken(record)
            self._taken.append(taken)
            self.bytes += taken.size
            behind = None if taken.key is None else self._behind.get(taken.key)
            if behind is not None:
                behind.append(taken)
                continue
            if taken.key is not None:
                self._behind[taken.key] = deque()
            self._ready.append(taken)

    def begin(self) -> Taken | None:
        """The next record that may begin, which it does; None where there is none."""
        if not self._ready:
            return None
        taken = self._ready.popleft()
        taken.begun = True
        return taken

    def again(self, taken: Taken) -> None:
        """It has failed, and has waited: it is the next one that may begin. Its key was not free meanwhile."""
        self._ready.appendleft(taken)

    def finish(self, taken: Taken) -> None:
        """It has finished: the next of its key may begin, and the position may move."""
        taken.finished = True
        self.bytes -= taken.size
        if taken.key is not None:
            behind = self._behind[taken.key]
            if behind:
                self._ready.append(behind.popleft())
            else:
                del self._behind[taken.key]
        window = self._taken
        while window and window[0].finished:
            self.position = window.popleft().record.offset + 1
        if window and self.position is not None:
            self.position = window[0].record.offset

    def cut(self) -> list[Record]:
        """Give back the records behind the last that has begun. What is left, once finished, leaves no hole."""
        given_back: list[Record] = []
        while self._taken and not self._taken[-1].begun:
            taken = self._taken.pop()
            taken.finished = True
            self.bytes -= taken.size
            given_back.append(taken.record)
            if taken.key is not None and not self._left_queue(taken.key):
                del self._behind[taken.key]
        self._ready = deque(taken for taken in self._ready if not taken.finished)
        given_back.reverse()
        return given_back

    def _left_queue(self, key: bytes) -> bool:
        """The last of this key is cut off: whether it stood behind another one."""
        behind = self._behind[key]
        if behind:
            behind.pop()
            return True
        return False
