"""A schema registry that knows one schema, for jobs that ask one."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self

from benchmarks.peers.lines import AVRO_HEAD, AVRO_SCHEMA

_PATH = f"/schemas/ids/{int.from_bytes(AVRO_HEAD, 'big')}"


class Registry:
    """Answers ``GET /schemas/ids/{id}`` on loopback, as Confluent's does. Jobs ask once: its speed does not count."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        self._thread = Thread(target=self._server.serve_forever, name="registry", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.partition("?")[0] == _PATH:
            self._answer(200, {"schema": json.dumps(AVRO_SCHEMA)})
        else:
            self._answer(404, {"error_code": 40401, "message": "Subject not found."})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""
