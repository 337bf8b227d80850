"""`RegistryServer`: one schema registry, with the life of a test."""

import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka_server.distribution import find_java
from tests.registry_server.distribution import find_jar
from tests.server_process import HOST, START_TIMEOUT_SEC, ServerError, ServerProcess, begun_on_free_ports, free_port


class RegistryServer:
    """A schema registry on a free port of loopback.

    `start` after `stop` or `kill` goes on with the same schemas on the same port; `close` ends it and removes
    everything. It dies with the process that started it, whatever that process dies of.
    """

    def __init__(self, heap: str = "384m") -> None:
        self._heap = heap
        self._port = 0
        self._directory: Path | None = None
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Where it speaks Confluent's API. Known after `start`."""
        return f"http://{HOST}:{self._port}/apis/ccompat/v7"

    @property
    def directory(self) -> Path:
        """Where the server keeps data and log. Known after `start`."""
        if self._directory is None:
            raise ServerError("The registry was not started yet.")
        return self._directory

    def start(self, timeout_sec: float = START_TIMEOUT_SEC) -> None:
        """Start, and return when clients are answered."""
        if self._process is None:
            begun_on_free_ports(lambda: self._begin(timeout_sec), self.close)
        elif not self._process.is_running:
            self._process.start(self._java(), self._answers, timeout_sec)

    def stop(self) -> None:
        """Stop as an operator would; killed where that takes more than 20 s. Schemas stay."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """``kill -9``. Schemas stay."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the server, and remove everything it has written."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, timeout_sec: float) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="paperboy-registry-"))
        self._port = free_port(set())
        self._process = ServerProcess("registry", self._directory)
        self._process.start(self._java(), self._answers, timeout_sec)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

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
