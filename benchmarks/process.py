"""A job as a process: its lines, and what it took of the machine."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_SAMPLE_SEC = 0.1


class JobFailed(Exception):
    """A job did not do its work; the message is for the table."""


class Usage(NamedTuple):
    cpu_sec: float
    """User and system time of the process, from its start to its end."""
    peak_mib: float
    """The most memory that was resident."""
    resident_mib: list[float]
    """What was resident, every second."""


class JobProcess:
    """One run of a job.

    Args:
        command: with its arguments.
        environment: variables over those we have.
        log_path: where what it writes to stderr goes.
        timeout_sec: for all of its life.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log_path: Path, timeout_sec: float
    ) -> None:
        self._log_path = log_path
        self._deadline = time.monotonic() + timeout_sec
        self._unread = b""
        self._facts: dict[str, Any] = {}
        self._peak_mib = 0.0
        self._resident_mib: list[float] = []
        self._next_note = 0.0
        self._terminated = False
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
            )

    def event(self, name: str) -> dict[str, Any]:
        """Wait until it says so.

        Raises:
            JobFailed: it ended, or took too long.
        """
        while (facts := self._next_line()) is not None:
            if facts.get("event") == name:
                return facts
        self.kill()
        raise JobFailed(f"ended before it was {name}: {self._last_words()}")

    def result(self) -> tuple[dict[str, Any], Usage]:
        """Wait until it has ended; its last line.

        Raises:
            JobFailed: it failed, or took too long.
        """
        while (facts := self._next_line()) is not None:
            self._facts = facts
        usage = self._bury()
        # A JVM that has ended cleanly on SIGTERM says 143 all the same.
        clean = {0, 128 + signal.SIGTERM} if self._terminated else {0}
        if self._process.returncode not in clean:
            raise JobFailed(f"ended with {self._process.returncode}: {self._last_words()}")
        return self._facts, usage

    def terminate(self) -> None:
        self._terminated = True
        os.kill(self._process.pid, signal.SIGTERM)  # Popen would reap it, and with it what it has used

    def kill(self) -> None:
        """End it, if it lives."""
        if self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._bury()

    def _next_line(self) -> dict[str, Any] | None:
        """The next line of JSON; None when there are no more."""
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                if line.startswith(b"{"):
                    facts: dict[str, Any] = json.loads(line)
                    return facts
                continue
            self._sample()
            if time.monotonic() > self._deadline:
                self.kill()
                raise JobFailed("took too long, and was killed")
            if select.select([stdout], [], [], _SAMPLE_SEC)[0]:
                data = os.read(stdout.fileno(), 65_536)
                if not data:
                    return None
                self._unread += data

    def _sample(self) -> None:
        """What the kernel says of its memory: rusage would count ours before the exec, too."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        except OSError:
            return
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
        self._peak_mib = max(self._peak_mib, kib.get("VmHWM", 0) / 1024)
        if time.monotonic() >= self._next_note:
            self._next_note = time.monotonic() + 1
            self._resident_mib.append(kib.get("VmRSS", 0) / 1024)

    def _bury(self) -> Usage:
        self._sample()
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return Usage(used.ru_utime + used.ru_stime, self._peak_mib, self._resident_mib)

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"
