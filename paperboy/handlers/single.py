"""Messages handled one after another."""

import asyncio

from paperboy.brokers.protocol import Record
from paperboy.handlers.bulk import in_bulk
from paperboy.handlers.context import Context
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.failures import RAISED, failure_of, judge
from paperboy.handlers.outcome import Failing
from paperboy.handlers.raw import restore_raw
from paperboy.handlers.unit import Unit


async def one_by_one(dispatch: Dispatch, records: list[Record], start: int, unit: Unit) -> int:
    """Handle ``records[start:]`` one after another until ``unit.turn_ends``, at least one.

    Returns:
        The index of the first record that is not finished. It has failed, and is to be handled again, where
        ``unit.failing`` is about it.

    Raises:
        Exception: what a hook raised, where it was not the user's choice to go on. ``records[unit.unfinished]`` is
            the record it is about: everything before it has finished.
    """
    if dispatch.bulks_of_one:
        return await _bulks_of_one(dispatch, records, start, unit)
    define, receive, finished = dispatch.define_context, dispatch.did_receive, dispatch.on_finished
    on_message, on_tombstone, enter = dispatch.on_message, dispatch.on_tombstone, unit.enter
    decode, present, received = dispatch.decode, dispatch.present, dispatch.received
    undo, pending, unsettled, copies_headers = unit.undo, unit.pending, unit.unsettled, dispatch.keeps_bytes
    clock = asyncio.get_running_loop().time
    index, sent = start, 0  # how many sends are of messages that have finished
    try:
        for index in range(start, len(records)):
            record = message = records[index] if present is None else present(records[index])
            key, value, headers = record.key, record.value, record.headers
            if copies_headers:
                headers = headers[:]
            unit.message = ctx = Context()
            ctx.unit = unit
            ctx.record = record
            ctx.part = None
            if enter is not None:
                enter(ctx)
            try:
                hook = on_message if value is not None else on_tombstone
                if define is not None:
                    ctx.update(await define() or ())
                if decode is not None and (later := decode(record)) is not None:
                    await later
                if receive is not None:
                    message = received(await receive(record, ctx))
                if hook is not None:
                    await hook(message, ctx)
                if finished is not None:
                    await finished(message, ctx)
                if unsettled:
                    await unit.settle()
            except RAISED as raised:
                problem = failure_of(raised, unit, record)
                unit.roll_back((0, sent))
                raw = key, value, headers
                outcome = await judge(dispatch, problem, records[index], message, record, raw, ctx, unit)
                if isinstance(outcome, Failing):
                    unit.roll_back((0, sent))
                    restore_raw(record, raw)
                    unit.failing = outcome
                    unit.message = None
                    return index
                unit.gave_up(outcome)
            if undo:
                undo.clear()
            sent = len(pending)
            if clock() >= unit.turn_ends:
                break
    except BaseException:
        unit.unfinished = index
        raise
    finally:
        unit.roll_back((0, sent))
        unit.accept()
    unit.message = None
    return index + 1


async def _bulks_of_one(dispatch: Dispatch, records: list[Record], start: int, unit: Unit) -> int:
    clock = asyncio.get_running_loop().time
    index = start
    try:
        for index in range(start, len(records)):
            if not await in_bulk(dispatch, [records[index]], unit):
                return index
            if clock() >= unit.turn_ends:
                break
    except BaseException:
        unit.unfinished = index
        raise
    return index + 1
