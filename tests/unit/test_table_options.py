"""What a table offers beside get and set: defaults, many at once, serializers, limits, changes, snapshots, stores."""

import collections
import enum
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.errors import ConfigurationError, DeserializationError, SerializationError, TableError
from paperboy.serializers import Bytes, Double, Integer, Json, Long, MessagePack, Serializer, String
from paperboy.serializers.equality import same
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.values import encode_value
from paperboy.tables import Change, Entry, Snapshot, Table
from paperboy.tables.keys import encode_key
from paperboy.tables.layer import changelog_values
from paperboy.tables.partition import TablePartition
from paperboy.tables.stores.memory import MemoryStore
from tests.shown import shown
from tests.unit.table_kit import Task, open_store, store_frozen


def held(table: Table, max_record_bytes: int = 1_048_588) -> TablePartition:
    """The table's partition 3, with an empty store in memory."""
    return Task().hold(table, MemoryStore(table.name), max_record_bytes)


def put(partition: TablePartition, *keys: Any) -> None:
    """These keys are in the store."""
    partition.set_many((key, 1) for key in keys)
    store_frozen(partition, partition.freeze())


# --- Defaults ----------------------------------------------------------------------


def test_the_default_is_what_a_missing_key_is_read_as_and_is_not_written() -> None:
    task, table = Task(), Table("clicks", default=0)
    partition = task.hold(table, MemoryStore("clicks"))
    put(partition, "stored", "deleted", "frozen")
    partition.delete("frozen")
    partition.freeze()
    partition.delete("deleted")
    with task.handling():
        for key in ("missing", "deleted", "frozen"):
            assert table.get(key) == table[key] == 0
            assert table.get(key, 7) == 7
            assert table.get(key, None) is None
            assert key not in table
        assert table.get_many(["missing", "stored", "deleted"]) == [0, 1, 0]
        assert table.get_many(["missing", "stored", "deleted"], None) == [None, 1, None]
        assert list(table.keys()) == ["stored"]
        with pytest.raises(KeyError):
            del table["missing"]


def test_what_is_there_counts_and_not_the_default() -> None:
    task, table = Task(), Table("clicks", default=7)
    task.hold(table, MemoryStore("clicks"))
    values: list[Any] = [None, 0, False, "", []]
    with task.handling():
        for value in values:
            table["a"] = value
            assert table["a"] == table.get("a") == table.get_many(["a"])[0] == value


def test_update_begins_with_the_default() -> None:
    task, table = Task(), Table("clicks", default=list)
    task.hold(table, MemoryStore("clicks"))
    with task.handling():
        assert table.update("a", lambda value: [*value, 1]) == [1]
        assert table.update("a", lambda value: [*value, 2]) == [1, 2]
        assert table.update("b", lambda value: [*value, 1], default=[0]) == [0, 1]
        table["c"] += ["c"]
        assert dict(table) == {"a": [1, 2], "b": [0, 1], "c": ["c"]}


def test_a_factory_makes_a_value_for_each_read() -> None:
    task, table = Task(), Table("clicks", default=lambda: {"count": 0})
    task.hold(table, MemoryStore("clicks"))
    with task.handling():
        table["a"]["count"] = 7
        table.get("a")["count"] = 7
        first, second = table.get_many(["a", "b"])
        first["count"] = 7
        assert second == table["a"] == {"count": 0}


def test_without_a_default_a_missing_key_is_none_or_a_key_error() -> None:
    task, table = Task(), Table("clicks")
    task.hold(table, MemoryStore("clicks"))
    with task.handling():
        assert table.get("a") is None
        assert table.get_many(["a"]) == [None]
        with pytest.raises(KeyError):
            table["a"]


@dataclass(frozen=True)
class Frozen:
    count: int


@dataclass
class Thawed:
    count: int


class Plain:
    pass


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "default", [0, "", (), (1, ("a",)), frozenset({1}), Decimal(1), Frozen(1), Colour.RED], ids=shown
)
def test_a_default_that_cannot_change_is_given_as_it_is(default: object) -> None:
    assert held(Table("clicks", default=default)).get("missing") is default


