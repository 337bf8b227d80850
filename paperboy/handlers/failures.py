"""A message has failed: what becomes of it."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from paperboy.brokers.protocol import Record
from paperboy.clock import chance
from paperboy.errors import BulkError, PaperboyError, RegistryError, StoreError
from paperboy.handlers.context import Context
from paperboy.handlers.failed_record import read_failed
from paperboy.handlers.outcome import Culprit, Failing, Fate, GivenUp, noted
from paperboy.handlers.put_away import put_to_wait, put_with_the_dead
from paperboy.handlers.raw import Raw
from paperboy.handlers.unit import Unit
from paperboy.handlers.verdict import DeadLetterIt, RetryItLater, SkipIt, Verdict

if TYPE_CHECKING:
    from paperboy.handlers.dispatch import Dispatch

ErrorHook = Literal["on_error", "on_bulk_error"]

RAISED = (Exception, asyncio.CancelledError, Verdict, BaseExceptionGroup)
"""What hooks may raise that is for `failure_of` to look at."""


def failure_of(raised: BaseException, unit: Unit, record: Record) -> Exception | Verdict:
    """What a hook raised, as its failure, or as the handler's own verdict.

    A cancellation of the task itself goes on, whatever error the hook made of it, and so does the failure of a store,
    or of a schema registry, which is not the message's; a cancellation by the time limit, or one that only comes out of
    a hook because something that it awaited was cancelled, is a failure like any other.
    """
    overrun = unit.time_limit.overrun(record)
    if overrun is not None:
        overrun.__cause__ = raised
        return overrun
    if isinstance(raised, Culprit):
        raised = raised.error
    if isinstance(raised, BaseExceptionGroup):
        raised = _verdict_in(raised) or raised
    if isinstance(raised, StoreError | RegistryError):
        raise raised
    if isinstance(raised, Verdict):
        raised.error.with_traceback(raised.__traceback__).__cause__ = raised.__context__
        return raised
    task = asyncio.current_task()
    if isinstance(raised, Exception):
        if task is not None and task.cancelling() and unit.is_ending():
            raise asyncio.CancelledError from raised
        return raised
    if not isinstance(raised, asyncio.CancelledError):
        raise raised
    if task is None or task.cancelling():
        raise raised
    error = PaperboyError(
        "A hook raised CancelledError, though nobody had cancelled it: what it awaited was cancelled."
    )
    error.__cause__ = raised
    return error


def _verdict_in(group: BaseExceptionGroup[BaseException]) -> Verdict | None:
    """What a hook's ``asyncio.TaskGroup`` makes of a verdict in one of its tasks."""
    for error in group.exceptions:
        found = _verdict_in(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, Verdict):
            return found
    return None


def failed_before(record: Record) -> Failing | None:
    """What a record out of a retry topic says of earlier attempts."""
    failed = read_failed(record)
    if failed is None:
        return None
    error = PaperboyError(f"{failed.error_class}: {failed.error}")
    return Failing(record.offset, failed.offset, record, failed.attempts, failed.first_ms, error)


