"""How far restores have come: in numbers, on a terminal, in the log, and for whoever asks."""

import io
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy import Handler, Table
from paperboy.clock import random_id
from paperboy.engine.restoring import RestoreDisplay, RestoreProgress, Restoring
from tests.contract.engine.kit import Kit
from tests.unit.test_held_stores import said

ROOT = Path(__file__).parents[2]
HALF = Restoring(records=300, offsets=500, total_offsets=1000, elapsed_sec=2.0)


# Numbers.


def test_the_rate_is_records_and_what_is_left_is_offsets() -> None:
    assert HALF.records_per_sec == 150.0
    assert HALF.left_sec == 2.0


@pytest.mark.parametrize(
    ("restoring", "rate", "left_sec"),
    [
        (Restoring(0, 0, 0, 0.0), 0.0, None),
        (Restoring(0, 0, 1000, 5.0), 0.0, None),
        (Restoring(10, 10, 1000, 0.0), 0.0, None),
        (Restoring(0, 10, 20, 5.0), 0.0, 5.0),
        (Restoring(10, 1000, 1000, 5.0), 2.0, 0.0),
        (Restoring(20, 1010, 1000, 5.0), 4.0, 0.0),
    ],
    ids=["nothing yet", "nothing came yet", "no time has passed", "a gap", "the end", "beyond the end it had"],
)
def test_what_is_not_known_is_not_guessed(restoring: Restoring, rate: float, left_sec: float | None) -> None:
    assert (restoring.records_per_sec, restoring.left_sec) == (rate, left_sec)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1e9))
def test_neither_is_ever_below_zero(records: int, offsets: int, total: int, elapsed_sec: float) -> None:
    restoring = Restoring(records, offsets, total, elapsed_sec)
    assert restoring.records_per_sec >= 0
    assert restoring.left_sec is None or restoring.left_sec >= 0


def test_progress_adds_up_and_begins_anew() -> None:
    now = 100.0
    progress = RestoreProgress(lambda: now)
    now = 110.0
    progress.expect(1000)
    assert progress.so_far() == Restoring(0, 0, 1000, 0.0)
    now = 112.5
    progress.passed(200, 300)
    progress.passed(0, 50)
    assert progress.so_far() == Restoring(200, 350, 1000, 2.5)
    progress.expect(70)
    assert progress.so_far() == Restoring(0, 0, 70, 0.0)


# The display.


class Terminal(io.StringIO):
    """Standard error, as far as a bar uses it."""

    def __init__(self, *, isatty: bool = True) -> None:
        super().__init__()
        self._isatty = isatty

    def isatty(self) -> bool:
        return self._isatty

    @property
    def lines(self) -> list[str]:
        """What a person sees."""
        shown = [""]
        for piece in self.getvalue().replace("\n", "\n\r").split("\r"):
            text, ended, _ = piece.partition("\n")
            shown[-1] = text + shown[-1][len(text) :]
            if ended:
                shown.append("")
        return [line.rstrip() for line in shown]


class Restores(dict[str, Restoring]):
    """What is being restored, for the display to ask for."""

    def __call__(self) -> Mapping[str, Restoring]:
        return self


