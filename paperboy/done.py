"""An awaitable that is already done."""

from collections.abc import Iterator


class Done:
    """What a call returns that has done its work when called, so that it is right with and without ``await``."""

    __slots__ = ()

    def __await__(self) -> Iterator[None]:
        return iter(())


DONE = Done()
