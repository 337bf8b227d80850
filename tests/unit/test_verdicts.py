"""ctx.skip, ctx.dead_letter and ctx.retry_later, and the answers of error hooks: in each hook, mode and policy."""

import asyncio
import logging
from typing import Any

import pytest

from paperboy import BulkHandler, DeadLetter, Handler, Retry, Table
from paperboy.clock import random_id
from paperboy.engine import membership
from paperboy.errors import PaperboyError
from paperboy.handlers import put_away
from paperboy.handlers.failed_record import stack_of
from paperboy.testing import EngineTest
from tests.contract.engine.kit import Kit, said, until
from tests.unit.failing_kit import AT_ONCE, committed, engine_of, handler, headers

pytestmark = pytest.mark.time_limit(30)

both = pytest.mark.parametrize("lanes", [1, 3])
modes = pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])

SINGLE_HOOKS = ["did_receive_message", "on_message", "on_finished_handling"]
LIST_HOOKS = ["did_receive_bulk_messages", "on_bulk", "on_finished_handling"]


def calling(verdict: str, where: str, names: list[str], *, swallowing: bool = False) -> dict[str, Any]:
    """Hooks that write and send, of which the one named `where` calls ctx.`verdict` about message b"it"."""
    table = Table("t")
    seen: list[Any] = []

    def hook(name: str) -> Any:
        async def called(given: Any, ctx: Any) -> Any:
            messages = given if isinstance(given, list) else [given]
            for msg in messages:
                table[msg.offset] = table.get(msg.offset, 0) + 1
                ctx.send("out", b"%d" % msg.offset)
            if name == where and any(msg.value == b"it" for msg in messages):
                seen.append(([msg.offset for msg in messages], ctx.attempt))
                try:
                    if verdict == "retry_later":
                        if ctx.attempt < 3:
                            ctx.retry_later("2s", "not yet")
                    else:
                        getattr(ctx, verdict)("I know best")
                except Exception:
                    if not swallowing:
                        raise
            return given

        return called

    return {"table": table, "seen": seen, "hooks": {name: hook(name) for name in names}}


@both
@modes
@pytest.mark.parametrize("where", SINGLE_HOOKS)
@pytest.mark.parametrize("verdict", ["skip", "dead_letter", "retry_later"])
async def test_a_verdict_about_a_message_counts_in_each_hook_even_inside_except_exception(
    verdict: str, where: str, threshold: int, lanes: int
) -> None:
    made = calling(verdict, where, SINGLE_HOOKS, swallowing=True)
    failing = handler(None, Handler, concurrency=lanes, dead_letter=DeadLetter(), **made["hooks"])
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    engine.register_table(made["table"])
    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.stop()
        for value in ("other", "it", "other"):
            await t.send("in", value, key=value)
        await t.restart()
        await t.settle()
        whole = where == "on_finished_handling" and threshold == 1 and lanes == 1
        attempts = [1, 2, 3] if verdict == "retry_later" else [1]
        offsets = [0, 1, 2] if whole else [1]
        assert made["seen"] == [(offsets, attempt) for attempt in attempts]
        left = [] if whole else [0, 2]
        finished = [0, 1, 2] if verdict == "retry_later" else left
        assert t.table("t") == dict.fromkeys(finished, 3)
        assert sorted(record.value for record in t.sent("out")) == sorted(b"%d" % each for each in finished * 3)
        assert committed(t) == 3
        dead = t.dead_letters("in")
        assert [int(headers(each)["offset"]) for each in dead] == (offsets if verdict == "dead_letter" else [])
        for each in dead:
            assert headers(each)["error.class"] == "paperboy.errors.Rejected"
            assert headers(each)["error.message"] == "I know best"
            assert where in headers(each)["error.stack"] or "called" in headers(each)["error.stack"]
        status = engine.status()
        assert status.passed_over == (len(offsets) if verdict == "skip" else 0)
        assert status.retried == (2 if verdict == "retry_later" else 0)


