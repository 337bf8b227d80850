"""A table's partition: layers of uncommitted writes over a store, taken back to the byte when a message fails."""

import copy
from decimal import Decimal
from typing import Any

import pytest

from paperboy.errors import SerializationError, TableError
from paperboy.serializers.values import decode_value, encode_value
from paperboy.tables.keys import decode_key, encode_key
from paperboy.tables.layer import DELETED, Encoded, Layer, Undo, changelog_values, roll_back
from paperboy.tables.partition import RECORD_OVERHEAD_BYTES, TablePartition
from paperboy.tables.stores.memory import MemoryStore
from paperboy.tables.table import Table
from tests.shown import shown
from tests.unit.table_kit import LIMIT


class Clicks:
    """A partition with its task's undo list."""

    def __init__(self, max_record_bytes: int = LIMIT, stored: dict[Any, Any] | None = None) -> None:
        self.undo: Undo = []
        self.store = MemoryStore("clicks")
        if stored is not None:
            self.store.write({encode_key(key): encode_value(value) for key, value in stored.items()}, 7, 0)
        self.partition = TablePartition(Table("clicks"), 3, self.undo, max_record_bytes)
        self.partition.store = self.store

    def finish(self) -> None:
        """The message in hand has finished."""
        self.undo.clear()

    def fail(self) -> None:
        roll_back(self.undo)

    def checkpoint(self) -> None:
        """The frozen layer becomes the store's."""
        self.store_frozen(self.partition.freeze())

    def store_frozen(self, frozen: Layer) -> None:
        self.store.write(changelog_values(frozen), (self.store.changelog_offset or 0) + 1, 0)
        self.partition.thaw()

    @property
    def committed(self) -> dict[Any, Any]:
        """What the store holds."""
        return {decode_key(key): decode_value(data) for key, data in self.store.scan()}


def test_what_is_in_no_layer_comes_from_the_store() -> None:
    clicks = Clicks(stored={"a": 1})
    assert clicks.partition.get("a") == 1
    assert "a" in clicks.partition
    assert clicks.partition.get("b") is None
    assert clicks.partition.get("b", 0) == 0
    assert "b" not in clicks.partition


def test_a_write_is_read_at_once_and_is_not_in_the_store() -> None:
    clicks = Clicks(stored={"a": 1, "b": 1})
    clicks.partition.set("a", 2)
    clicks.partition.delete("b")
    assert clicks.partition.get("a") == 2
    assert clicks.partition.get("b", "gone") == "gone"
    assert "b" not in clicks.partition
    assert clicks.committed == {"a": 1, "b": 1}


def test_while_a_checkpoint_is_under_way_the_layer_lies_over_the_frozen_one_over_the_store() -> None:
    clicks = Clicks(stored=dict.fromkeys("abcdef", "store"))
    for key in "bcd":
        clicks.partition.set(key, "frozen")
    clicks.partition.delete("e")
    clicks.finish()
    frozen = clicks.partition.freeze()
    clicks.partition.set("c", "layer")
    clicks.partition.delete("d")
    clicks.partition.set("e", "layer")
    now = {"a": "store", "b": "frozen", "c": "layer", "d": None, "e": "layer", "f": "store", "g": None}
    assert {key: clicks.partition.get(key) for key in now} == now
    assert clicks.partition.get_many(list(now)) == list(now.values())
    assert {key: key in clicks.partition for key in now} == {key: value is not None for key, value in now.items()}
    assert changelog_values(frozen) == {
        **{encode_key(key): encode_value("frozen") for key in "bcd"},
        encode_key("e"): None,
    }
    clicks.store_frozen(frozen)
    assert clicks.partition.get_many(list(now)) == list(now.values())


def test_a_deleted_entry_of_the_frozen_layer_does_not_shine_through_from_the_store() -> None:
    clicks = Clicks(stored={"a": 1})
    clicks.partition.delete("a")
    clicks.partition.freeze()
    assert clicks.partition.get("a", "gone") == "gone"
    assert clicks.partition.get_many(["a"], "gone") == ["gone"]
    assert "a" not in clicks.partition


def test_one_checkpoint_at_a_time() -> None:
    clicks = Clicks()
    clicks.partition.set("a", 1)
    clicks.partition.freeze()
    with pytest.raises(TableError, match="'clicks': a checkpoint is under way already"):
        clicks.partition.freeze()
    clicks.partition.thaw()
    assert clicks.partition.freeze() == {}


def test_what_is_discarded_never_happened() -> None:
    clicks = Clicks(stored={"a": 1})
    clicks.partition.set("a", 2)
    clicks.partition.freeze()
    clicks.partition.set("a", 3)
    clicks.partition.discard()
    assert clicks.partition.get("a") == 1
    assert (clicks.partition.layer, clicks.partition.layer_bytes) == ({}, 0)
    assert clicks.partition.freeze() == {}


