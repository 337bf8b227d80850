"""An awaitable that is already done."""

from collections.abc import Generator
from typing import Any, cast

_NOTHING = cast(Generator[Any, None, None], iter(()))


class Done:
    """What a call returns that has done its work when called, so that it is right with and without ``await``."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return _NOTHING


DONE = Done()
