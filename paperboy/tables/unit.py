"""How a table call finds the task, and the message, that it belongs to."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from paperboy.tables.partition import TablePartition, Undo


class Unit(Protocol):
    """Where messages run one after another: a task, as tables see it."""

    name: str
    """For messages: ``page-views[3]``."""
    message: object | None
    """The message (or bulk) that is being handled; None between messages."""
    tables: "dict[str, TablePartition]"
    """This task's part of each table its handlers use, by table name."""
    undo: "Undo"
    """How to take back what the message has written so far."""


unit_of_call: ContextVar[Unit | None] = ContextVar("paperboy_unit", default=None)
"""Set once in a task's own coroutine; whatever a handler starts inherits it."""

message_of_call: ContextVar[object | None] = ContextVar("paperboy_message", default=None)
"""Set for each message of a task with tables: tells what an earlier message left running from the message in hand."""
