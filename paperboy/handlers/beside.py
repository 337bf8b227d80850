"""A message handled while others are handled beside it."""

from enum import Enum, auto

from paperboy.brokers.protocol import Record, new_record
from paperboy.errors import TableError
from paperboy.handlers.bulk import whole_bulk
from paperboy.handlers.context import Context
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.failures import RAISED, failure_of, judge
from paperboy.handlers.outcome import Failing, GivenUp, noted
from paperboy.handlers.raw import raw_of
from paperboy.handlers.unit import UnitBeside


class Attempt(Enum):
    """How an attempt ended that did not fail."""

    FINISHED = auto()
    GIVEN_UP = auto()
    LOST = auto()
    """Against a message beside it: it is to be handled again, and nothing of it is left."""


async def attempt(dispatch: Dispatch, record: Record, unit: UnitBeside) -> Attempt | Failing:
    """Handle one record in a unit of its own, while others are handled beside it.

    Returns:
        How it ended; where it has failed and is to be handled again, when.

    Raises:
        Exception: what a hook raised, where it was not the user's choice to go on.
    """
    unit.begin()
    # Decoding, and perhaps a hook, changes the record: what is handled again begins with another copy.
    original = _copied(record) if dispatch.present is None else dispatch.present(record)
    raw = raw_of(original)
    message = original
    unit.message = ctx = Context()
    ctx.unit = unit
    ctx.record = original
    ctx.part = None
    if unit.enter is not None:
        unit.enter(ctx)
    given_up: GivenUp | None = None
    try:
        try:
            if dispatch.define_context is not None:
                ctx.update(await dispatch.define_context() or ())
            if dispatch.bulks_of_one:
                await whole_bulk(dispatch, [original], ctx, unit)
            else:
                hook = dispatch.on_message if original.value is not None else dispatch.on_tombstone
                if dispatch.decode is not None and (later := dispatch.decode(original)) is not None:
                    await later
                if dispatch.did_receive is not None:
                    message = dispatch.received(await dispatch.did_receive(original, ctx))
                if hook is not None:
                    await hook(message, ctx)
                if dispatch.on_finished is not None:
                    await dispatch.on_finished(message, ctx)
            if unit.pending:
                await unit.settle()
            _check_conflict(dispatch, unit)
        except RAISED as raised:
            problem = failure_of(raised, unit, record)
            if dispatch.reruns and unit.conflict() is not None:  # it may have failed over what it read
                return Attempt.LOST
            unit.roll_back((0, 0))
            unit.begin()
            asked = dispatch.bulk_error_hook if dispatch.bulks_of_one else "on_error"
            outcome = await judge(dispatch, problem, record, message, original, raw, ctx, unit, asked)
            if isinstance(outcome, Failing):
                return outcome
            given_up = outcome
            try:
                _check_conflict(dispatch, unit)
            except TableError as error:
                if dispatch.reruns:
                    return Attempt.LOST
                raise noted(error, message) from outcome.error
        unit.accept()
    finally:
        unit.message = None
    if given_up is None:
        return Attempt.FINISHED
    unit.gave_up(given_up)
    return Attempt.GIVEN_UP


def _check_conflict(dispatch: Dispatch, unit: UnitBeside) -> None:
    # What has written and sent nothing leaves nothing that could be wrong.
    conflict = unit.conflict() if unit.undo or unit.pending else None
    if conflict is not None:
        raise TableError(
            f"{dispatch.name} has read key {conflict.key} of table {conflict.table!r}, which another message changed"
            " before this one had finished: set rerun_on_conflict = True on the handler, hold the key with 'async"
            " with table.lock(key)' before it is read, or write under keys that belong to the message's own key."
        )


def _copied(record: Record) -> Record:
    """``copy.copy`` takes ten times as long."""
    return new_record(
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
        record.headers[:],
    )