@both
@modes
@pytest.mark.parametrize("where", LIST_HOOKS)
@pytest.mark.parametrize("verdict", ["skip", "dead_letter", "retry_later"])
async def test_a_verdict_of_a_hook_that_gets_a_list_is_about_the_whole_of_it(
    verdict: str, where: str, threshold: int, lanes: int
) -> None:
    made = calling(verdict, where, LIST_HOOKS)
    failing = handler(None, BulkHandler, concurrency=lanes, retry=Retry(), dead_letter=DeadLetter(), **made["hooks"])
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    engine.register_table(made["table"])
    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.stop()
        for value in ("other", "it", "other"):
            await t.send("in", value, key=value)
        await t.restart()
        await t.settle()
        offsets = [0, 1, 2] if threshold == 1 else [1]
        attempts = [1, 2, 3] if verdict == "retry_later" else [1]
        assert made["seen"] == [(offsets, attempt) for attempt in attempts]
        left = [] if threshold == 1 else [0, 2]
        assert t.table("t") == dict.fromkeys([0, 1, 2] if verdict == "retry_later" else left, 3)
        dead = t.dead_letters("in")
        assert [int(headers(each)["offset"]) for each in dead] == (offsets if verdict == "dead_letter" else [])
        assert committed(t) == 3
        assert engine.status().handled == 3


@both
@modes
@pytest.mark.parametrize("verdict", ["skip", "dead_letter", "retry_later"])
async def test_a_verdict_of_on_error_counts_and_takes_back_what_it_wrote(
    verdict: str, threshold: int, lanes: int
) -> None:
    table = Table("t")
    asked: list[int] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        if msg.value == b"it" and ctx.attempt < 3:
            raise ValueError("bad")

    async def on_error(e: Exception, msg: Any, ctx: Any) -> None:
        asked.append(ctx.attempt)
        table["from on_error"] = True
        ctx.send("out", b"from on_error")
        if verdict == "retry_later":
            ctx.retry_later("1s")
        getattr(ctx, verdict)("I know best")

    async def on_finished_handling(msgs: Any, ctx: Any) -> None:
        pass

    failing = handler(on_message, on_error=on_error, on_finished_handling=on_finished_handling, concurrency=lanes,
                      dead_letter=DeadLetter())  # fmt: skip
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    engine.register_table(table)
    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.stop()
        for value in ("other", "it", "other"):
            await t.send("in", value)
        await t.restart()
        await t.settle()
        assert asked == ([1, 2] if verdict == "retry_later" else [1])
        assert t.table("t") == {}
        assert t.sent("out") == []
        status = engine.status()
        assert (status.passed_over, status.dead_lettered, status.retried) == {
            "skip": (1, 0, 0), "dead_letter": (0, 1, 0), "retry_later": (0, 0, 2)
        }[verdict]  # fmt: skip
        assert [headers(dead)["error.class"] for dead in t.dead_letters("in")] == (
            ["paperboy.errors.Rejected"] if verdict == "dead_letter" else []
        )


@both
@modes
@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("dead_letter", r"ctx\.dead_letter was called \(because\), but Failing does not declare dead_letter = DeadLet"),
        ("retry_later", r"ctx\.retry_later was called \(because\), but Failing does not declare retry = Retry"),
    ],
)
async def test_a_verdict_that_nothing_is_declared_for_stops_the_engine_with_a_sentence(
    verdict: str, sentence: str, threshold: int, lanes: int
) -> None:
    async def hook(given: Any, ctx: Any) -> None:
        if verdict == "retry_later":
            ctx.retry_later(1, "because")
        ctx.dead_letter("because")

    failing = handler(None, BulkHandler, on_bulk=hook, concurrency=lanes)
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    async with EngineTest(engine) as t:
        await t.stop()
        for _ in range(2):
            await t.send("in", "v", key="k")
        await t.restart()
        if verdict == "retry_later" and threshold > 1:  # one message can always be taken back and handled again
            await t.advance("5s")
            assert engine.status().retried >= 5
            await t.crash()
            return
        with pytest.raises(PaperboyError, match=sentence):
            await t.settle()
        assert committed(t) == 0


