"""What becomes of a message that fails, on each broker: every mode, handler, place and policy, against an oracle.

Each case has a topic of its own with five records, of which the third cannot be handled. The oracle says how often each
hook is called with each record, what stands in the dead letter topic, what is committed, and what is left in the table.
"""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from paperboy import BulkError, BulkHandler, DeadLetter, Engine, Exponential, Handler, Retry, Table
from paperboy.brokers.protocol import Record, TopicPartition, TopicSpec
from tests.contract.engine.kit import Kit, until

Mode = Literal["single", "bulk", "step"]
Kind = Literal["messages", "lists", "both"]
"""Whether a handler has ``on_message``, ``on_bulk``, or both."""
Where = Literal["decode", "received", "handled", "BulkError", "finished", "too large"]
Policy = Literal["stop", "skip", "dead letter", "retry, stop", "retry, dead letter", "topics, dead letter"]

MODES: list[Mode] = ["single", "bulk", "step"]
LANES = [1, 3]
POISON, RECORDS = 2, 5
ATTEMPTS = 3
PARTITION = 1

POLICIES: dict[Policy, dict[str, Any]] = {
    "stop": {},
    "skip": {"fail_on_exception": False},
    "dead letter": {"dead_letter": DeadLetter()},
    "retry, stop": {"retry": Retry(attempts=ATTEMPTS, backoff=Exponential("1ms", jitter=0))},
    "retry, dead letter": {
        "retry": Retry(attempts=ATTEMPTS, backoff=Exponential("1ms", jitter=0)),
        "dead_letter": DeadLetter(),
    },
    "topics, dead letter": {"retry": Retry(delays=["10ms"], via="topics"), "dead_letter": DeadLetter()},
}


@dataclass(frozen=True)
class Case:
    kind: Kind
    where: Where
    policy: Policy

    def __str__(self) -> str:
        return f"{self.kind}, {self.where}, {self.policy}"

    @property
    def stops(self) -> bool:
        return self.policy in ("stop", "retry, stop")

    @property
    def is_hopeless(self) -> bool:
        return self.where in ("decode", "too large")


CASES = [
    Case(kind, where, policy)
    for kind in ("messages", "lists", "both")
    for where in ("decode", "received", "handled", "BulkError", "finished", "too large")
    for policy in POLICIES
    if not (kind == "messages" and where == "BulkError")
]


# The oracle.


