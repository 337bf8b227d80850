"""What handlers are handed over to: the unit that a message's writes and sends belong to."""

from collections.abc import Callable
from typing import Any, Protocol

from paperboy.handlers.context import Sender
from paperboy.handlers.outcome import Failing, GivenUp
from paperboy.handlers.time_limit import TimeLimit


class Unit(Sender, Protocol):
    """The task, as dispatch sees it: a message's writes are accepted when it finishes, taken back when it fails."""

    group_id: str
    enter: Callable[[Any], object] | None
    """Called with each context before its hooks, so that table calls know theirs; None without tables."""
    pending: list[Any]
    """Sends of the running message, behind those of messages of its turn that have finished."""
    unsettled: list[Any]
    """Those of them that could not be checked when they were made: `settle` does it."""
    undo: list[Any]
    """Writes of the running message."""
    turn_sec: float
    """How long records are handled without giving the event loop its turn, in seconds."""
    turn_ends: float
    """Until when records are handled without giving way, in loop time; moved to the past by a stop."""
    time_limit: TimeLimit
    """What cancels a message that takes too long."""
    unfinished: int
    """Where a chunk handled one by one broke off: the index of the record that did not finish."""
    failing: Failing | None
    """The message that failed last, if it is to be handled again; left here by dispatch."""
    isolated: tuple[int, int] | None
    """The offsets, from and up to, that are to be handled one by one after a bulk failed; left here by dispatch."""

    def now_ms(self) -> int:
        """The broker's time, in milliseconds since 1970."""
        ...

    def mark(self) -> tuple[int, int]:
        """Where the writes and sends of the running message stand now."""
        ...

    def roll_back(self, mark: tuple[int, int]) -> None:
        """Take back every write and send since `mark`."""
        ...

    async def settle(self) -> None:
        """Check against their topics the sends that are not checked yet; what this raises fails the message."""
        ...

    def forget(self, topic: str) -> None:
        """What is known of this topic may have changed: it is looked at again before the next send."""
        ...

    def accept(self) -> None:
        """What is here has finished: its writes stay, its sends go to the outbox."""
        ...

    def is_ending(self) -> bool:
        """Whether the task is being given back: who is cancelled now has not failed."""
        ...

    def has_to_stop(self) -> bool:
        """Whether a bulk should end at the next message boundary: for a stop, a rebalance, or a checkpoint."""
        ...

    def gave_up(self, given_up: GivenUp) -> None:
        """Report that messages were given up, and what became of them."""
        ...


class Conflict(Protocol):
    """What a message has read too early: another one has changed it since."""

    @property
    def table(self) -> str: ...

    @property
    def key(self) -> str: ...


class UnitBeside(Unit, Protocol):
    """A unit whose messages run beside those of others: what one reads, another may change before it has finished."""

    def begin(self) -> None:
        """A message begins, or begins again: it has read, written and sent nothing."""
        ...

    def conflict(self) -> Conflict | None:
        """What the running message has read, and another one has changed since; None where there is nothing."""
        ...
