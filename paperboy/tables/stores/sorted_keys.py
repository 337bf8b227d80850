"""Keys in order, for a store whose entries have none."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final

_CHUNK_KEYS: Final = 1_000
"""How many keys stand in one list: what a single key that comes or goes costs to put in its place."""

_first_key = itemgetter(0)


class SortedKeys:
    """Keys in order, never changed in place: whoever holds one holds the keys as of then.

    Args:
        keys: in any order, none twice.
    """

    __slots__ = ("_chunks",)

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._chunks = list(_chunks(sorted(keys)))

    def moved(self, keys: Iterable[bytes]) -> "SortedKeys":
        """The keys after these came or went: those that are here are gone, and those that are not are here."""
        moved = sorted(keys)
        result = SortedKeys(())
        chunks = self._chunks or [[]]
        begin = 0
        for index, chunk in enumerate(chunks):
            end = bisect_left(moved, chunks[index + 1][0], begin) if index + 1 < len(chunks) else len(moved)
            if begin == end:
                result._chunks.append(chunk)
            else:
                result._chunks.extend(_chunks(_moved(chunk, moved[begin:end])))
            begin = end
        return result

    def between(self, start: bytes, stop: bytes | None, *, reverse: bool) -> Iterator[bytes]:
        """The keys with ``start <= key < stop`` (`stop` None: to the end), in order or in the reverse."""
        chunks = self._chunks
        first = max(bisect_right(chunks, start, key=_first_key) - 1, 0)
        end = len(chunks) if stop is None else bisect_left(chunks, stop, key=_first_key)
        for index in reversed(range(first, end)) if reverse else range(first, end):
            chunk: Sequence[bytes] = chunks[index]
            if index == end - 1 and stop is not None:
                chunk = chunk[: bisect_left(chunk, stop)]
            if index == first:
                chunk = chunk[bisect_left(chunk, start) :]
            yield from reversed(chunk) if reverse else chunk


def _chunks(ordered: list[bytes]) -> Iterator[list[bytes]]:
    """Cut into lists of a chunk's size; what is not twice as long stays whole."""
    if len(ordered) < 2 * _CHUNK_KEYS:
        if ordered:
            yield ordered
        return
    for begin in range(0, len(ordered), _CHUNK_KEYS):
        yield ordered[begin : begin + _CHUNK_KEYS]


def _moved(chunk: list[bytes], keys: list[bytes]) -> list[bytes]:
    here = set(keys)
    stayed = [key for key in chunk if key not in here]
    came = here.difference(chunk)
    return sorted([*stayed, *sorted(came)])