@dataclass
class Expected:
    calls: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each hook was called with each record."""
    maybe: set[int] = field(default_factory=set)
    """Records that others may or may not have come to, beside one that stopped the engine."""
    finished: set[int] = field(default_factory=set)
    committed: int = RECORDS
    retried: int = 0
    handled: int = RECORDS
    passed_over: int = 0
    dead_attempts: int = 0
    """What the dead letter says of its attempts; 0 where there is none."""


def expect(mode: Mode, lanes: int, case: Case) -> Expected:
    return _Oracle(mode, lanes, case).run()


class _Oracle:
    def __init__(self, mode: Mode, lanes: int, case: Case) -> None:
        self.mode, self.lanes, self.case = mode, lanes, case
        self.found = Expected()
        waits = case.policy.startswith("retry") and not case.is_hopeless
        self.attempts = ATTEMPTS if waits else 1
        self.one = ["did_receive_bulk_messages", "on_bulk"] if case.kind == "lists" else []
        self.one = [*(self.one or ["did_receive_message", "on_message"]), "on_finished_handling"]
        self.many = ["did_receive_bulk_messages", "on_bulk", "on_finished_handling"]
        self.reached = {"decode": 0, "received": 1, "handled": 2, "BulkError": 2}.get(case.where, 3)
        """How many of the hooks are called with what fails."""

    def run(self) -> Expected:
        if self.mode == "single" or (self.case.kind == "messages" and self.lanes > 1):
            self.singly(range(RECORDS))
        elif self.case.kind == "messages":
            self.bulk_of_messages()
        else:
            self.bulk()
        return self.found

    def call(self, hooks: Sequence[str], offsets: Sequence[int], times: int = 1) -> None:
        for hook in hooks:
            for offset in offsets:
                self.found.calls[hook, offset] += times

    def singly(self, offsets: Sequence[int]) -> None:
        for offset in offsets:
            if offset != POISON:
                self.call(self.one, [offset])
                self.found.finished.add(offset)
                continue
            self.call(self.one[: self.reached], [POISON], self.attempts)
            self.found.retried += self.attempts - 1
            self.give_up(self.one[: self.reached], committed=POISON)
            if self.case.stops:
                if self.lanes > 1:
                    self.found.maybe.update(range(POISON + 1, RECORDS))
                return

    def give_up(self, hooks: Sequence[str], committed: int) -> None:
        """The poison, after its last attempt."""
        found, policy = self.found, self.case.policy
        if self.case.stops:
            found.committed = committed
            found.handled = committed
        elif policy == "skip":
            found.passed_over = 1
        elif policy == "topics, dead letter" and not self.case.is_hopeless:
            self.call(self.one[: self.reached], [POISON])
            found.retried += 1
            found.handled += 1
            found.dead_attempts = 2
        else:
            found.dead_attempts = self.attempts

    def bulk_of_messages(self) -> None:
        others = [offset for offset in range(RECORDS) if offset != POISON]
        if self.case.where in ("finished", "too large"):
            self.whole_bulks(self.one)
            return
        before = others[:POISON]
        hooks = self.one[:2]
        self.call(hooks[: self.reached], [POISON], self.attempts)
        self.found.retried += self.attempts - 1
        self.give_up(hooks[: self.reached], committed=POISON if self.attempts > 1 else 0)
        if not self.case.stops:
            self.call(self.one, others)
            self.found.finished.update(others)
        elif self.attempts > 1:  # what came before it was a bulk of its own
            self.call(self.one, before)
            self.found.finished.update(before)
        else:
            self.call(hooks, before)

    def bulk(self) -> None:
        if self.case.where not in ("decode", "BulkError") or self.case.policy == "stop":
            self.whole_bulks(self.many)
            return
        # The culprit is known: it is handled alone, and the others in bulks.
        self.call(self.many[: self.reached], range(RECORDS))
        self.call(self.many, range(POISON))
        self.found.finished.update(range(POISON))
        self.singly([POISON])
        self.found.maybe.clear()
        if not self.case.stops:
            self.call(self.many, range(POISON + 1, RECORDS))
            self.found.finished.update(range(POISON + 1, RECORDS))

    def whole_bulks(self, hooks: Sequence[str]) -> None:
        """The whole bulk fails, again and again; then it is handled one by one."""
        self.call(hooks[: self.reached], range(RECORDS), self.attempts)
        self.found.retried += self.attempts - 1
        if self.case.policy == "stop":
            self.found.committed = self.found.handled = 0
            return
        self.singly(range(RECORDS))


# What is tested.


class Subject:
    """The handler of a case, its topic and its table, and what was seen of it."""

    def __init__(self, case: Case, topic: str, out: str, lanes: int) -> None:
        self.case = case
        self.topic = topic
        self.calls: Counter[tuple[str, int]] = Counter()
        self.table = Table(f"t-{topic}")
        self.handler = self._handler(out, lanes)
        self.records: list[Any] = []

    def _handler(self, out: str, lanes: int) -> type[Handler]:
        case = self.case
        fails_in = {"received": "did_receive", "handled": "on_", "BulkError": "on_", "finished": "on_finished"}

        def hook(name: str) -> Any:
            async def called(given: Any, ctx: Any) -> Any:
                messages = given if isinstance(given, list) else [given]
                for msg in messages:
                    self.calls[name, msg.offset] += 1
                    self.table[msg.offset] = self.table.get(msg.offset, 0) + 1
                    if name.startswith("did_receive"):
                        ctx.send(out, b"%s %d" % (self.topic.encode(), msg.offset))
                for index, msg in enumerate(messages):
                    if msg.offset != POISON:
                        continue
                    if case.where == "too large" and name == "on_finished_handling":
                        ctx.send(out, bytes(2_000_000))
                    elif case.where == "BulkError" and name == "on_bulk":
                        raise BulkError(index, ValueError("poison"))
                    elif name.startswith(fails_in.get(case.where, "never")) and (
                        case.where == "finished" or name != "on_finished_handling"
                    ):
                        raise ValueError("poison")
                return given

            return staticmethod(called)

        def decode(data: bytes) -> str:
            if data == b"poison" and case.where == "decode":
                raise ValueError("undecodable")
            return data.decode()

        names = {
            "messages": ["did_receive_message", "on_message"],
            "lists": ["did_receive_bulk_messages", "on_bulk"],
            "both": ["did_receive_message", "on_message", "did_receive_bulk_messages", "on_bulk"],
        }[case.kind]
        body: dict[str, Any] = {name: hook(name) for name in [*names, "on_finished_handling"]}
        base = Handler if case.kind == "messages" else BulkHandler
        return type(
            "Failing",
            (base,),
            {
                "topic": self.topic,
                "tables": [self.table],
                "concurrency": lanes,
                "value_serializer": staticmethod(decode),
                **POLICIES[case.policy],
                **body,
            },
        )

    async def fill(self, kit: Kit) -> None:
        keys = [b"a", None, b"a", b"b", b"a"]
        async with kit.broker() as broker:
            now_ms = broker.clock.time_ms()
            self.records = [
                (key, b"poison" if offset == POISON else b"good", [("own", b"1"), ("own", b"\xff")], now_ms - offset)
                for offset, key in enumerate(keys)
            ]
            producer = broker.producer()
            await producer.start()
            try:
                for ack in await producer.send(TopicPartition(self.topic, PARTITION), self.records):
                    await ack
            finally:
                await producer.stop()

    def check_dead_letter(self, dead: Sequence[Record], group: str, attempts: int) -> None:
        """Byte for byte; but for the stack, and the times, which are what they can be."""
        case = self.case
        if not attempts:
            assert dead == [], case
            return
        (letter,) = dead
        key, value, own, timestamp_ms = self.records[POISON]
        assert (letter.key, letter.value, letter.timestamp) == (key, value, timestamp_ms), case
        assert letter.partition == PARTITION, case
        error, message = {
            "decode": ("paperboy.errors.DeserializationError", None),
            "too large": ("paperboy.errors.RecordTooLarge", None),
        }.get(case.where, ("ValueError", "poison"))
        found = dict(letter.headers)
        first, last = int(found["paperboy.first.failure"]), int(found["paperboy.last.failure"])
        assert timestamp_ms <= first <= last, case
        said = found["paperboy.error.message"].decode() if message is None else message
        assert ("undecodable" in said) if case.where == "decode" else said, case
        stack = found["paperboy.error.stack"].decode()
        assert stack.endswith(f"{error}: {said}\n"), (case, stack)
        assert list(letter.headers) == [
            *own,
            ("paperboy.failed", b"1"),
            ("paperboy.topic", self.topic.encode()),
            ("paperboy.partition", b"%d" % PARTITION),
            ("paperboy.offset", b"%d" % POISON),
            ("paperboy.timestamp", b"%d" % timestamp_ms),
            ("paperboy.group", group.encode()),
            ("paperboy.handler", b"Failing"),
            ("paperboy.error.class", error.encode()),
            ("paperboy.error.message", said.encode()),
            ("paperboy.error.stack", stack.encode()),
            ("paperboy.attempts", b"%d" % attempts),
            ("paperboy.first.failure", b"%d" % first),
            ("paperboy.last.failure", b"%d" % last),
        ], case

    def check_calls(self, expected: Expected) -> None:
        seen, wanted = (
            {call: times for call, times in calls.items() if call[1] not in expected.maybe}
            for calls in (self.calls, expected.calls)
        )
        assert seen == wanted, f"{self.case}: how often each hook was called with each record"


def options_of(mode: Mode, handlers: Sequence[Any]) -> dict[str, Any]:
    whole = {"commit_interval_sec": 30}  # no bulk ends for a checkpoint
    if mode == "bulk":
        return {**whole, "bulk_mode_threshold": 1}  # no lag is below half of it
    return {**whole, "steps": [handlers]} if mode == "step" else {**whole, "with_bulk_mode": False}


async def subjects(kit: Kit, cases: Sequence[Case], out: str, lanes: int) -> list[Subject]:
    made = [Subject(case, f"c{number}-{kit.unique}", out, lanes) for number, case in enumerate(cases)]
    async with kit.broker() as broker:
        await broker.create_topics([TopicSpec(subject.topic, 2) for subject in made])
    await asyncio.gather(*(subject.fill(kit) for subject in made))
    return made


def of_broker(kit: Kit, combination: int, cases: Sequence[Case]) -> list[Case]:
    """All of them in memory; on a Kafka, in each combination of mode and lanes, others of them: so each once."""
    if kit.bootstrap.startswith("memory:") or os.environ.get("PAPERBOY_ERROR_POLICIES") == "all":
        return list(cases)
    return [case for number, case in enumerate(cases) if number % len(COMBINATIONS) == combination]


COMBINATIONS = [
    pytest.param(mode, lanes, number, id=f"{mode}-{lanes}")
    for number, (mode, lanes) in enumerate(itertools.product(MODES, LANES))
]


@pytest.mark.parametrize(("mode", "lanes", "number"), COMBINATIONS)
async def test_a_message_that_cannot_be_handled_takes_the_way_that_was_declared(
    kit: Kit, mode: Mode, lanes: int, number: int
) -> None:
    cases = of_broker(kit, number, [case for case in CASES if not case.stops])
    out = await kit.topic("out")
    made = await subjects(kit, cases, out, lanes)
    expected = [expect(mode, lanes, case) for case in cases]
    handlers = [subject.handler for subject in made]
    engine = kit.engine(*handlers, **options_of(mode, handlers))
    for subject in made:
        engine.register_table(subject.table)
    async with engine:
        await engine.caught_up()
        handled = sum(each.handled for each in expected)
        await until(lambda: engine.status().handled >= handled)
        status = engine.status()
        finished = {subject.topic: {entry.key: entry.value for entry in subject.table.snapshot()} for subject in made}
        assert engine.health().ok
    for subject, each in zip(made, expected, strict=True):
        subject.check_calls(each)
        assert finished[subject.topic] == dict.fromkeys(sorted(each.finished), 3), subject.case
        dead = await kit.read(f"{subject.topic}-dlt") if "dead_letter" in POLICIES[subject.case.policy] else []
        subject.check_dead_letter(dead, kit.group, each.dead_attempts)
        assert await kit.committed(subject.topic, PARTITION) == each.committed, subject.case
    sent = Counter(record.value for record in await kit.read(out))
    assert sent == Counter(
        b"%s %d" % (subject.topic.encode(), offset)
        for subject, each in zip(made, expected, strict=True)
        for offset in each.finished
    )
    assert (status.handled, status.retried, status.passed_over, status.dead_lettered, status.paused) == (
        handled,
        sum(each.retried for each in expected),
        sum(each.passed_over for each in expected),
        sum(each.dead_attempts > 0 for each in expected),
        0,
    )


@pytest.mark.parametrize(("mode", "lanes", "number"), COMBINATIONS)
async def test_a_message_that_stops_the_engine_is_not_committed_and_what_was_before_it_is(
    kit: Kit, mode: Mode, lanes: int, number: int
) -> None:
    cases = of_broker(kit, number, [case for case in CASES if case.stops])
    out = await kit.topic("out")
    made = await subjects(kit, cases, out, lanes)

    async def run(subject: Subject) -> None:
        expected = expect(mode, lanes, subject.case)
        group = f"{kit.group}-{subject.topic}"
        engine: Engine = kit.engine(subject.handler, group_id=group, **options_of(mode, [subject.handler]))
        engine.register_table(subject.table)
        with pytest.raises(Exception, match=r"poison|undecodable|larger than") as raised:
            await engine.start()
        assert any("While handling" in note for note in raised.value.__notes__), subject.case
        subject.check_calls(expected)
        where = TopicPartition(subject.topic, PARTITION)
        async with kit.broker() as broker:
            assert (await broker.committed(group, [where]))[where] == expected.committed, subject.case
        status = engine.status()
        assert (status.retried, status.passed_over, status.dead_lettered) == (expected.retried, 0, 0), subject.case
        if not expected.maybe:
            assert status.handled == expected.handled, subject.case
        changelog = {record.key for record in await kit.read(f"{group}-{subject.table.name}-changelog")}
        assert len(changelog) >= len(expected.finished), subject.case
        if not expected.maybe:
            assert len(changelog) == len(expected.finished), subject.case

    async with asyncio.TaskGroup() as group:
        for subject in made:
            group.create_task(run(subject))
    sent = Counter(record.value for record in await kit.read(out))
    for subject in made:
        expected = expect(mode, lanes, subject.case)
        certain = {b"%s %d" % (subject.topic.encode(), offset): 1 for offset in expected.finished}
        ours = {
            value: times
            for value, times in sent.items()
            if value.startswith(subject.topic.encode() + b" ") and int(value.split()[1]) not in expected.maybe
        }
        assert ours == certain, subject.case