@pytest.mark.parametrize("default", [[], {}, set(), bytearray(), ([],), Thawed(1), Plain()], ids=type)
def test_a_default_that_can_change_is_refused(default: object) -> None:
    with pytest.raises(ConfigurationError, match=r"'clicks': the default .* give a factory, as in default=lambda: "):
        Table("clicks", default=default)


# --- Many at once ------------------------------------------------------------------


def test_many_are_set_from_a_mapping_or_from_pairs() -> None:
    task, table = Task(), Table("clicks")
    task.hold(table, MemoryStore("clicks"))
    with task.handling():
        table.set_many({"a": 1, "b": [2]})
        table.set_many([("c", 3), ("a", 4)])
        table.set_many((key, 5) for key in "de")
        assert dict(table) == {"a": 4, "b": [2], "c": 3, "d": 5, "e": 5}
        table.delete_many(key for key in ("a", "missing", "b"))
        table.delete_many([])
        assert dict(table) == {"c": 3, "d": 5, "e": 5}
        assert table.get_many(key for key in "abc") == [None, None, 3]


@pytest.mark.parametrize(
    "refused", [("x", object()), ([1], 1), ("x", "y" * 2_000), ("x" * 2_000, 1), ("x",), None], ids=shown
)
def test_where_one_of_many_is_refused_none_is_set(refused: Any) -> None:
    task, table = Task(), Table("clicks")
    partition = task.hold(table, MemoryStore("clicks"), max_record_bytes=1_500)
    with task.handling():
        table.set("a", [0])
        layer, size = dict(partition.layer), partition.layer_bytes
        with pytest.raises((SerializationError, TableError, ValueError, TypeError)):
            table.set_many([("a", 1), ("b", [2]), refused, ("c", 3)])
        assert (partition.layer, partition.layer_bytes, len(task.undo)) == (layer, size, 1)


def test_what_making_the_pairs_has_written_stays_when_one_is_refused() -> None:
    task, table = Task(), Table("clicks")
    task.hold(table, MemoryStore("clicks"))

    def pairs() -> Iterator[tuple[Any, Any]]:
        table["seen"] = 1
        yield "a", 1
        yield "b", object()

    with task.handling():
        with pytest.raises(SerializationError):
            table.set_many(pairs())
        assert dict(table) == {"seen": 1}


@pytest.mark.parametrize("refused", [[1], "x" * 2_000], ids=["no key", "too long"])
def test_where_one_of_many_keys_is_refused_none_is_deleted(refused: Any) -> None:
    task, table = Task(), Table("clicks")
    task.hold(table, MemoryStore("clicks"), max_record_bytes=1_500)
    with task.handling():
        table.set_many({"a": 1, "b": 2})
        with pytest.raises((SerializationError, TableError), match="'clicks'"):
            table.delete_many(["a", refused, "b"])
        assert dict(table) == {"a": 1, "b": 2}


# --- Serializers -------------------------------------------------------------------


class Text:
    """Brings back as a str what it was given, whatever that was."""

    def serialize(self, value: Any) -> bytes:
        return str(value).encode()

    def deserialize(self, data: bytes) -> str:
        return data.decode()


class Careless(Text):
    lossless = True


class Failing:
    error: ClassVar[Exception] = ZeroDivisionError("nothing works")

    def serialize(self, value: Any) -> bytes:
        raise self.error

    def deserialize(self, data: bytes) -> Any:
        raise self.error


class Counting(Text):
    def __init__(self) -> None:
        self.deserialized = 0

    def deserialize(self, data: bytes) -> str:
        self.deserialized += 1
        return super().deserialize(data)


def test_serialized_bytes_go_to_the_store_and_the_changelog_as_they_are() -> None:
    partition = held(Table("users", key_serializer=String(), value_serializer=Json()))
    partition.set("anna", {"clicks": 7, "näme": None})
    partition.set("bert", [])
    partition.delete("bert")
    changes = changelog_values(partition.freeze())
    assert changes == {b"anna": '{"clicks":7,"näme":null}'.encode(), b"bert": None}
    partition.store.write(changes, 2, 0)
    partition.thaw()
    assert dict(partition.store.scan()) == {b"anna": '{"clicks":7,"näme":null}'.encode()}
    assert partition.get("anna") == {"clicks": 7, "näme": None}
    assert list(partition.items()) == [("anna", {"clicks": 7, "näme": None})]
    assert partition.get_many(["anna", "bert"]) == [{"clicks": 7, "näme": None}, None]


