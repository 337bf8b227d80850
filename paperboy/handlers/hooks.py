"""Which hooks a handler has: found once, when it is registered, and refused if they cannot work."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_args, get_origin

from paperboy.errors import ConfigurationError
from paperboy.handlers.handler import BulkHandler, Handler
from paperboy.topic import Topic, name_of_topic

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
    """The names of the topics it consumes.

    Raises:
        ConfigurationError: it names none.
    """
    return tuple(name_of_topic(topic) for topic in inputs_of(handler))


def inputs_of(handler: Handler | type[Handler]) -> tuple[str | Topic, ...]:
    """The topics it consumes, as it names them.

    Raises:
        ConfigurationError: it names none.
    """
    given: Any = handler.topic
    topics = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not topics or not all(topics):
        raise ConfigurationError(f'{name_of(handler)} has no topic: set topic = "…" (or a list of them) on it.')
    if not all(isinstance(topic, str | Topic) for topic in topics):
        raise ConfigurationError(
            f"{name_of(handler)}.topic is {given!r}: it must be a string or a Topic, or a list of them."
        )
    return topics


def outputs_of(handler: Handler | type[Handler]) -> tuple[str | Topic, ...]:
    """The topics it says that it sends to.

    Raises:
        ConfigurationError: they are no list of topics.
    """
    given: Any = handler.outputs
    if not isinstance(given, list | tuple) or not all(topic and isinstance(topic, str | Topic) for topic in given):
        raise ConfigurationError(f"{name_of(handler)}.outputs is {given!r}: it must be a list of strings or Topics.")
    return tuple(given)


def declared_type(kind: type[Handler[Any]]) -> Any:
    """What a class says of its values as a ``Handler[…]``, itself or by one of its bases; None where it says nothing.

    Example:
        >>> class Orders(Handler[Order]): ...
        >>> declared_type(Orders)
        <class 'Order'>
    """
    for each in kind.__mro__:
        for base in vars(each).get("__orig_bases__", ()):
            origin, arguments = get_origin(base), get_args(base)
            says = isinstance(origin, type) and issubclass(origin, Handler) and len(arguments) == 1
            if says and not isinstance(arguments[0], TypeVar):
                return arguments[0]
    return None


def name_of(handler: Handler | type[Handler]) -> str:
    """Its class's name."""
    return handler.__name__ if isinstance(handler, type) else type(handler).__name__
