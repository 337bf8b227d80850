"""Messages that failed are put away: with the dead letters, or to wait in a retry topic."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from paperboy.brokers.protocol import Record
from paperboy.durations import written
from paperboy.errors import BrokerError, PaperboyError, RecordTooLarge
from paperboy.handlers.failed_record import FailedRecord, class_of, message_of, shown, stack_of
from paperboy.handlers.outcome import Failing, Fate, GivenUp, noted
from paperboy.handlers.raw import Raw
from paperboy.handlers.retry_topics import KEPT_SEC, retry_topic
from paperboy.handlers.unit import Unit

if TYPE_CHECKING:
    from paperboy.handlers.dispatch import Dispatch

_UNWRITABLE_WAIT_SEC = 10.0
"""How long a partition waits before it tries again to write a dead letter."""


async def put_with_the_dead(
    dispatch: "Dispatch", failing: Failing, originals: list[Record], raws: list[Raw], unit: Unit
) -> Failing | GivenUp:
    """Send the dead letter of a message, or those of a bulk: with what its error hook has sent, and acknowledged before
    its offset moves."""
    settings = dispatch.policy.dead_letter
    assert settings is not None
    topic = settings.topic_for(originals[0].topic)
    failed = _failed_record(dispatch, failing, originals[0], unit)  # a stack takes longer than all the rest
    clock = asyncio.get_running_loop().time
    deadline = clock() + unit.turn_sec
    try:
        with _without_limit(unit):
            for number, (original, raw) in enumerate(zip(originals, raws, strict=True)):
                if number and clock() >= deadline:
                    await asyncio.sleep(0)
                    deadline = clock() + unit.turn_sec
                await _sent(topic, failed.of(original), original, raw, original.timestamp, unit)
    except BrokerError as unwritable:
        unwritable.add_note(f"It was to be put with the dead letters in {topic!r}, because of: {shown(failing.error)}")
        if settings.unwritable == "stop":
            raise noted(unwritable, failing.record) from failing.error
        unit.forget(topic)
        failing.attempts -= 1
        failing.error = unwritable
        return failing.waits(_UNWRITABLE_WAIT_SEC)
    return GivenUp(Fate.DEAD_LETTER, failing.error, failing.record, len(originals), failing.attempts, topic)


async def put_to_wait(
    dispatch: "Dispatch", failing: Failing, delay_sec: float, original: Record, raw: Raw, unit: Unit
) -> GivenUp:
    """Send it to the first retry topic that waits as long, or to the one that waits longest."""
    delays = dispatch.retry_delays_sec
    delay = min((each for each in delays if each >= delay_sec), default=max(delays))
    topic = retry_topic(unit.group_id, dispatch.retries_of or original.topic, delay)
    if delay_sec > delay + KEPT_SEC:
        error = PaperboyError(
            f"A message is to wait for {written(delay_sec)} in {topic!r}, which keeps it for a week beyond"
            f" {written(delay)}: declare a delay as long in Retry(delays=[…]), or say a shorter one to ctx.retry_later."
        )
        raise noted(error, failing.record) from failing.error
    now_ms = unit.now_ms()
    failed = _failed_record(dispatch, failing, original, unit, due_ms=now_ms + round(delay_sec * 1000))
    try:
        with _without_limit(unit):
            await _sent(topic, failed, original, raw, now_ms, unit)
    except BrokerError as error:
        error.add_note(f"It was to wait in {topic!r}, because of: {shown(failing.error)}")
        raise noted(error, failing.record) from failing.error
    return GivenUp(Fate.RETRY_TOPIC, failing.error, failing.record, attempts=failing.attempts, topic=topic)


def _failed_record(
    dispatch: "Dispatch", failing: Failing, original: Record, unit: Unit, due_ms: int | None = None
) -> FailedRecord:
    return FailedRecord(
        topic=original.topic,
        partition=original.partition,
        offset=original.offset,
        timestamp_ms=original.timestamp,
        group=unit.group_id,
        handler=dispatch.name,
        error_class=class_of(failing.error),
        error=message_of(failing.error),
        stack=stack_of(failing.error),
        attempts=failing.attempts,
        first_ms=failing.first_ms,
        last_ms=unit.now_ms(),
        due_ms=due_ms,
    )


async def _sent(topic: str, failed: FailedRecord, original: Record, raw: Raw, timestamp_ms: int, unit: Unit) -> None:
    """Send it with the message, if its topic takes it, at least without the stack; else nothing of it is left."""
    key, value, headers = raw
    mark = unit.mark()
    try:
        try:
            unit.send(topic, value, key, failed.headers(headers), original.partition, timestamp_ms)
            await unit.settle()
        except RecordTooLarge:
            unit.roll_back(mark)
            unit.send(topic, value, key, failed.without_stack().headers(headers), original.partition, timestamp_ms)
            await unit.settle()
    except BaseException:
        unit.roll_back(mark)
        raise


@contextmanager
def _without_limit(unit: Unit) -> Iterator[None]:
    """The time limit is that of hooks: meanwhile, no message is in hand."""
    in_hand, unit.message = unit.message, None
    try:
        yield
    finally:
        unit.message = in_hand