def test_none_is_a_value_and_only_delete_deletes() -> None:
    clicks = Clicks()
    clicks.partition.set("a", None)
    assert "a" in clicks.partition
    assert clicks.partition.get("a", "default") is None
    assert clicks.partition.get_many(["a", "b"], "default") == [None, "default"]
    assert changelog_values(clicks.partition.layer) == {encode_key("a"): encode_value(None)}
    clicks.checkpoint()
    assert "a" in clicks.partition
    assert clicks.partition.get("a", "default") is None
    assert clicks.partition.get_many(["a"], "default") == [None]


@pytest.mark.parametrize("durable", [False, True])
def test_one_and_one_point_zero_and_true_are_three_keys(durable: bool) -> None:
    clicks = Clicks()
    for key in (1, 1.0, True, "1", b"1", (1,), (1.0,), (True,), 0, -0.0, 0.0, False, None):
        clicks.partition.set(key, repr(key))
    if durable:
        clicks.checkpoint()
    for key in (1, 1.0, True, "1", b"1", (1,), (1.0,), (True,), 0, False, None):
        assert clicks.partition.get(key) == repr(key)
    clicks.partition.delete(1.0)
    assert (1 in clicks.partition, 1.0 in clicks.partition, True in clicks.partition) == (True, False, True)


@pytest.mark.parametrize("value", [True, 1, 1.0, 0, -0.0, Decimal("1.0"), "é", "x" * 10_000, b"", (1, [2]), {"a": {1}}])
@pytest.mark.parametrize("durable", [False, True])
def test_a_value_comes_back_equal_and_of_its_type(value: object, durable: bool) -> None:
    clicks = Clicks()
    clicks.partition.set("a", value)
    if durable:
        clicks.checkpoint()
    for found in (clicks.partition.get("a"), *clicks.partition.get_many(["a", "a"])):
        assert repr(found) == repr(value)
        assert type(found) is type(value)


@pytest.mark.parametrize("durable", [False, True])
def test_a_value_that_is_changed_after_set_or_get_is_not_changed_in_the_table(durable: bool) -> None:
    clicks = Clicks()
    value = {"pages": ["home"]}
    clicks.partition.set("a", value)
    value["pages"].append("about")
    if durable:
        clicks.checkpoint()
    found: Any = clicks.partition.get("a")
    assert found == {"pages": ["home"]}
    found["pages"].clear()
    many: Any = clicks.partition.get_many(["a"])
    many[0]["pages"].clear()
    assert clicks.partition.get("a") == {"pages": ["home"]}


def test_what_cannot_change_is_kept_as_it_is_and_encoded_at_the_checkpoint_only() -> None:
    clicks = Clicks()
    for key, value in {"int": 7, "str": "seven", "list": [7], "long": "x" * 5_000, "wide": "é"}.items():
        clicks.partition.set(key, value)
    clicks.partition.delete("gone")
    kept = {key: clicks.partition.layer[encode_key(key)] for key in ("int", "str", "gone")}
    assert kept == {"int": 7, "str": "seven", "gone": DELETED}
    assert all(isinstance(clicks.partition.layer[encode_key(key)], Encoded) for key in ("list", "long", "wide"))


@pytest.mark.parametrize("value", [object(), 1j, "a\ud800", [lambda: 1], bytearray(b"a")], ids=shown)
def test_a_value_that_would_not_come_back_is_refused_and_the_old_one_stands(value: object) -> None:
    clicks = Clicks(stored={"a": 1})
    with pytest.raises(SerializationError):
        clicks.partition.set("a", value)
    assert clicks.partition.get("a") == 1
    assert (clicks.partition.layer, clicks.undo) == ({}, [])


@pytest.mark.parametrize("key", [[1], {}, 1j, ("a", [1])], ids=shown)
def test_what_cannot_be_a_key_is_refused_whatever_is_done_with_it(key: Any) -> None:
    partition = Clicks().partition
    for use in (partition.get, partition.delete, partition.__contains__, lambda key: partition.set(key, 1)):
        with pytest.raises(SerializationError):
            use(key)
    with pytest.raises(SerializationError):
        partition.get_many(["a", key])


@pytest.mark.parametrize("value", [[0] * 10_000, "x" * 10_000, b"x" * 10_000, 1 << 80_000], ids=["[]", "str", "b", "1"])
def test_a_value_that_the_changelog_does_not_take_is_refused_where_it_is_set(value: object) -> None:
    clicks = Clicks(max_record_bytes=10_000)
    with pytest.raises(TableError) as caught:
        clicks.partition.set("anna", value)
    assert "for key 'anna' does not fit into the changelog of table 'clicks', which takes" in str(caught.value)
    assert str(caught.value).endswith("or raise the changelog's max.message.bytes.")
    assert (clicks.partition.layer, clicks.partition.layer_bytes, clicks.undo) == ({}, 0, [])