def test_one_serializer_alone_leaves_the_other_part_in_our_format() -> None:
    by_key, by_value = held(Table("a", key_serializer=Bytes())), held(Table("b", value_serializer=Bytes()))
    by_key.set(b"k", 7)
    by_value.set(b"k", b"v")
    assert changelog_values(by_key.layer) == {b"k": encode_value(7)}
    assert changelog_values(by_value.layer) == {encode_key(b"k"): b"v"}
    assert (by_key.get(b"k"), by_value.get(b"k")) == (7, b"v")


def test_an_empty_value_is_a_value() -> None:
    for kind in (Bytes(), String()):
        partition = held(Table("clicks", value_serializer=kind))
        empty: Any = kind.deserialize(b"")
        partition.set("a", empty)
        store_frozen(partition, partition.freeze())
        assert partition.get("a", "missing") == empty
        assert "a" in partition


@pytest.mark.parametrize("value", [7, b"7", ["7"], None], ids=shown)
def test_a_value_that_would_not_come_back_equal_is_refused(value: object) -> None:
    partition = held(Table("clicks", value_serializer=Text()))
    with pytest.raises(SerializationError) as caught:
        partition.set("anna", value)
    assert "Table 'clicks', partition 3, key 'anna': the value_serializer" in str(caught.value)
    assert f"Text would bring it back as the str {str(value)!r}, which is not the same as the" in str(caught.value)
    assert partition.layer == {}
    partition.set("anna", "7")


@pytest.mark.parametrize("value", [True, 7.0, Decimal(7)], ids=shown)
def test_equal_is_not_enough_where_the_type_is_another(value: object) -> None:
    class Numbers:
        def serialize(self, value: Any) -> bytes:
            return str(int(value)).encode()

        def deserialize(self, data: bytes) -> int:
            return int(data)

    partition = held(Table("clicks", value_serializer=Numbers()))
    partition.set("a", 7)
    with pytest.raises(SerializationError, match=r"would bring it back as the int [17], which is not the same as the"):
        partition.set("a", value)


def test_a_key_that_would_not_come_back_equal_is_refused_whatever_is_done_with_it() -> None:
    partition = held(Table("clicks", key_serializer=Text()))
    for use in (partition.get, partition.delete, partition.__contains__, lambda key: partition.set(key, 1)):
        with pytest.raises(SerializationError, match=r"Table 'clicks', partition 3, key 7: the key_serializer .*Text"):
            use(7)
    with pytest.raises(SerializationError, match="key 7"):
        partition.get_many(["a", 7])
    with pytest.raises(SerializationError, match="key 7"):
        partition.range(start=7)


def test_who_says_lossless_is_not_checked() -> None:
    checked, trusted = Counting(), Careless()
    partition = held(Table("clicks", value_serializer=checked))
    partition.set("a", "x")
    assert checked.deserialized == 1
    partition = held(Table("clicks", value_serializer=trusted))
    partition.set("a", 7)
    assert partition.get("a") == "7"


def test_what_cannot_be_compared_is_refused_with_the_way_out() -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    class Arrays:
        def serialize(self, value: Array) -> bytes:
            return b"array"

        def deserialize(self, data: bytes) -> Array:
            return Array()

    partition = held(Table("clicks", value_serializer=Arrays()))
    with pytest.raises(SerializationError, match=r"key 'a': .*ambiguous.*let it say lossless = True") as caught:
        partition.set("a", Array())
    assert isinstance(caught.value.__cause__, SerializationError)
    assert isinstance(caught.value.__cause__.__cause__, ValueError)


@pytest.mark.parametrize("part", ["key", "value"])
def test_what_a_serializer_raises_is_chained_and_names_the_table(part: str) -> None:
    given: dict[str, Any] = {f"{part}_serializer": Failing()}
    partition = held(Table("clicks", **given))
    expected = rf"'clicks', partition 3, key 'a': the {part}_serializer .*Failing failed with ZeroDivisionError"
    with pytest.raises(SerializationError, match=expected) as caught:
        partition.set("a", 1)
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__cause__ is Failing.error


