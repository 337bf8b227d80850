"""The handlers of an engine: one for each topic, and which step it has its turn in."""

import math
from collections.abc import Sequence
from typing import Any

from paperboy.engine.options import Options
from paperboy.errors import ConfigurationError
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.handler import Handler


def dispatches_of(handlers: Sequence[Handler | type[Handler]], options: Options) -> dict[str, Dispatch]:
    """Each topic's dispatch, those of retry topics included.

    Raises:
        ConfigurationError: there is no handler, or two for one topic.
    """
    if not handlers:
        raise ConfigurationError("Engine needs at least one handler: Engine(MyHandler, …).")
    by_topic: dict[str, Dispatch] = {}
    for handler in handlers:
        dispatch = Dispatch(
            handler,
            fail_on_exception=options.fail_on_exception,
            handler_timeout_sec=options.handler_timeout_sec,
            retry=options.retry,
            dead_letter=options.dead_letter,
            circuit_breaker=options.circuit_breaker,
        )
        if options.is_exact and options.transaction_timeout_sec <= dispatch.handler_timeout_sec < math.inf:
            raise ConfigurationError(
                f"{dispatch.name}.handler_timeout_sec={dispatch.handler_timeout_sec:g} must be less than"
                f" transaction_timeout_sec={options.transaction_timeout_sec:g}: the broker would abort"
                " transactions that are still in use."
            )
        for topic in dispatch.topics:
            if topic in by_topic:
                raise ConfigurationError(
                    f"Topic {topic!r} has two handlers, {by_topic[topic].name} and {dispatch.name}: a topic has one."
                )
            by_topic[topic] = dispatch
    for topic, dispatch in list(by_topic.items()):
        for retries in dispatch.for_retries(options.group_id, topic):
            (name,) = retries.topics
            if name in by_topic:
                raise ConfigurationError(
                    f"Topic {name!r} is where messages of {topic!r} wait to be handled again: no handler can consume"
                    " it."
                )
            by_topic[name] = retries
    return by_topic


def topics_of_steps(
    steps: Sequence[Sequence[Any]], handlers: Sequence[Handler | type[Handler]], dispatches: dict[str, Dispatch]
) -> list[frozenset[str]]:
    """The topics of each step.

    Raises:
        ConfigurationError: a step names a handler that is not the engine's, or one stands in two.
    """
    seen: list[object] = []
    topics = []
    for number, step in enumerate(steps):
        for handler in step:
            if not any(handler is known for known in handlers):
                raise ConfigurationError(f"Step {number} names {handler!r}, which is not one of the engine's handlers.")
            if any(handler is earlier for earlier in seen):
                raise ConfigurationError(f"{handler!r} stands in two steps: a handler has one turn.")
            seen.append(handler)
        topics.append(frozenset(topic for topic, dispatch in dispatches.items() if dispatch.handler in step))
    return topics