async def judge(
    dispatch: "Dispatch",
    problem: Exception | Verdict,
    taken: Record,
    message: Record,
    original: Record,
    raw: Raw,
    ctx: Context,
    unit: Unit,
    hook: ErrorHook | None = "on_error",
) -> Failing | GivenUp:
    """What becomes of one message that has failed and was rolled back.

    Args:
        taken: as it stands in its partition.
        message: as the hooks had it.
        original: as it was when it failed first; where it did not come out of a retry topic, `taken`.
        raw: of the original.
        hook: the one to be asked, if the user has overridden it: for a bulk of one, its own.

    Returns:
        How it is handled again: what an error hook has written and sent is to be taken back. Or how it was given up:
        that is then part of the message, the dead letter included, and stays.

    Raises:
        Exception: what stops the engine.
    """
    policy = dispatch.policy
    failing = _so_far(taken, unit, problem)
    if isinstance(problem, Verdict):
        failing.attempts += 1
        return await _obey(problem, dispatch, failing, original, raw, unit)
    pause_sec = None if dispatch.breaker is None else dispatch.breaker.failed(failing.error)
    if pause_sec is not None:
        failing.is_paused = True
        return failing.waits(pause_sec)
    failing.attempts += 1
    delay_sec = None if policy.retry is None else policy.retry.delay_after(failing.error, failing.attempts, chance())
    if delay_sec is not None:
        assert policy.retry is not None
        if policy.retry.via == "topics":
            return await put_to_wait(dispatch, failing, delay_sec, original, raw, unit)
        return failing.waits(delay_sec)
    if hook is not None and getattr(dispatch, hook) is not None:
        given = message if hook == "on_error" else [message]
        try:
            await _ask(dispatch, hook, problem, given, taken, ctx, unit)
        except Verdict as verdict:
            return await _obey(verdict, dispatch, failing, original, raw, unit)
    elif policy.dead_letter is None and policy.stops:
        raise noted(problem, taken)
    return await _give_up(dispatch, failing, original, raw, unit)


async def judge_bulk(
    dispatch: "Dispatch",
    problem: Exception | Verdict,
    records: list[Record],
    raws: list[Raw] | None,
    culprit: Record | None,
    ctx: Context,
    unit: Unit,
) -> Failing | GivenUp | tuple[int, int]:
    """What becomes of a bulk of several messages that has failed and was rolled back.

    Args:
        raws: of its records; None where nothing is declared that would need them.
        culprit: the message that is to blame, where that is known.

    Returns:
        As `judge`; or the offsets, from and up to, that are to be handled one by one, to find out which message it is.
    """
    policy, first, last = dispatch.policy, records[0], records[-1]
    failing = _so_far(first, unit, problem)
    if isinstance(problem, Verdict):
        failing.attempts += 1
        return await _obey_for_all(problem, dispatch, failing, records, raws, unit)
    pause_sec = None if dispatch.breaker is None or raws is None else dispatch.breaker.failed(failing.error)
    if pause_sec is not None:
        failing.is_paused = True
        return failing.waits(pause_sec)
    hook = dispatch.bulk_error_hook
    if policy.goes_on and culprit is not None and hook is None:
        return _alone(culprit, records)
    failing.attempts += 1
    retry = policy.retry
    if retry is not None and retry.via == "waiting":
        delay_sec = retry.delay_after(failing.error, failing.attempts, chance())
        if delay_sec is not None:
            return failing.waits(delay_sec)
    if hook is not None:
        given = last if hook == "on_error" else list(records)
        try:
            await _ask(dispatch, hook, problem, given, first, ctx, unit, last)
        except Verdict as verdict:
            return await _obey_for_all(verdict, dispatch, failing, records, raws, unit)
        if policy.dead_letter is None:
            return GivenUp(Fate.SKIPPED, problem, first, len(records), failing.attempts)
        assert raws is not None
        return await put_with_the_dead(dispatch, failing, records, raws, unit)
    if not policy.goes_on:
        raise noted(problem, first, last)
    return first.offset, last.offset + 1


def _alone(culprit: Record, records: list[Record]) -> tuple[int, int]:
    """A hook may have put other messages in place of those it was given: then any may be the one."""
    offset = getattr(culprit, "offset", None)
    if any(record.offset == offset for record in records):
        return culprit.offset, culprit.offset + 1
    return records[0].offset, records[-1].offset + 1


def cause_of(error: Exception) -> Exception:
    """What a policy looks at: why the message failed, not that it was one of a bulk."""
    return error.cause if isinstance(error, BulkError) else error


def _so_far(taken: Record, unit: Unit, problem: Exception | Verdict) -> Failing:
    """With what is known of earlier attempts. Those stay as they are: error hooks may ask, and this one may be void."""
    error = problem.error if isinstance(problem, Verdict) else cause_of(problem)
    failing = unit.failing
    if failing is None or failing.offset != taken.offset:
        return Failing(taken.offset, taken.offset, taken, 0, unit.now_ms(), error)
    return replace(failing, error=error, is_paused=False)


