"""One run of a worker: its process, from the start to the end, as the supervisor sees it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from paperboy.cli.worker_process import DRAIN_MARGIN_SEC, MISUSED
from paperboy.cli.worker_report import LINE_BYTES, Report, report_in
from paperboy.cli.worker_restarts import Limits
from paperboy.log import get_logger

_LAST_WORDS_SEC = 1.0
"""How long after a process has ended we listen to what it may have said before."""
_MB = 1024 * 1024

_log = get_logger("paperboy.workers")


class WorkerRun:
    """What is known of a worker's process.

    Args:
        number: the worker's.
        stop_timeout_sec: how long it may take to end; None is as long as its engine drains, and a minute.
        moved: called whenever something of it has changed.
    """

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        limits: Limits,
        stop_timeout_sec: float | None,
        moved: Callable[[], None],
    ) -> None:
        self.number = number
        self.told_to_end = False
        self.killed = False
        """By us, because it did not end."""
        self.finished = False
        self.failure: str | None = None
        self.traceback: str | None = None
        self._process = process
        self._limits = limits
        self._given_stop_timeout_sec = stop_timeout_sec
        self._drain_timeout_sec = 0.0
        self._moved = moved
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._ready_since: float | None = None
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        return self._ready and self._process.returncode is None and not self.told_to_end

    @property
    def exit_code(self) -> int:
        """Of a process that has ended; that of one that was killed is minus the signal's number, as everywhere."""
        assert self._process.returncode is not None
        return self._process.returncode

    @property
    def is_misused(self) -> bool:
        return self.exit_code == MISUSED and self.failure is not None

    @property
    def is_clean(self) -> bool:
        """It ended as it should; also where it was stopped before it could take the signal."""
        return self.exit_code == 0 or (self.told_to_end and not self.killed and self.exit_code == -signal.SIGTERM)

    @property
    def ready_sec(self) -> float | None:
        """How long ago it became ready for the first time; None if it never was."""
        return None if self._ready_since is None else self._now() - self._ready_since

    @property
    def stop_timeout_sec(self) -> float:
        return self._given_stop_timeout_sec or self._drain_timeout_sec + DRAIN_MARGIN_SEC

    def limit_passed(self) -> str | None:
        """See `Limits.passed`."""
        return self._limits.passed(self._now() - self._began, memory_mb_of(self.pid))

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Hear what it tells, until it ends."""
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                if line.endswith(b"\n"):  # else it was killed in the middle of it
                    self._take(report_in(line))
                    self._moved()

    async def ended(self, listening: "asyncio.Task[None]") -> None:
        """Returns when the process has ended, and has been heard out."""
        await self._process.wait()
        await asyncio.wait([listening], timeout=_LAST_WORDS_SEC)  # what it has left behind may hold its socket
        listening.cancel()
        self._moved()

    async def end(self) -> None:
        """Let it drain and end; kill it where that takes longer than its time."""
        if not self.told_to_end and self._process.returncode is None:
            self.told_to_end = True
            self._signal(signal.SIGTERM)
            self._moved()
        try:
            await asyncio.wait_for(self._process.wait(), self.stop_timeout_sec)
        except TimeoutError:
            self.kill(f"it did not end within {self.stop_timeout_sec:g} s")

    def kill(self, reason: str) -> None:
        """End it now: what it has not committed will be handled again."""
        if self._process.returncode is None and not self.killed:
            self.killed = True
            _log.error("worker killed", worker=self.number, pid=self.pid, reason=reason)
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Not by the process's own methods: they look first whether it has ended, and where it just has, they take its
        # exit code, which asyncio then looks for in vain.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _take(self, report: Report) -> None:
        self._drain_timeout_sec = report.drain_timeout_sec or self._drain_timeout_sec
        self.finished = report.finished or self.finished
        self.failure = report.failure or self.failure
        self.traceback = report.traceback or self.traceback
        if report.ready is not None:
            self._ready = report.ready
            if self._ready and self._ready_since is None:
                self._ready_since = self._now()
                _log.info(
                    "worker ready", worker=self.number, pid=self.pid, after_sec=round(self._now() - self._began, 1)
                )


async def start_run(
    command: Sequence[str], number: int, limits: Limits, stop_timeout_sec: float | None, moved: Callable[[], None]
) -> tuple[WorkerRun, asyncio.StreamReader, asyncio.StreamWriter]:
    """Start a worker's process: `command`, with the socket through which it tells us how it is doing, and learns, when
    that is closed, that we are gone.

    Raises:
        OSError: the machine has no process, or no memory, left for it.
    """
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            "--number",
            str(number),
            "--socket",
            str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # a terminal's Ctrl-C is for the supervisor, which tells its workers
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
    return WorkerRun(number, process, limits, stop_timeout_sec, moved), reader, writer


def memory_mb_of(pid: int) -> float | None:
    """What a process has in memory now, in MB; None where the system has no /proc, or the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / _MB
    return None
