"""The engine of a simulation: handlers that count, and notice what cannot be."""

import asyncio
from collections.abc import Callable
from typing import Any

from paperboy.brokers.protocol import TopicPartition
from paperboy.engine import Engine
from paperboy.handlers.context import Context
from paperboy.handlers.handler import BulkHandler, Handler, Message
from paperboy.tables.table import Table
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.ledger import NO_COUNT, NO_TOTAL, Ledger
from paperboy.testing.simulation.plan import Job, Plan

GROUP = "group"
OUT = "out"
OUT_PARTITIONS = 2


class Poison(Exception):
    """Every handler fails over this message, and passes it over."""


class Boom(Exception):
    """A handler fails once, and stops its engine."""


class Tables:
    """A job's: how many records each key has had, the notes that records set and delete, and each partition's total."""

    def __init__(self, job: Job, plan: Plan) -> None:
        kept = {"memory": ("memory://",) * 3, "disk": ("rocksdb://",) * 3}
        stores = kept.get(plan.stores, ("rocksdb://", "memory://", "rocksdb://"))
        self.counts = Table(f"{job.name}-counts", stores[0])
        self.notes = Table(f"{job.name}-notes", stores[1])
        self.totals = Table(f"{job.name}-totals", stores[2])

    def all(self) -> list[Table]:
        return [self.counts, self.notes, self.totals]


def engine_of(plan: Plan, process: Incarnation, ledger: Ledger, on_restore: Callable[[str, Any], object]) -> Engine:
    """A worker's engine, made anew for each of its lives."""
    handlers = []
    tables: list[Table] = []
    for job in plan.jobs:
        of_job = Tables(job, plan)
        tables.extend(of_job.all())
        kind = _BulkCounting if job.kind == "bulk" else _Counting
        handlers.append(kind(job, of_job, process, ledger))
    options = dict(plan.options)
    if plan.static:
        options["group_instance_id"] = f"machine-{process.machine}"
    if plan.steps:
        options["steps"] = [[handler] for handler in handlers]
    engine = Engine(
        *handlers,
        bootstrap_servers="simulation",
        group_id=GROUP,
        state_dir="state",
        on_restore=on_restore,
        **options,
    )
    for table in tables:
        engine.register_table(table)
    return engine


class _Work:
    """What a message causes."""

    def __init__(self, tables: Tables, process: Incarnation, ledger: Ledger) -> None:
        self._tables = tables
        self._process = process
        self._ledger = ledger

    async def handle(self, msg: Message, ctx: Context) -> None:
        ledger, tables = self._ledger, self._tables
        partition = TopicPartition(msg.topic, msg.partition)
        attempt = ledger.begin(self._process, partition, msg.offset, msg.key, msg.value)
        op = attempt.op
        count = tables.counts.get(op.key)
        ledger.found(attempt, NO_COUNT if count is None else tuple(count), tables.notes.get(op.key))
        tables.counts[op.key] = list(attempt.new_count)
        if op.pause:
            await asyncio.sleep(op.pause)
        if op.kind == "delete":
            tables.notes.delete(op.key)
        else:
            tables.notes[op.key] = op.seq
        total = tables.totals.get("all")
        ledger.found_total(attempt, NO_TOTAL if total is None else tuple(total))
        if op.pause:
            await asyncio.sleep(op.pause / 2)
        tables.totals["all"] = list(attempt.new_total)
        await ctx.send(OUT, str(op.seq).encode(), key=op.key.encode())
        if op.kind == "poison":
            raise Poison(op.key)
        if ledger.booms(attempt):
            raise Boom(op.key)
        ledger.returned(attempt)

    def failed(self, msg: Message) -> None:
        self._ledger.failed(self._process, TopicPartition(msg.topic, msg.partition), msg.offset)


class _Counting(Handler):
    rerun_on_conflict = True

    def __init__(self, job: Job, tables: Tables, process: Incarnation, ledger: Ledger) -> None:
        self.topic = job.topics
        self.tables = tables.all()
        self.concurrency = job.concurrency
        self._work = _Work(tables, process, ledger)

    async def on_message(self, msg: Message, ctx: Context) -> None:  # type: ignore[override]
        await self._work.handle(msg, ctx)

    async def on_error(self, e: Exception, msg: Message, ctx: Context) -> Exception | None:  # type: ignore[override]
        self._work.failed(msg)
        return None if isinstance(e, Poison) else e


class _BulkCounting(BulkHandler):
    def __init__(self, job: Job, tables: Tables, process: Incarnation, ledger: Ledger) -> None:
        self.topic = job.topics
        self.tables = tables.all()
        self._work = _Work(tables, process, ledger)

    async def on_bulk(self, msgs: list[Message], ctx: Context) -> None:  # type: ignore[override]
        for msg in msgs:
            await self._work.handle(msg, ctx)

    async def on_bulk_error(  # type: ignore[override]
        self, e: Exception, msgs: list[Message], ctx: Context
    ) -> Exception | None:
        for msg in msgs:
            self._work.failed(msg)
        return e
