"""One partition of one table, as its task holds it: layers of uncommitted writes over a store."""

from collections.abc import Iterator, Sequence
from typing import Final

from paperboy.errors import TableError
from paperboy.serializers.values import decode_value, encode_value, needs_encoding_now
from paperboy.tables.keys import BYTES_HEAD, Key, decode_key, encode_key
from paperboy.tables.stores.protocol import Store

RECORD_OVERHEAD_BYTES: Final = 128
"""What the log adds to a record's key and value, at most: its own fields and its batch's header."""


_ENTRY_BYTES: Final = 256
"""What an entry of a layer costs in memory beside its key and its encoded value, about."""

_KEPT_BYTES: Final = 4096
"""What a value that is kept as an object takes as bytes, at most (see `needs_encoding_now`)."""


class Encoded:
    """A value kept as bytes, because the object it came from can change."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Marker:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


DELETED: Final = _Marker("DELETED")
_ABSENT: Final = _Marker("ABSENT")

Layer = dict[bytes, object]
"""Key bytes to the value as of now: a value that cannot change, an `Encoded` one, or DELETED."""

Undo = list[tuple["TablePartition", bytes, object]]
"""What stood in a partition's layer before each write, oldest first."""


def roll_back(undo: Undo, mark: int = 0) -> None:
    """Take back every write after `mark` (a length of `undo`), the latest first."""
    while len(undo) > mark:
        partition, key, before = undo.pop()
        partition.put_back(key, before)


class TablePartition:
    """Reads look into the layer being written, then the layer being checkpointed, then the store.

    Args:
        table: the table's name, for messages.
        undo: the task's undo list; every write is noted in it.
        max_record_bytes: the largest record the changelog takes (its ``max.message.bytes``).
    """

    def __init__(self, table: str, store: Store, undo: Undo, max_record_bytes: int) -> None:
        self.table = table
        self.store = store
        self.layer: Layer = {}
        self.layer_bytes = 0
        self._frozen: Layer | None = None
        self._undo = undo
        self._max_bytes = max_record_bytes - RECORD_OVERHEAD_BYTES

    def get(self, key: Key, default: object = None) -> object:
        # Handlers without a serializer have keys of bytes: encoded right here they cost half. As in `set`.
        encoded = BYTES_HEAD + key if type(key) is bytes else encode_key(key)
        found = self.layer.get(encoded, _ABSENT)
        if found is _ABSENT:
            if self._frozen is not None:
                found = self._frozen.get(encoded, _ABSENT)
            if found is _ABSENT:
                data = self.store.get(encoded)
                return default if data is None else decode_value(data)
        if type(found) is Encoded:
            return decode_value(found.data)
        return default if found is DELETED else found

    def get_many(self, keys: Sequence[Key], default: object = None) -> list[object]:
        """The values of these keys, in their order; the store is asked once."""
        encoded = [encode_key(key) for key in keys]
        found = [self._layered(key) for key in encoded]
        missing = [index for index, value in enumerate(found) if value is _ABSENT]
        for index, data in zip(missing, self.store.get_many([encoded[index] for index in missing]), strict=True):
            found[index] = DELETED if data is None else Encoded(data)
        return [
            default if value is DELETED else decode_value(value.data) if isinstance(value, Encoded) else value
            for value in found
        ]

    def set(self, key: Key, value: object) -> None:
        encoded = BYTES_HEAD + key if type(key) is bytes else encode_key(key)
        entry = value
        if needs_encoding_now(value) or len(encoded) + _KEPT_BYTES > self._max_bytes:
            data = encode_value(value)
            if len(encoded) + len(data) > self._max_bytes:
                raise TableError(
                    f"A value of {len(data)} bytes for key {key!r} does not fit into the changelog of table"
                    f" {self.table!r}, which takes records of {self._max_bytes} bytes: store less under one key,"
                    " or raise the changelog's max.message.bytes."
                )
            entry = Encoded(data)
            self.layer_bytes += len(data)
        layer = self.layer
        before = layer.get(encoded, _ABSENT)
        if before is _ABSENT:
            self.layer_bytes += len(encoded) + _ENTRY_BYTES
        elif type(before) is Encoded:
            self.layer_bytes -= len(before.data)
        self._undo.append((self, encoded, before))
        layer[encoded] = entry

    def delete(self, key: Key) -> None:
        encoded = encode_key(key)
        if len(encoded) > self._max_bytes:
            raise TableError(
                f"A key of {len(encoded)} bytes does not fit into the changelog of table {self.table!r}, which takes"
                f" records of {self._max_bytes} bytes."
            )
        before = self.layer.get(encoded, _ABSENT)
        self._undo.append((self, encoded, before))
        self.put_back(encoded, DELETED)

    def put_back(self, encoded: bytes, before: object) -> None:
        """For `roll_back`: let this stand in the layer, in place of what stands there now."""
        self.layer_bytes += _size(encoded, before) - _size(encoded, self.layer.get(encoded, _ABSENT))
        if before is _ABSENT:
            del self.layer[encoded]
        else:
            self.layer[encoded] = before

    def __contains__(self, key: Key) -> bool:
        encoded = encode_key(key)
        found = self._layered(encoded)
        return self.store.get(encoded) is not None if found is _ABSENT else found is not DELETED

    def freeze(self) -> Layer:
        """Swap the layer for a new one, at a message boundary, and go on over the old: what a checkpoint writes."""
        if self._frozen is not None:
            raise TableError(f"Table {self.table!r}: a checkpoint is under way already.")
        self._frozen, self.layer, self.layer_bytes = self.layer, {}, 0
        return self._frozen

    def thaw(self) -> None:
        """The frozen layer is in the store now."""
        self._frozen = None

    def discard(self) -> None:
        """Drop both layers: what is not in the store never happened."""
        self._frozen, self.layer, self.layer_bytes = None, {}, 0

    def committed_items(self) -> Iterator[tuple[Key, object]]:
        """What the store holds, without the writes that are not checkpointed yet."""
        for key, data in self.store.items():
            yield decode_key(key), decode_value(data)

    def _layered(self, encoded: bytes) -> object:
        found = self.layer.get(encoded, _ABSENT)
        if found is _ABSENT and self._frozen is not None:
            found = self._frozen.get(encoded, _ABSENT)
        return found


def _size(encoded: bytes, entry: object) -> int:
    """What an entry counts for in `layer_bytes`."""
    if entry is _ABSENT:
        return 0
    return len(encoded) + _ENTRY_BYTES + (len(entry.data) if isinstance(entry, Encoded) else 0)


def changelog_values(layer: Layer) -> dict[bytes, bytes | None]:
    """A layer as the changelog and the store take it: each changed key's last value, None for a deleted one."""
    return {
        key: None if value is DELETED else value.data if type(value) is Encoded else encode_value(value)
        for key, value in layer.items()
    }
