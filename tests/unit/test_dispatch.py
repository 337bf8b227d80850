"""How records are handed to a handler's hooks, and what becomes of those that fail."""

import asyncio
import functools
import json
import traceback
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any

import pytest

from paperboy.brokers.protocol import ConsumerRecord, Record
from paperboy.errors import ConfigurationError, DeserializationError, PaperboyError, TopicNotFound
from paperboy.handlers import bulk
from paperboy.handlers.context import Context
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.handler import BulkHandler, Handler
from paperboy.handlers.outcome import Failing, Fate, GivenUp
from paperboy.handlers.single import one_by_one
from paperboy.handlers.time_limit import TimeLimit
from paperboy.serializers import Json, String
from paperboy.tables.partition import TablePartition, Undo, roll_back
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.table import Table

pytestmark = pytest.mark.time_limit(10)

HOOKS = [
    "define_context", "did_receive_message", "on_message", "on_tombstone", "on_finished_handling", "on_error",
    "did_receive_bulk_messages", "on_bulk", "on_bulk_error",
]  # fmt: skip


def record(offset: int, value: Any = b"v", key: Any = b"k") -> Record:
    return ConsumerRecord("views", 3, offset, 0, 0, key, value, None, 1, 1, ())


class Task:
    """What dispatch asks of a task, with one table."""

    def __init__(self) -> None:
        self.message: object | None = None
        self.undo: Undo = []
        self.pending: list[Any] = []
        self.unsettled = self.pending  # nothing is checked when it is made
        self.enter: Callable[[Context], object] | None = None
        self.turn_ends = float("inf")
        self.unfinished = 0
        self.group_id = "group"
        self.failing: Failing | None = None
        self.isolated: tuple[int, int] | None = None
        self.time_limit = TimeLimit(self)
        self.turn_sec = 0.0
        self.stopping = False
        self.passed: list[tuple[str, int, int]] = []
        """Error, how many, and the first one's offset."""
        self.sent: list[Any] = []
        self.topics = {"out"}
        self.table = TablePartition(Table("table"), 0, self.undo, 1_048_588)
        self.table.store = MemoryStore("table")

    def send(self, topic: str, *more: Any) -> None:
        self.pending.append((topic, *more))

    send_late = send

    def mark(self) -> tuple[int, int]:
        return len(self.undo), len(self.pending)

    def roll_back(self, mark: tuple[int, int]) -> None:
        roll_back(self.undo, mark[0])
        del self.pending[mark[1] :]

    async def settle(self) -> None:
        await asyncio.sleep(0)
        for topic, *_ in self.pending:
            if topic not in self.topics:
                raise TopicNotFound(f"no {topic}")

    def forget(self, topic: str) -> None: ...

    def accept(self) -> None:
        self.undo.clear()
        self.sent += [send[1] for send in self.pending]
        self.pending.clear()

    def is_ending(self) -> bool:
        return False

    def has_to_stop(self) -> bool:
        return self.stopping

    def now_ms(self) -> int:
        return 0

    def gave_up(self, given_up: GivenUp) -> None:
        assert given_up.fate is Fate.SKIPPED
        self.passed.append((repr(given_up.error), given_up.records, given_up.record.offset))

    def read(self) -> dict[str, Any]:
        """What the messages have written, those in hand included."""
        return {key: self.table.get(key) for key in "abcdefgh" if key in self.table}


def handler(base: type[Handler] = Handler, /, **hooks: Any) -> type[Handler]:
    """A handler class with these hooks, given as plain async functions."""
    body = {name: classmethod(hook) if name in HOOKS else hook for name, hook in hooks.items()}
    return type("Views", (base,), {"topic": "views", **body})


def watched(did: list[Any], *names: str, base: type[Handler] = Handler) -> type[Handler]:
    """A handler that overrides these hooks, and notes when they are called and with what."""

    def noting(name: str) -> Callable[..., Awaitable[Any]]:
        async def hook(cls: type[Handler], *arguments: Any) -> Any:
            given = [argument for argument in arguments if not isinstance(argument, Context | Exception)]
            shown = [
                [each.offset for each in argument] if isinstance(argument, list) else argument.offset
                for argument in given
            ]
            did.append((name, *shown))
            return given[-1] if name.startswith("did_receive") else None

        return hook

    return handler(base, **{name: noting(name) for name in names})