# What on_error answers.


@both
@pytest.mark.parametrize(
    ("policy", "fate"),
    [
        ({}, "skipped"),
        ({"fail_on_exception": True}, "skipped"),
        ({"fail_on_exception": False}, "skipped"),
        ({"dead_letter": DeadLetter()}, "dead letter"),
        ({"retry": Retry(attempts=2, backoff=AT_ONCE)}, "skipped"),
        ({"retry": Retry(attempts=2, backoff=AT_ONCE), "dead_letter": DeadLetter()}, "dead letter"),
        ({"retry": Retry(delays=["1s"], via="topics")}, "skipped"),
    ],
)
@pytest.mark.parametrize("answer", ["None", "returns", "raises", "nonsense"])
async def test_on_error_has_the_last_word_when_retries_are_used_up(
    answer: str, policy: dict[str, Any], fate: str, lanes: int
) -> None:
    asked: list[Any] = []

    async def on_message(msg: Any, ctx: Any) -> None:
        raise ValueError("bad")

    async def on_error(e: Exception, msg: Any, ctx: Any) -> Any:
        asked.append((repr(e), msg.offset, ctx.attempt))
        ctx.send("out", b"kept where it goes on")
        if answer == "returns":
            return KeyError("mine")
        if answer == "raises":
            raise KeyError("mine")
        return None if answer == "None" else 3

    engine = engine_of(handler(on_message, on_error=on_error, concurrency=lanes, **policy))
    async with EngineTest(engine, topics={"out": 1}) as t:
        await t.send("in", "v")
        attempts = 2 if "retry" in policy else 1
        if answer != "None":
            error: Any = PaperboyError if answer == "nonsense" else KeyError
            with pytest.raises(error, match="on_error returned 3" if answer == "nonsense" else "mine"):
                await t.advance("5s")
            assert t.sent("out") == []
        else:
            await t.advance("5s")
            await t.settle()
            assert [record.value for record in t.sent("out")] == [b"kept where it goes on"]
            status = engine.status()
            assert (status.passed_over, status.dead_lettered) == ((1, 0) if fate == "skipped" else (0, 1))
            assert len(t.dead_letters("in")) == status.dead_lettered
        assert asked == [("ValueError('bad')", 0, attempts)]


@modes
@pytest.mark.parametrize("policy", [{}, {"dead_letter": DeadLetter()}, {"retry": Retry(attempts=2, backoff=AT_ONCE)}])
async def test_on_bulk_error_decides_for_the_whole_bulk(policy: dict[str, Any], threshold: int) -> None:
    asked: list[Any] = []

    async def on_bulk(msgs: Any, ctx: Any) -> None:
        if any(msg.value == b"it" for msg in msgs):
            raise ValueError("bad")

    async def on_bulk_error(e: Exception, msgs: Any, ctx: Any) -> None:
        asked.append(([msg.offset for msg in msgs], ctx.attempt))

    failing = handler(None, BulkHandler, on_bulk=on_bulk, on_bulk_error=on_bulk_error, **policy)
    engine = engine_of(failing, bulk_mode_threshold=threshold)
    async with EngineTest(engine) as t:
        await t.stop()
        for value in ("other", "it", "other"):
            await t.send("in", value)
        await t.restart()
        await t.settle()
        offsets = [0, 1, 2] if threshold == 1 else [1]
        assert asked == [(offsets, 2 if "retry" in policy else 1)]
        dead = t.dead_letters("in")
        assert [int(headers(each)["offset"]) for each in dead] == (offsets if "dead_letter" in policy else [])
        status = engine.status()
        given_up = (0, len(offsets)) if "dead_letter" in policy else (len(offsets), 0)
        assert (status.passed_over, status.dead_lettered) == given_up


