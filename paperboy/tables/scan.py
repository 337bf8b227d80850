"""Reading layers and a store in key order, as they were at one moment, whatever is written afterwards."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from paperboy.errors import TableError
from paperboy.serializers.excerpt import excerpt
from paperboy.tables.layer import ABSENT, DELETED, Encoded, Layer, Undo
from paperboy.tables.stores.protocol import Scan
from paperboy.tables.unit import Message

if TYPE_CHECKING:
    from paperboy.tables.partition import TablePartition

Entries = Iterator[tuple[bytes, object]]
"""Key bytes and what stands under them, as in a `Layer`; in the order of the keys, or in the reverse."""

_CHUNK_KEYS: Final = 256
"""Keys that are taken from a layer at a time: few enough for a scan that stops early."""

_FEW_KEYS: Final = 100
"""Up to so many new keys, putting each in its place beats sorting them all."""


class Range(NamedTuple):
    """The keys from `start` on, and before `stop`; None: to the end."""

    start: bytes = b""
    stop: bytes | None = None


EVERYTHING: Final = Range()


def checked_limit(table: str, limit: int | None) -> int | None:
    """Raises TableError for a limit that is none."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise TableError(
            f"Table {table!r}: a scan cannot be limited to {limit!r} entries: give an int from 0 on, or None."
        )
    return limit


def key_range(
    table: str,
    encode_key: Callable[[Any], bytes],
    encode_prefix: Callable[[Any], bytes],
    prefix: Any,
    start: Any,
    stop: Any,
) -> Range:
    """The keys that begin with `prefix`, or those from `start` on and before `stop`.

    Args:
        table: as a sentence begins with it: ``Table 'clicks'``.

    Raises:
        TableError: a prefix goes with no start and no stop.
    """
    if prefix is None:
        return Range(b"" if start is None else encode_key(start), None if stop is None else encode_key(stop))
    if start is not None or stop is not None:
        raise TableError(
            f"{table}: a scan takes a prefix, or a start and a stop: leave out the prefix {excerpt(prefix)}, or the"
            " others."
        )
    return beginning_with(encode_prefix(prefix))


def beginning_with(prefix: bytes) -> Range:
    """The keys that begin with these bytes."""
    stem = prefix.rstrip(b"\xff")
    return Range(prefix, stem[:-1] + bytes((stem[-1] + 1,)) if stem else None)


class LayerKeys:
    """The keys of a layer in order: sorted by the first scan, and brought up to date by each further one.

    Until a scan asks, it costs nothing but a look when a new key is taken back.
    """

    __slots__ = ("_gone", "_known", "_layer", "_ordered")

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._ordered: list[bytes] = []
        self._known = 0
        """How many keys of the layer, the oldest, stand in `_ordered`."""
        self._gone: list[bytes] = []
        """What stands in `_ordered` and was taken back."""

    def taken_back(self, key: bytes) -> None:
        """The layer's newest key has left it."""
        if len(self._layer) < self._known:
            self._known -= 1
            self._gone.append(key)

    def refresh(self) -> None:
        """Take in what has come and gone since the last time."""
        ordered, layer = self._ordered, self._layer
        if len(self._gone) > _FEW_KEYS:
            gone = set(self._gone)
            ordered[:] = [key for key in ordered if key not in gone]
        else:
            for key in self._gone:
                del ordered[bisect_left(ordered, key)]
        self._gone.clear()
        new = len(layer) - self._known
        if new > _FEW_KEYS:
            ordered.extend(islice(reversed(layer), new))
            ordered.sort()
        elif new:
            for key in islice(reversed(layer), new):
                insort(ordered, key)
        self._known = len(layer)

    def between(self, start: bytes, stop: bytes | None, *, reverse: bool) -> Iterator[bytes]:
        """The keys of a range. Of those that come or go meanwhile, some may be among them; no key comes twice."""
        ordered = self._ordered
        low = bisect_left(ordered, start)
        high = len(ordered) if stop is None else bisect_left(ordered, stop)
        while low < high:
            if reverse:
                chunk = ordered[max(low, high - _CHUNK_KEYS) : high]
                chunk.reverse()
                yield from chunk
                low, high = bisect_left(ordered, start), bisect_left(ordered, chunk[-1])
            else:
                chunk = ordered[low : min(low + _CHUNK_KEYS, high)]
                yield from chunk
                low = bisect_right(ordered, chunk[-1])
                high = len(ordered) if stop is None else bisect_left(ordered, stop)


