"""Keys and values as messages show them: never long, and never failing."""

import reprlib
from typing import Final

_MOST_CHARACTERS: Final = 100


class _Excerpts(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = _MOST_CHARACTERS

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # more digits than Python writes out
            return f"<an int of {x.bit_length()} bits>"


_excerpts = _Excerpts()


def excerpt(thing: object) -> str:
    """The repr of `thing`, cut in the middle where it is long.

    Example:
        >>> excerpt("anna")
        "'anna'"
    """
    return _excerpts.repr(thing)