def test_the_limit_is_of_key_and_value_together_and_to_the_byte() -> None:
    room = 10_000 - RECORD_OVERHEAD_BYTES - len(encode_key("k"))
    overhead = len(encode_value(b"x" * 9_000)) - 9_000
    Clicks(max_record_bytes=10_000).partition.set("k", b"x" * (room - overhead))
    with pytest.raises(TableError, match="does not fit"):
        Clicks(max_record_bytes=10_000).partition.set("k", b"x" * (room - overhead + 1))
    for value in (7, b"x" * 5_000):
        with pytest.raises(TableError, match="does not fit"):
            Clicks(max_record_bytes=10_000).partition.set("k" * 9_900, value)


@pytest.mark.parametrize("size", [0, 1, 500, 1_000, 1_024, 4_000, 4_096, 9_000])
def test_a_value_that_was_taken_fits_into_the_changelog(size: int) -> None:
    clicks = Clicks(max_record_bytes=6_000)
    for key_size in (0, 1_000, 1_700, 1_800, 5_000, 5_800):
        for value in ("x" * size, b"x" * size, "é" * size, 1 << size * 8, Decimal("1" * (size or 1))):
            try:
                clicks.partition.set("k" * key_size, value)
            except TableError:
                continue
            for key, data in changelog_values(clicks.partition.layer).items():
                assert data is not None
                assert len(key) + len(data) + RECORD_OVERHEAD_BYTES <= 6_000


def test_a_key_that_the_changelog_does_not_take_cannot_be_deleted_into_it_either() -> None:
    clicks = Clicks(max_record_bytes=10_000)
    with pytest.raises(TableError, match="does not fit"):
        clicks.partition.delete("k" * 10_000)
    assert clicks.partition.layer == {}


def test_a_failed_message_is_taken_back_and_those_before_it_stay() -> None:
    clicks = Clicks(stored={"a": 0})
    clicks.partition.set("a", 1)
    clicks.partition.set("b", [1])
    clicks.finish()
    before = copy.copy(clicks.partition.layer)
    for value in (2, [3], None):
        clicks.partition.set("a", value)
        clicks.partition.set("c", value)
        clicks.partition.delete("b")
    clicks.fail()
    assert clicks.partition.layer == before
    assert clicks.partition.get_many(["a", "b", "c"]) == [1, [1], None]


def test_a_part_of_a_message_is_taken_back_to_its_mark() -> None:
    clicks = Clicks()
    clicks.partition.set("a", 1)
    mark = len(clicks.undo)
    clicks.partition.set("a", 2)
    clicks.partition.delete("b")
    roll_back(clicks.undo, mark)
    assert clicks.partition.get("a") == 1
    assert list(clicks.partition.layer) == [encode_key("a")]
    roll_back(clicks.undo)
    assert clicks.partition.layer == {}


def test_two_tables_of_a_task_are_taken_back_together() -> None:
    clicks = Clicks()
    users = TablePartition(Table("users"), 3, clicks.undo, LIMIT)
    clicks.partition.set("a", 1)
    users.set("a", 2)
    clicks.partition.set("a", 3)
    clicks.fail()
    assert (clicks.partition.layer, users.layer) == ({}, {})


def test_what_a_failed_message_wrote_is_not_counted_against_the_overlay() -> None:
    clicks = Clicks()
    clicks.partition.set("large", b"x" * 100_000)
    clicks.partition.set("small", 1)
    clicks.finish()
    before = clicks.partition.layer_bytes
    for _ in range(3):
        clicks.partition.set("new", b"x" * 100_000)
        clicks.partition.set("large", 7)
        clicks.partition.set("small", [1] * 100)
        clicks.partition.delete("large")
        clicks.fail()
        assert clicks.partition.layer_bytes == before


def test_a_layer_is_counted_by_what_it_holds_and_not_by_how_often_it_was_written() -> None:
    clicks = Clicks()
    for number in range(1_000):
        clicks.partition.set("counter", number)
        clicks.partition.set("list", [number] * 100)
        clicks.partition.delete("gone")
    once = Clicks()
    once.partition.set("counter", 999)
    once.partition.set("list", [999] * 100)
    once.partition.delete("gone")
    assert clicks.partition.layer_bytes == once.partition.layer_bytes
    assert once.partition.layer_bytes >= len(encode_value([999] * 100))
    once.partition.freeze()
    assert once.partition.layer_bytes == 0


def test_the_store_is_asked_only_for_what_no_layer_has_and_once_for_many() -> None:
    asked: list[Any] = []

    class Watched(MemoryStore):
        def get(self, key: bytes) -> bytes | None:
            asked.append(key)
            return super().get(key)

        def get_many(self, keys: Any) -> list[bytes | None]:
            asked.append(list(keys))
            return super().get_many(keys)

    partition = TablePartition(Table("clicks"), 0, [], LIMIT)
    partition.store = Watched("clicks")
    partition.set("frozen", 1)
    partition.delete("deleted")
    partition.freeze()
    partition.set("layer", [1])
    for key in ("frozen", "deleted", "layer"):
        partition.get(key)
        assert key in partition or key == "deleted"
    assert asked == []
    partition.get_many(["frozen", "a", "deleted", "b", "layer"])
    assert asked == [[encode_key("a"), encode_key("b")]]
