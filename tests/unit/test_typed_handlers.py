"""Handlers whose keys and values are decoded by serializers and types."""

import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import pydantic
import pytest

from paperboy import BulkHandler, ConfigurationError, DeserializationError, Handler
from paperboy.brokers.protocol import ConsumerRecord, Record
from paperboy.handlers.decoding import Decoding
from paperboy.serializers import Integer, Json, MessagePack, String


@dataclass
class Order:
    id: str
    amount: int


class Click(msgspec.Struct):
    page: str


class Visit(pydantic.BaseModel):
    user: str


def decoded(handler: type[Handler[Any]] | Handler[Any], value: bytes | None, key: bytes | None = None) -> Record:
    record: Record = ConsumerRecord("orders", 2, 7, 0, 0, key, value, None, 1, 1, ())
    Decoding(handler).decode(record)
    return record


def handler(**attributes: Any) -> type[Handler[Any]]:
    return type("Orders", (Handler,), {"topic": "orders", **attributes})


ORDER = b'{"id":"o-1","amount":3}'


# --- Serializers -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["serializer", "deserializer"])
def test_a_serializer_object_decodes_by_its_deserialize(name: str) -> None:
    kind = handler(**{f"key_{name}": Integer(), f"value_{name}": Json(Order)})
    for each in (kind, kind()):
        record = decoded(each, ORDER, b"\0\0\0\7")
        assert (record.key, record.value) == (7, Order("o-1", 3))


def test_it_may_be_able_to_read_only() -> None:
    class Reader:
        def deserialize(self, data: bytes, /) -> str:
            return data.decode()

    assert decoded(handler(value_serializer=Reader()), b"anna").value == "anna"


def test_a_class_in_place_of_a_serializer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Orders\.value_serializer is the class Json: give an instance, Json"):
        Decoding(handler(value_serializer=Json))


# --- Types -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (Order, ORDER, Order("o-1", 3)),
        (Click, b'{"page":"p"}', Click("p")),
        (Visit, b'{"user":"anna"}', Visit(user="anna")),
        (list[Order], b"[" + ORDER + b"]", [Order("o-1", 3)]),
        (dict[str, int], b'{"a":1}', {"a": 1}),
        (int, b"7", 7),
        (str, b"anna", "anna"),
        (bytes, b"{", b"{"),
    ],
    ids=str,
)
def test_values_and_keys_become_objects_of_their_type(kind: Any, data: bytes, value: object) -> None:
    record = decoded(handler(value_type=kind, key_type=kind), data, data)
    assert (record.key, record.value) == (value, value)
    assert decoded(handler(value_type=kind), None).value is None


class Plain:
    """A serializer that knows nothing of types."""

    def serialize(self, value: Any, /) -> bytes:
        return repr(value).encode()

    def deserialize(self, data: bytes, /) -> Any:
        return json.loads(data)


@pytest.mark.parametrize(
    ("serializer", "data"),
    [
        (Json(), ORDER),
        (MessagePack(), MessagePack().serialize({"id": "o-1", "amount": 3})),
        (Plain(), ORDER),
        (json.loads, ORDER),
    ],
    ids=["Json", "MessagePack", "an object", "a callable"],
)
def test_a_type_and_a_serializer_go_together(serializer: Any, data: bytes) -> None:
    assert decoded(handler(value_type=Order, value_serializer=serializer), data).value == Order("o-1", 3)
    with pytest.raises(DeserializationError, match=r"orders\[2\] offset 7.*Order.*|.*amount"):
        decoded(handler(value_type=Order, value_serializer=serializer), data.replace(b"id", b"ix"))


def test_what_is_not_of_the_type_names_the_record_and_what_is_wrong() -> None:
    with pytest.raises(DeserializationError) as caught:
        decoded(handler(value_type=Order), b'{"id":"o-1","amount":"many"}')
    assert str(caught.value) == (
        "The value of orders[2] offset 7 could not be decoded by Orders.value_type:"
        """ b'{"id":"o-1","amount":"many"}' is not Order in JSON: Expected `int`, got `str` - at `$.amount`."""
    )


def test_a_type_that_is_none_is_refused() -> None:
    class Stranger:
        pass

    with pytest.raises(ConfigurationError, match=r"Orders\.value_type: Stranger is no type that messages can have"):
        Decoding(handler(value_type=Stranger))
    with pytest.raises(ConfigurationError, match=r"Orders\.key_type: Stranger is no type"):
        Decoding(handler(key_type=Stranger, key_serializer=String()))


# --- Handler[Order] --------------------------------------------------------------------


T = TypeVar("T")


class Base(Handler[T], Generic[T]):
    topic = "orders"


class OfOrders(Handler[Order]):
    topic = "orders"


class InBulk(BulkHandler[Order]):
    topic = "orders"


class OfBase(Base[Order]):
    pass


class Inherits(OfOrders):
    pass


@pytest.mark.parametrize("kind", [OfOrders, InBulk, OfBase, Inherits])
def test_a_handler_of_a_model_needs_no_value_type(kind: type[Handler[Order]]) -> None:
    for each in (kind, kind()):
        assert decoded(each, ORDER, b"k").value == Order("o-1", 3)
        assert decoded(each, ORDER, b"k").key == b"k"


def test_a_handler_of_a_model_with_a_serializer_leaves_it_to_that() -> None:
    class Orders(Handler[Order]):
        topic = "orders"

        @staticmethod
        def value_serializer(data: bytes) -> Order:
            return Order(data.decode(), 0)

    assert decoded(Orders, b"o-2").value == Order("o-2", 0)


class OfBytes(Handler[bytes]):
    topic = "orders"


class OfAnything(Handler[dict[str, Any]]):
    topic = "orders"


class OfNothing(Base[T]):
    pass


@pytest.mark.parametrize("kind", [OfBytes, OfAnything, OfNothing, Base])
def test_a_handler_of_something_else_is_decoded_as_it_says(kind: type[Handler[Any]]) -> None:
    assert not Decoding(kind).is_needed


def test_two_types_for_one_handler_are_refused() -> None:
    class Orders(Handler[Order]):
        topic = "orders"
        value_type = Click

    with pytest.raises(ConfigurationError, match=r"Orders is a Handler\[Order\], but its values are made into Click"):
        Decoding(Orders)


def test_the_name_of_a_class_in_place_of_it_is_refused() -> None:
    class Orders(Handler["Order"]):
        topic = "orders"

    with pytest.raises(ConfigurationError, match=r"Orders is a Handler\['Order'\]: name the class itself"):
        Decoding(Orders)
