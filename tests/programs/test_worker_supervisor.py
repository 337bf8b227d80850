"""The supervisor, over workers that are small scripts: what it starts again, in which order, and how it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from paperboy.cli import worker_restarts
from paperboy.cli.worker_report import LINE_BYTES, Report, report_in
from paperboy.cli.worker_restarts import Restarts
from paperboy.cli.worker_supervisor import Supervisor
from tests.contract.engine.kit import said, until

WORKER = """
import json, pathlib, signal, socket, sys
_, directory, kind, _, number, _, descriptor = sys.argv
here = pathlib.Path(directory)
supervisor = socket.socket(fileno=int(descriptor))

def tell(**report):
    supervisor.sendall(json.dumps(report).encode() + b"\\n")

def end(*_):
    sys.exit(0)

def fails(failure, exit_code):
    tell(failure=failure)
    sys.exit(exit_code)

signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "deaf" else end)
if kind == "failing":
    fails("There is no topic.", 1)
elif kind == "misused":
    fails("There is no module.", 2)
elif kind == "cut short":
    supervisor.sendall(b'{"failure": "The wor')
    sys.exit(3)
elif kind == "silent":
    sys.exit(3)
elif kind == "finishing":
    tell(finished=True)
    sys.exit(0)
elif kind == "failing at its stop":
    signal.signal(signal.SIGTERM, lambda *_: fails("The disk is full.", 1))
elif kind == "failing first" and not (here / number).exists():
    (here / number).touch()
    fails("There is no topic.", 1)
elif kind == "slow" and int(number) > 1 and (here / number).exists():
    signal.pause()  # and is never ready again
(here / number).touch()
tell(drain_timeout_sec=1.0)
tell(ready=True)
while True:
    signal.pause()
"""

Fields = dict[str, Any]


class Supervised:
    """A supervisor that runs, and what it has logged."""

    def __init__(self, supervisor: Supervisor, running: "asyncio.Task[int]", log: pytest.LogCaptureFixture) -> None:
        self.supervisor = supervisor
        self.running = running
        self._log = log

    def said(self, event: str) -> list[Fields]:
        return said(self._log, event)

    def order(self, *events: str) -> list[tuple[str, int]]:
        """These events in their order, each with its worker."""
        lines = [record.__dict__["paperboy"] for record in self._log.records if hasattr(record, "paperboy")]
        return [(line["event"], line["worker"]) for line in lines if line["event"] in events]

    async def until_ready(self, times: int) -> None:
        await until(lambda: len(self.said("worker ready")) >= times)

    async def exit_code(self) -> int:
        return await self.running


@pytest.fixture
def supervise(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``async with supervise(kind, workers=…, restarts=…)`` runs a supervisor over scripts of this kind."""
    monkeypatch.setattr(worker_restarts, "_FIRST_DELAY_SEC", 0.01)
    caplog.set_level("INFO")
    script = tmp_path / "worker.script"
    script.write_text(WORKER)

    @asynccontextmanager
    async def supervise(
        kind: str, workers: int = 1, restarts: Restarts | None = None, **options: Any
    ) -> AsyncIterator[Supervised]:
        command = [sys.executable, "-S", str(script), str(tmp_path), kind]
        supervisor = Supervisor(command, workers, restarts or Restarts(attempts=3), **options)
        running = asyncio.create_task(supervisor.run())
        try:
            yield Supervised(supervisor, running, caplog)
        finally:
            supervisor.stop("the test has ended")
            supervisor.stop(signal.SIGINT.name)  # whoever is deaf is killed
            await asyncio.wait([running])

    return supervise


async def test_a_stop_ends_all_workers_and_the_exit_code_is_0(supervise: Callable[..., Any]) -> None:
    async with supervise("serving", workers=3) as s:
        await s.until_ready(3)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await s.exit_code() == 0
    assert s.said("worker killed") == s.said("worker failed") == []


async def test_a_stop_while_workers_are_being_started_ends_cleanly(supervise: Callable[..., Any]) -> None:
    async with supervise("serving", workers=2) as s:
        s.supervisor.stop("at once")
        assert await s.exit_code() == 0


async def test_a_worker_that_dies_is_started_again_and_its_end_is_said(supervise: Callable[..., Any]) -> None:
    async with supervise("serving", workers=2) as s:
        await s.until_ready(2)
        killed = next(line["pid"] for line in s.said("worker ready") if line["worker"] == 2)
        os.kill(killed, signal.SIGKILL)
        await s.until_ready(3)
        (failed,) = s.said("worker failed")
        assert (failed["worker"], failed["exit_code"], failed["signal"]) == (2, -9, "SIGKILL")
        assert s.said("worker ready")[-1]["worker"] == 2


