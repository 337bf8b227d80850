"""SIGINT and SIGTERM: taken while an engine runs where nobody else has them, and given back."""

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from paperboy.engine.signals import stopping_on_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


async def raised(number: signal.Signals) -> None:
    """A signal has come, and the loop has had its turn."""
    signal.raise_signal(number)
    for _ in range(3):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_stops_the_engine_and_says_which_it_was(number: signal.Signals) -> None:
    stops: list[str] = []
    with stopping_on_signals(stops.append):
        await raised(number)
    assert stops == [number.name]


async def test_what_was_taken_is_given_back() -> None:
    before = handlers()
    with stopping_on_signals(lambda name: None):
        assert handlers() != before
    assert handlers() == before


async def test_it_is_given_back_after_an_error_too() -> None:
    before = handlers()
    with pytest.raises(ValueError, match="boom"), stopping_on_signals(lambda name: None):
        raise ValueError("boom")
    assert handlers() == before


async def test_a_signal_that_somebody_else_has_taken_is_left_to_them() -> None:
    theirs: list[int] = []
    stops: list[str] = []
    signal.signal(signal.SIGTERM, lambda number, frame: theirs.append(number))
    with stopping_on_signals(stops.append):
        await raised(signal.SIGTERM)
        await raised(signal.SIGINT)
    assert (theirs, stops) == ([signal.SIGTERM], ["SIGINT"])
    await raised(signal.SIGTERM)
    assert theirs == [signal.SIGTERM] * 2


async def test_a_signal_that_is_ignored_stays_ignored() -> None:
    stops: list[str] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping_on_signals(stops.append):
        await raised(signal.SIGINT)
    assert stops == []
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


async def test_a_signal_that_the_application_handles_in_the_loop_is_left_to_it() -> None:
    loop = asyncio.get_running_loop()
    theirs: list[str] = []
    stops: list[str] = []
    loop.add_signal_handler(signal.SIGTERM, theirs.append, "theirs")
    try:
        with stopping_on_signals(stops.append):
            await raised(signal.SIGTERM)
        await raised(signal.SIGTERM)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    assert (theirs, stops) == (["theirs", "theirs"], [])


async def test_two_engines_in_one_loop_take_the_signals_once() -> None:
    first: list[str] = []
    second: list[str] = []
    before = handlers()
    with stopping_on_signals(first.append):
        with stopping_on_signals(second.append):
            await raised(signal.SIGTERM)
        await raised(signal.SIGINT)
    assert (first, second) == (["SIGTERM", "SIGINT"], [])
    assert handlers() == before


def test_asyncio_runs_own_interrupt_is_taken_and_works_again_afterwards() -> None:
    stops: list[str] = []

    async def engine() -> None:
        with stopping_on_signals(stops.append):
            await raised(signal.SIGINT)
        await raised(signal.SIGINT)  # asyncio.run's again: it cancels the main task

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(engine())
    assert stops == ["SIGINT"]


def test_outside_the_main_thread_nothing_is_taken() -> None:
    before = handlers()
    inside: list[list[object]] = []

    async def engine() -> None:
        with stopping_on_signals(lambda name: None):
            inside.append(handlers())

    thread = threading.Thread(target=lambda: asyncio.run(engine()))
    thread.start()
    thread.join()
    assert inside == [before]
    assert handlers() == before
