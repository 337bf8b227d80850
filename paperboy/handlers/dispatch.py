"""A handler's hooks and policies, compiled once when it is registered."""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from paperboy.brokers.protocol import Record
from paperboy.durations import seconds
from paperboy.errors import ConfigurationError, PaperboyError
from paperboy.handlers.breaker import Breaker
from paperboy.handlers.decoding import Decoding
from paperboy.handlers.error_policy import CircuitBreaker, DeadLetter, ErrorPolicy, Retry
from paperboy.handlers.failed_record import original_of
from paperboy.handlers.handler import Handler
from paperboy.handlers.hooks import find_hook, name_of, topics_of
from paperboy.handlers.retry_topics import retry_topic

T = TypeVar("T")


class Dispatch:
    """How one handler's messages are handed over: what `single`, `beside` and `bulk` need to know of it.

    Args:
        handler: a class, or an instance, of Handler or BulkHandler.
        fail_on_exception: what becomes of a failed message if the handler does not say so itself.
        handler_timeout_sec: how long a handler that does not say so itself may take; None for ever.
        retry, dead_letter, circuit_breaker: as `fail_on_exception`; None for none.

    Raises:
        ConfigurationError: it is no handler, has no topic, a hook is no coroutine function, or a setting is not what
            it must be.
    """

    def __init__(
        self,
        handler: Handler | type[Handler],
        *,
        fail_on_exception: bool,
        handler_timeout_sec: float | None = None,
        retry: Retry | None = None,
        dead_letter: DeadLetter | None = None,
        circuit_breaker: CircuitBreaker | None = None,
    ) -> None:
        if not issubclass(handler if isinstance(handler, type) else type(handler), Handler):
            raise ConfigurationError(f"{handler!r} is no handler: subclass paperboy.Handler or paperboy.BulkHandler.")
        self.handler = handler
        self.name = name_of(handler)
        self.topics = topics_of(handler)
        self.group_name = handler.group_name
        self.tables = handler.tables
        if self.group_name is not None and not isinstance(self.group_name, str):
            raise ConfigurationError(f"{self.name}.group_name is {self.group_name!r}: it must be a string.")
        if self.tables is not None and not isinstance(self.tables, list | tuple):
            raise ConfigurationError(f"{self.name}.tables is {self.tables!r}: it must be a list of tables.")
        self.concurrency = handler.concurrency
        if type(self.concurrency) is not int or self.concurrency < 1:
            raise ConfigurationError(
                f"{self.name}.concurrency is {self.concurrency!r}: it must be a whole number above 0."
            )
        limit_sec = handler_timeout_sec if handler.handler_timeout_sec is None else handler.handler_timeout_sec
        self.handler_timeout_sec: float = math.inf if limit_sec is None else limit_sec
        if type(self.handler_timeout_sec) not in (int, float) or not self.handler_timeout_sec > 0:
            raise ConfigurationError(
                f"{self.name}.handler_timeout_sec is {limit_sec!r}: it must be a number of seconds above 0, or None."
            )
        self.reruns = handler.rerun_on_conflict
        if not isinstance(self.reruns, bool):
            raise ConfigurationError(f"{self.name}.rerun_on_conflict is {self.reruns!r}: it must be True or False.")
        self.define_context = find_hook(handler, "define_context")
        self.did_receive = find_hook(handler, "did_receive_message")
        self.on_message = find_hook(handler, "on_message")
        self.on_tombstone = find_hook(handler, "on_tombstone")
        self.on_finished = find_hook(handler, "on_finished_handling")
        self.on_error = find_hook(handler, "on_error")
        self.did_receive_bulk = find_hook(handler, "did_receive_bulk_messages")
        self.on_bulk = find_hook(handler, "on_bulk")
        self.on_bulk_error = find_hook(handler, "on_bulk_error")
        decoding = Decoding(handler)
        self.serializers = decoding.serializers
        self.decode = decoding.decode if decoding.is_needed else None
        self.bulks_of_one = self.on_bulk is not None and self.on_message is None
        self.policy = self._policy(fail_on_exception, retry, dead_letter)
        own_breaker = self._own("circuit_breaker", CircuitBreaker)
        settings = circuit_breaker if handler.circuit_breaker is None else own_breaker
        self.breaker = None if settings is None else Breaker(settings, self.name)
        self.retries_of: str | None = None
        """The topic whose messages come again out of the one that this dispatch is for; None for a topic itself."""
        self.delay_sec = 0.0
        """How long messages wait in its topic, if that is a retry topic."""
        self.present: Callable[[Record], Record] | None = None
        """Makes of a record from a retry topic the message that it was."""

    @property
    def takes_bulks(self) -> bool:
        """Whether any hook of this handler gets lists; without one, a bulk is no different from its messages.

        With `concurrency`, each message finishes on its own: ``on_finished_handling`` is called with it. So does each
        that comes out of a retry topic.
        """
        if self.retries_of is not None:
            return False
        return self.on_bulk is not None or (self.on_finished is not None and self.concurrency == 1)

    @property
    def keeps_bytes(self) -> bool:
        """Whether a bulk has to keep the bytes of its records until it has finished."""
        return self.policy.goes_on or self.breaker is not None

    @property
    def bulk_error_hook(self) -> Literal["on_bulk_error", "on_error"] | None:
        """Which hook answers for a bulk that failed; None where none does.

        A handler of messages answers for its bulk, in which only the last hook can fail, as it does for a message; with
        a policy, that is found out message by message.
        """
        if self.on_bulk_error is not None:
            return "on_bulk_error"
        if self.on_error is not None and self.on_bulk is None:
            return "on_error" if self.policy.retry is None and self.policy.dead_letter is None else None
        return None

    @property
    def retry_delays_sec(self) -> list[float]:
        """How long messages wait in its retry topics; empty where it has none."""
        retry = self.policy.retry
        if retry is None or retry.via != "topics":
            return []
        return sorted({seconds(delay) for delay in retry.delays})

    def for_retries(self, group_id: str, topic: str) -> "list[Dispatch]":
        """The same, for each topic out of which messages of `topic` come again: after a delay, or when they are
        replayed."""
        delays_sec = [*([0.0] if self.policy.dead_letter is not None else []), *self.retry_delays_sec]
        return [
            self._for_retries(topic, retry_topic(group_id, topic, delay_sec), delay_sec) for delay_sec in delays_sec
        ]

    def _for_retries(self, topic: str, comes_from: str, delay_sec: float) -> "Dispatch":
        other = copy.copy(self)
        other.topics = (comes_from,)
        other.retries_of = topic
        other.delay_sec = delay_sec
        other.present = lambda record: original_of(record, topic)
        return other

    def received(self, message: Any) -> Record:
        """What ``did_receive_message`` returned, if it is a message."""
        if message is None:
            raise PaperboyError(f"{self.name}.did_receive_message returned None: return the message.")
        return message

    def _policy(self, stops: bool, retry: Retry | None, dead_letter: DeadLetter | None) -> ErrorPolicy:
        """The handler's own settings, and where it has none the engine's. What it says of how a message is given up,
        by either of two names, goes over both of the engine's."""
        own_stops = self.handler.fail_on_exception
        if own_stops is not None and not isinstance(own_stops, bool):
            raise ConfigurationError(f"{self.name}.fail_on_exception is {own_stops!r}: it must be True or False.")
        own_dead_letter = self._own("dead_letter", DeadLetter)
        if own_dead_letter is None and self.handler.dead_letter is None and own_stops is None:
            own_dead_letter = dead_letter
        own_retry = self._own("retry", Retry)
        if own_retry is None and self.handler.retry is None:
            own_retry = retry
        return ErrorPolicy(own_retry, own_dead_letter, stops if own_stops is None else own_stops)

    def _own(self, name: str, kind: type[T]) -> T | None:
        """What the handler sets; None for nothing, or for False: none, whatever the engine says."""
        found = getattr(self.handler, name)
        if found is None or found is False:
            return None
        if not isinstance(found, kind):
            raise ConfigurationError(
                f"{self.name}.{name} is {found!r}: it must be {kind.__name__}(…), or False for none."
            )
        return found
