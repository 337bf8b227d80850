"""Messages handled as one bulk."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from paperboy.brokers.protocol import Record
from paperboy.errors import BulkError, DeserializationError, PaperboyError
from paperboy.handlers.context import BulkPart, Context
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.failures import RAISED, failure_of, judge, judge_bulk
from paperboy.handlers.outcome import Culprit, Failing, GivenUp
from paperboy.handlers.raw import Raw, raw_of, restore_raw
from paperboy.handlers.unit import Unit


async def in_bulk(dispatch: Dispatch, records: list[Record], unit: Unit) -> int:
    """Handle `records` as one bulk.

    Returns:
        How many of them it took. A handler without ``on_bulk`` stops at a message boundary where the task wants it, and
        before a message that is to be handled again, which is then left in ``unit.failing``. 0, if the bulk has failed
        as a whole: ``unit.failing`` or ``unit.isolated`` says how it goes on.

    Raises:
        Exception: what a hook raised, where it was not the user's choice to go on; nothing of the bulk has finished.
    """
    is_one, fetched = len(records) == 1, records
    if dispatch.present is not None:
        records = [dispatch.present(record) for record in records]
    raws = [raw_of(record) for record in records] if is_one or dispatch.keeps_bytes else None
    unit.message = ctx = Context()
    ctx.unit = unit
    ctx.record = records[0]
    ctx.part = None
    if unit.enter is not None:
        unit.enter(ctx)
    part = _Part(records)
    fatal: Exception | None = None
    try:
        if dispatch.define_context is not None:
            ctx.update(await dispatch.define_context() or ())
        if dispatch.on_bulk is not None:
            await whole_bulk(dispatch, records, ctx, unit)
        else:
            await _each(dispatch, part, ctx, unit)
            if dispatch.on_finished is not None and part.finished:
                await dispatch.on_finished(list(part.finished), ctx)
        if unit.pending:
            await unit.settle()
    except _Stop as stop:
        fatal = stop.error
    except RAISED as raised:
        taken = part.taken
        problem = failure_of(raised, unit, taken[0])
        unit.roll_back((0, 0))
        outcome: Failing | GivenUp | tuple[int, int]
        if is_one and raws is not None and dispatch.on_bulk is not None:
            one = records[0]
            outcome = await judge(dispatch, problem, fetched[0], one, one, raws[0], ctx, unit, dispatch.bulk_error_hook)
        else:
            culprit = raised.record if isinstance(raised, Culprit) else None
            needed = None if raws is None else raws[: len(taken)]
            outcome = await judge_bulk(dispatch, problem, taken, needed, culprit, ctx, unit)
            if isinstance(outcome, GivenUp) and part.given_up and raws is not None:
                # Those were given up by themselves, and their dead letters are taken back with the bulk.
                outcome = taken[0].offset, taken[-1].offset + 1
        if not isinstance(outcome, GivenUp):
            unit.roll_back((0, 0))
            if raws is not None:
                for record, raw in zip(records, raws, strict=True):
                    restore_raw(record, raw)
            unit.failing, unit.isolated = (outcome, None) if isinstance(outcome, Failing) else (None, outcome)
            unit.message = None
            return 0
        part.given_up = [outcome]
    if fatal is not None:
        raise fatal
    for given_up in part.given_up:
        unit.gave_up(given_up)
    if part.failing is not None:
        unit.failing = part.failing
    unit.accept()
    unit.message = None
    return len(part.taken)


async def whole_bulk(dispatch: Dispatch, records: list[Record], ctx: Context, unit: Unit) -> None:
    """A handler with ``on_bulk``. The lists it is given are its own: what it does to them changes no offset.

    Raises:
        Culprit: it is known which message is to blame.
    """
    if dispatch.decode is not None:
        await _decode_all(dispatch.decode, records, unit)
    messages = list(records)
    if dispatch.did_receive_bulk is not None:
        messages = await dispatch.did_receive_bulk(messages, ctx)
        if not isinstance(messages, list):
            raise PaperboyError(f"{dispatch.name}.did_receive_bulk_messages returned {messages!r}: return the list.")
    if messages:
        assert dispatch.on_bulk is not None
        try:
            await dispatch.on_bulk(messages, ctx)
        except BulkError as error:
            if not 0 <= error.index < len(messages):
                raise
            raise Culprit(messages[error.index], error) from error
    if dispatch.on_finished is not None:
        await dispatch.on_finished(messages, ctx)


@dataclass
class _Part:
    """How far a bulk of single messages has come."""

    taken: list[Record]
    finished: list[Record] = field(default_factory=list)
    """The messages that were not given up."""
    given_up: list[GivenUp] = field(default_factory=list)
    failing: Failing | None = None
    """The message behind those taken, to be handled again."""


async def _each(dispatch: Dispatch, part: _Part, ctx: Context, unit: Unit) -> None:
    """A handler without ``on_bulk``: each message with a rollback of its own."""
    records, decode, receive = part.taken, dispatch.decode, dispatch.did_receive
    copies_headers = dispatch.keeps_bytes
    clock = asyncio.get_running_loop().time
    deadline = clock() + unit.turn_sec
    for number, record in enumerate(records, 1):
        message, mark = record, unit.mark()
        key, value, headers = record.key, record.value, record.headers
        if copies_headers:
            headers = headers[:]
        ctx.record = record
        if unit.enter is not None:
            unit.message = ctx.part = BulkPart(unit, record)
            unit.enter(ctx.part)
        try:
            hook = dispatch.on_message if value is not None else dispatch.on_tombstone
            if decode is not None and (later := decode(record)) is not None:
                await later
            if receive is not None:
                message = dispatch.received(await receive(record, ctx))
            if hook is not None:
                await hook(message, ctx)
            if len(unit.pending) > mark[1]:
                await unit.settle()
            part.finished.append(message)
        except RAISED as raised:
            problem = failure_of(raised, unit, record)
            unit.roll_back(mark)
            raw: Raw = (key, value, headers)
            try:
                outcome = await judge(dispatch, problem, record, message, record, raw, ctx, unit)
            except Exception as fatal:
                unit.roll_back((0, 0))
                raise _Stop(fatal) from fatal
            if isinstance(outcome, Failing):
                unit.roll_back(mark)
                restore_raw(record, raw)
                part.taken, part.failing = records[: number - 1], outcome
                break
            part.given_up.append(outcome)
        if clock() >= deadline:
            await asyncio.sleep(0)
            if unit.has_to_stop():
                part.taken = records[:number]
                break
            deadline = clock() + unit.turn_sec
    ctx.record = records[0]
    if unit.enter is not None:
        unit.message, ctx.part = ctx, None
        unit.enter(ctx)


async def _decode_all(decode: Callable[[Record], Awaitable[None] | None], records: list[Record], unit: Unit) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + unit.turn_sec
    for record in records:
        try:
            later = decode(record)
            if later is not None:
                await later
        except DeserializationError as error:
            raise Culprit(record, error) from error
        if clock() >= deadline:
            await asyncio.sleep(0)
            deadline = clock() + unit.turn_sec


class _Stop(Exception):
    """Inside a bulk: a message failed for good, and the user has been asked already."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