def compiled(handler: Any, *, fail_on_exception: bool = True) -> Dispatch:
    return Dispatch(handler, fail_on_exception=fail_on_exception)


async def singly(
    handler: Any, *records: Record, task: Task | None = None, start: int = 0, fail_on_exception: bool = True
) -> int:
    return await one_by_one(
        compiled(handler, fail_on_exception=fail_on_exception), list(records), start, task or Task()
    )


async def in_bulk(handler: Any, *records: Record, task: Task | None = None, fail_on_exception: bool = True) -> int:
    return await bulk.in_bulk(compiled(handler, fail_on_exception=fail_on_exception), list(records), task or Task())


Hand = Callable[..., Awaitable[int]]
both_ways = pytest.mark.parametrize("hand_over", [singly, in_bulk])


# Which hooks are called, and when.


@both_ways
@pytest.mark.parametrize("base", [Handler, BulkHandler])
async def test_a_hook_that_is_not_overridden_is_not_called(
    hand_over: Hand, base: type[Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def called(*arguments: object) -> None:
        raise AssertionError("called")

    for name in HOOKS:
        owner = Handler if name in vars(Handler) else BulkHandler
        monkeypatch.setattr(owner, name, classmethod(called))
    assert await hand_over(handler(base), record(0), record(1, None)) == 2


async def test_a_handler_that_overrides_nothing_awaits_nothing() -> None:
    loop = asyncio.get_running_loop()
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    loop.call_soon(count)
    task = Task()
    task.turn_sec = 60.0
    assert await singly(handler(), *map(record, range(100)), task=task) == 100
    assert await in_bulk(handler(), *map(record, range(100)), task=task) == 100
    assert turns == 0


async def test_singly_each_message_goes_through_its_hooks_in_order() -> None:
    did: list[Any] = []
    await singly(watched(did, *HOOKS[:6]), record(0), record(1, None))
    assert did == [
        ("define_context",),
        ("did_receive_message", 0),
        ("on_message", 0),
        ("on_finished_handling", 0),
        ("define_context",),
        ("did_receive_message", 1),
        ("on_tombstone", 1),
        ("on_finished_handling", 1),
    ]


async def test_in_bulk_a_handler_without_on_bulk_gets_each_message_and_one_finish() -> None:
    did: list[Any] = []
    await in_bulk(watched(did, *HOOKS[:6]), record(0), record(1, None), record(2))
    assert did == [
        ("define_context",),
        ("did_receive_message", 0),
        ("on_message", 0),
        ("did_receive_message", 1),
        ("on_tombstone", 1),
        ("did_receive_message", 2),
        ("on_message", 2),
        ("on_finished_handling", [0, 1, 2]),
    ]


async def test_a_bulk_handler_gets_the_list_tombstones_included() -> None:
    did: list[Any] = []
    await in_bulk(watched(did, *HOOKS, base=BulkHandler), record(0), record(1, None))
    assert did == [
        ("define_context",),
        ("did_receive_bulk_messages", [0, 1]),
        ("on_bulk", [0, 1]),
        ("on_finished_handling", [0, 1]),
    ]


async def test_a_bulk_handler_without_on_message_gets_bulks_of_one() -> None:
    did: list[Any] = []
    await singly(
        watched(did, "on_bulk", "on_finished_handling", base=BulkHandler), record(0), record(1, None), record(2)
    )
    assert did == [(name, [offset]) for offset in range(3) for name in ("on_bulk", "on_finished_handling")]


async def test_a_bulk_handler_with_on_message_gets_messages_when_there_are_few() -> None:
    did: list[Any] = []
    await singly(watched(did, "on_message", "on_bulk", base=BulkHandler), record(0), record(1, None))
    assert did == [("on_message", 0)]


@both_ways
async def test_what_did_receive_message_returns_is_handled_in_its_place(hand_over: Hand) -> None:
    handled: list[Any] = []

    async def did_receive_message(cls: Any, msg: Record, ctx: Context) -> Record:
        return record(msg.offset + 100)

    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        handled.append(msg.offset)

    async def on_finished_handling(cls: Any, msgs: Any, ctx: Context) -> None:
        handled.append([msg.offset for msg in msgs] if isinstance(msgs, list) else msgs.offset)

    views = handler(
        did_receive_message=did_receive_message, on_message=on_message, on_finished_handling=on_finished_handling
    )
    await hand_over(views, record(1))
    assert handled == [101, [101] if hand_over is in_bulk else 101]


@both_ways
async def test_did_receive_message_that_returns_nothing_fails_the_message(hand_over: Hand) -> None:
    async def did_receive_message(cls: Any, msg: Record, ctx: Context) -> None: ...

    with pytest.raises(PaperboyError) as caught:
        await hand_over(handler(did_receive_message=did_receive_message), record(7))
    assert str(caught.value) == "Views.did_receive_message returned None: return the message."
    assert caught.value.__notes__ == ["While handling views[3] offset 7."]


@pytest.mark.parametrize("returned", [None, (), "messages", {}, (record(0),)], ids=repr)
async def test_did_receive_bulk_messages_returns_a_list(returned: object) -> None:
    async def did_receive_bulk_messages(cls: Any, msgs: list[Record], ctx: Context) -> Any:
        return returned

    async def on_bulk(cls: Any, msgs: list[Record], ctx: Context) -> None: ...

    views = handler(BulkHandler, did_receive_bulk_messages=did_receive_bulk_messages, on_bulk=on_bulk)
    with pytest.raises(PaperboyError) as caught:
        await in_bulk(views, record(7), record(9))
    assert str(caught.value) == f"Views.did_receive_bulk_messages returned {returned!r}: return the list."
    assert caught.value.__notes__ == ["While handling views[3] offsets 7 to 9."]


async def test_a_bulk_of_which_nothing_is_left_is_not_handled() -> None:
    did: list[Any] = []

    async def did_receive_bulk_messages(cls: Any, msgs: list[Record], ctx: Context) -> list[Record]:
        return []

    views = type(
        "Views",
        (watched(did, "on_bulk", base=BulkHandler),),
        {"did_receive_bulk_messages": classmethod(did_receive_bulk_messages)},
    )
    assert await in_bulk(views, record(0), record(1)) == 2
    assert did == []


@both_ways
async def test_hooks_share_a_context_that_begins_as_defined(hand_over: Hand) -> None:
    seen: list[Any] = []

    async def define_context(cls: Any) -> dict[str, Any]:
        return {"count": 0}

    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        ctx["count"] += 1
        seen.append((ctx["count"], ctx.topic, ctx.partition, ctx.offset))

    await hand_over(handler(define_context=define_context, on_message=on_message), record(5), record(6))
    counts = [1, 2] if hand_over is in_bulk else [1, 1]
    assert seen == [(count, "views", 3, offset) for count, offset in zip(counts, (5, 6), strict=True)]


async def test_a_turn_ends_after_the_message_in_hand_and_goes_on_where_it_was() -> None:
    did: list[Any] = []
    task = Task()
    task.turn_ends = 0.0
    views = compiled(watched(did, "on_message"))
    records = [record(offset) for offset in range(3)]
    assert [await one_by_one(views, records, start, task) for start in range(3)] == [1, 2, 3]
    assert did == [("on_message", 0), ("on_message", 1), ("on_message", 2)]


async def test_no_message_is_in_hand_after_the_last_one() -> None:
    task = Task()
    entered: list[Any] = []
    task.enter = entered.append
    for hand_over in (singly, in_bulk):
        await hand_over(handler(), record(0), record(1), task=task)
        assert task.message is None
    # Two messages; then a bulk, its two messages, and the bulk again for its last hooks.
    assert [type(message).__name__ for message in entered] == ["Context"] * 3 + ["BulkPart"] * 2 + ["Context"]
    assert len({id(message) for message in entered}) == 5


def test_whether_a_handler_takes_lists_depends_on_its_hooks() -> None:
    assert compiled(watched([], "on_bulk", base=BulkHandler)).takes_bulks
    assert compiled(watched([], "on_finished_handling")).takes_bulks
    assert not compiled(watched([], "define_context", "did_receive_message", "on_message", "on_error")).takes_bulks


# Failures.


def failing(*bad: int, **hooks: Any) -> type[Handler]:
    """Writes and sends for each message, and then fails at these offsets."""

    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        ctx.unit.table.set("abcdefgh"[msg.offset], msg.offset)
        ctx.unit.send("out", msg.offset)
        if msg.offset in bad:
            raise ValueError(f"bad {msg.offset}")

    return handler(on_message=on_message, **hooks)


@both_ways
async def test_an_error_comes_out_as_it_was_with_a_note_of_where(hand_over: Hand) -> None:
    task = Task()
    with pytest.raises(ValueError, match="bad 1") as caught:
        await hand_over(failing(1), record(0), record(1), record(2), task=task)
    assert caught.value.__notes__ == ["While handling views[3] offset 1."]
    assert task.passed == []
    assert task.pending == []


async def test_singly_everything_before_the_message_that_failed_has_finished() -> None:
    task = Task()
    with pytest.raises(ValueError, match="bad 2"):
        await singly(failing(2), *map(record, range(4)), task=task)
    assert (task.unfinished, task.read(), task.sent) == (2, {"a": 0, "b": 1}, [0, 1])


async def test_in_bulk_nothing_has_finished_when_one_message_stops_it() -> None:
    task = Task()
    with pytest.raises(ValueError, match="bad 2"):
        await in_bulk(failing(2), *map(record, range(4)), task=task)
    assert (task.read(), task.sent) == ({}, [])


@both_ways
async def test_a_message_that_is_passed_over_leaves_nothing_and_the_others_everything(hand_over: Hand) -> None:
    task = Task()
    assert await hand_over(failing(1, 2), *map(record, range(4)), task=task, fail_on_exception=False) == 4
    assert task.read() == {"a": 0, "d": 3}
    assert task.sent == [0, 3]
    assert task.passed == [("ValueError('bad 1')", 1, 1), ("ValueError('bad 2')", 1, 2)]


@both_ways
async def test_on_error_that_answers_none_passes_the_message_over_and_its_own_writes_stay(hand_over: Hand) -> None:
    asked: list[Any] = []

    async def on_error(cls: Any, e: Exception, msg: Record, ctx: Context) -> None:
        asked.append((repr(e), msg.offset, ctx.offset))
        assert "b" not in ctx.unit.table, "what the message wrote was not taken back"
        ctx.unit.table.set("h", "failed")
        ctx.unit.send("out", "dead letter")

    task = Task()
    await hand_over(failing(1, on_error=on_error), *map(record, range(3)), task=task)
    assert asked == [("ValueError('bad 1')", 1, 1)]
    assert task.read() == {"a": 0, "c": 2, "h": "failed"}
    assert task.sent == [0, "dead letter", 2]
    assert len(task.passed) == 1


@both_ways
@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
async def test_on_error_that_answers_an_exception_stops_and_its_own_writes_are_taken_back(
    hand_over: Hand, raised: bool
) -> None:
    answer = RuntimeError("stop")

    async def on_error(cls: Any, e: Exception, msg: Record, ctx: Context) -> Exception:
        ctx.unit.table.set("h", "failed")
        ctx.unit.send("out", "dead letter")
        if raised:
            raise answer
        return answer

    task = Task()
    with pytest.raises(RuntimeError) as caught:
        await hand_over(failing(1, on_error=on_error), *map(record, range(3)), task=task)
    assert caught.value is answer
    assert answer.__notes__ == ["While handling views[3] offset 1."]
    assert task.read() == ({} if hand_over is in_bulk else {"a": 0})
    assert task.sent == ([] if hand_over is in_bulk else [0])
    assert (task.undo, task.pending, task.passed) == ([], [], [])


@both_ways
@pytest.mark.parametrize("answer", [True, "stop", 0, ValueError], ids=repr)
async def test_on_error_that_answers_something_else_stops_with_a_sentence(hand_over: Hand, answer: object) -> None:
    async def on_error(cls: Any, e: Exception, msg: Record, ctx: Context) -> Any:
        return answer

    with pytest.raises(PaperboyError) as caught:
        await hand_over(failing(0, on_error=on_error), record(0))
    assert str(caught.value) == (f"Views.on_error returned {answer!r}: return an exception to stop, or None to go on.")


@pytest.mark.parametrize(
    "hand_over",
    [singly, in_bulk],
)
async def test_what_on_error_answers_is_shown_together_with_what_it_was_asked_about(hand_over: Hand) -> None:
    async def on_error(cls: Any, e: Exception, msg: Record, ctx: Context) -> Exception | None:
        raise RuntimeError("could not tell")

    with pytest.raises(RuntimeError) as caught:
        await hand_over(failing(0, on_error=on_error), record(0))
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.index("ValueError: bad 0") < shown.index("RuntimeError: could not tell")


async def test_on_error_has_the_last_word_over_fail_on_exception() -> None:
    async def on_error(cls: Any, e: Exception, msg: Record, ctx: Context) -> Exception:
        return e

    with pytest.raises(ValueError, match="bad 0"):
        await singly(failing(0, on_error=on_error), record(0), fail_on_exception=False)


@both_ways
@pytest.mark.parametrize("where", ["define_context", "did_receive_message", "on_finished_handling"])
async def test_an_error_in_any_hook_goes_the_same_way(hand_over: Hand, where: str) -> None:
    async def fails(cls: Any, *arguments: Any) -> None:
        raise ValueError(where)

    asked: list[str] = []

    async def on_error(cls: Any, e: Exception, msg: Record, ctx: Context) -> None:
        asked.append(repr(e))

    task = Task()
    assert await hand_over(failing(**{where: fails, "on_error": on_error}), record(0), task=task) == 1
    assert asked == [f"ValueError({where!r})"]
    assert (task.read(), task.sent) == ({}, [])
    assert [count for _, count, _ in task.passed] == [1]


async def test_a_bulk_whose_finish_fails_is_taken_back_as_a_whole() -> None:
    async def on_finished_handling(cls: Any, msgs: Any, ctx: Context) -> None:
        raise ValueError("finish")

    task = Task()
    records = [record(offset) for offset in range(3)]
    views = failing(on_finished_handling=on_finished_handling)
    assert await in_bulk(views, *records, task=task, fail_on_exception=False) == 0
    assert (task.read(), task.sent, task.passed) == ({}, [], [])
    assert task.isolated == (0, 3)
    with pytest.raises(ValueError, match="finish") as caught:
        await in_bulk(views, *records)
    assert caught.value.__notes__ == ["While handling views[3] offsets 0 to 2."]


async def test_on_bulk_error_decides_about_the_whole_bulk() -> None:
    answers: list[Exception | None] = [None, RuntimeError("stop")]

    async def on_bulk(cls: Any, msgs: list[Record], ctx: Context) -> None:
        ctx.unit.table.set("a", 1)
        raise ValueError("bad")

    async def on_bulk_error(cls: Any, e: Exception, msgs: list[Record], ctx: Context) -> Exception | None:
        assert (repr(e), [msg.offset for msg in msgs]) == ("ValueError('bad')", [0, 1])
        assert "a" not in ctx.unit.table
        ctx.unit.table.set("h", "failed")
        return answers.pop(0)

    views = handler(BulkHandler, on_bulk=on_bulk, on_bulk_error=on_bulk_error)
    task = Task()
    assert await in_bulk(views, record(0), record(1), task=task) == 2
    assert (task.read(), task.passed) == ({"h": "failed"}, [("ValueError('bad')", 2, 0)])
    task = Task()
    with pytest.raises(RuntimeError, match="stop") as caught:
        await in_bulk(views, record(0), record(1), task=task)
    assert caught.value.__notes__ == ["While handling views[3] offsets 0 to 1."]
    assert (task.read(), task.undo, task.passed) == ({}, [], [])


@both_ways
async def test_a_message_that_sends_to_a_topic_that_does_not_exist_has_failed(hand_over: Hand) -> None:
    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        ctx.unit.table.set("a", 1)
        ctx.unit.send("nowhere", msg.offset)

    task = Task()
    with pytest.raises(TopicNotFound) as caught:
        await hand_over(handler(on_message=on_message), record(4), task=task)
    assert caught.value.__notes__ == ["While handling views[3] offset 4."]
    assert task.sent == []


@pytest.mark.parametrize(
    "hand_over",
    [singly, in_bulk],
)
async def test_only_the_message_that_sends_to_nowhere_is_passed_over(hand_over: Hand) -> None:
    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        ctx.unit.table.set("abc"[msg.offset], 1)
        ctx.unit.send("nowhere" if msg.offset == 1 else "out", msg.offset)

    async def on_finished_handling(cls: Any, msgs: Any, ctx: Context) -> None: ...

    task = Task()
    views = handler(on_message=on_message, on_finished_handling=on_finished_handling)
    await hand_over(views, *map(record, range(3)), task=task, fail_on_exception=False)
    assert task.read() == {"a": 1, "c": 1}
    assert task.sent == [0, 2]


@both_ways
async def test_a_cancelled_message_is_no_failed_one(hand_over: Hand) -> None:
    asked: list[Any] = []

    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        if msg.offset == 1:
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await asyncio.sleep(0)

    async def on_error(cls: Any, *arguments: Any) -> None:
        asked.append(arguments)

    task = Task()
    handing_over = asyncio.ensure_future(
        hand_over(handler(on_message=on_message, on_error=on_error), record(0), record(1), task=task)
    )
    with pytest.raises(asyncio.CancelledError):
        await handing_over
    assert (asked, task.passed) == ([], [])
    assert task.unfinished == (0 if hand_over is in_bulk else 1)


async def test_singly_a_cancelled_message_leaves_nothing_and_those_before_it_everything() -> None:
    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        ctx.unit.table.set("abcdefgh"[msg.offset], msg.offset)
        ctx.unit.send("out", msg.offset)
        if msg.offset == 2:
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await asyncio.sleep(0)

    task = Task()
    handing_over = asyncio.ensure_future(singly(handler(on_message=on_message), *map(record, range(4)), task=task))
    with pytest.raises(asyncio.CancelledError):
        await handing_over
    assert (task.unfinished, task.read(), task.sent) == (2, {"a": 0, "b": 1}, [0, 1])


@both_ways
async def test_a_cancellation_that_only_comes_out_of_a_hook_is_a_failure(hand_over: Hand) -> None:
    """What it awaited was cancelled by somebody else: the task itself was not, and goes on."""
    asked: list[Any] = []

    async def on_message(cls: Any, msg: Record, ctx: Context) -> None:
        if msg.offset == 1:
            raise asyncio.CancelledError

    async def on_error(cls: Any, error: Exception, msg: Record, ctx: Context) -> None:
        asked.append((type(error), type(error.__cause__), msg.offset))

    task = Task()
    await hand_over(handler(on_message=on_message, on_error=on_error), record(0), record(1), record(2), task=task)
    assert asked == [(PaperboyError, asyncio.CancelledError, 1)]


async def test_a_slow_bulk_ends_at_a_message_boundary_where_the_task_wants_it() -> None:
    did: list[Any] = []
    task = Task()
    task.stopping = True
    assert await in_bulk(watched(did, "on_message", "on_finished_handling"), *map(record, range(3)), task=task) == 1
    assert did == [("on_message", 0), ("on_finished_handling", [0])]


async def test_what_a_bulk_that_ended_early_did_not_handle_is_not_taken_apart() -> None:
    async def on_finished_handling(cls: Any, msgs: Any, ctx: Context) -> None:
        raise ValueError("finish")

    task = Task()
    task.stopping = True
    views = failing(on_finished_handling=on_finished_handling)
    assert await in_bulk(views, *map(record, range(3)), task=task, fail_on_exception=False) == 0
    assert task.isolated == (0, 1)


async def test_what_is_passed_over_in_a_bulk_that_fails_is_not_counted_yet() -> None:
    async def on_finished_handling(cls: Any, msgs: Any, ctx: Context) -> None:
        raise ValueError("finish")

    task = Task()
    views = failing(1, on_finished_handling=on_finished_handling)
    assert await in_bulk(views, *map(record, range(3)), task=task, fail_on_exception=False) == 0
    assert (task.passed, task.isolated) == ([], (0, 3))


# Serializers.


async def decoded(handler: Any, *records: Record) -> list[tuple[Any, Any]]:
    for each in records:
        await one_by_one(compiled(handler), [each], 0, Task())
    return [(each.key, each.value) for each in records]


def exclaim(data: bytes) -> str:
    return data.decode() + "!"


def exclaim_in(data: bytes, encoding: str = "utf-8", *, end: str = "!") -> str:
    return data.decode(encoding) + end


class Exclaim:
    def __call__(self, data: bytes) -> str:
        return exclaim(data)

    def method(self, data: bytes) -> str:
        return exclaim(data)


def _method(self: object, data: bytes) -> str:
    return exclaim(data)


WAYS: dict[str, Any] = {
    "function": exclaim,
    "function with defaults": exclaim_in,
    "lambda": lambda data: data.decode() + "!",
    "staticmethod": staticmethod(exclaim),
    "classmethod": classmethod(_method),
    "callable object": Exclaim(),
    "bound method": Exclaim().method,
    "partial": functools.partial(exclaim_in, end="!"),
}


@pytest.mark.parametrize("name", ["serializer", "deserializer"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("instance", [False, True], ids=["class", "instance"])
async def test_a_serializer_may_be_any_callable_that_takes_bytes(name: str, way: str, instance: bool) -> None:
    kind = handler(**{f"key_{name}": WAYS[way], f"value_{name}": WAYS[way]})
    assert await decoded(kind() if instance else kind, record(0, b"v", b"k")) == [("k!", "v!")]


async def test_a_method_of_an_instance_may_be_the_serializer() -> None:
    assert await decoded(handler(value_serializer=_method)(), record(0)) == [(b"k", "v!")]


async def test_an_instance_may_carry_its_own_serializer() -> None:
    views: Any = handler(value_serializer=bytes.upper)()
    views.value_serializer = lambda data: data.decode()
    assert await decoded(views, record(0)) == [(b"k", "v")]


@pytest.mark.parametrize(("way", "value"), [(json.loads, 7), (int, 7), (bytes.decode, "7"), (bytes.hex, "37")])
async def test_what_python_brings_along_may_be_the_serializer(way: Any, value: object) -> None:
    for views in (handler(value_serializer=way), handler(value_serializer=way)()):
        assert await decoded(views, record(0, b"7")) == [(b"k", value)]


async def test_what_is_not_there_is_not_decoded() -> None:
    views = handler(key_serializer=exclaim, value_serializer=exclaim)
    assert await decoded(views, record(0, None, b"k"), record(1, b"v", None), record(2, b"", b"")) == [
        ("k!", None),
        (None, "v!"),
        ("!", "!"),
    ]


async def test_a_value_that_decodes_to_none_is_no_tombstone() -> None:
    did: list[Any] = []
    views: Any = watched(did, "on_message", "on_tombstone")
    views.value_serializer = json.loads
    await singly(views, record(0, b"null"))
    await in_bulk(views, record(1, b"null"))
    assert did == [("on_message", 0), ("on_message", 1)]


@both_ways
@pytest.mark.parametrize("part", ["key", "value"])
async def test_bytes_that_cannot_be_decoded_fail_the_message_and_name_it(hand_over: Hand, part: str) -> None:
    asked: list[Exception] = []

    async def on_error(cls: Any, e: Exception, msg: Record, ctx: Context) -> None:
        asked.append(e)

    task = Task()
    views = failing(on_error=on_error, **{f"{part}_serializer": json.loads})
    bad = record(1, b"{", b"1") if part == "value" else record(1, b"1", b"{")
    assert await hand_over(views, record(0, b"1", b"1"), bad, record(2, b"1", b"1"), task=task) == 3
    [error] = asked
    assert isinstance(error, DeserializationError)
    assert str(error).startswith(
        f"The {part} of views[3] offset 1 could not be decoded by Views.{part}_serializer: JSONDecodeError("
    )
    assert isinstance(error.__cause__, json.JSONDecodeError)
    assert task.read() == {"a": 0, "c": 2}


async def test_in_a_whole_bulk_one_undecodable_message_fails_the_bulk() -> None:
    async def on_bulk(cls: Any, msgs: list[Record], ctx: Context) -> None: ...

    with pytest.raises(DeserializationError, match=r"The value of views\[3\] offset 1 could not be decoded"):
        await in_bulk(handler(BulkHandler, on_bulk=on_bulk, value_serializer=int), record(0, b"1"), record(1, b"x"))


@pytest.mark.parametrize("part", ["key", "value"])
def test_two_serializers_of_which_one_would_be_ignored_are_refused(part: str) -> None:
    both: dict[str, Any] = {f"{part}_serializer": exclaim, f"{part}_deserializer": exclaim}
    views = handler(**both)
    for either in (views, views()):
        with pytest.raises(ConfigurationError) as caught:
            compiled(either)
        assert str(caught.value) == (
            f"Views sets both {part}_serializer and {part}_deserializer: they are one setting, keep one."
        )


def test_a_serializers_class_is_no_serializer() -> None:
    with pytest.raises(ConfigurationError, match=r"Views.value_serializer is the class String: give an instance"):
        compiled(handler(value_serializer=String))


async def test_a_serializer_object_decodes() -> None:
    dispatch = compiled(handler(key_serializer=String(), value_deserializer=Json()))
    assert dispatch.decode is not None
    given = record(0, b"[1]", b"a")
    assert dispatch.decode(given) is None
    assert (given.key, given.value) == ("a", [1])


@pytest.mark.parametrize("wrong", ["utf-8", 7, b"", {}])
def test_a_serializer_that_cannot_be_called_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compiled(handler(value_serializer=wrong))
    assert str(caught.value) == (
        f"Views.value_serializer is {wrong!r}: it must be a serializer, or a callable that takes bytes."
    )


def test_a_serializer_that_would_have_to_be_awaited_is_refused() -> None:
    async def decode(data: bytes) -> str:
        return data.decode()

    with pytest.raises(ConfigurationError, match=r"Views\.value_serializer"):
        compiled(handler(value_serializer=decode))


# What is refused when a handler is registered.


@pytest.mark.parametrize("wrong", [7, "Views", object(), dict])
def test_what_is_no_handler_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is no handler: subclass paperboy\.Handler or paperboy\.BulkHandler"):
        compiled(wrong)


@pytest.mark.parametrize("topic", ["", (), [], ["a", ""], None])
def test_a_handler_without_a_topic_is_refused(topic: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compiled(handler(topic=topic))
    assert str(caught.value) == 'Views has no topic: set topic = "…" (or a list of them) on it.'


@pytest.mark.parametrize(("topic", "topics"), [("a", ("a",)), (["b", "a"], ("b", "a")), (("a",), ("a",))])
def test_a_handler_has_one_topic_or_several(topic: Any, topics: Sequence[str]) -> None:
    assert compiled(handler(topic=topic)).topics == topics
    assert compiled(handler(topic=topic)()).topics == topics


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_is_no_coroutine_function_is_refused(name: str) -> None:
    def hook(*arguments: Any) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        compiled(handler(BulkHandler, **{name: hook}))
    assert str(caught.value) == f"Views.{name} is not a coroutine function: write 'async def {name}'."


async def _on_message(self: object, msg: Record, ctx: Context) -> None: ...


def test_a_method_of_instances_on_a_class_is_refused_and_of_an_instance_is_not() -> None:
    views = type("Views", (Handler,), {"topic": "views", "on_message": _on_message})
    with pytest.raises(ConfigurationError) as caught:
        compiled(views)
    assert str(caught.value) == (
        "Views.on_message is a method of instances: make it a @classmethod, or register Views(…)."
    )
    compiled(views())


async def test_a_static_hook_is_called_without_a_class() -> None:
    did: list[int] = []

    async def on_message(msg: Record, ctx: Context) -> None:
        did.append(msg.offset)

    views = type("Views", (Handler,), {"topic": "views", "on_message": staticmethod(on_message)})
    await singly(views(), record(0))
    await singly(views, record(1))
    assert did == [0, 1]


async def test_an_instance_carries_what_its_hooks_need() -> None:
    class Views(Handler):
        topic = "views"

        def __init__(self, seen: list[int]) -> None:
            self.seen = seen

        async def on_message(self, msg: Record, ctx: Context) -> None:  # type: ignore[override]
            self.seen.append(msg.offset)

    one: list[int] = []
    other: list[int] = []
    await singly(Views(one), record(0))
    await singly(Views(other), record(1))
    assert (one, other) == ([0], [1])


async def test_a_hook_may_be_inherited_from_a_handler_of_ones_own() -> None:
    did: list[Any] = []
    base = watched(did, "on_message")
    await singly(type("More", (base,), {"topic": "more"}), record(0))
    assert did == [("on_message", 0)]


def test_dispatch_tells_what_the_engine_needs_to_know_of_a_handler() -> None:
    views = compiled(handler(group_name="main", tables=[]))
    assert (views.name, views.topics, views.group_name, views.tables) == ("Views", ("views",), "main", [])
    assert isinstance(views.handler, type)


def test_errors_carry_the_traceback_of_the_hook() -> None:
    with pytest.raises(ValueError, match="bad 0") as caught:
        asyncio.run(_run_singly())
    names = []
    frame: TracebackType | None = caught.tb
    while frame is not None:
        names.append(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    assert names[-1] == "on_message"


async def _run_singly() -> None:
    await singly(failing(0), record(0))
