"""Which dead letters somebody means."""

import re
from ast import literal_eval
from contextlib import suppress
from dataclasses import dataclass

from paperboy.cli.dead_letters import Letter

_OFFSETS = re.compile(r"(\d+)(?::(\d+)?(-)?(\d+)?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Offsets:
    """Of a partition, the offsets from `first` to `last`, both included."""

    partition: int
    first: int = 0
    last: int | None = None
    """None: to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """What a letter has to be; without any of it, every letter is meant."""

    error: str = ""
    """Part of its error's class, in whatever case."""
    since_ms: int | None = None
    """It failed last at this time or later, in milliseconds since 1970."""
    until_ms: int | None = None
    """It failed last before this time."""
    keys: frozenset[bytes] = frozenset()
    """One of these is its key."""
    offsets: tuple[Offsets, ...] = ()
    """One of these holds its offset in the dead letter topic."""

    def means(self, letter: Letter) -> bool:
        return (
            self.error.lower() in letter.error_class.lower()
            and (self.since_ms is None or letter.failed_ms >= self.since_ms)
            and (self.until_ms is None or letter.failed_ms < self.until_ms)
            and (not self.keys or letter.key in self.keys)
            and (not self.offsets or any(_holds(offsets, letter) for offsets in self.offsets))
        )


def offsets_of(text: str) -> Offsets:
    """As a person writes them: ``3`` for all of partition 3, ``3:17``, ``3:17-20``, ``3:17-`` or ``3:-20``.

    Raises:
        ValueError: it is none of these.
    """
    found = _OFFSETS.fullmatch(text)
    if found is None or (text.endswith(":")):
        raise ValueError(text)
    partition, first, dash, last = found.groups()
    if dash is None and last is not None:
        raise ValueError(text)
    begin = int(first or 0)
    if first is not None and dash is None:
        return Offsets(int(partition), begin, begin)
    offsets = Offsets(int(partition), begin, None if last is None else int(last))
    if offsets.last is not None and offsets.last < begin:
        raise ValueError(text)
    return offsets


def keys_called(text: str) -> frozenset[bytes]:
    """The keys that somebody may mean: the text itself, or bytes as Python writes them, as in ``b'\\x00a'``."""
    meant = {text.encode()}
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        literal = literal_eval(text)
        if isinstance(literal, bytes):
            meant.add(literal)
    return frozenset(meant)


def _holds(offsets: Offsets, letter: Letter) -> bool:
    return (
        letter.at.partition == offsets.partition
        and offsets.first <= letter.offset
        and (offsets.last is None or letter.offset <= offsets.last)
    )