@pytest.mark.parametrize("made", ["text", None, bytearray(b"x"), memoryview(b"x")], ids=shown)
def test_a_serializer_that_makes_no_bytes_is_refused(made: Any) -> None:
    class Wrong(Text):
        def serialize(self, value: Any) -> bytes:
            return made  # type: ignore[no-any-return]

    for table in (Table("clicks", key_serializer=Wrong()), Table("clicks", value_serializer=Wrong())):
        with pytest.raises(SerializationError, match=rf"made {type(made).__name__} of it: it has to return bytes"):
            held(table).set("a", 1)


def test_an_empty_serialized_key_is_refused() -> None:
    partition = held(Table("clicks", key_serializer=String()))
    for use in (partition.get, partition.delete, lambda key: partition.set(key, 1)):
        with pytest.raises(
            SerializationError, match=r"'clicks', .* key '': .* nothing can be stored under an empty key"
        ):
            use("")


def test_a_value_that_is_changed_after_set_or_get_is_not_changed_in_the_table() -> None:
    partition = held(Table("clicks", value_serializer=Json()))
    value = ["home"]
    partition.set("a", value)
    value.append("about")
    partition.get("a").append("about")
    assert partition.get("a") == ["home"]


@pytest.mark.parametrize("serializer", [str.encode, json, object(), "utf-8"], ids=shown)
def test_what_is_no_serializer_is_refused(serializer: Any) -> None:
    for option in ("key_serializer", "value_serializer"):
        with pytest.raises(ConfigurationError, match=rf"'clicks': {option} is .* serialize and deserialize"):
            Table("clicks", **{option: serializer})


def test_a_class_in_place_of_a_serializer_is_refused() -> None:
    kind: Any = Json
    with pytest.raises(
        ConfigurationError, match=r"'clicks': value_serializer is the class Json: .* value_serializer=Json\(\)"
    ):
        Table("clicks", value_serializer=kind)


def test_a_definition_tells_tables_that_write_otherwise_from_each_other() -> None:
    assert Table("clicks").definition == Table("users", default=7, max_value_bytes=9).definition
    assert Table("clicks").definition == "keys: format 1; values: format 1; schema version: 1"
    assert (
        Table("clicks", key_serializer=String(), value_serializer=Json(), schema_version=2).definition
        == "keys: paperboy.serializers.builtins.String; values: paperboy.serializers.builtins.Json; schema version: 2"
    )
    definitions = [
        Table("clicks").definition,
        Table("clicks", schema_version=2).definition,
        Table("clicks", key_serializer=Json()).definition,
        Table("clicks", value_serializer=Json()).definition,
        Table("clicks", value_serializer=String()).definition,
        Table("clicks", value_serializer=Text()).definition,
    ]
    assert len(set(definitions)) == len(definitions)


