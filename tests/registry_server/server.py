"""`RegistryServer`: one schema registry, with the life of a test."""

import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka_server.distribution import find_java
from tests.kafka_server.server import HOST, free_port
from tests.registry_server.distribution import find_jar

START_TIMEOUT_SEC = 120.0
STOP_TIMEOUT_SEC = 20.0

_PORT_ATTEMPTS = 5
_PORT_TAKEN = "seems to be in use"

# Lives as long as the pipe on its stdin: when our process ends, however it ends, the registry and its directory go too.
_WATCHDOG = 'read -r _; kill -9 "$0" 2>/dev/null; sleep 0.2; rm -rf "$1"'


class RegistryServerError(Exception):
    """The server did not do what was asked of it; the message ends with the tail of its log."""


class RegistryServer:
    """A schema registry on a free port of loopback.

    `start` after `stop` or `kill` goes on with the same schemas on the same port; `close` ends it and removes
    everything. It dies with the process that started it, whatever that process dies of.
    """

    def __init__(self, heap: str = "384m") -> None:
        self._heap = heap
        self._port = 0
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it speaks Confluent's API. Known after `start`."""
        return f"http://{HOST}:{self._port}/apis/ccompat/v7"

    @property
    def directory(self) -> Path:
        """Where the server keeps data and log. Known after `start`."""
        if self._directory is None:
            raise RegistryServerError("The registry was not started yet.")
        return self._directory

    def start(self, timeout_sec: float = START_TIMEOUT_SEC) -> None:
        """Start, and return when clients are answered."""
        if self._process is not None and self._process.poll() is None:
            return
        if self._directory is not None:
            self._launch(timeout_sec)
            return
        for attempt in range(_PORT_ATTEMPTS):
            self._directory = Path(tempfile.mkdtemp(prefix="paperboy-registry-"))
            self._port = free_port(set())
            try:
                self._launch(timeout_sec)
            except RegistryServerError as error:
                self.close()
                if _PORT_TAKEN in str(error) and attempt + 1 < _PORT_ATTEMPTS:
                    continue
                raise
            except BaseException:
                self.close()
                raise
            return

    def stop(self) -> None:
        """Stop as an operator would; killed where that takes more than 20 s. Schemas stay."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_SEC)
            except subprocess.TimeoutExpired:
                process.kill()
        self._bury()

    def kill(self) -> None:
        """``kill -9``. Schemas stay."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._bury()

    def close(self) -> None:
        """End the server, and remove everything it has written."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _launch(self, timeout_sec: float) -> None:
        with (self.directory / "registry.log").open("ab") as log:
            process = subprocess.Popen(
                self._java(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then stop it
            )
        self._process = process
        self._watchdog = subprocess.Popen(
            ["sh", "-c", _WATCHDOG, str(process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._wait_until_started(process, timeout_sec)

    def _wait_until_started(self, process: subprocess.Popen[bytes], timeout_sec: float) -> None:
        deadline = time.monotonic() + timeout_sec
        while not self._answers():
            if process.poll() is not None:
                self._bury()
                raise RegistryServerError(f"The registry ended with {process.returncode}.\n{self._last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RegistryServerError(f"The registry did not start in {timeout_sec:g} s.\n{self._last_words()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

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

    def _java(self) -> list[str]:
        # Few compiler threads and the serial collector: several tests share a machine. The database is a file, so that
        # a registry that is started again knows what it knew.
        options = [f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        settings = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": str(self._port),
            "quarkus.datasource.jdbc.url": f"jdbc:h2:file:{self.directory / 'schemas'};WRITE_DELAY=0",
            "quarkus.log.level": "WARN",
        }
        return [
            str(find_java()),
            *options,
            *(f"-D{name}={value}" for name, value in settings.items()),
            "-jar",
            str(find_jar()),
        ]

    def _last_words(self) -> str:
        lines = (self.directory / "registry.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-30:])
