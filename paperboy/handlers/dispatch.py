"""A handler's hooks, compiled once when it is registered."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol

from paperboy.brokers.protocol import ConsumerRecord, Record
from paperboy.errors import ConfigurationError, PaperboyError, StoreError, TableError
from paperboy.handlers.context import BulkPart, Context, Sender
from paperboy.handlers.decoding import Decoding
from paperboy.handlers.handler import Handler
from paperboy.handlers.hooks import find_hook, name_of, topics_of
from paperboy.handlers.time_limit import TimeLimit


class Unit(Sender, Protocol):
    """The task, as dispatch sees it: a message's writes are accepted when it finishes, taken back when it fails."""

    def mark(self) -> tuple[int, int]:
        """Where the writes and sends of the running message stand now."""
        ...

    def roll_back(self, mark: tuple[int, int]) -> None:
        """Take back every write and send since `mark`."""
        ...

    async def settle(self, start: int) -> None:
        """Check the sends from number `start` on against their topics; what this raises fails the message."""
        ...

    def accept(self) -> None:
        """The message has finished: its writes stay, its sends go to the outbox."""
        ...

    enter: Callable[[Any], object] | None
    """Called with each context before its hooks, so that table calls know theirs; None without tables."""
    pending: list[Any]
    """Sends of the running message."""
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

    def has_to_stop(self) -> bool:
        """Whether a bulk should end at the next message boundary: for a stop, a rebalance, or a checkpoint."""
        ...

    def passed_over(self, error: Exception, count: int, record: Record) -> None:
        """Report that `count` messages from `record` on were given up by the user's choice."""
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