@pytest.mark.parametrize("option", ["schema_version", "max_value_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True], ids=shown)
def test_what_is_no_count_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"'clicks': {option} is .* int of at least 1"):
        Table("clicks", **{option: value})


# --- The serializers that come with it -----------------------------------------------


@pytest.mark.parametrize("serializer", [Bytes(), String(), Json()], ids=type)
def test_ours_are_serializers(serializer: object) -> None:
    assert isinstance(serializer, Serializer)


@given(st.binary(), st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_and_text_come_back(data: bytes, text: str) -> None:
    assert Bytes().deserialize(Bytes().serialize(data)) == data
    assert String().deserialize(String().serialize(text)) == text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@given(JSON)
def test_json_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    for serializer in (Json(), Json(sort_keys=True)):
        data = serializer.serialize(value)
        assert same(serializer.deserialize(data), value)
        assert data.decode() == json.dumps(json.loads(data), ensure_ascii=False, separators=(",", ":"))


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        [(1,)],
        {1: "a"},
        {None: 1},
        {1: "a", "1": "b"},
        {1},
        b"bytes",
        math.nan,
        [math.inf],
        Level.LOW,
        [Level.LOW],
        {"a": Level.LOW},
        Name("a"),
        {Name("a"): 1},
        collections.OrderedDict(a=1),
        "\ud800",
        {"\ud800": 1},
        Decimal(1),
        object(),
        10**5_000,
        HOLDS_ITSELF,
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_refuses_what_would_not_come_back(value: object) -> None:
    for serializer in (Json(), Json(sort_keys=True)):
        with pytest.raises(SerializationError, match="JSON"):
            serializer.serialize(value)


def test_json_keeps_the_order_of_a_dict_or_makes_equal_ones_equal_bytes() -> None:
    assert Json().serialize({"b": 1, "a": 2}) == b'{"b":1,"a":2}'
    assert Json(sort_keys=True).serialize({"b": 1, "a": 2}) == b'{"a":2,"b":1}'


@pytest.mark.parametrize("value", ["text", 7, None, bytearray(b"x"), memoryview(b"x")], ids=shown)
def test_bytes_takes_bytes(value: Any) -> None:
    with pytest.raises(SerializationError, match="Bytes takes bytes, and not"):
        Bytes().serialize(value)


@pytest.mark.parametrize("value", [b"bytes", 7, None, Name("a")], ids=shown)
def test_string_takes_a_str(value: Any) -> None:
    with pytest.raises(SerializationError, match="String takes a str, and not"):
        String().serialize(value)


def test_string_refuses_half_a_surrogate_pair() -> None:
    with pytest.raises(SerializationError, match="half a surrogate pair"):
        String().serialize("a\ud800")


@pytest.mark.parametrize(
    ("serializer", "data", "said"),
    [
        (String(), b"\xff", "something else"),
        (Json(), b"{", "is not JSON: "),
        (Json(), b"\xff", "is not JSON: "),
        (Json(), b"", "is not JSON: "),
    ],
)
def test_what_something_else_wrote_cannot_be_read(serializer: Serializer, data: bytes, said: str) -> None:
    with pytest.raises(DeserializationError, match=said):
        serializer.deserialize(data)


def test_the_examples_on_the_page_are_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
    examples = re.findall(r"^\| `(.+?)` \| `(\w+\(\))` \| `([0-9a-f ]+)` \|$", page, re.MULTILINE)
    kinds = (Bytes, String, Json, MessagePack, Integer, Long, Double)
    serializers: dict[str, Serializer] = {f"{kind.__name__}()": kind() for kind in kinds}
    assert [name for _, name, _ in examples] == list(serializers)
    for expression, name, written in examples:
        assert serializers[name].serialize(eval(expression)).hex(" ") == written


def test_same_is_equal_and_of_the_same_types_all_the_way_down() -> None:
    alike: list[tuple[Any, Any]] = [
        (1, 1), (math.nan, math.nan), ([math.nan], [math.nan]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({1, 2}, {2, 1}),
        (frozenset({(1,)}), frozenset({(1,)})), ({(1,): [1.5]}, {(1,): [1.5]}), (Frozen(1), Frozen(1)),
    ]  # fmt: skip
    different: list[tuple[Any, Any]] = [
        (1, True), (1, 1.0), ([1], [True]), ([1], (1,)), ([1], [1, 2]), ({1: 1}, {1: True}), ({1: 1}, {True: 1}),
        ({1}, {True}), ({1}, {1, 2}), ({1}, frozenset({1})), ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 2}),
        ({(1,)}, {(True,)}), ({"a": 1}, collections.OrderedDict(a=1)), (Frozen(1), Frozen(2)), (math.nan, 1.0),
    ]  # fmt: skip
    assert [same(*pair) for pair in alike] == [True] * len(alike)
    assert [same(*pair) for pair in different] == [False] * len(different)


def test_what_messages_show_of_a_key_or_value_is_short_and_never_fails() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise ValueError("no")

    assert excerpt("anna") == "'anna'"
    assert excerpt(10**5_000) == "<an int of 16610 bits>"
    assert excerpt((10**5_000,)) == "(<an int of 16610 bits>,)"
    for thing in ("x" * 10_000, b"x" * 10_000, list(range(10_000)), Unshowable(), 10**3_000):
        assert len(excerpt(thing)) < 120


# --- The size of values ------------------------------------------------------------


@pytest.mark.parametrize("limit", [100, 5_000])
def test_a_value_may_be_as_large_as_the_table_says_and_not_larger(limit: int) -> None:
    partition = held(Table("clicks", max_value_bytes=limit, value_serializer=Bytes()))
    partition.set("anna", b"x" * limit)
    expected = rf"{limit + 1} bytes for key 'anna' is larger than the {limit} bytes .*'clicks'.* max_value_bytes"
    with pytest.raises(TableError, match=expected):
        partition.set("anna", b"x" * (limit + 1))
    assert partition.get("anna") == b"x" * limit


@pytest.mark.parametrize("limit", [3, 100, 4_095, 4_096, 5_000])
@pytest.mark.parametrize(
    "value",
    [1, "x", "x" * 90, "x" * 1_000, "é", [0] * 200, Decimal("1" * 900), b"x" * 6_000],
    ids=lambda value: f"{type(value).__name__} of {len(encode_value(value))}",
)
def test_a_value_that_was_taken_is_within_the_limit(limit: int, value: Any) -> None:
    partition = held(Table("clicks", max_value_bytes=limit))
    fits = len(encode_value(value)) <= limit
    try:
        partition.set("a", value)
    except TableError:
        assert not fits
    else:
        assert fits


# --- Data that cannot be read --------------------------------------------------------


def test_a_damaged_value_names_table_partition_and_key_however_it_is_read() -> None:
    partition = held(Table("clicks"))
    partition.store.write({encode_key("anna"): b"\x02future"}, 1, 0)
    snapshot = Snapshot(Table("clicks"), [partition])
    for read in (
        lambda: partition.get("anna"),
        lambda: partition.get_many(["anna"]),
        lambda: list(partition.items()),
        lambda: list(partition.values()),
        lambda: list(snapshot),
        lambda: snapshot.get("anna"),
    ):
        with pytest.raises(DeserializationError, match=r"Table 'clicks', partition 3, key 'anna': .* format 1"):
            read()


def test_a_damaged_key_names_table_and_partition() -> None:
    partition = held(Table("clicks"))
    partition.store.write({b"\x02future": encode_value(1)}, 1, 0)
    for read in (
        lambda: list(partition.items()),
        lambda: list(partition.keys()),
        lambda: list(Snapshot(Table("clicks"), [partition])),
    ):
        with pytest.raises(DeserializationError, match=r"Table 'clicks', partition 3, the key b'\\x02future': "):
            read()


def test_what_a_deserializer_raises_is_chained() -> None:
    partition = held(Table("clicks", value_serializer=Failing()))
    partition.store.write({encode_key("anna"): b"data"}, 1, 0)
    expected = r"'clicks', partition 3, key 'anna': .*Failing cannot read the 4 bytes b'data': ZeroDivisionError"
    for read in (lambda: partition.get("anna"), lambda: list(partition.items())):
        with pytest.raises(DeserializationError, match=expected) as caught:
            read()
        assert caught.value.__cause__ is not None
        assert caught.value.__cause__.__cause__ is Failing.error
    partition = held(Table("clicks", value_serializer=Json()))
    partition.store.write({encode_key("anna"): b"{"}, 1, 0)
    with pytest.raises(DeserializationError, match=r"key 'anna': .* is not JSON"):
        partition.get("anna")


# --- Changes -----------------------------------------------------------------------


def test_the_changes_of_a_layer_are_its_keys_with_what_they_stand_for_now() -> None:
    changes: list[Change] = []
    partition = held(Table("clicks", on_change=changes.append))
    put(partition, "stored")
    partition.set("a", 0)
    partition.set("b", [2])
    partition.set("a", 1)
    partition.delete("stored")
    partition.set("none", None)
    layer = partition.freeze()
    assert partition.on_change is not None
    for change in partition.changes(layer):
        partition.on_change(change)
    assert changes == [
        Change(3, "a", 1, deleted=False),
        Change(3, "b", [2], deleted=False),
        Change(3, "stored", None, deleted=True),
        Change(3, "none", None, deleted=False),
    ]


def test_without_on_change_there_are_no_changes_and_nothing_is_read() -> None:
    partition = held(Table("clicks", value_serializer=Failing()))
    assert partition.on_change is None
    assert list(partition.changes({b"no key": b"no value"})) == []


def test_an_on_change_that_cannot_be_called_here_is_refused() -> None:
    async def later(change: Change) -> None:
        raise AssertionError(change)

    given: Any = "print"
    for on_change in (later, given):
        with pytest.raises(ConfigurationError, match=r"'clicks': on_change is .* callable that is not async"):
            Table("clicks", on_change=on_change)


# --- Snapshots -----------------------------------------------------------------------


@pytest.fixture(params=["memory", "rocksdb"])
def partitions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[TablePartition]]:
    """Partitions 0 to 2 of table "clicks", which is attached to them; each has 10 entries in its store."""
    table = Table("clicks", default=0)
    found = []
    for number in range(3):
        task = Task(partition=number)
        partition = task.hold(table, open_store(request.param, tmp_path / str(number), table, number))
        partition.set_many((f"{key}", number) for key in range(10))
        partition.set(f"only in {number}", number)
        store_frozen(partition, partition.freeze())
        found.append(partition)
    yield found
    for partition in found:
        partition.store.close()


