"""The classes a user subclasses."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal

from paperboy.brokers.protocol import ConsumerRecord
from paperboy.handlers.context import Context
from paperboy.handlers.error_policy import CircuitBreaker, DeadLetter, Retry
from paperboy.handlers.message import Message, V
from paperboy.serializers.protocol import Deserializer
from paperboy.topic import Topic

__all__ = ["BulkHandler", "Handler", "Message"]


class Handler(Generic[V]):
    """Handles the messages of a topic, one by one.

    Hooks are class methods (``Engine(PageViews)``), or plain methods of an instance that carries its own
    dependencies (``Engine(PageViews(database))``). A hook that is not overridden costs nothing. In every mode each
    message goes through ``did_receive_message``, then ``on_message`` or ``on_tombstone``; ``on_finished_handling``
    follows with the message in single mode, and once with the whole list in bulk and step mode.

    What a message that fails has written to tables or sent through its context is taken back.

        class PageViews(Handler):
            topic = "page-views"

            @classmethod
            async def on_message(cls, msg, ctx):
                print(msg.key, msg.value)

    ``Handler[Order]`` makes an Order of each value, and says so to type checkers: see `value_type`.
    """

    topic: str | Topic | Sequence[str | Topic] = ()
    """The topic to consume, or several: names, or a `Topic` each, whose serializers decode where the handler says
    nothing itself."""

    outputs: Sequence[str | Topic] = ()
    """The topics that its hooks send to. An engine does not need to know them. Of those that it knows it makes sure at
    the start that they exist, and ``paperboy topics plan`` shows them."""

    group_name: str | None = None
    """The name of this handler's topic group; by default that of its lexicographically first topic."""

    tables: Sequence[Any] | None = None
    """The tables its hooks use; None means every table that is registered with the engine."""

    concurrency: int = 1
    """How many messages of one partition are handled at the same time, for hooks that wait for something: those of one
    key in order, one after another; those of different keys, and those without a key, side by side. A message that was
    begun too early for what it has read in a table fails: see `rerun_on_conflict` and ``table.lock``."""

    rerun_on_conflict: bool = False
    """With `concurrency`: a message that has read in a table what another one has changed meanwhile is handled again,
    from its first hook on, in place of failing. So nothing that its hooks do outside may mind being done twice."""

    handler_timeout_sec: float | None = None
    """How long the hooks may take over a message (those that get lists: over a bulk), in seconds, before they are
    cancelled and it fails with a `HandlerTimeout`. None: as the engine's option says; ``math.inf``: for ever."""

    retry: Retry | Literal[False] | None = None
    """How a message that failed is handled again, before it is given up. None: as the engine's option says; False:
    not at all."""

    dead_letter: DeadLetter | Literal[False] | None = None
    """A message that is given up is put into a topic. None: as the engine's option says; False: it is not."""

    fail_on_exception: bool | None = None
    """A message that is given up, without `dead_letter`, stops the engine (True), or is passed over (False). None: as
    the engine's options say. Where it is set, the engine's ``dead_letter`` is not for this handler."""

    circuit_breaker: CircuitBreaker | Literal[False] | None = None
    """Pauses this handler when what it needs is away. None: as the engine's option says; False: never."""

    key_type: Any = None
    """What keys are made into, and checked: a dataclass, msgspec.Struct, pydantic model or another type. From JSON, or
    from what `key_serializer` makes; a str is UTF-8, and bytes are the key as it is."""

    value_type: Any = None
    """The same for values. ``Handler[Order]`` without any of the two is as ``value_type = Order``."""

    key_serializer: Callable[..., Any] | Deserializer | None = None
    """Bytes to key: a serializer, or a callable that takes the key's bytes. ``key_deserializer`` is another name for
    it."""

    value_serializer: Callable[..., Any] | Deserializer | None = None
    """Bytes to value: a serializer, or a callable that takes the value's bytes. ``value_deserializer`` is another name
    for it."""

    key_deserializer: Callable[..., Any] | Deserializer | None = None
    value_deserializer: Callable[..., Any] | Deserializer | None = None

    @classmethod
    async def define_context(cls) -> dict[str, Any] | None:
        """What the context holds at first: called before each message, or each list for hooks that get a list."""
        return None

    @classmethod
    async def did_receive_message(cls, msg: Message[Any], ctx: Context) -> ConsumerRecord[Any, Any]:
        """Before a message is handled; what it returns is handled in its place."""
        return msg

    @classmethod
    async def on_message(cls, msg: Message[V], ctx: Context) -> None:
        """A message with a value."""

    @classmethod
    async def on_tombstone(cls, msg: Message[None], ctx: Context) -> None:
        """A message whose value is null: its key was deleted from a compacted topic."""

    @classmethod
    async def on_finished_handling(cls, msgs: Message[Any] | list[Any], ctx: Context) -> None:
        """After the message in single mode; in bulk and step mode once, with the list: if it fails, all of it has."""

    @classmethod
    async def on_error(cls, e: Exception, msg: Message[Any], ctx: Context) -> Exception | None:
        """After a message has failed for good (`retry` is used up), and its writes were taken back.

        An exception that is returned (or raised) here stops the engine and is what ``start()`` raises. None goes on:
        the message is put with the dead letters where `dead_letter` is set, else it is passed over. Not overridden,
        `dead_letter` and `fail_on_exception` decide.
        """
        return e


class BulkHandler(Handler[V]):
    """A handler that takes its messages in bulk when there are many.

    In bulk and step mode: ``did_receive_bulk_messages``, ``on_bulk`` (tombstones included),
    ``on_finished_handling(list)``, taken back together if any of them fails. In single mode it is as a `Handler`;
    where it has no ``on_message`` of its own, ``on_bulk`` gets bulks of one.

    Its lists are of `Message`: ``msgs: list[Message[Order | None]]`` in a ``BulkHandler[Order]``.
    """

    @classmethod
    async def did_receive_bulk_messages(cls, msgs: list[Any], ctx: Context) -> list[Any]:
        """Before a bulk is handled; the list it returns is handled in its place."""
        return msgs

    @classmethod
    async def on_bulk(cls, msgs: list[Any], ctx: Context) -> None:
        """Up to ``bulk_mode_max_records`` messages of one partition, in order."""

    @classmethod
    async def on_bulk_error(cls, e: Exception, msgs: list[Any], ctx: Context) -> Exception | None:
        """After a bulk has failed and its writes were taken back; answers as `on_error` does, for the whole bulk."""
        return e
