"""One partition of one table, as its task holds it: layers of uncommitted writes over a store."""

import sys
from collections.abc import Iterable, Iterator
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from paperboy.errors import DeserializationError, SerializationError, TableError, chained
from paperboy.serializers.excerpt import excerpt
from paperboy.tables.keys import BYTES_HEAD
from paperboy.tables.layer import (
    ABSENT,
    DELETED,
    ENTRY_BYTES,
    Encoded,
    Layer,
    Undo,
    changelog_values,
    entry_bytes,
    roll_back,
)
from paperboy.tables.scan import (
    EVERYTHING,
    AsOfNow,
    Entries,
    LayeredScan,
    LayerKeys,
    Range,
    checked_limit,
    key_range,
    laid_over,
    stored,
)
from paperboy.tables.stores.protocol import Store

if TYPE_CHECKING:
    from paperboy.tables.table import Table

__all__ = ["UNSET", "Change", "Layer", "TablePartition", "Undo", "changelog_values", "roll_back"]

RECORD_OVERHEAD_BYTES: Final = 128
"""What the log adds to a record's key and value, at most: its own fields and its batch's header."""

_KEPT_BYTES: Final = 4096
"""What a value that is kept as an object takes as bytes, at most (see `needs_encoding_now`)."""


class _Unset:
    def __repr__(self) -> str:
        return "the table's default"


UNSET: Final[Any] = _Unset()
"""In place of a default that was not given: the table's own."""


class Change(NamedTuple):
    """What a checkpoint made durable about one key."""

    partition: int
    key: Any
    value: Any
    """None where it was deleted."""
    deleted: bool