async def test_a_bulk_that_is_given_up_has_its_stack_taken_once_and_told_in_each_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[BaseException] = []

    def counting(error: BaseException) -> str:
        taken.append(error)
        return stack_of(error)

    async def on_bulk(msgs: Any, ctx: Any) -> None:
        ctx.dead_letter("all of it")

    monkeypatch.setattr(put_away, "stack_of", counting)
    engine = engine_of(handler(None, BulkHandler, on_bulk=on_bulk, dead_letter=DeadLetter()), bulk_mode_threshold=1)
    async with EngineTest(engine) as t:
        await t.stop()
        for value in range(50):
            await t.send("in", str(value), key=str(value))
        await t.restart()
        await t.settle()
        dead = t.dead_letters("in")
        assert [(each.value, int(headers(each)["offset"])) for each in dead] == [(b"%d" % n, n) for n in range(50)]
        assert all("ctx.dead_letter" in headers(each)["error.stack"] for each in dead)
        assert len(taken) == 1


async def test_the_event_loop_turns_while_a_bulk_is_given_up_and_that_is_no_time_of_its_hooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(membership, "_TURN_SEC", 0.0)
    kit, letters, turns = Kit(f"memory://{random_id()}", "g"), 5_000, 0
    source = await kit.topic("in")
    await kit.send_values(source, *[b"%d" % number for number in range(letters)])
    ended = asyncio.Event()

    async def turning() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1
            await asyncio.sleep(0)

    class Refusing(BulkHandler):
        topic = source
        dead_letter = DeadLetter()
        handler_timeout_sec = 0.01

        @classmethod
        async def on_bulk(cls, msgs: Any, ctx: Any) -> None:
            group.create_task(turning())
            ctx.dead_letter("all of it")

    async with (
        asyncio.TaskGroup() as group,
        kit.engine(Refusing, bulk_mode_threshold=1, bulk_mode_timeout_ms=30_000) as engine,
    ):
        await until(lambda: engine.status().dead_lettered == letters)
        ended.set()
    assert turns >= letters - 1
    assert len(await kit.read(f"{source}-dlt")) == letters


# Each has its counter and its log line.


async def test_each_way_has_one_log_line_that_says_where(caplog: pytest.LogCaptureFixture) -> None:
    async def on_message(msg: Any, ctx: Any) -> None:
        if msg.value == b"skip":
            ctx.skip("old")
        if msg.value == b"retry" and ctx.attempt == 1:
            raise ValueError("once")
        if msg.value == b"dead":
            ctx.dead_letter("no")
        if msg.value == b"stop":
            raise KeyError("end")

    caplog.set_level(logging.WARNING)
    failing = handler(on_message, retry=Retry(attempts=2, backoff=AT_ONCE, fatal=KeyError), dead_letter=DeadLetter())

    async def on_error(e: Exception, msg: Any, ctx: Any) -> Exception | None:
        return e

    failing.on_error = staticmethod(on_error)  # type: ignore[method-assign]
    async with EngineTest(engine_of(failing)) as t:
        for value in ("skip", "retry", "dead", "stop"):
            await t.send("in", value)
        with pytest.raises(KeyError):
            await t.settle()
    place = {"task": "in[0]", "topic": "in", "partition": 0}
    expected: list[tuple[str, dict[str, Any]]] = [
        ("passed over", {"offset": 0, "records": 1, "attempts": 1, "error": "Rejected('old')"}),
        ("handled again", {"offset": 1, "attempts": 1, "seconds": 0.001, "error": "ValueError('once')"}),
        ("dead letter", {"offset": 2, "records": 1, "attempts": 1, "to": "in-dlt", "error": "Rejected('no')"}),
    ]
    for event, fields in expected:
        (line,) = said(caplog, event)
        assert {**place, **fields}.items() <= line.items()
    (line,) = said(caplog, "failed")
    assert "KeyError" in line["error"]
