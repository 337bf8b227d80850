"""Tables: keys and values that handlers keep between messages."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from paperboy.errors import ConfigurationError, TableError
from paperboy.serializers.protocol import Serializer
from paperboy.tables.access import Access
from paperboy.tables.codec import codec, name_of
from paperboy.tables.options import (
    checked_count,
    checked_on_change,
    checked_serializer,
    default_factory,
    parsed_store,
    typed_serializer,
)
from paperboy.tables.partition import Change, TablePartition
from paperboy.tables.scan import WhileHandled
from paperboy.tables.snapshot import Entry, Snapshot
from paperboy.tables.unit import UnitBeside, message_of_call

__all__ = ["Entry", "Table"]


class Table(Access):
    """A key-value table, kept in a store and backed by a compacted changelog topic.

    A table is partitioned as the topics of the handlers that use it: a key's entry lives in the partition of the
    message being handled, and is seen by messages of that partition only. What a message writes is taken back when
    the message fails.

    Keys are str, bytes, int, float, bool, None, UUID, date, datetime or tuples of them; values are plain Python objects
    (see docs/formats.md); or either is whatever a serializer of yours takes. A value comes back equal in value and
    type, or `set` raises. A value that was changed after `get` or `set` is not changed in the table until it is `set`
    again.

        clicks = Table("clicks", default=0)

        class PageViews(Handler):
            topic = "page-views"

            @classmethod
            async def on_message(cls, msg, ctx):
                clicks[msg.key] += 1

    Args:
        name: the table's name, unique in an engine.
        store: ``"memory://"``, restored from the changelog at each start; ``"rocksdb://"``, on disk under the engine's
            ``state_dir``; or ``"rocksdb:///absolute/path"``, under that path in its place.
        default: what a key that is not there is read as: a value that cannot change, or a callable that makes one.
            Reading it writes nothing. None: there is none, and ``table[key]`` raises KeyError.
        key_serializer: turns keys into bytes and back, in place of our own format. The bytes go to the store and to the
            changelog as they are.
        value_serializer: the same for values.
        key_type: what keys are: a dataclass, msgspec.Struct, pydantic model or another type. In JSON, or as
            `key_serializer` writes its plain objects. str and bytes stand as they are.
        value_type: the same for values, as in ``value_type=Order``.
        schema_version: from 1 on: of what your serializers write. A store that was written under another one is thrown
            away, and restored from the changelog.
        max_value_bytes: the largest value that `set` takes, as bytes; by default, what the changelog takes.
        on_change: called with a `Change` for each key that has changed, after the checkpoint that has made it durable.
        changelog_topic_name: by default ``{group_id}-{name}-changelog``.
        changelog_topic_num_partitions: by default, and at all events, as many as the input topics have.
        changelog_topic_replication_factor: by default the cluster's own.
        changelog_topic_segment_ms: ``segment.ms`` of a changelog that is created, in milliseconds.
        changelog_topic_min_cleanable_dirty_ratio: its ``min.cleanable.dirty.ratio``, 0 to 1.
        changelog_topic_max_compaction_lag_ms: its ``max.compaction.lag.ms``, in milliseconds.

    Raises:
        ConfigurationError: the name or an option is not one.
    """

    def __init__(
        self,
        name: str,
        store: str = "memory://",
        *,
        default: Any = None,
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
        key_type: Any = None,
        value_type: Any = None,
        schema_version: int = 1,
        max_value_bytes: int | None = None,
        on_change: Callable[[Change], object] | None = None,
        changelog_topic_name: str | None = None,
        changelog_topic_num_partitions: int | None = None,
        changelog_topic_replication_factor: int | None = None,
        changelog_topic_segment_ms: int | None = None,
        changelog_topic_min_cleanable_dirty_ratio: float | None = None,
        changelog_topic_max_compaction_lag_ms: int | None = None,
    ) -> None:
        if not name or not isinstance(name, str):
            raise ConfigurationError(f"A table needs a name, and {name!r} is none.")
        super().__init__(name, default_factory(name, default), has_default=default is not None)
        self.store = store
        self.store_kind, self.store_path = parsed_store(name, store)
        """``"memory"`` or ``"rocksdb"``, and the directory in place of the engine's ``state_dir``, if any."""
        key_serializer = checked_serializer(name, "key_serializer", key_serializer)
        value_serializer = checked_serializer(name, "value_serializer", value_serializer)
        self.key_serializer = typed_serializer(name, "key", key_type, key_serializer)
        self.value_serializer = typed_serializer(name, "value", value_type, value_serializer)
        self.codec = codec(self.key_serializer, self.value_serializer)
        self.schema_version = checked_count(name, "schema_version", schema_version)
        self.max_value_bytes = max_value_bytes
        if max_value_bytes is not None:
            checked_count(name, "max_value_bytes", max_value_bytes)
        self.on_change = checked_on_change(name, on_change)
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

    @property
    def definition(self) -> str:
        """How keys and values are written. A store that was written under another definition is of no use.

        Example:
            >>> Table("clicks").definition
            'keys: format 1; values: format 1; schema version: 1'
        """
        return (
            f"keys: {name_of(self.key_serializer)}; values: {name_of(self.value_serializer)};"
            f" schema version: {self.schema_version}"
        )

    def write_with(self, key_serializer: Serializer | None, value_serializer: Serializer | None) -> None:
        """For the engine, before partitions are opened: what its serializers are for its topic."""
        self.codec = codec(key_serializer, value_serializer)

    def __iter__(self) -> Iterator[Any]:
        """As `keys`."""
        return self.keys()

    def items(
        self,
        *,
        prefix: Any = None,
        start: Any = None,
        stop: Any = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """The entries of a range of keys, in their order, as they are now: with all that this message has written so
        far, and without what is written while you iterate. Decoded one by one, as they come up.

        Keys are ordered as docs/formats.md says: numbers by size, str by code point, tuples by their first difference;
        with a `key_serializer`, by the bytes it makes.

            for (user, day), clicks in table.items(prefix=("anna",), limit=10): ...
            for day, clicks in table.items(start=date(2026, 1, 1), stop=date(2026, 2, 1)): ...

        Args:
            prefix: what the keys begin with: a str or bytes, or a tuple of the first elements of tuples. With a
                `key_serializer`, the bytes that the serialized keys begin with.
            start: the first key; it need not be there. Not together with `prefix`; nor is `stop`.
            stop: the first key that is no longer wanted.
            reverse: from the last to the first.
            limit: so many entries at most.

        Raises:
            SerializationError: `prefix`, `start` or `stop` cannot be what it is given as.
            DeserializationError: while iterating: an entry cannot be read.
            TableError: as `get`; the arguments do not go together; or, while iterating, the message has ended or has
                failed.
        """
        return self._scan(TablePartition.items, prefix, start, stop, reverse, limit)

    def keys(
        self,
        *,
        prefix: Any = None,
        start: Any = None,
        stop: Any = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """The keys of a range, as `items`; values are not decoded."""
        return self._scan(TablePartition.keys, prefix, start, stop, reverse, limit)

    def values(
        self,
        *,
        prefix: Any = None,
        start: Any = None,
        stop: Any = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """The values of a range, as `items`; keys are not decoded."""
        return self._scan(TablePartition.values, prefix, start, stop, reverse, limit)

    @asynccontextmanager
    async def lock(self, key: Any, *keys: Any) -> AsyncIterator[None]:
        """Hold keys, in a handler with ``concurrency``, against other messages that lock them: what is read inside
        stays as it is, where all who write these keys lock them.

        They are held until the message has ended, because its writes show to others only then. Where messages run one
        after another it costs nothing.

            async with totals.lock(account):
                totals[account] += await price_of(msg)

        Args:
            keys: further keys. Name all that a message needs in one call: they are taken in one order, so that two
                messages cannot wait for each other.

        Raises:
            SerializationError: one of them cannot be a key.
            TableError: as `get`; or the message would wait for one that waits for it.
        """
        partition = self._partition()
        encoded_keys = [partition.encoded_key(each) for each in (key, *keys)]
        message = message_of_call.get()
        assert message is not None
        unit: object = message.unit
        if isinstance(unit, UnitBeside):
            await unit.lock(self.name, encoded_keys)
        yield

    def len_estimate(self) -> int:
        """About how many entries this partition has, without counting them."""
        return self._partition().len_estimate()

    def snapshot(self) -> Snapshot:
        """The checkpointed entries of the partitions that this process holds, for use outside handlers.

            for partition, page, count in clicks.snapshot():
                print(page, count)

        Raises:
            TableError: the table is registered with no running engine.
        """
        if self._held is None:
            raise TableError(f"Table {self.name!r} has no snapshot: no engine that it is registered with is running.")
        return Snapshot(self, [partition for _, partition in self._held()])

    def attach(self, held: Callable[[], Iterable[tuple[int, TablePartition]]] | None) -> None:
        """For the engine: finds the partitions held by this process, with their numbers; None when it has stopped.

        Raises:
            ConfigurationError: it is attached to a running engine already.
        """
        if held is not None and self._held is not None:
            raise ConfigurationError(f"Table {self.name!r} is in use by another running engine: make one for each.")
        self._held = held

    def _scan(
        self, read: Callable[..., Iterator[Any]], prefix: Any, start: Any, stop: Any, reverse: bool, limit: int | None
    ) -> Iterator[Any]:
        partition = self._partition()
        scan = read(partition, partition.range(prefix, start, stop), reverse=reverse, limit=limit)
        message = message_of_call.get()
        assert message is not None
        return WhileHandled(self.name, message, scan)