class TablePartition:
    """Reads look into the layer being written, then the layer being checkpointed, then the store.

    What cannot be written or read is refused with an error that names the table, the partition and the key.

    Args:
        table: the table it is a part of.
        partition: its number.
        undo: the task's undo list; every write is noted in it.
        max_record_bytes: the largest record the changelog takes (its ``max.message.bytes``).
    """

    def __init__(self, table: "Table", partition: int, undo: Undo, max_record_bytes: int) -> None:
        self.table = table.name
        self.partition = partition
        self.store: Store = cast(Store, _NotOpen(table.name, partition))
        """Set when it is open, before any message is handled."""
        self.on_change = table.on_change
        """The table's own: to be called with each of the `changes` of a layer that has become durable."""
        self.layer: Layer = {}
        self.layer_bytes = 0
        self._keys = LayerKeys(self.layer)
        self._frozen: Layer | None = None
        self._frozen_keys = self._keys
        self._undo = undo
        self._table = table
        self._max_record_bytes = max_record_bytes
        self._default = table.make_default
        self._max_bytes = max_record_bytes - RECORD_OVERHEAD_BYTES
        self._max_value_bytes = sys.maxsize if table.max_value_bytes is None else table.max_value_bytes
        codec = table.codec
        self._encode_key, self._decode_key = codec.encode_key, codec.decode_key
        self._encode_value, self._decode_value = codec.encode_value, codec.decode_value
        self._encode_prefix = codec.encode_prefix
        self._encode_now = codec.needs_encoding_now if self._max_value_bytes >= _KEPT_BYTES else _always
        self._headed: type[bytes] = bytes if codec.own_keys else cast("type[bytes]", _NoKey)
        """The type of keys whose bytes are ``BYTES_HEAD`` and themselves."""

    # What the message in hand reads and writes.

    def get(self, key: Any, default: Any = UNSET) -> Any:
        try:
            # Handlers without a serializer have keys of bytes: encoded right here they cost half. As in `set`.
            encoded = BYTES_HEAD + key if type(key) is self._headed else self._encode_key(key)
            found = self.layer.get(encoded, ABSENT)
            if found is ABSENT:
                if self._frozen is not None:
                    found = self._frozen.get(encoded, ABSENT)
                if found is ABSENT:
                    data = self.store.get(encoded)
                    if data is not None:
                        return self._decode_value(data)
                    return default if default is not UNSET else self._default()
            if type(found) is Encoded:
                return self._decode_value(found.data)
        except (SerializationError, DeserializationError) as error:
            raise self._named(error, key)
        if found is DELETED:
            return default if default is not UNSET else self._default()
        return found

    def get_many(self, keys: Iterable[Any], default: Any = UNSET) -> list[Any]:
        """The values of these keys, in their order; the store is asked once."""
        encoded_keys = [self.encoded_key(key) for key in keys]
        found = [self._layered(encoded) for encoded in encoded_keys]
        missing = [index for index, entry in enumerate(found) if entry is ABSENT]
        if missing:
            stored_values = self.store.get_many([encoded_keys[index] for index in missing])
            for index, data in zip(missing, stored_values, strict=True):
                found[index] = DELETED if data is None else Encoded(data)
        return [
            self.decoded_value(encoded, entry)
            if entry is not DELETED
            else default
            if default is not UNSET
            else self._default()
            for encoded, entry in zip(encoded_keys, found, strict=True)
        ]

    def __contains__(self, key: Any) -> bool:
        encoded = self.encoded_key(key)
        found = self._layered(encoded)
        return self.store.get(encoded) is not None if found is ABSENT else found is not DELETED

    def set(self, key: Any, value: Any) -> None:
        try:
            encoded = BYTES_HEAD + key if type(key) is self._headed else self._encode_key(key)
            entry = value
            if self._encode_now(value) or len(encoded) + _KEPT_BYTES > self._max_bytes:
                data = self._encode_value(value)
                if len(data) > self._max_value_bytes or len(encoded) + len(data) > self._max_bytes:
                    raise self._too_large(key, data)
                entry = Encoded(data)
                self.layer_bytes += len(data)
        except SerializationError as error:
            raise self._named(error, key)
        layer = self.layer
        before = layer.get(encoded, ABSENT)
        if before is ABSENT:
            self.layer_bytes += len(encoded) + ENTRY_BYTES
        elif type(before) is Encoded:
            self.layer_bytes -= len(before.data)
        self._undo.append((self, encoded, before))
        layer[encoded] = entry

    def set_many(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Put all of these; where one is refused, none."""
        pairs = list(pairs)  # what making them writes is none of this
        mark = len(self._undo)
        try:
            for key, value in pairs:
                self.set(key, value)
        except BaseException:
            roll_back(self._undo, mark)
            raise

    def delete(self, key: Any) -> None:
        self.delete_many((key,))

    def delete_many(self, keys: Iterable[Any]) -> None:
        """Delete all of these, whether they are there or not; where one cannot be a key, none."""
        encoded_keys = [self.encoded_key(key) for key in keys]
        for encoded in encoded_keys:
            if len(encoded) > self._max_bytes:
                raise TableError(
                    f"A key of {len(encoded)} bytes does not fit into the changelog of table {self.table!r}, which"
                    f" takes records of {self._max_bytes} bytes: use shorter keys, or raise its max.message.bytes."
                )
        for encoded in encoded_keys:
            self._put(encoded, DELETED)

    def items(
        self, within: Range = EVERYTHING, *, reverse: bool = False, limit: Any = None
    ) -> Iterator[tuple[Any, Any]]:
        """The entries of a range as of now, in the order of their keys. To be used while the message in hand lasts."""
        return starmap(self._decoded_item, self._scan(within, reverse, limit))

    def keys(self, within: Range = EVERYTHING, *, reverse: bool = False, limit: Any = None) -> Iterator[Any]:
        """As `items`."""
        return starmap(self._decoded_key_of, self._scan(within, reverse, limit))

    def values(self, within: Range = EVERYTHING, *, reverse: bool = False, limit: Any = None) -> Iterator[Any]:
        """As `items`."""
        return starmap(self.decoded_value, self._scan(within, reverse, limit))

    def range(self, prefix: Any = None, start: Any = None, stop: Any = None) -> Range:
        """The keys that begin with `prefix`, or those from `start` on and before `stop`.

        Raises:
            TableError: a prefix goes with no start and no stop.
            SerializationError: one of them cannot be what it is given as.
        """
        return key_range(f"Table {self.table!r}", self.encoded_key, self._encoded_prefix, prefix, start, stop)

    def len_estimate(self) -> int:
        """About how many entries there are: what no checkpoint has stored yet is not looked up, new or not."""
        return max(self.store.len_estimate(), len(self.layer), len(self._frozen or ()))

    # What becomes of what was written.

    def put_back(self, encoded: bytes, before: object) -> None:
        """For `roll_back`: let this stand in the layer, in place of what stands there now."""
        self.layer_bytes += entry_bytes(encoded, before) - entry_bytes(encoded, self.layer[encoded])
        if before is ABSENT:
            del self.layer[encoded]
            self._keys.taken_back(encoded)
        else:
            self.layer[encoded] = before

    def freeze(self) -> Layer:
        """Swap the layer for a new one, at a message boundary, and go on over the old: what a checkpoint writes."""
        if self._frozen is not None:
            raise TableError(f"Table {self.table!r}: a checkpoint is under way already.")
        self._frozen, self._frozen_keys = self.layer, self._keys
        self._begin_layer()
        return self._frozen

    def thaw(self) -> None:
        """The frozen layer is in the store now."""
        self._frozen = None

    def discard(self) -> None:
        """Drop both layers: what is not in the store never happened."""
        self._frozen = None
        self._begin_layer()

    def changes(self, layer: Layer) -> Iterator[Change]:
        """What a layer has changed, in the order in which its keys were first written; nothing without `on_change`."""
        if self.on_change is None:
            return
        for encoded, entry in layer.items():
            key = self.decoded_key(encoded)
            if entry is DELETED:
                yield Change(self.partition, key, None, deleted=True)
            else:
                yield Change(self.partition, key, self.decoded_value(encoded, entry), deleted=False)

    def apart(self, undo: Undo, store: Store) -> "TablePartition":
        """A partition like it whose layer is one message's own, over `store`."""
        own = TablePartition(self._table, self.partition, undo, self._max_record_bytes)
        own.store = store
        return own

    # From bytes and to bytes.

    def encoded_key(self, key: Any) -> bytes:
        """Raises SerializationError, which names the table, the partition and the key."""
        try:
            return self._encode_key(key)
        except SerializationError as error:
            raise self._named(error, key)

    def _encoded_prefix(self, prefix: Any) -> bytes:
        try:
            return self._encode_prefix(prefix)
        except SerializationError as error:
            raise self._named(error, prefix)

    def decoded_key(self, encoded: bytes) -> Any:
        """Raises DeserializationError, which names the table and the partition."""
        try:
            return self._decode_key(encoded)
        except DeserializationError as error:
            message = f"Table {self.table!r}, partition {self.partition}, the key {excerpt(encoded)}: {error}"
            raise chained(DeserializationError(message), error)

    def decoded_value(self, encoded: bytes, entry: object) -> Any:
        """Raises DeserializationError, which names the table, the partition and the key."""
        if type(entry) is not Encoded:
            return entry
        try:
            return self._decode_value(entry.data)
        except DeserializationError as error:
            raise self._named(error, self.decoded_key(encoded))

    def _decoded_item(self, encoded: bytes, entry: object) -> tuple[Any, Any]:
        return self.decoded_key(encoded), self.decoded_value(encoded, entry)

    def _decoded_key_of(self, encoded: bytes, entry: object) -> Any:
        return self.decoded_key(encoded)

    def _too_large(self, key: Any, data: bytes) -> TableError:
        if len(data) > self._max_value_bytes:
            return TableError(
                f"A value of {len(data)} bytes for key {excerpt(key)} is larger than the {self._max_value_bytes} bytes"
                f" that table {self.table!r} takes: store less under one key, or raise its max_value_bytes."
            )
        return TableError(
            f"A value of {len(data)} bytes for key {excerpt(key)} does not fit into the changelog of table"
            f" {self.table!r}, which takes records of {self._max_bytes} bytes: store less under one key,"
            " or raise the changelog's max.message.bytes."
        )

    def _named(
        self, error: SerializationError | DeserializationError, key: Any
    ) -> SerializationError | DeserializationError:
        message = f"Table {self.table!r}, partition {self.partition}, key {excerpt(key)}: {error}"
        return chained(type(error)(message), error)

    # Layers.

    def _put(self, encoded: bytes, entry: object) -> None:
        before = self.layer.get(encoded, ABSENT)
        self.layer_bytes += entry_bytes(encoded, entry) - entry_bytes(encoded, before)
        self._undo.append((self, encoded, before))
        self.layer[encoded] = entry

    def _layered(self, encoded: bytes) -> object:
        found = self.layer.get(encoded, ABSENT)
        if found is ABSENT and self._frozen is not None:
            found = self._frozen.get(encoded, ABSENT)
        return found

    def _begin_layer(self) -> None:
        self.layer, self.layer_bytes = {}, 0
        self._keys = LayerKeys(self.layer)

    def _scan(self, within: Range, reverse: bool, limit: Any) -> LayeredScan:
        limit = checked_limit(self.table, limit)
        start, stop = within
        scan = self.store.scan(start, stop, reverse=reverse)
        entries: Entries = stored(scan)
        if self._frozen:
            self._frozen_keys.refresh()
            frozen = self._frozen
            frozen_keys = self._frozen_keys.between(start, stop, reverse=reverse)
            entries = laid_over(((key, frozen[key]) for key in frozen_keys), entries, reverse=reverse)
        now = None
        if self.layer:
            self._keys.refresh()
            now = AsOfNow(self.layer, self._undo, self)
            entries = laid_over(now.entries(self._keys.between(start, stop, reverse=reverse)), entries, reverse=reverse)
        return LayeredScan(entries, now, scan, limit)


class _NotOpen:
    """In place of a store that is not open yet."""

    def __init__(self, table: str, partition: int) -> None:
        self._where = f"table {table!r} in partition {partition}"

    def __getattr__(self, name: str) -> NoReturn:
        raise TableError(f"The store of {self._where} is not open yet: a handler's hooks run once it is.")


class _NoKey:
    """The type of no key."""


def _always(value: object) -> bool:
    return True