class Dispatch:
    """How one handler's messages are handed over.

    Args:
        handler: a class, or an instance, of Handler or BulkHandler.
        fail_on_exception: what becomes of a failed message whose handler has no ``on_error`` (bulk: ``on_bulk_error``).
        handler_timeout_sec: how long a handler that does not say so itself may take; None for ever.

    Raises:
        ConfigurationError: it is no handler, has no topic, or a hook is no coroutine function.
    """

    def __init__(
        self,
        handler: Handler | type[Handler],
        *,
        fail_on_exception: bool,
        handler_timeout_sec: float | None = None,
    ) -> None:
        if not issubclass(handler if isinstance(handler, type) else type(handler), Handler):
            raise ConfigurationError(f"{handler!r} is no handler: subclass paperboy.Handler or paperboy.BulkHandler.")
        self.handler = handler
        self.name = name_of(handler)
        self.topics = topics_of(handler)
        self.group_name = handler.group_name
        self.tables = handler.tables
        if self.group_name is not None and not isinstance(self.group_name, str):
            raise ConfigurationError(f"{self.name}.group_name is {self.group_name!r}: it must be a string.")
        if self.tables is not None and not isinstance(self.tables, list | tuple):
            raise ConfigurationError(f"{self.name}.tables is {self.tables!r}: it must be a list of tables.")
        self.concurrency = handler.concurrency
        if type(self.concurrency) is not int or self.concurrency < 1:
            raise ConfigurationError(
                f"{self.name}.concurrency is {self.concurrency!r}: it must be a whole number above 0."
            )
        limit_sec = handler_timeout_sec if handler.handler_timeout_sec is None else handler.handler_timeout_sec
        self.handler_timeout_sec: float = math.inf if limit_sec is None else limit_sec
        if type(self.handler_timeout_sec) not in (int, float) or not self.handler_timeout_sec > 0:
            raise ConfigurationError(
                f"{self.name}.handler_timeout_sec is {limit_sec!r}: it must be a number of seconds above 0, or None."
            )
        self._reruns = handler.rerun_on_conflict
        if not isinstance(self._reruns, bool):
            raise ConfigurationError(f"{self.name}.rerun_on_conflict is {self._reruns!r}: it must be True or False.")
        self._define_context = find_hook(handler, "define_context")
        self._did_receive = find_hook(handler, "did_receive_message")
        self._on_message = find_hook(handler, "on_message")
        self._on_tombstone = find_hook(handler, "on_tombstone")
        self._on_finished = find_hook(handler, "on_finished_handling")
        self._on_error = find_hook(handler, "on_error")
        self._did_receive_bulk = find_hook(handler, "did_receive_bulk_messages")
        self._on_bulk = find_hook(handler, "on_bulk")
        self._on_bulk_error = find_hook(handler, "on_bulk_error")
        decoding = Decoding(handler)
        self._decode = decoding.decode if decoding.is_needed else None
        self._fail_on_exception = fail_on_exception
        self._bulks_of_one = self._on_bulk is not None and self._on_message is None

    async def one_by_one(self, records: list[Record], start: int, unit: Unit) -> int:
        """Handle ``records[start:]`` one after another until ``unit.turn_ends``, at least one.

        Returns:
            The index of the first record that is not finished.

        Raises:
            Exception: what a hook raised, where it was not the user's choice to go on. ``records[unit.unfinished]`` is
                the record it is about: everything before it has finished.
        """
        if self._bulks_of_one:
            return await self._bulks_of_one_record(records, start, unit)
        define, receive, finished = self._define_context, self._did_receive, self._on_finished
        on_message, on_tombstone, enter = self._on_message, self._on_tombstone, unit.enter
        decode = self._decode
        undo, pending = unit.undo, unit.pending
        clock = asyncio.get_running_loop().time
        index = start
        try:
            for index in range(start, len(records)):
                record = message = records[index]
                unit.message = ctx = Context()
                ctx.unit = unit
                ctx.record = record
                ctx.part = None
                if enter is not None:
                    enter(ctx)
                try:
                    hook = on_message if record.value is not None else on_tombstone
                    if define is not None:
                        ctx.update(await define() or ())
                    if decode is not None:
                        decode(record)
                    if receive is not None:
                        message = self._received(await receive(record, ctx))
                    if hook is not None:
                        await hook(message, ctx)
                    if finished is not None:
                        await finished(message, ctx)
                    if pending:
                        await unit.settle(0)
                except (Exception, asyncio.CancelledError) as raised:
                    error = _failure(raised, unit, record)
                    unit.roll_back((0, 0))
                    await self._failed(error, message, ctx, unit)
                    unit.passed_over(error, 1, message)
                if pending:
                    unit.accept()
                elif undo:
                    undo.clear()
                if clock() >= unit.turn_ends:
                    break
        except BaseException:
            unit.unfinished = index
            raise
        unit.message = None
        return index + 1

    async def attempt(self, record: Record, unit: UnitBeside) -> bool:
        """Handle one record in a unit of its own, while others are handled beside it.

        Returns:
            False where it lost against one of them and is to be handled again: nothing of it is left.

        Raises:
            Exception: as `one_by_one`.
        """
        unit.begin()
        # Decoding, and perhaps a hook, changes the record: what is handled again begins with another copy.
        message = _copied(record) if self._reruns else record
        unit.message = ctx = Context()
        ctx.unit = unit
        ctx.record = message
        ctx.part = None
        if unit.enter is not None:
            unit.enter(ctx)
        failure: Exception | None = None
        try:
            try:
                if self._define_context is not None:
                    ctx.update(await self._define_context() or ())
                if self._bulks_of_one:
                    await self._whole([message], ctx, unit)
                else:
                    hook = self._on_message if message.value is not None else self._on_tombstone
                    if self._decode is not None:
                        self._decode(message)
                    if self._did_receive is not None:
                        message = self._received(await self._did_receive(message, ctx))
                    if hook is not None:
                        await hook(message, ctx)
                    if self._on_finished is not None:
                        await self._on_finished(message, ctx)
                if unit.pending:
                    await unit.settle(0)
                self._check_conflict(unit)
            except (Exception, asyncio.CancelledError) as raised:
                failure = _failure(raised, unit, record)
                if self._reruns and unit.conflict() is not None:  # it may have failed over what it read
                    return False
                unit.roll_back((0, 0))
                unit.begin()
                if self._bulks_of_one:
                    await self._bulk_failed(failure, [message], ctx, unit)
                else:
                    await self._failed(failure, message, ctx, unit)
                try:
                    self._check_conflict(unit)
                except TableError as error:
                    if self._reruns:
                        return False
                    raise _noted(error, message) from failure
            unit.accept()
        finally:
            unit.message = None
        if failure is not None:
            unit.passed_over(failure, 1, message)
        return True

    def _check_conflict(self, unit: UnitBeside) -> None:
        # What has written and sent nothing leaves nothing that could be wrong.
        conflict = unit.conflict() if unit.undo or unit.pending else None
        if conflict is not None:
            raise TableError(
                f"{self.name} has read key {conflict.key} of table {conflict.table!r}, which another message changed"
                " before this one had finished: set rerun_on_conflict = True on the handler, hold the key with 'async"
                " with table.lock(key)' before it is read, or write under keys that belong to the message's own key."
            )

    @property
    def takes_bulks(self) -> bool:
        """Whether any hook of this handler gets lists; without one, a bulk is no different from its messages.

        With `concurrency`, each message finishes on its own: ``on_finished_handling`` is called with it.
        """
        return self._on_bulk is not None or (self._on_finished is not None and self.concurrency == 1)

    async def in_bulk(self, records: list[Record], unit: Unit) -> int:
        """Handle `records` as one bulk.

        Returns:
            How many of them it took: a handler without ``on_bulk`` stops at a message boundary where the task wants it.

        Raises:
            Exception: as `one_by_one`; nothing of the bulk has finished then.
        """
        unit.message = ctx = Context()
        ctx.unit = unit
        ctx.record = records[0]
        ctx.part = None
        if unit.enter is not None:
            unit.enter(ctx)
        taken = finished = records
        fatal: Exception | None = None
        try:
            if self._define_context is not None:
                ctx.update(await self._define_context() or ())
            if self._on_bulk is not None:
                await self._whole(records, ctx, unit)
            else:
                taken, finished = await self._each(records, ctx, unit)
                if self._on_finished is not None and finished:
                    await self._on_finished(list(finished), ctx)
            if unit.pending:
                await unit.settle(0)
        except _Stop as stop:
            fatal = stop.error
        except (Exception, asyncio.CancelledError) as raised:
            error = _failure(raised, unit, taken[0])
            unit.roll_back((0, 0))
            await self._bulk_failed(error, taken, ctx, unit)
            unit.passed_over(error, len(finished), taken[0])
        if fatal is not None:
            raise fatal
        unit.accept()
        unit.message = None
        return len(taken)

    async def _whole(self, records: list[Record], ctx: Context, unit: Unit) -> None:
        """A handler with ``on_bulk``. The lists it is given are its own: what it does to them changes no offset."""
        if self._decode is not None:
            await _decode_all(self._decode, records, unit)
        messages = list(records)
        if self._did_receive_bulk is not None:
            messages = await self._did_receive_bulk(messages, ctx)
            if not isinstance(messages, list):
                raise PaperboyError(f"{self.name}.did_receive_bulk_messages returned {messages!r}: return the list.")
        if messages:
            assert self._on_bulk is not None
            await self._on_bulk(messages, ctx)
        if self._on_finished is not None:
            await self._on_finished(messages, ctx)

    async def _each(self, records: list[Record], ctx: Context, unit: Unit) -> tuple[list[Record], list[Record]]:
        """A handler without ``on_bulk``: each message with a rollback of its own.

        Returns:
            The records taken, and the messages of those that were not passed over.
        """
        messages: list[Record] = []
        decode = self._decode
        receive = self._did_receive
        clock = asyncio.get_running_loop().time
        deadline = clock() + unit.turn_sec
        taken = records
        for number, record in enumerate(records, 1):
            message, mark = record, unit.mark()
            ctx.record = record
            if unit.enter is not None:
                unit.message = ctx.part = BulkPart(unit, record)
                unit.enter(ctx.part)
            try:
                hook = self._on_message if record.value is not None else self._on_tombstone
                if decode is not None:
                    decode(record)
                if receive is not None:
                    message = self._received(await receive(record, ctx))
                if hook is not None:
                    await hook(message, ctx)
                if len(unit.pending) > mark[1]:
                    await unit.settle(mark[1])
                messages.append(message)
            except (Exception, asyncio.CancelledError) as raised:
                error = _failure(raised, unit, record)
                unit.roll_back(mark)
                try:
                    await self._failed(error, message, ctx, unit)
                except Exception as fatal:
                    unit.roll_back((0, 0))
                    raise _Stop(fatal) from fatal
                unit.passed_over(error, 1, message)
            if clock() >= deadline:
                await asyncio.sleep(0)
                if unit.has_to_stop():
                    taken = records[:number]
                    break
                deadline = clock() + unit.turn_sec
        if unit.enter is not None:
            unit.message, ctx.part = ctx, None
            unit.enter(ctx)
        return taken, messages

    async def _bulks_of_one_record(self, records: list[Record], start: int, unit: Unit) -> int:
        clock = asyncio.get_running_loop().time
        index = start
        try:
            for index in range(start, len(records)):
                await self.in_bulk([records[index]], unit)
                if clock() >= unit.turn_ends:
                    break
        except BaseException:
            unit.unfinished = index
            raise
        return index + 1

    async def _failed(self, error: Exception, record: Record, ctx: Context, unit: Unit) -> None:
        """One message has failed and was rolled back: the user decides, or ``fail_on_exception``."""
        if self._on_error is not None:
            mark = unit.mark()
            try:
                answer = await self._on_error(error, record, ctx)
            except (Exception, asyncio.CancelledError) as raised:
                answer = _failure(raised, unit, record)
            if answer is not None:
                unit.roll_back(mark)
                raise _noted(_an_exception(answer, self.name, "on_error"), record)
            await _settled(unit, record, record)
        elif self._fail_on_exception:
            raise _noted(error, record)

    async def _bulk_failed(self, error: Exception, records: list[Record], ctx: Context, unit: Unit) -> None:
        """A bulk has failed and was rolled back: as `_failed`."""
        first, last = records[0], records[-1]
        # A handler of messages answers for its bulk, in which only the last hook can fail, as it does for a message.
        on_error = self._on_error if self._on_bulk is None else None
        if self._on_bulk_error is not None or on_error is not None:
            hook = "on_bulk_error" if self._on_bulk_error is not None else "on_error"
            try:
                if self._on_bulk_error is not None:
                    answer = await self._on_bulk_error(error, list(records), ctx)
                else:
                    assert on_error is not None
                    answer = await on_error(error, last, ctx)
            except (Exception, asyncio.CancelledError) as raised:
                answer = _failure(raised, unit, first)
            if answer is not None:
                unit.roll_back((0, 0))
                raise _noted(_an_exception(answer, self.name, hook), first, last)
            await _settled(unit, first, last)
        elif self._fail_on_exception:
            raise _noted(error, first, last)

    def _received(self, message: Any) -> Record:
        if message is None:
            raise PaperboyError(f"{self.name}.did_receive_message returned None: return the message.")
        return message