async def test_a_worker_that_somebody_stops_is_started_again_and_has_not_failed(supervise: Callable[..., Any]) -> None:
    async with supervise("serving") as s:
        await s.until_ready(1)
        os.kill(s.said("worker ready")[0]["pid"], signal.SIGTERM)
        await s.until_ready(2)
        assert s.said("worker failed") == []


async def test_one_that_fails_again_and_again_is_given_up_after_longer_and_longer_waits(
    supervise: Callable[..., Any],
) -> None:
    async with supervise("failing", restarts=Restarts(attempts=4)) as s:
        assert await s.exit_code() == 1
    assert [line["in_sec"] for line in s.said("worker restarts")] == [0.01, 0.02, 0.04]
    assert [line["failures"] for line in s.said("given up")] == [4]


async def test_what_failed_is_said_once_however_many_fail_however_often(supervise: Callable[..., Any]) -> None:
    async with supervise("failing", workers=2) as s:
        assert await s.exit_code() == 1
    errors = [line["error"] for line in s.said("worker failed")]
    assert errors[0] == "There is no topic."
    assert errors.count("There is no topic.") == 1
    assert set(errors[1:]) == {"as before"}


async def test_one_that_dies_without_a_word_is_said_by_its_exit_code(supervise: Callable[..., Any]) -> None:
    async with supervise("silent") as s:
        assert await s.exit_code() == 1
    assert [line["exit_code"] for line in s.said("worker failed")] == [3, 3, 3]


async def test_one_that_is_killed_in_the_middle_of_a_word_is_said_by_its_exit_code(
    supervise: Callable[..., Any],
) -> None:
    async with supervise("cut short", restarts=Restarts(attempts=1)) as s:
        assert await s.exit_code() == 1
    assert [(line["exit_code"], "error" in line) for line in s.said("worker failed")] == [(3, False)]


async def test_a_failure_with_much_to_say_is_heard() -> None:
    """What a user's exception says may be of any length."""
    said = "\x00é" * 1_000_000
    line = Report(failure=f"first {said} last", traceback=said).line()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    reader.feed_data(line)
    heard = report_in(await reader.readline())
    assert heard.failure is not None
    assert (heard.failure[:7], heard.failure[-5:]) == ("first \x00", " last")
    assert len(heard.failure) < 60_000


async def test_when_one_is_given_up_the_others_are_stopped_and_not_killed(
    supervise: Callable[..., Any], tmp_path: Path
) -> None:
    async with supervise("serving", workers=2, restarts=Restarts(attempts=1)) as s:
        await s.until_ready(2)
        os.kill(s.said("worker ready")[0]["pid"], signal.SIGKILL)
        assert await s.exit_code() == 1
    assert len(s.said("worker failed")) == 1
    assert s.said("worker killed") == []


async def test_a_failure_that_passes_is_forgotten(supervise: Callable[..., Any]) -> None:
    async with supervise("failing first", workers=2, restarts=Restarts(attempts=2)) as s:
        await s.until_ready(2)
        s.supervisor.stop("done")
        assert await s.exit_code() == 0


async def test_misuse_is_not_tried_again_and_the_exit_code_is_2(supervise: Callable[..., Any]) -> None:
    async with supervise("misused", workers=2) as s:
        assert await s.exit_code() == 2
    assert s.said("worker restarts") == []
    assert [line["error"] for line in s.said("worker failed")].count("There is no module.") == 1


async def test_when_all_have_finished_the_command_ends_with_0(supervise: Callable[..., Any]) -> None:
    async with supervise("finishing", workers=2) as s:
        assert await s.exit_code() == 0
    assert sorted(line["worker"] for line in s.said("worker finished")) == [1, 2]


async def test_one_that_does_not_end_in_time_is_killed_and_it_is_said(supervise: Callable[..., Any]) -> None:
    async with supervise("deaf", stop_timeout_sec=0.05) as s:
        await s.until_ready(1)
        s.supervisor.stop("now")
        assert await s.exit_code() == 1
    assert [line["reason"] for line in s.said("worker killed")] == ["it did not end within 0.05 s"]


async def test_a_second_interrupt_kills_those_that_have_not_ended(supervise: Callable[..., Any]) -> None:
    async with supervise("deaf", stop_timeout_sec=1000.0) as s:
        await s.until_ready(1)
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: bool(s.said("stopping")))
        assert s.said("worker killed") == []
        os.kill(os.getpid(), signal.SIGINT)
        assert await s.exit_code() == 1
    assert [line["reason"] for line in s.said("worker killed")] == ["interrupted twice"]