async def _ask(
    dispatch: "Dispatch",
    name: ErrorHook,
    error: Exception,
    given: Record | list[Record],
    first: Record,
    ctx: Context,
    unit: Unit,
    last: Record | None = None,
) -> None:
    """Ask the user's error hook. It returns to go on; what it answers otherwise is raised."""
    hook = dispatch.on_error if name == "on_error" else dispatch.on_bulk_error
    assert hook is not None
    mark = unit.mark()
    try:
        answer = await hook(error, given, ctx)
    except RAISED as raised:
        answer = failure_of(raised, unit, first)
        if isinstance(answer, Verdict):
            unit.roll_back(mark)
            raise answer from None
    if answer is not None:
        unit.roll_back(mark)
        raise noted(_an_exception(answer, dispatch.name, name), first, last)
    if unit.pending:
        # What it sends is checked as what a message sends; it has no further hook to go to.
        try:
            await unit.settle()
        except (PaperboyError, asyncio.CancelledError) as raised:
            failure = failure_of(raised, unit, first)
            assert isinstance(failure, Exception)
            raise noted(failure, first, last) from failure.__cause__


async def _obey(
    verdict: Verdict, dispatch: "Dispatch", failing: Failing, original: Record, raw: Raw, unit: Unit
) -> Failing | GivenUp:
    """The handler knows best."""
    failing.error = verdict.error
    match verdict:
        case SkipIt():
            return GivenUp(Fate.SKIPPED, verdict.error, failing.record, attempts=failing.attempts)
        case DeadLetterIt():
            if dispatch.policy.dead_letter is None:
                raise noted(_needs_policy(dispatch, verdict), failing.record)
            return await put_with_the_dead(dispatch, failing, [original], [raw], unit)
        case RetryItLater(delay_sec=delay_sec):
            retry = dispatch.policy.retry
            if retry is not None and retry.via == "topics":
                return await put_to_wait(dispatch, failing, delay_sec, original, raw, unit)
            return failing.waits(delay_sec)
        case _:
            raise verdict


async def _obey_for_all(
    verdict: Verdict, dispatch: "Dispatch", failing: Failing, records: list[Record], raws: list[Raw] | None, unit: Unit
) -> Failing | GivenUp:
    """A verdict of a hook that gets a list is about the whole of it."""
    failing.error = verdict.error
    if isinstance(verdict, SkipIt):
        return GivenUp(Fate.SKIPPED, verdict.error, records[0], len(records), failing.attempts)
    if raws is None or (isinstance(verdict, DeadLetterIt) and dispatch.policy.dead_letter is None):
        raise noted(_needs_policy(dispatch, verdict), records[0], records[-1])
    if isinstance(verdict, RetryItLater):
        return failing.waits(verdict.delay_sec)
    return await put_with_the_dead(dispatch, failing, records, raws, unit)


async def _give_up(dispatch: "Dispatch", failing: Failing, original: Record, raw: Raw, unit: Unit) -> Failing | GivenUp:
    if dispatch.policy.dead_letter is None:
        return GivenUp(Fate.SKIPPED, failing.error, failing.record, attempts=failing.attempts)
    return await put_with_the_dead(dispatch, failing, [original], [raw], unit)


def _needs_policy(dispatch: "Dispatch", verdict: Verdict) -> Exception:
    called, needed = ("ctx.retry_later", "retry = Retry(…)")
    if isinstance(verdict, DeadLetterIt):
        called, needed = ("ctx.dead_letter", "dead_letter = DeadLetter()")
    error = PaperboyError(
        f"{called} was called ({verdict}), but {dispatch.name} does not declare {needed}: set it on the handler, or on"
        " the engine."
    )
    error.__cause__ = verdict.error
    return error


def _an_exception(answer: Any, name: str, hook: str) -> Exception:
    if isinstance(answer, Exception):
        return answer
    return PaperboyError(f"{name}.{hook} returned {answer!r}: return an exception to stop, or None to go on.")
