"""Which hooks a handler has: found once, when it is registered, and refused if they cannot work."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from paperboy.errors import ConfigurationError
from paperboy.handlers.handler import BulkHandler, Handler

Hook = Callable[..., Awaitable[Any]]


def find_hook(handler: Handler | type[Handler], name: str) -> Hook | None:
    """The hook of this name, if the user has overridden it; the others are not called.

    Raises:
        ConfigurationError: it is no coroutine function, or wants an instance where there is none.
    """
    found = getattr(handler, name, None)
    if found is None or getattr(found, "__func__", found) is getattr(getattr(BulkHandler, name), "__func__", None):
        return None
    where = f"{name_of(handler)}.{name}"
    if not inspect.iscoroutinefunction(found):
        raise ConfigurationError(f"{where} is not a coroutine function: write 'async def {name}'.")
    if isinstance(handler, type) and inspect.isfunction(inspect.getattr_static(handler, name)):
        raise ConfigurationError(
            f"{where} is a method of instances: make it a @classmethod, or register {name_of(handler)}(…)."
        )
    return found  # type: ignore[no-any-return]


def topics_of(handler: Handler | type[Handler]) -> tuple[str, ...]:
    """The topics it consumes.

    Raises:
        ConfigurationError: it names none.
    """
    given: Any = handler.topic
    topics = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not topics or not all(topics):
        raise ConfigurationError(f'{name_of(handler)} has no topic: set topic = "…" (or a list of them) on it.')
    if not all(isinstance(topic, str) for topic in topics):
        raise ConfigurationError(f"{name_of(handler)}.topic is {given!r}: it must be a string, or a list of strings.")
    return topics


def name_of(handler: Handler | type[Handler]) -> str:
    """Its class's name."""
    return handler.__name__ if isinstance(handler, type) else type(handler).__name__
