"""What a worker tells its supervisor, through the socket between them."""

import json
from dataclasses import asdict, dataclass

LINE_BYTES = 1024 * 1024
"""No report is longer."""
_TEXT_CHARS = 50_000
"""What is told of a text; in JSON a character has up to 6 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One line of JSON; what is None has not changed."""

    drain_timeout_sec: float | None = None
    """Of the engine that it runs, once that is known."""
    ready: bool | None = None
    """It has an assignment, and all its tables are restored."""
    finished: bool | None = None
    """Its engine came to its end by itself, and there is nothing more to do."""
    failure: str | None = None
    """What ended it, in a sentence."""
    traceback: str | None = None
    """Where that came from, if it was no error of paperboy's own."""

    def line(self) -> bytes:
        said = {name: _cut(value) for name, value in asdict(self).items() if value is not None}
        return json.dumps(said).encode() + b"\n"


def _cut(value: object) -> object:
    """The beginning and the end of a text that is too long."""
    if not isinstance(value, str) or len(value) <= _TEXT_CHARS:
        return value
    return f"{value[: _TEXT_CHARS // 2]} … {value[-_TEXT_CHARS // 2 :]}"


def report_in(line: bytes) -> Report:
    return Report(**json.loads(line))