async def test_a_second_sigterm_does_not_kill(supervise: Callable[..., Any]) -> None:
    async with supervise("deaf", stop_timeout_sec=0.5) as s:
        await s.until_ready(1)
        s.supervisor.stop("SIGTERM")
        s.supervisor.stop("SIGTERM")
        assert await s.exit_code() == 1
    assert [line["reason"] for line in s.said("worker killed")] == ["it did not end within 0.5 s"]


async def test_a_failure_in_the_stop_is_said_and_the_exit_code_is_1(supervise: Callable[..., Any]) -> None:
    async with supervise("failing at its stop", workers=2) as s:
        await s.until_ready(2)
        s.supervisor.stop("now")
        assert await s.exit_code() == 1
    assert "The disk is full." in [line.get("error") for line in s.said("worker failed")]


async def test_a_hang_up_restarts_the_workers_one_by_one(supervise: Callable[..., Any]) -> None:
    async with supervise("serving", workers=3) as s:
        await s.until_ready(3)
        before = {line["worker"]: line["pid"] for line in s.said("worker ready")}
        os.kill(os.getpid(), signal.SIGHUP)
        await s.until_ready(6)
        after = {line["worker"]: line["pid"] for line in s.said("worker ready")}
    assert all(before[number] != after[number] for number in (1, 2, 3))
    events = s.order("worker ends", "worker ready")[3:]
    assert [event for event, _ in events] == ["worker ends", "worker ready"] * 3
    assert sorted(number for event, number in events if event == "worker ends") == [1, 2, 3]


class Terminal:
    """Standard input, as long as its window is open."""

    is_open = True

    def isatty(self) -> bool:
        return self.is_open


async def test_a_hang_up_stops_the_workers_where_the_terminal_has_gone(
    supervise: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", terminal)
    async with supervise("serving") as s:
        await s.until_ready(1)
        os.kill(os.getpid(), signal.SIGHUP)
        await s.until_ready(2)
        terminal.is_open = False
        os.kill(os.getpid(), signal.SIGHUP)
        assert await s.exit_code() == 0


async def test_a_roll_waits_for_a_worker_that_is_not_ready(supervise: Callable[..., Any]) -> None:
    async with supervise("slow", workers=3) as s:
        await s.until_ready(3)
        second = next(line["pid"] for line in s.said("worker ready") if line["worker"] == 2)
        os.kill(second, signal.SIGKILL)  # and is never ready again
        await until(lambda: any(line["worker"] == 2 for line in s.said("worker failed")))
        s.supervisor.roll("asked")
        await asyncio.wait([s.running], timeout=0.3)
        assert s.said("worker ends") == []


async def test_a_worker_is_restarted_when_it_is_old_enough(supervise: Callable[..., Any]) -> None:
    async with supervise("serving", workers=2, restarts=Restarts(max_age_sec=0.2), limits_sec=0.02) as s:
        await s.until_ready(4)
        assert {line["reason"] for line in s.said("worker ends")} == {"age"}
        assert s.said("worker failed") == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
async def test_a_worker_is_restarted_when_it_is_large_enough(supervise: Callable[..., Any]) -> None:
    async with supervise("serving", restarts=Restarts(max_memory_mb=1.0), limits_sec=0.02) as s:
        await s.until_ready(2)
        assert {line["reason"] for line in s.said("worker ends")} == {"memory"}


async def test_a_worker_below_its_limits_is_left_alone(supervise: Callable[..., Any]) -> None:
    restarts = Restarts(max_memory_mb=100_000.0, max_age_sec=1000.0)
    async with supervise("serving", restarts=restarts, limits_sec=0.01) as s:
        await s.until_ready(1)
        await asyncio.wait([s.running], timeout=0.2)
    assert s.said("worker ends") == []


async def test_a_changed_file_restarts_all_workers(supervise: Callable[..., Any], tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("")
    async with supervise("serving", workers=2, reload_from=tmp_path) as s:
        await s.until_ready(2)
        app.write_text("changed = True")
        os.utime(app, ns=(1, 1))
        await s.until_ready(4)
    assert s.said("reloading")[0]["changed"] == ["app.py"]


async def test_with_reload_a_failure_waits_for_the_next_change(supervise: Callable[..., Any], tmp_path: Path) -> None:
    async with supervise("failing first", restarts=Restarts(attempts=1), reload_from=tmp_path) as s:
        await until(lambda: bool(s.said("waiting for a change")))
        assert not s.running.done()
        (tmp_path / "app.py").write_text("mended = True")
        await s.until_ready(1)
        s.supervisor.stop("done")
        assert await s.exit_code() == 0


async def test_a_process_that_cannot_be_started_is_tried_again_and_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_restarts, "_FIRST_DELAY_SEC", 0.01)
    supervisor = Supervisor([str(tmp_path / "no-such-python")], 1, Restarts(attempts=2))
    assert await supervisor.run() == 1
    assert len(said(caplog, "worker failed")) == 2
