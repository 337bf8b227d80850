"""How a table call finds the message, and the task, that it belongs to."""

from collections.abc import Collection
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from paperboy.tables.partition import TablePartition, Undo


class Unit(Protocol):
    """Where messages run one after another: a task, as tables see it."""

    name: str
    """For messages: ``page-views[3]``."""
    message: object | None
    """The `Message` that is being handled; None between messages."""
    tables: "dict[str, TablePartition]"
    """This task's part of each table its handlers use, by table name."""
    undo: "Undo"
    """How to take back what the message has written so far."""


@runtime_checkable
class UnitBeside(Protocol):
    """A unit beside which others run. Where messages run one after another, no key has to be locked."""

    async def lock(self, table: str, keys: Collection[bytes]) -> None:
        """Hold these keys until the message in hand has ended."""
        ...


class Message(Protocol):
    """A message (or bulk) in a handler's hands: its context, as tables see it."""

    @property
    def unit(self) -> Unit: ...


message_of_call: ContextVar[Message | None] = ContextVar("paperboy_message", default=None)
"""Set for each message of a task with tables. What a hook starts inherits it, and so is told from later messages."""
