"""Where a command runs an engine, its logs: lines for a person or for a machine, on standard error.

The library never configures logging; this is for a process of our own, which has no application to do it.
"""

import json
import logging
import logging.config
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

LogFormat = Literal["text", "json"]

LEVELS = ("debug", "info", "warning", "error", "critical")

Fields = MutableMapping[str, Any]


def configure_logging(
    log_format: LogFormat, level: str, worker: int | None = None, stream: TextIO | None = None
) -> None:
    """Let everything that is logged in this process, by the library, structlog or plain logging, go to one stream, a
    line for each event: time (UTC), level, logger, event and fields.

    Warnings of Python's are logged too. A module that calls ``logging.basicConfig`` afterwards changes nothing.

    Args:
        level: one of `LEVELS`; aiokafka, which tells much, is logged from warnings up where this is info.
        worker: the number that each line has as its field ``worker``.
        stream: standard error, where it is None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(log_format, worker, handler.stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiokafka").setLevel("WARNING" if level == "info" else logging.NOTSET)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def default_format() -> LogFormat:
    """Text where standard error is a terminal, JSON elsewhere."""
    return "text" if sys.stderr.isatty() else "json"


def _formatter(log_format: LogFormat, worker: int | None, on_terminal: bool) -> logging.Formatter:
    def with_worker(_logger: Any, _method: str, event: Fields) -> Fields:
        if worker is not None:
            event.setdefault("worker", worker)
        return event

    shown: list[Any] = [_described, with_worker, structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        shown += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
    else:
        traceback = structlog.dev.plain_traceback
        shown.append(structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=traceback, sort_keys=False))
    return structlog.stdlib.ProcessorFormatter(processors=shown, foreign_pre_chain=[_with_extra])


def _with_extra(_logger: Any, _method: str, event: Fields) -> Fields:
    """The fields of a line of plain logging: those that the library's own lines carry (see `paperboy.log`), or those
    that were given as ``extra``."""
    fields = getattr(event["_record"], "paperboy", None)
    if isinstance(fields, dict):
        event.update(fields)
        return event
    return structlog.stdlib.ExtraAdder()(_logger, _method, event)


def _described(_logger: Any, _method: str, event: Fields) -> Fields:
    """When, how bad and where it was said, before what was said."""
    record = event["_record"]
    said = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    return said | {name: value for name, value in event.items() if name not in said}


def _to_json(event: Fields, **_options: Any) -> str:
    return json.dumps(event, default=str, ensure_ascii=False)
