"""What a message reads and writes while others run beside it: its writes show when it finishes, all at once."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from reprlib import repr as excerpt
from typing import NamedTuple, cast

from paperboy.serializers.values import encode_value
from paperboy.tables.layer import ABSENT, DELETED, Encoded, Undo, entry_bytes
from paperboy.tables.partition import TablePartition
from paperboy.tables.scan import Entries, laid_over, stored
from paperboy.tables.stores.protocol import Scan, Store


class Conflict(NamedTuple):
    """A message has read something that another one has changed since."""

    table: str
    key: str


class History:
    """In which order messages of a task have changed keys, for as long as a message is in flight that may ask."""

    def __init__(self) -> None:
        self.now = 0
        """How many messages have finished that changed something: a moment, to say when something was read."""
        self._begun: dict[Isolation, int] = {}
        self._changed: dict[str, OrderedDict[bytes, int]] = {}

    def begin(self, message: "Isolation") -> None:
        """It reads nothing that is older than now."""
        self._begun.pop(message, None)
        self._begun[message] = self.now

    def end(self, message: "Isolation") -> None:
        """It asks no more: forget what nobody else can ask for either."""
        self._begun.pop(message, None)
        oldest = next(iter(self._begun.values()), self.now)
        for changed in self._changed.values():
            while changed and next(iter(changed.values())) <= oldest:
                changed.popitem(last=False)

    def note(self, table: str, keys: Iterable[bytes]) -> None:
        """A message that finishes now has changed these keys."""
        if len(self._begun) <= 1:
            return
        changed = self._changed.setdefault(table, OrderedDict())
        for key in keys:
            changed[key] = self.now
            changed.move_to_end(key)

    def changed(self, table: str) -> OrderedDict[bytes, int]:
        """When each key of a table was changed last, the latest at the end."""
        return self._changed.get(table, _NOTHING)


class Isolation:
    """One message's own view of its task's tables; one message after another.

    Args:
        tables: the task's, by name.
        undo: the list in which the views note the message's writes.
    """

    def __init__(self, tables: Mapping[str, TablePartition], undo: Undo, history: History) -> None:
        self._history = history
        self._shared = dict(tables)
        self._reads = {name: _Finished(partition, history) for name, partition in tables.items()}
        self.tables = {
            name: partition.apart(undo, cast(Store, self._reads[name])) for name, partition in tables.items()
        }
        """Where the message reads and writes."""

    def begin(self) -> None:
        """A message begins, or begins again: it has read and written nothing."""
        self._clear()
        self._history.begin(self)

    def end(self) -> None:
        """The message has ended; what was not merged is gone."""
        self._clear()
        self._history.end(self)

    def conflict(self) -> Conflict | None:
        """The first thing that the message has read and another one has changed since; None where there is none."""
        for name, reads in self._reads.items():
            key = reads.outdated(self._history.changed(name))
            if key is not None:
                return Conflict(name, excerpt(self._shared[name].decoded_key(key)))
        return None

    def merge(self) -> None:
        """The message has finished: what it has written is the task's."""
        self._history.now += 1
        for name, own in self.tables.items():
            if not own.layer:
                continue
            shared = self._shared[name]
            for key, entry in own.layer.items():
                before = shared.layer.get(key, ABSENT)
                shared.layer_bytes += entry_bytes(key, entry) - entry_bytes(key, before)
                shared.layer[key] = entry
            self._history.note(name, own.layer)

    def _clear(self) -> None:
        for own in self.tables.values():
            if own.layer:
                own.discard()
        for reads in self._reads.values():
            reads.clear()


class _Finished:
    """What finished messages have left of a table, in place of a store; notes what is read from it, and when."""

    def __init__(self, shared: TablePartition, history: History) -> None:
        self._shared = shared
        self._history = history
        self._keys: dict[bytes, int] = {}
        self._scans: list[_ScanRead] = []

    def clear(self) -> None:
        """Nothing has been read."""
        if self._keys:
            self._keys.clear()
        if self._scans:
            for scan in self._scans:
                scan.close()
            self._scans.clear()

    def outdated(self, changed: OrderedDict[bytes, int]) -> bytes | None:
        """A key that was read, or stood in what was scanned, before it was changed."""
        if not changed:
            return None
        for key, read_at in self._keys.items():
            if changed.get(key, 0) > read_at:
                return key
        for scan in self._scans:
            for key, changed_at in reversed(changed.items()):
                if changed_at <= scan.read_at:
                    break
                if scan.has_passed(key):
                    return key
        return None

    # As a store.

    def get(self, key: bytes) -> bytes | None:
        self._keys.setdefault(key, self._history.now)
        entry = self._shared._layered(key)
        return self._shared.store.get(key) if entry is ABSENT else _as_bytes(entry)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        for key in keys:
            self._keys.setdefault(key, self._history.now)
        entries = [self._shared._layered(key) for key in keys]
        missing = self._shared.store.get_many(
            [key for key, entry in zip(keys, entries, strict=True) if entry is ABSENT]
        )
        below = iter(missing)
        return [next(below) if entry is ABSENT else _as_bytes(entry) for entry in entries]

    def scan(self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False) -> Scan:
        """As of now: others finish, and checkpoints pass, while it is read."""
        shared = self._shared
        below = shared.store.scan(start, stop, reverse=reverse)
        entries: Entries = stored(below)
        if shared._frozen:
            frozen, frozen_keys = shared._frozen, shared._frozen_keys
            frozen_keys.refresh()
            keys = frozen_keys.between(start, stop, reverse=reverse)
            entries = laid_over(((key, frozen[key]) for key in keys), entries, reverse=reverse)
        if shared.layer:
            shared._keys.refresh()
            # A copy: others write into this layer while the message waits for something in the middle of its scan.
            layer = [(key, shared.layer[key]) for key in shared._keys.between(start, stop, reverse=reverse)]
            entries = laid_over(iter(layer), entries, reverse=reverse)
        scan = _ScanRead(entries, below, start, stop, reverse, self._history.now)
        self._scans.append(scan)
        return scan

    def len_estimate(self) -> int:
        return self._shared.len_estimate()


class _ScanRead:
    """A scan of what finished messages have left, and the part of its range that was read."""

    def __init__(
        self, entries: Entries, below: Scan, start: bytes, stop: bytes | None, reverse: bool, read_at: int
    ) -> None:
        self.read_at = read_at
        self._entries = entries
        self._below = below
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._last: bytes | None = None
        self._ended = False

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        for key, entry in self._entries:
            self._last = key
            data = _as_bytes(entry)
            if data is not None:
                return key, data
        self._ended = True
        raise StopIteration

    def has_passed(self, key: bytes) -> bool:
        """Whether this key would have come up so far, had it been there."""
        if key < self._start or (self._stop is not None and key >= self._stop):
            return False
        if self._ended:
            return True
        if self._last is None:
            return False
        return key >= self._last if self._reverse else key <= self._last

    def close(self) -> None:
        self._below.close()


def _as_bytes(entry: object) -> bytes | None:
    if entry is DELETED:
        return None
    return entry.data if isinstance(entry, Encoded) else encode_value(entry)


_NOTHING: OrderedDict[bytes, int] = OrderedDict()
