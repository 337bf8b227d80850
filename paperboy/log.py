"""Logging: structlog onto the standard library's loggers ``paperboy.…``, configured by nobody here.

An application with plain logging sees lines such as ``checkpoint task=clicks[0] records=8123``; one that formats JSON
finds the same fields in the record's ``paperboy`` attribute.
"""

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog


def get_logger(name: str) -> Any:
    """A structlog logger that writes to the standard logger `name`."""
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _render],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )


def _render(
    _logger: Any, _method: str, event_dict: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, dict[str, Any] | Any]]:
    event = event_dict.pop("event")
    exc_info = event_dict.pop("exc_info", None)
    message = " ".join([str(event), *(f"{name}={value}" for name, value in event_dict.items())])
    return (message,), {
        "extra": {"paperboy": {"event": event, **event_dict}},
        "exc_info": exc_info,
    }
