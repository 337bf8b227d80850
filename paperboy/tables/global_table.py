"""Global tables: a topic that every worker sees whole."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Final, Literal, NoReturn

from paperboy.brokers.partitioner import partition_for_key
from paperboy.errors import ConfigurationError, DeserializationError, SerializationError, TableError
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.protocol import Serializer
from paperboy.tables.partition import UNSET
from paperboy.tables.scan import checked_limit, key_range
from paperboy.tables.stores.protocol import Scan, Store
from paperboy.tables.table import Table
from paperboy.topic import Topic

__all__ = ["GlobalTable"]


class GlobalTable:
    """A read-only view of a whole compacted topic, all its partitions, in every worker.

    It is complete before any handler sees its first record, and follows the topic from then on: a change shows a moment
    after it was written, in each worker at its own time. Nothing ties it to the messages being handled, so it may be
    read anywhere in the process's event loop, from any handler or from none, and it never makes topics co-partitioned.
    It is written by writing to its topic.

        countries = GlobalTable("countries", topic="countries", key_serializer=String(), value_serializer=Json())

        class PageViews(Handler):
            topic = "page-views"

            @classmethod
            async def on_message(cls, msg, ctx):
                print(countries.get(msg.key, {"name": "unknown"})["name"])

    The topic may be another table's changelog: without serializers, keys and values are read as tables write them. An
    entry of a table stands in the partition of the message that wrote it, so one key may then have several. `get` takes
    the one in the partition that Kafka's default partitioner gives the key's bytes, and where it has none, the first
    that has one; `items` gives them all.

    A record that cannot be read is found out when it is read here, by whoever asks for its key. A record without a key
    belongs to no entry: it is passed over, logged, and counted in ``engine.status()``.

    Args:
        name: the table's name, unique in an engine.
        topic: what it shows, by name, or as a `Topic`, which brings its serializers. ``cleanup.policy`` has to contain
            ``compact``.
        store: as for a `Table`. With ``"rocksdb://"`` a start reads only what is new in the topic.
        default: as for a `Table`.
        key_serializer: reads the topic's keys, and writes the keys that are asked for; by default, as tables do.
        value_serializer: reads its values.
        key_type: as for a `Table`; as is `value_type`.
        schema_version: as for a `Table`.

    Raises:
        ConfigurationError: the name, the topic or an option is not one.
    """

    def __init__(
        self,
        name: str,
        topic: str | Topic,
        store: str = "memory://",
        *,
        default: Any = None,
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
        key_type: Any = None,
        value_type: Any = None,
        schema_version: int = 1,
    ) -> None:
        self.declared = topic if isinstance(topic, Topic) else None
        """Its topic, where that was declared."""
        if isinstance(topic, Topic):
            key_serializer = topic.key if key_serializer is None else key_serializer
            value_serializer = topic.value if value_serializer is None else value_serializer
            topic = topic.name
        self.kept_as = Table(
            name,
            store,
            default=default,
            key_serializer=key_serializer,
            value_serializer=value_serializer,
            key_type=key_type,
            value_type=value_type,
            schema_version=schema_version,
        )
        """How its entries are kept: the store, and how keys and values are read."""
        if not topic or not isinstance(topic, str):
            raise ConfigurationError(f"Global table {name!r} needs the name of a topic, and {topic!r} is none.")
        self.name = name
        self.topic = topic
        self._readable: Callable[[], Sequence[Store] | None] | None = None

    def __repr__(self) -> str:
        return f"GlobalTable({self.name!r}, topic={self.topic!r}, store={self.kept_as.store!r})"

    def get(self, key: Any, default: Any = UNSET) -> Any:
        """The value of `key`, or `default`, or else the table's own default.

        Raises:
            SerializationError: `key` cannot be a key.
            DeserializationError: the value cannot be read; the sentence names its key and partition.
            TableError: the table is not complete yet, or no engine that it is registered with is running.
        """
        encoded = self._encoded_key(key)
        stores = self._stores()
        own = _own_partition(encoded, stores)
        data = stores[own].get(encoded)
        if data is not None:
            return self._decoded_value(encoded, own, data)
        for partition, store in enumerate(stores):
            if partition != own and (data := store.get(encoded)) is not None:
                return self._decoded_value(encoded, partition, data)
        return self.kept_as.make_default() if default is UNSET else default

    def get_many(self, keys: Iterable[Any], default: Any = UNSET) -> list[Any]:
        """The values of `keys`, in their order, `default` for what is not there. Quicker than many `get`."""
        encoded = [self._encoded_key(key) for key in keys]
        stores = self._stores()
        found: list[tuple[int, bytes] | None] = [None] * len(encoded)

        def ask(partition: int, indexes: list[int]) -> None:
            values = stores[partition].get_many([encoded[index] for index in indexes]) if indexes else ()
            for index, data in zip(indexes, values, strict=True):
                if data is not None:
                    found[index] = partition, data

        own = [_own_partition(key, stores) for key in encoded]
        of_partition: list[list[int]] = [[] for _ in stores]
        for index, partition in enumerate(own):
            of_partition[partition].append(index)
        for partition, indexes in enumerate(of_partition):
            ask(partition, indexes)
        missing = [index for index, place in enumerate(found) if place is None]
        for partition in range(len(stores)):
            ask(partition, [index for index in missing if own[index] != partition])
            missing = [index for index in missing if found[index] is None]
        return [
            self._decoded_value(key, *place)
            if place is not None
            else self.kept_as.make_default()
            if default is UNSET
            else default
            for key, place in zip(encoded, found, strict=True)
        ]

    def __getitem__(self, key: Any) -> Any:
        """Raises KeyError where `key` is not there, and the table has no default."""
        value = self.get(key, _MISSING)
        if value is not _MISSING:
            return value
        if self.kept_as.has_default:
            return self.kept_as.make_default()
        raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        encoded = self._encoded_key(key)
        return any(store.get(encoded) is not None for store in self._stores())

    __iter__ = None
    """Without it Python would try ``table[0]``, ``table[1]``, …"""

    def items(
        self,
        *,
        prefix: Any = None,
        start: Any = None,
        stop: Any = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """The entries of a range of keys, of all partitions, in the order of the keys, as they are now: what the topic
        brings while you iterate does not show. A key with entries in several partitions comes as often, in their order.

        The arguments are those of `Table.items`. After an entry that cannot be read, ``next`` goes on with the one
        behind it.

            for name, country in countries.items(prefix="N", limit=10): ...

        Raises:
            SerializationError: `prefix`, `start` or `stop` cannot be what it is given as.
            DeserializationError: while iterating: this entry cannot be read.
            TableError: as `get`; the arguments do not go together; or, while iterating, the engine has stopped.
        """
        return _Decoding(self._scan(prefix, start, stop, reverse, limit), self._decoded_item)

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
        return _Decoding(self._scan(prefix, start, stop, reverse, limit), self._decoded_key)

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
        return _Decoding(self._scan(prefix, start, stop, reverse, limit), self._decoded_value)

    def len_estimate(self) -> int:
        """About how many entries there are in all partitions, without counting them."""
        return sum(store.len_estimate() for store in self._stores())

    def _read_only(self, *_: Any, **__: Any) -> NoReturn:
        """Raises TableError: a global table is written by writing to its topic."""
        raise TableError(
            f"Global table {self.name!r} is read-only: write to its topic, as in ctx.send({self.topic!r}, value,"
            " key=key), or, where that is the changelog of a table, to the table."
        )

    set = delete = update = set_many = delete_many = __setitem__ = __delitem__ = _read_only

    def attach(self, readable: Callable[[], Sequence[Store] | None] | None) -> None:
        """For the engine: finds the store of each partition, in their order, or None while they are not complete;
        None in place of it when the engine has stopped.

        Raises:
            ConfigurationError: it is attached to a running engine already.
        """
        if readable is not None and self._readable is not None:
            raise ConfigurationError(
                f"Global table {self.name!r} is in use by another running engine: make one for each."
            )
        self._readable = readable

    def _stores(self) -> Sequence[Store]:
        if self._readable is None:
            raise TableError(
                f"Global table {self.name!r} cannot be read: no engine that it is registered with is running."
            )
        stores = self._readable()
        if stores is None:
            raise TableError(
                f"Global table {self.name!r} is being restored from topic {self.topic!r}: outside handlers, which wait"
                " for it, read it after await engine.caught_up()."
            )
        return stores

    # Scans.

    def _scan(
        self, prefix: Any, start: Any, stop: Any, reverse: bool, limit: int | None
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """Key bytes, partition, and value bytes. Begun now, and not with the first `next`."""
        limit = checked_limit(self.name, limit)
        named = f"Global table {self.name!r}"
        first, end = key_range(named, self._encoded_key, self._encoded_prefix, prefix, start, stop)
        scans = [store.scan(first, end, reverse=reverse) for store in self._stores()]

        def run() -> Iterator[tuple[bytes, int, bytes]]:
            numbered = [_numbered(partition, scan) for partition, scan in enumerate(scans)]
            try:
                yield from islice(merge(*numbered, key=itemgetter(0), reverse=reverse), limit)
            finally:
                for scan in scans:
                    scan.close()

        return run()

    # From bytes and to bytes.

    def _encoded_key(self, key: Any) -> bytes:
        try:
            return self.kept_as.codec.encode_key(key)
        except SerializationError as error:
            raise SerializationError(f"Global table {self.name!r}, key {excerpt(key)}: {error}") from error

    def _encoded_prefix(self, prefix: Any) -> bytes:
        try:
            return self.kept_as.codec.encode_prefix(prefix)
        except SerializationError as error:
            raise SerializationError(f"Global table {self.name!r}, prefix {excerpt(prefix)}: {error}") from error

    def _decoded_item(self, encoded: bytes, partition: int, data: bytes) -> tuple[Any, Any]:
        return self._decoded_key(encoded, partition), self._decoded_value(encoded, partition, data)

    def _decoded_key(self, encoded: bytes, partition: int, _: bytes = b"") -> Any:
        try:
            return self.kept_as.codec.decode_key(encoded)
        except DeserializationError as error:
            raise self._unreadable("key", partition, encoded, error) from error

    def _decoded_value(self, encoded: bytes, partition: int, data: bytes) -> Any:
        try:
            return self.kept_as.codec.decode_value(data)
        except DeserializationError as error:
            raise self._unreadable("value", partition, encoded, error) from error

    def _unreadable(
        self, part: Literal["key", "value"], partition: int, encoded: bytes, error: DeserializationError
    ) -> DeserializationError:
        named = excerpt(encoded)
        if part == "value":
            try:
                named = f"of key {excerpt(self.kept_as.codec.decode_key(encoded))}"
            except DeserializationError:
                named = f"of key {named}"
        return DeserializationError(
            f"Global table {self.name!r}, {self.topic}[{partition}], the {part} {named}: {error} Give the table the"
            f" {part}_serializer=… that its topic is written with, or write this key to the topic again."
        )


class _Decoding:
    """Entries as they come up: one that cannot be read raises, and does not end it."""

    __slots__ = ("_decode", "_entries")

    def __init__(self, entries: Iterator[tuple[bytes, int, bytes]], decode: Callable[[bytes, int, bytes], Any]) -> None:
        self._entries = entries
        self._decode = decode

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._decode(*next(self._entries))


def _own_partition(encoded: bytes, stores: Sequence[Store]) -> int:
    """Where Kafka's default partitioner puts this key."""
    return partition_for_key(encoded, len(stores)) if len(stores) > 1 else 0


def _numbered(partition: int, scan: Scan) -> Iterator[tuple[bytes, int, bytes]]:
    return ((key, partition, data) for key, data in scan)


_MISSING: Final = object()