@pytest.fixture
def restores() -> Restores:
    return Restores()


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """To be called in the test itself: pytest has a standard error for each phase."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


async def test_a_terminal_shows_all_restores_as_one_bar(restores: Restores, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    display = RestoreDisplay(restores, None, on_terminal=True)
    restores.update({"views[0]": HALF, "views[1]": Restoring(0, 0, 3000, 2.0)})
    await display.show()
    [line] = terminal.lines
    assert line.startswith("restoring:  12%")
    assert "500/4.00k" in line
    restores["views[1]"] = Restoring(1500, 2500, 3000, 4.0)
    await display.show()
    [line] = terminal.lines
    assert line.startswith("restoring:  75%")
    assert "3.00k/4.00k" in line
    display.close()


async def test_a_bar_is_gone_when_nothing_is_restored_any_more(
    restores: Restores, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = at_a_terminal(monkeypatch)
    display = RestoreDisplay(restores, None, on_terminal=True)
    restores["views[0]"] = HALF
    await display.show()
    restores.clear()
    await display.show()
    assert terminal.lines == [""]
    restores["views[0]"] = HALF
    await display.show()
    assert terminal.lines[0].startswith("restoring:"), "it comes again"
    display.close()


async def test_an_end_leaves_the_terminal_as_it_was(restores: Restores, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    display = RestoreDisplay(restores, None, on_terminal=True)
    restores["views[0]"] = HALF
    await display.show()
    display.close()
    display.close()
    assert terminal.lines == [""]


async def test_a_terminal_on_which_nothing_is_restored_stays_untouched(
    restores: Restores, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = at_a_terminal(monkeypatch)
    display = RestoreDisplay(restores, None, on_terminal=True)
    await display.show()
    display.close()
    assert terminal.getvalue() == ""


async def test_a_bar_says_nothing_in_the_log(
    restores: Restores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    at_a_terminal(monkeypatch)
    caplog.set_level(logging.DEBUG)
    display = RestoreDisplay(restores, None, on_terminal=True)
    restores["views[0]"] = HALF
    for _ in range(10):
        await display.show()
    display.close()
    assert said(caplog, "restoring") == []


@pytest.mark.parametrize("stderr", [Terminal(isatty=False), None], ids=["a file", "none"])
async def test_where_there_is_no_terminal_a_log_line_now_and_then_says_it(
    restores: Restores, stderr: Terminal | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "stderr", stderr)
    await says_now_and_then(RestoreDisplay(restores, None, on_terminal=True), restores, caplog)
    assert stderr is None or stderr.getvalue() == ""


async def test_an_engine_that_runs_beside_other_things_draws_on_nobodys_terminal(
    restores: Restores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = at_a_terminal(monkeypatch)
    caplog.set_level(logging.INFO)
    await says_now_and_then(RestoreDisplay(restores, None, on_terminal=False), restores, caplog)
    assert terminal.getvalue() == ""


async def says_now_and_then(display: RestoreDisplay, restores: Restores, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(7):
        await display.show()
    assert said(caplog, "restoring") == [], "there is nothing to say"
    restores.update({"views[0]": HALF, "views[1]": Restoring(0, 0, 3000, 2.0)})
    for _ in range(4):
        await display.show()
    assert said(caplog, "restoring") == [], "a short restore needs no line"
    await display.show()
    assert said(caplog, "restoring") == [
        {"event": "restoring", "task": "views[0]", "records": 300, "records_per_sec": 150, "left_sec": 2.0},
        {"event": "restoring", "task": "views[1]", "records": 0, "records_per_sec": 0, "left_sec": None},
    ]
    for _ in range(5):
        await display.show()
    assert len(said(caplog, "restoring")) == 4
    display.close()


@pytest.mark.parametrize("on_terminal", [True, False])
async def test_the_users_own_display_hears_of_each_restore_each_time(
    restores: Restores, monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    at_a_terminal(monkeypatch)
    heard: list[tuple[str, Restoring]] = []
    display = RestoreDisplay(restores, lambda task, restoring: heard.append((task, restoring)), on_terminal)
    await display.show()
    assert heard == []
    other = Restoring(1, 2, 3, 4.0)
    restores.update({"views[0]": HALF, "views[1]": other})
    await display.show()
    await display.show()
    display.close()
    assert heard == [("views[0]", HALF), ("views[1]", other)] * 2


DRAW = """
import asyncio, io, sys, threading

class Terminal(io.StringIO):
    def isatty(self):
        return True

sys.stderr = Terminal()
from paperboy.engine.restoring import RestoreDisplay, Restoring
display = RestoreDisplay(lambda: {"views[0]": Restoring(1, 1, 2, 1.0)}, None, True)
assert "tqdm" not in sys.modules
asyncio.run(display.show())
assert "tqdm" in sys.modules
assert threading.active_count() == 1, threading.enumerate()
display.close()
"""


def test_a_bar_is_loaded_when_it_is_drawn_and_has_no_thread_of_its_own() -> None:
    result = subprocess.run(
        [sys.executable, "-c", DRAW], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


# In an engine.


async def test_an_engine_tells_how_each_restore_has_ended() -> None:
    kit = Kit(f"memory://{(unique := random_id()[:12])}", unique)
    source = await kit.topic("views")
    await kit.send(source, [(b"%d" % number, b"x") for number in range(30)])
    heard: list[tuple[str, Restoring]] = []

    async def catch_up() -> Restoring:
        table = Table("views")

        class Views(Handler):
            topic = source

            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                table[msg.key] = msg.value

        def on_restore(task: str, restoring: Restoring) -> None:
            heard.append((task, restoring))

        engine = kit.engine(Views, on_restore=on_restore)
        engine.register_table(table)
        async with engine:
            await engine.caught_up()
        [(task, restoring)] = heard
        assert task == f"{source}[0]"
        heard.clear()
        return restoring

    empty, full = await catch_up(), await catch_up()
    assert (empty.records, empty.offsets, empty.total_offsets) == (0, 0, 0)
    assert (full.records, full.offsets, full.total_offsets) == (30, 30, 30)