@pytest.fixture
def clicks(partitions: list[TablePartition]) -> Table:
    table = Table("clicks", default=0)
    table.attach(lambda: [(partition.partition, partition) for partition in partitions])
    return table


def overwrite(partition: TablePartition) -> None:
    partition.set_many((f"{key}", "changed") for key in range(0, 20, 3))
    partition.delete("1")
    store_frozen(partition, partition.freeze())


ENTRIES = [
    Entry(number, key, number)
    for number in range(3)
    for key in [*(f"{digit}" for digit in range(10)), f"only in {number}"]
]


def test_a_snapshot_gives_entries_in_the_order_of_partitions_and_keys(clicks: Table) -> None:
    snapshot = clicks.snapshot()
    assert list(snapshot) == ENTRIES
    assert list(snapshot) == ENTRIES, "as often as you like"
    assert [(entry.partition, entry.key, entry.value) for entry in snapshot] == [tuple(entry) for entry in ENTRIES]
    assert list(snapshot.items(reverse=True)) == ENTRIES[::-1]
    assert list(snapshot.items(prefix="only")) == [Entry(number, f"only in {number}", number) for number in range(3)]
    assert list(snapshot.items(start="3", stop="5")) == [Entry(n, key, n) for n in range(3) for key in "34"]
    assert list(snapshot.items(limit=12)) == ENTRIES[:12]
    assert list(snapshot.items(prefix="only", reverse=True, limit=1)) == [Entry(2, "only in 2", 2)]


