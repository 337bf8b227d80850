"""The supervisor: keeps so many workers of one group running, each a process of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paperboy.cli.worker_process import CLEAN, FAILED, MISUSED
from paperboy.cli.worker_reload import modified, until_changed
from paperboy.cli.worker_restarts import Restarts, delay_sec, has_settled
from paperboy.cli.worker_run import WorkerRun, start_run
from paperboy.log import get_logger

_log = get_logger("paperboy.workers")


class Supervisor:
    """Keeps `workers` processes of `command` running until it is stopped, or has to give up.

    SIGTERM and SIGINT stop them all, SIGHUP restarts them one by one.

    Args:
        command: what starts a worker; its number and its socket are added.
        stop_timeout_sec: see `WorkerRun`.
        reload_from: a directory; a change of Python files below it restarts all workers.
        limits_sec: how often age and memory are looked at.
    """

    def __init__(
        self,
        command: Sequence[str],
        workers: int,
        restarts: Restarts,
        stop_timeout_sec: float | None = None,
        reload_from: Path | None = None,
        limits_sec: float = 2.0,
    ) -> None:
        self._command = command
        self._workers = workers
        self._restarts = restarts
        self._stop_timeout_sec = stop_timeout_sec
        self._reload_from = reload_from
        self._limits_sec = limits_sec
        self._runs: dict[int, WorkerRun] = {}
        """The latest of each worker that is not at its end."""
        self._due: dict[WorkerRun, str] = {}
        """Those that are to be restarted, one after the other, and why."""
        self._said: set[str] = set()
        """What has ended workers, and was said."""
        self._stop = asyncio.Event()
        self._moved = asyncio.Event()
        self._reloaded = asyncio.Event()
        self._exit_code = CLEAN
        self._on_terminal = sys.stdin is not None and sys.stdin.isatty()

    async def run(self) -> int:
        """Returns the exit code: 0 after a clean end, 1 after a failure that it gave up on, 2 if the workers were
        asked for something that they cannot do."""
        _log.info("supervising", workers=self._workers, pid=os.getpid())
        async with asyncio.TaskGroup() as beside:
            watches = [
                beside.create_task(self._restart_one_by_one(), name="restarts"),
                beside.create_task(self._watch_limits(), name="limits"),
                beside.create_task(self._reload(), name="reload"),
            ]
            with self._taking_signals():
                async with asyncio.TaskGroup() as keeping:
                    for number in range(1, self._workers + 1):
                        keeping.create_task(self._keep(number), name=f"worker {number}")
            for watch in watches:
                watch.cancel()
        _log.info("ended", exit_code=self._exit_code)
        return self._exit_code

    def stop(self, reason: str) -> None:
        """Let all workers drain and end. Asked a second time by Ctrl-C, whoever has not ended is killed."""
        if not self._stop.is_set():
            _log.info("stopping", reason=reason)
            self._stop.set()
        elif reason == signal.SIGINT.name:
            for run in self._runs.values():
                run.kill("interrupted twice")

    def roll(self, reason: str) -> None:
        """Restart the workers one by one: the next when all are ready again."""
        _log.info("rolling", workers=len(self._runs), reason=reason)
        for run in self._runs.values():
            self._due.setdefault(run, reason)
        self._moved.set()

    # Each worker has a task that keeps it.

    async def _keep(self, number: int) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                run = await self._run_once(number)
            except OSError as error:
                _log.error("worker failed", worker=number, error=f"Its process cannot be started: {error}.")
                failures = await self._after_failure(number, failures + 1, FAILED)
                continue
            if run.finished:
                _log.info("worker finished", worker=number, pid=run.pid)
                break
            if run.is_clean:
                failures = 0
                continue
            if has_settled(run.ready_sec):
                failures = 0
                self._said.clear()
            self._say(run)
            failures = await self._after_failure(number, failures + 1, MISUSED if run.is_misused else FAILED)
        self._runs.pop(number, None)
        self._moved.set()

    async def _run_once(self, number: int) -> WorkerRun:
        """A process of a worker, from its start to its end."""
        run, reader, writer = await start_run(
            self._command, number, self._restarts.limits(), self._stop_timeout_sec, self._moved.set
        )
        self._runs[number] = run
        listening = asyncio.create_task(run.listen(reader), name=f"reports of worker {number}")
        stopping = asyncio.create_task(self._end_at_stop(run), name=f"stop of worker {number}")
        try:
            await run.ended(listening)
        finally:
            await _cancelled([listening, stopping])
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return run

    async def _end_at_stop(self, run: WorkerRun) -> None:
        await self._stop.wait()
        await run.end()

    def _say(self, run: WorkerRun) -> None:
        """How it failed: each sentence once, however many workers end with it, and however often."""
        ending = _ending_of(run)
        if run.failure in self._said:
            _log.error("worker failed", worker=run.number, **ending, error="as before")
        elif run.failure is None:
            _log.error("worker failed", worker=run.number, **ending)
        else:
            self._said.add(run.failure)
            traceback = {} if run.traceback is None else {"exception": run.traceback}
            _log.error("worker failed", worker=run.number, **ending, error=run.failure, **traceback)

    async def _after_failure(self, number: int, failures: int, exit_code: int) -> int:
        """Wait for the next attempt, where there is one. Returns the failures in a row to go on from."""
        if self._stop.is_set():
            self._exit_code = self._exit_code or exit_code
        elif self._reload_from is not None:
            _log.info("waiting for a change", worker=number)
            await _first_of(self._reloaded, self._stop)
            return 0
        elif exit_code == MISUSED or self._restarts.gives_up(failures):
            _log.error("given up", worker=number, failures=failures)
            self._exit_code = exit_code
            self._stop.set()
        else:
            wait_sec = delay_sec(failures)
            _log.warning("worker restarts", worker=number, in_sec=wait_sec, failures=failures)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_sec)
        return failures

    # Beside them.

    async def _restart_one_by_one(self) -> None:
        while True:
            self._moved.clear()
            self._due = {run: reason for run, reason in self._due.items() if self._is_running(run)}
            if self._due and all(run.is_ready for run in self._runs.values()):
                run, reason = next(iter(self._due.items()))
                del self._due[run]
                _log.info("worker ends", worker=run.number, reason=reason, left=len(self._due))
                await run.end()
            else:
                await self._moved.wait()

    def _is_running(self, run: WorkerRun) -> bool:
        return self._runs.get(run.number) is run and not run.told_to_end

    async def _watch_limits(self) -> None:
        while True:
            await asyncio.sleep(self._limits_sec)
            for run in self._runs.values():
                if run not in self._due and self._is_running(run) and (reason := run.limit_passed()) is not None:
                    self._due[run] = reason
                    self._moved.set()

    async def _reload(self) -> None:
        if self._reload_from is None:
            return
        files = modified(self._reload_from)
        while True:
            changed, files = await until_changed(self._reload_from, files)
            _log.info("reloading", changed=changed)
            await asyncio.gather(*(run.end() for run in self._runs.values()))
            reloaded, self._reloaded = self._reloaded, asyncio.Event()
            reloaded.set()

    # The whole.

    @contextmanager
    def _taking_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        actions: dict[signal.Signals, Callable[[str], None]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._hang_up,
        }
        for number, action in actions.items():
            loop.add_signal_handler(number, action, number.name)
        try:
            yield
        finally:
            for number in actions:
                loop.remove_signal_handler(number)

    def _hang_up(self, reason: str) -> None:
        """Somebody asks for it, or the terminal that we were started on has gone."""
        if self._on_terminal and not sys.stdin.isatty():
            self.stop("the terminal has gone")
        else:
            self.roll(reason)


def _ending_of(run: WorkerRun) -> dict[str, object]:
    """How it ended, for the log."""
    code = run.exit_code
    by_signal = {"signal": signal.Signals(-code).name} if code < 0 else {}
    return {"pid": run.pid, "exit_code": code, **by_signal}


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancelled(waits)


async def _cancelled(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
