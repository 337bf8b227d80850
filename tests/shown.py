"""How a parameter shows in a test's name."""

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def shown(value: object) -> str:
    """Its repr, but the same in each process that shares tests out: not where it lies in memory, and sets sorted."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(shown, value)))}}}"
    return _ADDRESS.sub("", repr(value))