def test_a_snapshot_looks_a_key_up_in_all_partitions_or_in_one(clicks: Table) -> None:
    snapshot = clicks.snapshot()
    assert snapshot.get("7") == 0
    assert snapshot.get("7", partition=2) == 2
    assert snapshot.get("only in 1") == 1
    assert snapshot.get("only in 1", "missing", partition=0) == "missing"
    assert snapshot.get("missing") == 0, "the table's default"
    assert snapshot.get("missing", None) is None
    assert snapshot.get("7", "missing", partition=9) == "missing"


def test_a_snapshot_has_nothing_that_is_not_checkpointed(clicks: Table, partitions: list[TablePartition]) -> None:
    partitions[0].set("new", 1)
    partitions[0].delete("1")
    partitions[0].freeze()
    partitions[0].set("newer", 1)
    assert list(clicks.snapshot()) == ENTRIES
    assert clicks.snapshot().get("new", None) is None


def test_a_snapshot_is_of_when_it_was_made(clicks: Table, partitions: list[TablePartition]) -> None:
    snapshot, begun = clicks.snapshot(), iter(clicks.snapshot())
    found = [next(begun) for _ in range(3)]
    for partition in partitions:
        overwrite(partition)
    partitions.pop()
    assert list(snapshot) == ENTRIES
    assert [*found, *begun] == ENTRIES
    assert snapshot.get("0") == 0
    assert snapshot.get("1") == 0
    assert snapshot.get("12", "missing") == "missing"
    assert list(snapshot.items(prefix="1")) == [Entry(number, "1", number) for number in range(3)]
    assert list(clicks.snapshot()) != ENTRIES


