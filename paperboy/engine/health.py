"""Whether an engine does its work: a decision over its status."""

from collections.abc import Iterator
from dataclasses import dataclass

from paperboy.engine.status import GlobalTableStatus, Status, TaskStatus


@dataclass(frozen=True, slots=True)
class Health:
    """For the endpoints that an orchestrator asks.

    >>> Health(True, True, ())
    Health(ok=True, alive=True, reasons=())
    """

    ok: bool
    """It handles what comes, and all of its tables are up to date: readiness."""
    alive: bool
    """Nothing has stood still for so long that starting the process again is worth it: liveness."""
    reasons: tuple[str, ...]
    """Why it is not ok, a sentence each."""


def health_of(status: Status, stalled_sec: float) -> Health:
    """What this status means.

    Args:
        stalled_sec: what stands still for this long is stalled, in seconds.
    """
    found = list(_reasons(status, stalled_sec))
    reasons = tuple(sentence for sentence, _ in found)
    return Health(ok=not reasons, alive=not any(is_fatal for _, is_fatal in found), reasons=reasons)


def _reasons(status: Status, stalled_sec: float) -> Iterator[tuple[str, bool]]:
    """What is wrong, and whether that is as good as dead."""
    if status.failure is not None:
        yield f"The engine stopped: {status.failure}", True
    elif not status.running:
        yield "The engine is not running.", False
    if status.blocked_sec:
        yield f"The event loop has been blocked for {status.blocked_sec:.1f} s.", status.blocked_sec >= stalled_sec
    if status.running and status.unassigned_sec is not None:
        waited = status.unassigned_sec
        yield f"The group has given this worker no assignment for {waited:.0f} s.", waited >= stalled_sec
    for task in status.tasks:
        yield from _of_task(task, stalled_sec)
    for table in status.global_tables:
        yield from _of_global_table(table)


def _of_task(task: TaskStatus, stalled_sec: float) -> Iterator[tuple[str, bool]]:
    if task.restoring is not None:
        done, total = task.restoring.offsets, task.restoring.total_offsets
        yield f"Task {task.name} is being restored: {done} of {total} offsets.", False
    elif task.standing_sec >= stalled_sec:
        where = ", ".join(f"{partition} offset {offset}" for partition, offset in task.positions.items())
        yield (
            f"Task {task.name} has been standing at {where} for {task.standing_sec:.0f} s, with a lag of {task.lag}.",
            True,
        )
    if task.failures:
        yield f"Task {task.name} has failed {task.failures} times in a row to make its work durable.", False


def _of_global_table(table: GlobalTableStatus) -> Iterator[tuple[str, bool]]:
    if table.failing is not None:
        yield f"Global table {table.name!r} cannot follow topic {table.topic!r}: {table.failing}", False
    elif not table.ready:
        yield f"Global table {table.name!r} is being restored.", False
