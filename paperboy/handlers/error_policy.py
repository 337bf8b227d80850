"""What becomes of a failed message, as a handler or an engine declares it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from paperboy.durations import Duration, seconds
from paperboy.errors import ConfigurationError, DeserializationError, RecordTooLarge, SerializationError

HOPELESS = (DeserializationError, SerializationError, RecordTooLarge)
"""These fail again, however often they are tried."""

Errors = type[Exception] | tuple[type[Exception], ...]
Via = Literal["waiting", "topics"]
Unwritable = Literal["stop", "wait"]


@dataclass(frozen=True, slots=True)
class Exponential:
    """Waits that grow: `base`, then `factor` times as long each time, up to `maximum`.

        Exponential("100ms", factor=2, maximum="30s")

    Raises:
        ConfigurationError: one of them makes no sense.
    """

    base: Duration = 0.1
    """The first wait."""
    factor: float = 2.0
    maximum: Duration = 30.0
    jitter: float = 0.2
    """The share of each wait, from 0 to 1, that is left to chance, so that workers do not come back all at once."""

    def __post_init__(self) -> None:
        seconds(self.base)
        seconds(self.maximum)
        if not (_is_number(self.factor) and 1 <= self.factor < math.inf):
            raise ConfigurationError(f"Exponential factor={self.factor!r} must be a number from 1 on.")
        if not (_is_number(self.jitter) and 0 <= self.jitter <= 1):
            raise ConfigurationError(f"Exponential jitter={self.jitter!r} must be a number from 0 to 1.")

    def delay_sec(self, attempts: int, chance: float) -> float:
        """How long to wait after so many attempts.

        Args:
            attempts: 1 or more.
            chance: from 0 to 1: how much of the jitter is taken off.
        """
        try:
            grown = seconds(self.base) * float(self.factor) ** (attempts - 1)
        except OverflowError:
            grown = math.inf if seconds(self.base) else 0.0
        return min(grown, seconds(self.maximum)) * (1 - self.jitter * chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Handle a message that failed again, before it is given up.

        retry = Retry(attempts=5, backoff=Exponential("1s"), retry_on=(ConnectionError, TimeoutError))
        retry = Retry(delays=["10s", "1m", "10m"], via="topics")

    While it waits, its partition waits behind it (with ``concurrency``: its key), and everything else goes on.
    ``via="topics"`` puts it into a topic for each delay instead: nothing waits behind it, and the order per key is
    given up. What cannot get better is not tried again: bytes that cannot be decoded, values that cannot be written,
    records that are too large.

    Raises:
        ConfigurationError: the settings contradict each other.
    """

    attempts: float | None = None
    """How many times a message is handled in all, the first included; ``math.inf`` for as often as it takes. 5, if
    nothing is said; with `delays`, one more than those."""
    backoff: Exponential = field(default_factory=Exponential)
    """How long it waits after each attempt."""
    delays: Sequence[Duration] = ()
    """How long it waits after each attempt, in place of `backoff`."""
    retry_on: Errors = (Exception,)
    """The errors that are tried again."""
    fatal: Errors = ()
    """Those among them that are not."""
    via: Via = "waiting"

    def __post_init__(self) -> None:
        attempts: object = self.attempts
        if not (attempts is None or attempts == math.inf or (type(attempts) is int and attempts >= 1)):
            raise ConfigurationError(f"Retry attempts={attempts!r} must be a whole number above 0, or math.inf.")
        backoff: object = self.backoff
        if not isinstance(backoff, Exponential):
            raise ConfigurationError(f"Retry backoff={self.backoff!r} must be Exponential(…).")
        delays: object = self.delays
        if isinstance(delays, str) or not isinstance(delays, Sequence):
            raise ConfigurationError(f"Retry delays={self.delays!r} must be a list, as in ['10s', '1m'].")
        for delay in self.delays:
            if seconds(delay) <= 0:
                raise ConfigurationError(f"Retry delays={list(self.delays)!r}: a delay must be above 0.")
        for name in ("retry_on", "fatal"):
            given = getattr(self, name)
            if not _are_errors(given):
                raise ConfigurationError(f"Retry {name}={given!r} must be exception classes, as in (TimeoutError,).")
        if self.via not in get_args(Via):
            raise ConfigurationError(f"Retry via={self.via!r} is not one of {', '.join(map(repr, get_args(Via)))}.")
        if self.delays and attempts is not None:
            raise ConfigurationError(
                "Retry takes attempts=… or delays=…, and not both: each delay is one attempt more."
            )
        if self.via == "topics" and not self.delays:
            raise ConfigurationError("Retry via='topics' needs delays=[…]: there is a topic for each.")

    @property
    def most(self) -> float:
        """How many attempts there are in all."""
        if self.delays:
            return len(self.delays) + 1
        return 5 if self.attempts is None else self.attempts

    def helps(self, error: Exception) -> bool:
        """Whether an error is of those that are tried again."""
        return isinstance(error, _all(self.retry_on)) and not isinstance(error, (*HOPELESS, *_all(self.fatal)))

    def delay_after(self, error: Exception, attempts: int, chance: float) -> float | None:
        """How long to wait, in seconds, after so many attempts of which the last ended in `error`; None to give up.

        Args:
            chance: from 0 to 1, see `Exponential`.
        """
        if attempts >= self.most or not self.helps(error):
            return None
        return seconds(self.delays[attempts - 1]) if self.delays else self.backoff.delay_sec(attempts, chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Put a message that is given up into a topic of its own, as it was, with headers that say why, and go on.

        dead_letter = DeadLetter()

    Raises:
        ConfigurationError: a setting is none of those that there are.
    """

    topic: str | None = None
    """Where to put it; ``{topic}-dlt``, if nothing is said. Created at the start, where it is missing."""
    config: Mapping[str, object] = field(default_factory=dict)
    """Settings of the topic when it is created, over ours: dead letters are kept for ever (``retention.ms=-1``), and
    may be larger than what the source takes, for their headers."""
    unwritable: Unwritable = "stop"
    """What if a dead letter is too large for its topic, or the topic is gone: stop the engine, or let the partition
    ``wait`` and try again. The message is not passed over."""

    def __post_init__(self) -> None:
        topic: object = self.topic
        if topic is not None and (not isinstance(topic, str) or not topic):
            raise ConfigurationError(f"DeadLetter topic={self.topic!r} must be a topic's name.")
        if self.unwritable not in get_args(Unwritable):
            raise ConfigurationError(
                f"DeadLetter unwritable={self.unwritable!r} is not one of {', '.join(map(repr, get_args(Unwritable)))}."
            )
        config: object = self.config
        if not isinstance(config, Mapping):
            raise ConfigurationError(f"DeadLetter config={self.config!r} must be a dict of topic settings.")

    def topic_for(self, source: str) -> str:
        """Where messages of topic `source` go."""
        return self.topic or f"{source}-dlt"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """Pause a handler's partitions when what it needs is away, in place of giving up one message after another.

        circuit_breaker = CircuitBreaker(failures=5, within="10s", pause="30s", on=(ConnectionError,))

    After so many failures in the time, this worker hands nothing to the handler for as long as `pause`; then one
    message is tried. If it finishes, all go on; if it fails, the pause begins again. A message that fails meanwhile is
    not given up, and its attempt does not count.

    Raises:
        ConfigurationError: a setting makes no sense.
    """

    failures: int = 5
    within: Duration = 10.0
    pause: Duration = 30.0
    on: Errors = (Exception,)
    """The errors that count. Those that come from the message itself, because it cannot be decoded, never do."""

    def __post_init__(self) -> None:
        if type(self.failures) is not int or self.failures < 1:
            raise ConfigurationError(f"CircuitBreaker failures={self.failures!r} must be a whole number above 0.")
        for name in ("within", "pause"):
            if seconds(getattr(self, name)) <= 0:
                raise ConfigurationError(f"CircuitBreaker {name}={getattr(self, name)!r} must be above 0.")
        if not _are_errors(self.on):
            raise ConfigurationError(f"CircuitBreaker on={self.on!r} must be exception classes, as in (TimeoutError,).")

    def counts(self, error: Exception) -> bool:
        return isinstance(error, _all(self.on)) and not isinstance(error, HOPELESS)


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What becomes of a failed message: it is tried again, then put with the dead letters, else the engine stops or
    passes over it."""

    retry: Retry | None
    dead_letter: DeadLetter | None
    stops: bool
    """With neither, or when they are used up: whether the engine stops, or the message is passed over."""

    @property
    def goes_on(self) -> bool:
        """Whether anything else than the end of the engine may become of a failed message."""
        return self.retry is not None or self.dead_letter is not None or not self.stops


def _are_errors(given: object) -> bool:
    errors: tuple[object, ...] = given if isinstance(given, tuple) else (given,)
    return all(isinstance(each, type) and issubclass(each, Exception) for each in errors)


def _is_number(given: object) -> bool:
    return type(given) in (int, float)


def _all(errors: Errors) -> tuple[type[Exception], ...]:
    return errors if isinstance(errors, tuple) else (errors,)
