"""What a user can set on an engine, and what is set if nothing is."""

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from paperboy.engine.modes import Mode
from paperboy.engine.restoring import Restoring
from paperboy.errors import ConfigurationError
from paperboy.handlers.error_policy import CircuitBreaker, DeadLetter, Retry
from paperboy.tables.stores.options import RocksDBOptions

AutoOffsetReset = Literal["earliest", "latest"]
CreateTopics = Literal["auto", "never"]
OffsetOutOfRange = Literal["stop", "continue"]
ProcessingGuarantee = Literal["at_least_once", "exactly_once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """An engine's options. Whoever sets nothing but the first two loses nothing."""

    bootstrap_servers: str
    """``host:port`` (several with commas) of a Kafka, or ``memory://`` for a broker of this process alone, or
    ``memory://name`` for one that several engines share; ``memory://name?partitions=4`` sets the partition count of
    topics that are created there."""
    group_id: str
    """The consumer group: workers with the same one share the work."""
    fail_on_exception: bool = True
    """A message that fails stops the engine, where its handler has no ``on_error``; False passes over it."""
    retry: Retry | None = None
    """How a message that failed is handled again, where its handler does not say so itself."""
    dead_letter: DeadLetter | None = None
    """A message that is given up is put into a topic, where its handler does not say itself what becomes of it."""
    circuit_breaker: CircuitBreaker | None = None
    """Pauses a handler when what it needs is away, where the handler does not say so itself."""
    auto_offset_reset: AutoOffsetReset = "earliest"
    """Where a partition without a committed offset begins."""
    offset_out_of_range: OffsetOutOfRange = "stop"
    """A committed offset that the log no longer holds: stop, or continue at the log's beginning and count the lost."""
    enable_auto_commit: bool = False
    """Only False: offsets are committed by checkpoints."""
    with_bulk_mode: bool = True
    """Switch a task to bulk mode when its lag is high."""
    bulk_mode_threshold: int = 10_000
    """Records of lag above which a task works in bulk; under half of it, singly again."""
    bulk_mode_max_records: int = 10_000
    """The largest bulk, in records."""
    bulk_mode_timeout_ms: int = 1_000
    """How long a bulk is filled, from its first record on, in milliseconds."""
    steps: Sequence[Sequence[Any]] | None = None
    """Lists of handlers: each step's topics are consumed up to their end before the next step's begin."""
    stop_at_end: bool = False
    """Return from ``start`` when everything that was in the topics at the start is handled and committed."""
    on_mode_change: Callable[[str, Mode, Mode], object] | None = None
    """Called with a task's name, its mode before, and its mode now."""
    create_topics: CreateTopics = "auto"
    """``auto`` creates changelog topics; ``never`` refuses to start and lists what is missing."""
    commit_interval_sec: float = 5.0
    """At most this long after a message has finished a checkpoint begins that makes it durable."""
    processing_guarantee: ProcessingGuarantee = "at_least_once"
    """``exactly_once``: what a message sends, what it changes in tables, and that it was handled, become visible
    together, once, in Kafka's transactions."""
    transaction_interval_sec: float = 0.1
    """As `commit_interval_sec`, for ``exactly_once``: readers of committed records wait for it."""
    transaction_timeout_sec: float = 60.0
    """A transaction that is open for so long is aborted by the broker, for ``exactly_once``."""
    drain_timeout_sec: float = 30.0
    """How long a stop or a rebalance waits for the messages in hand."""
    handler_timeout_sec: float | None = None
    """How long the hooks may take over a message (or bulk) before they are cancelled, and it has failed; None: for
    ever. A handler's own ``handler_timeout_sec`` goes over it."""
    blocked_loop_sec: float = 1.0
    """A hook (or whatever else) that keeps the event loop from turning for longer than this is reported in the log."""
    stalled_sec: float = 60.0
    """For `Engine.health`: a task whose position does not move for so long, though its lag is not 0, is stalled."""
    connect_timeout_sec: float = 30.0
    """How long the start tries to reach the broker."""
    session_timeout_sec: float = 10.0
    """After this long without a heartbeat the group gives this worker's partitions to others."""
    heartbeat_interval_sec: float = 3.0
    group_instance_id: str | None = None
    """Static membership: a worker that comes back under this name within the session keeps its partitions."""
    checkpoint_attempts: int = 5
    """How many checkpoints of a task may fail in a row before the engine stops."""
    max_buffer_bytes: int = 128 * 1024 * 1024
    """Records fetched ahead, by all tasks together."""
    max_overlay_bytes: int = 32 * 1024 * 1024
    """Table writes of one task that are not checkpointed yet: above this, a checkpoint begins."""
    max_overlay_keys: int = 20_000
    """As `max_overlay_bytes`, in changed keys."""
    max_unacked_bytes: int = 16 * 1024 * 1024
    """Sent records of one task that the broker has not acknowledged: above this, the task waits."""
    state_dir: str | os.PathLike[str] = ".paperboy"
    """Where ``rocksdb://`` tables are kept: under ``{state_dir}/{group_id}``, in a directory for each worker."""
    rocksdb: RocksDBOptions = field(default_factory=RocksDBOptions)
    """How RocksDB is set up."""
    on_restore: Callable[[str, Restoring], object] | None = None
    """Called with a task's name and how far its restore has come, every second while it is being restored, and at its
    end."""
    client_options: Mapping[str, object] | None = None
    """Further options of aiokafka's clients (security, sizes, time-outs), by their names there."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Options":
        """Options from keyword arguments.

        Raises:
            ConfigurationError: one is unknown, missing or out of range; the sentence names it.
        """
        known = [option.name for option in fields(cls)]
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"did you mean {close[0]!r}?" if close else "client_options={…} takes those of aiokafka's clients."
                )
                raise ConfigurationError(f"Engine has no option {name!r}: {hint}")
        for name in ("bootstrap_servers", "group_id"):
            if not isinstance(given.get(name), str) or not given[name]:
                raise ConfigurationError(f"Engine needs {name}=…, a string that is not empty.")
        options = cls(**given)
        options._check()
        return options

    def _check(self) -> None:
        if self.enable_auto_commit:
            raise ConfigurationError(
                "enable_auto_commit=True would commit messages that are not finished: leave it out, offsets are"
                " committed by checkpoints (commit_interval_sec)."
            )
        for name, allowed in (
            ("auto_offset_reset", get_args(AutoOffsetReset)),
            ("offset_out_of_range", get_args(OffsetOutOfRange)),
            ("create_topics", get_args(CreateTopics)),
            ("processing_guarantee", get_args(ProcessingGuarantee)),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}."
                )
        for name in ("fail_on_exception", "enable_auto_commit", "with_bulk_mode", "stop_at_end"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}={getattr(self, name)!r} must be True or False.")
        for option in fields(self):
            value = getattr(self, option.name)
            if option.type is int and (type(value) is not int or value < 1):
                raise ConfigurationError(f"{option.name}={value!r} must be a whole number above 0.")
            if option.type is float and not (type(value) in (int, float) and 0 < value < math.inf):
                raise ConfigurationError(f"{option.name}={value!r} must be a number above 0.")
        for name, is_right, kind in (
            ("on_mode_change", callable, "a callable"),
            ("on_restore", callable, "a callable"),
            ("state_dir", lambda value: isinstance(value, str | os.PathLike) and os.fspath(value), "a path"),
            ("rocksdb", lambda value: isinstance(value, RocksDBOptions), "RocksDBOptions(…)"),
            ("retry", lambda value: isinstance(value, Retry), "Retry(…)"),
            ("dead_letter", lambda value: isinstance(value, DeadLetter), "DeadLetter(…)"),
            ("circuit_breaker", lambda value: isinstance(value, CircuitBreaker), "CircuitBreaker(…)"),
            ("handler_timeout_sec", _is_duration, "a number above 0"),
            ("client_options", lambda value: isinstance(value, Mapping), "a dict"),
            ("group_instance_id", lambda value: isinstance(value, str) and value, "a string that is not empty"),
            ("steps", _is_list_of_lists, "a list of lists of handlers"),
        ):
            value = getattr(self, name)
            if value is not None and not is_right(value):
                raise ConfigurationError(f"{name}={value!r} must be {kind}.")
        if self.heartbeat_interval_sec >= self.session_timeout_sec:
            raise ConfigurationError(
                f"heartbeat_interval_sec={self.heartbeat_interval_sec:g} must be less than"
                f" session_timeout_sec={self.session_timeout_sec:g}."
            )
        if self.is_exact:
            for name, longest in (
                ("transaction_interval_sec", self.transaction_interval_sec),
                ("handler_timeout_sec", self.handler_timeout_sec or 0.0),
            ):
                if longest >= self.transaction_timeout_sec:
                    raise ConfigurationError(
                        f"{name}={longest:g} must be less than transaction_timeout_sec="
                        f"{self.transaction_timeout_sec:g}: the broker would abort transactions that are still in use."
                    )

    @property
    def is_exact(self) -> bool:
        """Whether everything goes through transactions."""
        return self.processing_guarantee == "exactly_once"

    @property
    def checkpoint_interval_sec(self) -> float:
        """At most this long after a message has finished a checkpoint begins."""
        return self.transaction_interval_sec if self.is_exact else self.commit_interval_sec


def _is_duration(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]


def _is_list_of_lists(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(step, list | tuple) for step in value)
