"""The state of a circuit breaker: when it opens, whom it lets begin, and when it closes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy import CircuitBreaker
from paperboy.handlers.breaker import Breaker
from paperboy.testing.virtual_time import VirtualLoop

AWAY = ConnectionError("away")


def in_virtual_time(test: Callable[[Breaker], Any], **settings: Any) -> None:
    given = {"failures": 3, "within": "10s", "pause": "30s", "on": (ConnectionError,), **settings}

    async def run() -> None:
        await test(Breaker(CircuitBreaker(**given), "Orders"))

    loop = VirtualLoop()
    try:
        loop.run(run())
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


def test_it_opens_after_so_many_failures_in_the_time() -> None:
    async def test(breaker: Breaker) -> None:
        assert breaker.failed(AWAY) is None
        await asyncio.sleep(4)
        assert breaker.failed(AWAY) is None
        assert (breaker.is_closed, breaker.may_begin(), breaker.opened) == (True, True, 0)
        await asyncio.sleep(6)
        assert breaker.failed(AWAY) == 30, "the third within 10 s of the first"
        assert (breaker.is_closed, breaker.may_begin(), breaker.opened) == (False, False, 1)
        assert breaker.opens_at == now() + 30

    in_virtual_time(test)


def test_failures_that_lie_further_apart_do_not_open_it() -> None:
    async def test(breaker: Breaker) -> None:
        for _ in range(100):
            assert breaker.failed(AWAY) is None
            await asyncio.sleep(5.1)
        assert breaker.is_closed

    in_virtual_time(test)


def test_errors_that_do_not_count_change_nothing_closed_or_open() -> None:
    async def test(breaker: Breaker) -> None:
        for _ in range(10):
            assert breaker.failed(ValueError()) is None
        assert breaker.is_closed
        for _ in range(3):
            breaker.failed(AWAY)
        opens_at = breaker.opens_at
        await asyncio.sleep(1)
        assert breaker.failed(ValueError()) is None, "it is judged as ever"
        assert breaker.opens_at == opens_at

    in_virtual_time(test)


def test_what_had_begun_before_is_held_until_the_same_moment() -> None:
    async def test(breaker: Breaker) -> None:
        assert breaker.failed(AWAY) == 30
        await asyncio.sleep(12)
        assert breaker.failed(AWAY) == 18
        assert breaker.opened == 1

    in_virtual_time(test, failures=1)


def test_one_probe_begins_when_the_pause_is_over_and_closes_it() -> None:
    async def test(breaker: Breaker) -> None:
        breaker.failed(AWAY)
        await asyncio.sleep(29.9)
        assert not breaker.may_begin()
        await asyncio.sleep(0.1)
        assert breaker.may_begin()
        assert breaker.opens_at is None, "now"
        breaker.probe()
        assert (breaker.may_begin(), breaker.opens_at) == (False, None), "until it has ended"
        breaker.probed(True)
        assert breaker.is_closed
        assert breaker.may_begin()
        assert breaker.failed(AWAY) == 30, "counts from the beginning"

    in_virtual_time(test, failures=1)


def test_a_probe_that_fails_begins_the_pause_again() -> None:
    async def test(breaker: Breaker) -> None:
        breaker.failed(AWAY)
        for turn in range(2, 5):
            await asyncio.sleep(30)
            breaker.probe()
            assert breaker.failed(AWAY) == 30
            breaker.probed(False)
            assert (breaker.may_begin(), breaker.opens_at, breaker.opened) == (False, now() + 30, turn)

    in_virtual_time(test, failures=1)


def test_a_probe_that_was_cut_off_leaves_the_turn_to_the_next() -> None:
    async def test(breaker: Breaker) -> None:
        breaker.failed(AWAY)
        await asyncio.sleep(30)
        breaker.probe()
        breaker.probed(False)
        assert not breaker.is_closed
        assert breaker.may_begin()

    in_virtual_time(test, failures=1)


def test_a_probe_that_ends_wakes_those_who_wait_for_it_and_nobody_else() -> None:
    async def test(breaker: Breaker) -> None:
        heard: list[str] = []
        forget = breaker.listen(lambda: heard.append("one"))
        breaker.listen(lambda: heard.append("two"))
        breaker.failed(AWAY)
        assert heard == []
        breaker.probe()
        breaker.probed(False)
        assert heard == ["one", "two"]
        forget()
        breaker.probe()
        breaker.probed(True)
        assert heard == ["one", "two", "two"]

    in_virtual_time(test, failures=1)


def test_each_opening_and_closing_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def test(breaker: Breaker) -> None:
        breaker.failed(AWAY)
        breaker.failed(AWAY)
        await asyncio.sleep(30)
        breaker.probe()
        breaker.probed(True)
        breaker.probed(True)

    caplog.set_level("INFO")
    in_virtual_time(test, failures=2)
    assert [(record.levelname, record.__dict__["paperboy"]["event"]) for record in caplog.records] == [
        ("ERROR", "handler paused"),
        ("INFO", "handler goes on"),
    ]
    paused = caplog.records[0].__dict__["paperboy"]
    assert (paused["handler"], paused["seconds"], paused["failures"]) == ("Orders", 30, 2)
    assert paused["error"] == "ConnectionError('away')"


@given(st.lists(st.tuples(st.sampled_from(["fail", "begin", "finish", "give up", "wait"]), st.floats(0.1, 40))))
def test_while_it_is_open_no_more_than_one_is_under_way_that_began_since(steps: list[tuple[str, float]]) -> None:
    async def test(breaker: Breaker) -> None:
        probing = False
        for step, duration_sec in steps:
            if breaker.is_closed:
                probing = False
            if step == "wait":
                await asyncio.sleep(duration_sec)
            elif step == "begin" and breaker.may_begin() and not breaker.is_closed:
                assert not probing
                breaker.probe()
                probing = True
            elif step == "fail":
                breaker.failed(AWAY)
                if probing:
                    breaker.probed(False)
                    probing = False
                    assert not breaker.is_closed
            elif probing:
                breaker.probed(step == "finish")
                probing = False
                assert breaker.is_closed is (step == "finish")
            assert breaker.is_closed or probing or breaker.may_begin() or breaker.opens_at is not None

    in_virtual_time(test, failures=2)