def test_a_snapshot_decodes_what_is_read_of_it_and_no_more(clicks: Table, partitions: list[TablePartition]) -> None:
    partitions[0].store.write({encode_key("5"): b"no value"}, 100, 0)
    entries = iter(clicks.snapshot())
    assert [next(entries).key for _ in range(5)] == ["0", "1", "2", "3", "4"]
    with pytest.raises(DeserializationError):
        next(entries)


def test_a_snapshot_that_was_closed_says_so(clicks: Table) -> None:
    with clicks.snapshot() as snapshot:
        begun = iter(snapshot)
        next(begun)
    snapshot.close()
    for read in (lambda: next(begun), lambda: snapshot.get("a"), lambda: list(snapshot), lambda: snapshot.items()):
        with pytest.raises(TableError, match="'clicks': this snapshot was closed"):
            read()


def test_a_snapshot_that_was_closed_lets_go_of_every_store() -> None:
    class Pinning(MemoryStore):
        pinned = 0

        def snapshot(self) -> Any:
            self.pinned += 1
            return self

        def close(self) -> None:
            self.pinned -= 1

    stores = [Pinning("clicks"), Pinning("clicks")]
    snapshot = Snapshot(Table("clicks"), [Task().hold(Table("clicks"), store) for store in stores])
    assert [store.pinned for store in stores] == [1, 1]
    snapshot.close()
    snapshot.close()
    assert [store.pinned for store in stores] == [0, 0]


def test_a_snapshot_ends_with_a_store(clicks: Table, partitions: list[TablePartition]) -> None:
    snapshot = clicks.snapshot()
    begun = iter(snapshot)
    next(begun)
    partitions[0].store.close()
    for read in (lambda: next(begun), lambda: snapshot.get("7"), lambda: list(snapshot)):
        with pytest.raises(TableError, match="'clicks'"):
            read()
    snapshot.close()


@pytest.mark.parametrize("limit", [-1, 1.5], ids=shown)
def test_a_snapshot_refuses_what_a_scan_refuses(clicks: Table, limit: Any) -> None:
    with pytest.raises(TableError, match=r"'clicks'.*limited to"):
        clicks.snapshot().items(limit=limit)
    with pytest.raises(TableError, match=r"'clicks'.* a prefix, or a start and a stop"):
        clicks.snapshot().items(prefix="a", start="b")


def test_a_table_without_an_engine_has_no_snapshot() -> None:
    with pytest.raises(TableError, match="'clicks' has no snapshot: no engine"):
        Table("clicks").snapshot()


# --- Stores ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "kind", "path"),
    [
        ("memory://", "memory", None),
        ("rocksdb://", "rocksdb", None),
        ("rocksdb:///var/lib/state", "rocksdb", Path("/var/lib/state")),
        ("rocksdb:///with space/ü", "rocksdb", Path("/with space/ü")),
    ],
)
def test_a_store_is_a_kind_and_a_directory_or_the_engines_own(store: str, kind: str, path: Path | None) -> None:
    table = Table("clicks", store)
    assert (table.store, table.store_kind, table.store_path) == (store, kind, path)


@pytest.mark.parametrize(
    "store",
    ["", "memory", "memory:///", "memory://x", "rocksdb", "rocksdb:///", "rocksdb:////", "rocksdb://x", None, 7],
)
def test_any_other_store_is_refused_with_what_there_is(store: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'clicks': the store .*'memory://'.*'rocksdb://'.*'rocksdb:///absolute"
    ):
        Table("clicks", store)


def test_a_table_that_is_used_before_its_store_is_open_says_so() -> None:
    partition = TablePartition(Table("clicks"), 3, [], 1_000_000)
    uses = (
        lambda: partition.get("a"),
        lambda: partition.get_many(["a"]),
        lambda: "a" in partition,
        lambda: partition.items(),
        lambda: partition.store.changelog_offset,
        lambda: Snapshot(Table("clicks"), [partition]),
    )
    for use in uses:
        with pytest.raises(TableError, match="table 'clicks' in partition 3 is not open yet"):
            use()
