"""Tables: keys and values that handlers keep between messages."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from paperboy.done import DONE, Done
from paperboy.errors import ConfigurationError, TableError
from paperboy.tables.keys import Key
from paperboy.tables.partition import TablePartition
from paperboy.tables.unit import Message, message_of_call


class Entry(NamedTuple):
    """An entry of a table, and the partition it stands in."""

    partition: int
    key: Any
    value: Any


class Table:
    """A key-value table, kept in a store and backed by a compacted changelog topic.

    A table is partitioned as the topics of the handlers that use it: a key's entry lives in the partition of the
    message being handled, and is seen by messages of that partition only. What a message writes is taken back when
    the message fails.

    Keys are str, bytes, int, float, bool, None, UUID, datetime or tuples of them; values are plain Python objects
    (see docs/formats.md). A value comes back equal in value and type, or `set` raises. A value that was changed
    after `get` or `set` is not changed in the table until it is `set` again.

        clicks = Table("clicks")

        class PageViews(Handler):
            topic = "page-views"

            @classmethod
            async def on_message(cls, msg, ctx):
                clicks[msg.key] = clicks.get(msg.key, 0) + 1

    Args:
        name: the table's name, unique in an engine.
        store: ``"memory://"``, restored from the changelog at each start.
        changelog_topic_name: by default ``{group_id}-{name}-changelog``.
        changelog_topic_num_partitions: by default, and at all events, as many as the input topics have.
        changelog_topic_replication_factor: by default the cluster's own.
        changelog_topic_segment_ms: ``segment.ms`` of a changelog that is created, in milliseconds.
        changelog_topic_min_cleanable_dirty_ratio: its ``min.cleanable.dirty.ratio``, 0 to 1.
        changelog_topic_max_compaction_lag_ms: its ``max.compaction.lag.ms``, in milliseconds.

    Raises:
        ConfigurationError: the name or the store is not one.
    """

    def __init__(
        self,
        name: str,
        store: str = "memory://",
        *,
        changelog_topic_name: str | None = None,
        changelog_topic_num_partitions: int | None = None,
        changelog_topic_replication_factor: int | None = None,
        changelog_topic_segment_ms: int | None = None,
        changelog_topic_min_cleanable_dirty_ratio: float | None = None,
        changelog_topic_max_compaction_lag_ms: int | None = None,
    ) -> None:
        if not name or not isinstance(name, str):
            raise ConfigurationError(f"A table needs a name, and {name!r} is none.")
        if store != "memory://":
            raise ConfigurationError(f"Table {name!r}: the store {store!r} is not known; use 'memory://'.")
        self.name = name
        self.store = store
        self.changelog_topic_name = changelog_topic_name
        self.changelog_topic_num_partitions = changelog_topic_num_partitions
        self.changelog_topic_replication_factor = changelog_topic_replication_factor
        self.changelog_config = {
            setting: str(value)
            for setting, value in (
                ("segment.ms", changelog_topic_segment_ms),
                ("min.cleanable.dirty.ratio", changelog_topic_min_cleanable_dirty_ratio),
                ("max.compaction.lag.ms", changelog_topic_max_compaction_lag_ms),
            )
            if value is not None
        }
        self._held: Callable[[], Iterable[tuple[int, TablePartition]]] | None = None

    def __repr__(self) -> str:
        return f"Table({self.name!r}, store={self.store!r})"

    def get(self, key: Key, default: Any = None) -> Any:
        """The value of `key`, or `default`.

        Raises:
            SerializationError: `key` cannot be a key.
            TableError: there is no message being handled here, or its task does not hold this table.
        """
        message = message_of_call.get()
        if message is not None:
            unit = message.unit
            if unit.message is message and (partition := unit.tables.get(self.name)) is not None:
                return partition.get(key, default)
        raise self._misused(message)

    def set(self, key: Key, value: Any) -> Done:
        """Put `value` under `key`: done when the call returns, with or without ``await``.

        Raises:
            SerializationError: `key` or `value` would not come back equal in value and type.
            TableError: as `get`; or the value is larger than the changelog takes.
        """
        message = message_of_call.get()
        if message is not None:
            unit = message.unit
            if unit.message is message and (partition := unit.tables.get(self.name)) is not None:
                partition.set(key, value)
                return DONE
        raise self._misused(message)

    def delete(self, key: Key) -> Done:
        """Remove `key`, whether it is there or not: done when the call returns, with or without ``await``."""
        self._partition().delete(key)
        return DONE

    def get_many(self, keys: Sequence[Key], default: Any = None) -> list[Any]:
        """The values of `keys`, in their order, `default` for what is not there. Quicker than many `get`."""
        return self._partition().get_many(keys, default)

    def set_many(self, entries: Mapping[Any, Any] | Iterable[tuple[Key, Any]]) -> Done:
        """Put all these entries: a mapping, or pairs of key and value."""
        partition = self._partition()
        for key, value in entries.items() if isinstance(entries, Mapping) else entries:
            partition.set(key, value)
        return DONE

    def update(self, key: Key, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Set `key` to ``fn(its value)`` (to ``fn(default)`` where it has none); returns the new value."""
        partition = self._partition()
        value = fn(partition.get(key, default))
        partition.set(key, value)
        return value

    def __getitem__(self, key: Key) -> Any:
        value = self._partition().get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, value: Any) -> None:
        self._partition().set(key, value)

    def __delitem__(self, key: Key) -> None:
        """Raises KeyError where `key` is not there; `delete` does not mind."""
        partition = self._partition()
        if key not in partition:
            raise KeyError(key)
        partition.delete(key)

    def __contains__(self, key: Key) -> bool:
        return key in self._partition()

    __iter__ = None
    """Without it Python would try ``table[0]``, ``table[1]``, …"""

    def snapshot(self) -> list["Entry"]:
        """The checkpointed entries of the partitions that this process holds, for use outside handlers.

        A list, in the order of partitions and keys, because a key may stand in several partitions.

        Raises:
            TableError: the table is registered with no running engine.
        """
        if self._held is None:
            raise TableError(f"Table {self.name!r} has no snapshot: no engine that it is registered with is running.")
        return [
            Entry(number, key, value)
            for number, partition in self._held()
            for key, value in partition.committed_items()
        ]

    def attach(self, held: Callable[[], Iterable[tuple[int, TablePartition]]] | None) -> None:
        """For the engine: finds the partitions held by this process, with their numbers; None when it has stopped.

        Raises:
            ConfigurationError: it is attached to a running engine already.
        """
        if held is not None and self._held is not None:
            raise ConfigurationError(f"Table {self.name!r} is in use by another running engine: make one for each.")
        self._held = held

    def _partition(self) -> TablePartition:
        """The table's partition in the task of this call; `get` and `set` have it inline, being called so often."""
        message = message_of_call.get()
        if message is None or message.unit.message is not message or self.name not in message.unit.tables:
            raise self._misused(message)
        return message.unit.tables[self.name]

    def _misused(self, message: Message | None) -> TableError:
        if message is None:
            return TableError(
                f"Table {self.name!r} was used outside a message: get and set work inside a handler's hooks;"
                " elsewhere read table.snapshot()."
            )
        unit = message.unit
        if unit.message is not message:
            return TableError(
                f"Table {self.name!r} was used in {unit.name} after its message had ended: await what a hook starts"
                " before the hook returns."
            )
        return TableError(
            f"Table {self.name!r} was used in {unit.name}, whose handlers do not hold it: register it with the engine"
            " and name it in the handler's tables=[…], or send the data to a topic of a handler that has it."
        )


_MISSING = object()
