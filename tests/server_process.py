"""`ServerProcess`: a real server as a test's own, with free ports and a log, that ends with the test run."""

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HOST = "127.0.0.1"
START_TIMEOUT_SEC = 120.0
STOP_TIMEOUT_SEC = 20.0

PORT_ATTEMPTS = 5
_PORTS = range(18_000, 32_000)  # below what systems hand out to outgoing connections
_PORT_TAKEN = ("Address already in use", "seems to be in use")

# Lives as long as the pipe on its stdin: when our process ends, however it ends, the server and its directory go too.
_WATCHDOG = 'read -r _; kill -9 "$0" 2>/dev/null; sleep 0.2; rm -rf "$1"'


class ServerError(Exception):
    """The server did not do what was asked of it; the message ends with the tail of its log."""


class PortTaken(ServerError):
    """Another process was quicker to take a port that was free."""


class ServerProcess:
    """A process in a directory that is its own. It dies with the process that started it, whatever that dies of.

    Args:
        name: for messages, as in "Kafka".
        directory: where it runs, and has its log.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.log_path = directory / f"{name.lower()}.log"
        """What it printed, over all its starts."""
        self._directory = directory
        self._begin = 0
        """Where in the log the last start began."""
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self, command: Sequence[str], is_up: Callable[[], bool], timeout_sec: float) -> None:
        """Start, and return when it is up.

        Raises:
            PortTaken, ServerError: it has ended, or is not up in time.
        """
        with self.log_path.open("ab") as log:
            self._begin = log.tell()
            process = subprocess.Popen(
                command,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then stop it
            )
        self._process = process
        self._watchdog = subprocess.Popen(
            ["sh", "-c", _WATCHDOG, str(process.pid), str(self._directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_sec
        while not is_up():
            if process.poll() is not None:
                self._bury()
                raise self._error(f"ended with code {process.returncode} as it started")
            if time.monotonic() > deadline:
                self.kill()
                raise self._error(f"did not start within {timeout_sec:g} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """As an operator would; killed where that takes more than 20 s."""
        if self._process is not None and self.is_running:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_SEC)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._bury()

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None and self.is_running:
            self._process.kill()
        self._bury()

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nobody."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def said(self) -> str:
        """What it printed since its last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode(errors="replace")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError(f"{self.name} is not running.")
        return self._process

    def _bury(self) -> None:
        """Wait for the dead server, and send its watchdog home without its work done."""
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()
            if self._watchdog.stdin is not None:
                self._watchdog.stdin.close()
            self._watchdog = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _error(self, what: str) -> ServerError:
        """With the log's first complaints, which its shutdown would push out of sight, and its last lines."""
        lines = self.said().splitlines()
        complaints = [line for line in lines if " ERROR " in line or "Exception:" in line or _tells_of_port(line)]
        kind = PortTaken if any(map(_tells_of_port, lines)) else ServerError
        return kind("\n".join([f"{self.name} {what}.", *complaints[:10], "…", *lines[-20:]]))


def begun_on_free_ports(begin: Callable[[], None], close: Callable[[], None], attempts: int = PORT_ATTEMPTS) -> None:
    """Begin what chooses ports for itself: closed, and begun anew, where somebody else was quicker to take one."""
    for left in reversed(range(attempts)):
        try:
            begin()
        except BaseException as error:
            close()
            if not isinstance(error, PortTaken) or not left:
                raise
        else:
            return


def free_port(taken: set[int]) -> int:
    """A port of loopback that nobody listens on now, and that isn't in `taken`."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if port in taken:
            continue
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerError(f"No free port between {_PORTS.start} and {_PORTS.stop} on {HOST}.")


def _tells_of_port(line: str) -> bool:
    return any(words in line for words in _PORT_TAKEN)