class _Stop(Exception):
    """Inside a bulk: a message failed for good, and the user's ``on_error`` has been asked already."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


async def _decode_all(decode: Callable[[Record], None], records: list[Record], unit: Unit) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + unit.turn_sec
    for record in records:
        decode(record)
        if clock() >= deadline:
            await asyncio.sleep(0)
            deadline = clock() + unit.turn_sec


def _an_exception(answer: Any, name: str, hook: str) -> Exception:
    if isinstance(answer, Exception):
        return answer
    return PaperboyError(f"{name}.{hook} returned {answer!r}: return an exception to stop, or None to go on.")


def _failure(raised: Exception | asyncio.CancelledError, unit: Unit, record: Record) -> Exception:
    """What a hook raised, as its failure. A cancellation of the task itself goes on, and so does the failure of a
    store, which is not the message's; a cancellation by the time limit, or one that only comes out of a hook because
    something that it awaited was cancelled, is a failure like any other."""
    overrun = unit.time_limit.overrun(record)
    if overrun is not None:
        overrun.__cause__ = raised
        return overrun
    if isinstance(raised, StoreError):
        raise raised
    if isinstance(raised, Exception):
        return raised
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise raised
    error = PaperboyError(
        "A hook raised CancelledError, though nobody had cancelled it: what it awaited was cancelled."
    )
    error.__cause__ = raised
    return error


def _copied(record: Record) -> Record:
    """``copy.copy`` takes ten times as long."""
    return ConsumerRecord(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        record.checksum,
        record.serialized_key_size,
        record.serialized_value_size,
        record.headers,
    )


async def _settled(unit: Unit, first: Record, last: Record) -> None:
    """What an error hook sends is checked as what a message sends; it has no further hook to go to."""
    if unit.pending:
        try:
            await unit.settle(0)
        except (PaperboyError, asyncio.CancelledError) as raised:
            error = _failure(raised, unit, first)
            raise _noted(error, first, last) from error.__cause__


def _noted(error: Exception, first: Record, last: Record | None = None) -> Exception:
    offsets = f"offset {first.offset}" if last is None or last is first else f"offsets {first.offset} to {last.offset}"
    error.add_note(f"While handling {first.topic}[{first.partition}] {offsets}.")
    return error
