"""What the options of a table may be."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from paperboy.errors import ConfigurationError
from paperboy.serializers.builtins import Json
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.of_types import serializer_of
from paperboy.serializers.protocol import Serializer


def parsed_store(table: str, store: str) -> tuple[str, Path | None]:
    """The kind of a store, ``"memory"`` or ``"rocksdb"``, and the directory that its address names, if any.

    Raises:
        ConfigurationError: there is no such store.
    """
    if store == "memory://":
        return "memory", None
    if store == "rocksdb://":
        return "rocksdb", None
    if str(store).startswith("rocksdb:///") and store.strip("/") != "rocksdb:":
        return "rocksdb", Path(store.removeprefix("rocksdb://"))
    raise ConfigurationError(
        f"Table {table!r}: the store {store!r} is not known: use 'memory://', 'rocksdb://' (under the engine's"
        " state_dir) or 'rocksdb:///absolute/path'."
    )


def default_factory(table: str, default: Any) -> Callable[[], Any]:
    """What makes the value of a key that is not there: `default` itself, if it is callable.

    Raises:
        ConfigurationError: it is a value that somebody could change, for all keys at once.
    """
    if callable(default):
        factory: Callable[[], Any] = default
        return factory
    # Python's own sign of a value that cannot change: it has a hash, and not one of its identity.
    hashed_by: object = type(default).__hash__
    try:
        hash(default)
    except TypeError:
        hashed_by = None
    if default is not None and hashed_by in (None, object.__hash__):
        raise ConfigurationError(
            f"Table {table!r}: the default {excerpt(default)} can be changed, and all keys would share it: give a"
            f" factory, as in default=lambda: {excerpt(default)}."
        )
    return lambda: default


def checked_serializer(table: str, option: str, serializer: Serializer | None) -> Serializer | None:
    """Raises ConfigurationError for what is no serializer."""
    if isinstance(serializer, type):
        raise ConfigurationError(
            f"Table {table!r}: {option} is the class {serializer.__name__}: give an instance of it, as in"
            f" {option}={serializer.__name__}()."
        )
    if serializer is not None and not isinstance(serializer, Serializer):
        raise ConfigurationError(
            f"Table {table!r}: {option} is {serializer!r}, and has to be an object with the methods serialize and"
            " deserialize, because a table both writes and reads."
        )
    return serializer


def typed_serializer(
    table: str, part: Literal["key", "value"], kind: Any, serializer: Serializer | None
) -> Serializer | None:
    """The serializer of a table's keys or values, if these have a type; `serializer` itself if not.

    Raises:
        ConfigurationError: it is no type that keys or values can have.
    """
    if kind is None:
        return serializer
    if part == "key" and serializer is None and kind not in (str, bytes):
        serializer = Json(sort_keys=True)  # equal keys are to be equal bytes
    try:
        return serializer_of(kind, serializer)
    except ConfigurationError as error:
        raise ConfigurationError(f"Table {table!r}: {part}_type: {error}") from error


def checked_count(table: str, option: str, count: int) -> int:
    """Raises ConfigurationError for what is not an int of at least 1."""
    if type(count) is not int or count < 1:
        raise ConfigurationError(f"Table {table!r}: {option} is {count!r}, and has to be an int of at least 1.")
    return count


def checked_on_change(table: str, on_change: Callable[[Any], object] | None) -> Callable[[Any], object] | None:
    """Raises ConfigurationError for what is not a plain function."""
    if on_change is not None and (inspect.iscoroutinefunction(on_change) or not callable(on_change)):
        raise ConfigurationError(
            f"Table {table!r}: on_change is {on_change!r}, and has to be a callable that is not async: let it put the"
            " change into a queue, and await in a task of your own."
        )
    return on_change