class AsOfNow:
    """The entries that a layer has now, for as long as the message in hand lasts.

    Nothing is copied: the undo list tells what each key stood for before it was written again. So whoever reads on has
    to `catch_up` with it first.

    Args:
        owner: the partition that the layer is of, and that notes its writes in `undo`.
    """

    __slots__ = ("_before", "_layer", "_mark", "_mark_entry", "_owner", "_seen", "_seen_entry", "_undo")

    def __init__(self, layer: Layer, undo: Undo, owner: "TablePartition") -> None:
        self._layer = layer
        self._undo = undo
        self._owner = owner
        self._before: Layer = {}
        # An entry of the undo list is one object for ever: by it we see whether the list still is the one we have read.
        self._mark = self._seen = len(undo)
        self._mark_entry = self._seen_entry = undo[-1] if undo else None

    def entries(self, keys: Iterator[bytes]) -> Entries:
        """What stands under these keys, without those that are not in the layer."""
        layer, before = self._layer, self._before
        for key in keys:
            entry = before.get(key, self)
            if entry is self:
                entry = layer.get(key, ABSENT)
            if entry is not ABSENT:
                yield key, entry

    def catch_up(self) -> None:
        """Read what the undo list has got since: the first entry of a key holds what stood there when we began.

        Raises:
            TableError: the message has failed, and what it had written when we began was taken back.
        """
        undo = self._undo
        if (undo[-1] if undo else None) is self._seen_entry:
            return
        if not self._is_at(self._mark, self._mark_entry):
            raise TableError(
                f"Table {self._owner.table!r}: a scan was read on after its message had failed and what it had written"
                " was taken back: begin a new one."
            )
        # What was written since may have been taken back, and something else written.
        begin = self._seen if self._is_at(self._seen, self._seen_entry) else self._mark
        for partition, key, entry in undo[begin:]:
            if partition is self._owner:
                self._before.setdefault(key, entry)
        self._seen = len(undo)
        self._seen_entry = undo[-1] if undo else None

    def _is_at(self, length: int, entry: object) -> bool:
        return not length or (len(self._undo) >= length and self._undo[length - 1] is entry)


class LayeredScan:
    """Entries that are there, as far as `limit`: what was deleted is left out.

    Args:
        entries: layers, and the store underneath.
        now: of the newest layer, if any of it is among `entries`.
        scan: of the store; closed at the end.
    """

    __slots__ = ("_entries", "_left", "_now", "_scan")

    def __init__(self, entries: Entries, now: AsOfNow | None, scan: Scan, limit: int | None) -> None:
        self._entries = entries
        self._now = now
        self._scan = scan
        self._left = -1 if limit is None else limit

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> tuple[bytes, object]:
        if self._left:
            if self._now is not None:
                self._now.catch_up()
            for read in self._entries:
                if read[1] is not DELETED:
                    self._left -= 1
                    return read
        self._left = 0
        self._scan.close()
        raise StopIteration


class WhileHandled:
    """A scan for as long as its message is in hand.

    Args:
        table: the table's name, for messages.
    """

    __slots__ = ("_ended", "_message", "_scan", "_table", "_unit")

    def __init__(self, table: str, message: Message, scan: Iterator[Any]) -> None:
        self._table = table
        self._message = message
        self._unit = message.unit
        self._scan = scan
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        if self._unit.message is self._message:
            try:
                return next(self._scan)
            except StopIteration:
                self._ended = True
                raise
        self._scan = iter(())  # which lets go of the store
        raise TableError(
            f"Table {self._table!r}: a scan was read on in {self._unit.name} after its message had ended: take what you"
            " need before the hook returns, as in list(table.items(…))."
        )


def stored(scan: Scan) -> Entries:
    """What a store holds, as a layer would."""
    for key, data in scan:
        yield key, Encoded(data)


def laid_over(upper: Entries, lower: Entries, *, reverse: bool) -> Entries:
    """Both in order; where a key stands in both, the upper one counts."""
    above = next(upper, None)
    for key, entry in lower:
        while above is not None and (above[0] > key if reverse else above[0] < key):
            yield above
            above = next(upper, None)
        if above is None:
            yield key, entry
            yield from lower
            return
        if above[0] != key:
            yield key, entry
    while above is not None:
        yield above
        above = next(upper, None)
