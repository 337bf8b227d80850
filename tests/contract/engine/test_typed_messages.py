"""Messages and tables with types, from the input topic to the changelog and back."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from paperboy import (
    ConfigurationError,
    DeadLetter,
    DeserializationError,
    GlobalTable,
    Handler,
    Retry,
    SerializationError,
    Table,
)
from paperboy.serializers import Json, MessagePack, String
from tests.contract.engine.kit import Kit


@dataclass
class Order:
    id: str
    amount: float


class Total(msgspec.Struct):
    orders: int = 0
    amount: float = 0.0


class TotalWithCurrency(msgspec.Struct):
    currency: str
    orders: int = 0
    amount: float = 0.0


class TotalWithNote(msgspec.Struct):
    orders: int = 0
    amount: float = 0.0
    note: str | None = None


def summing(source: str, totals: Table) -> type[Handler[Order]]:
    class Summing(Handler[Order]):
        topic = source
        key_type = str

        @classmethod
        async def on_message(cls, msg, ctx):
            total = totals.get(msg.key)
            totals[msg.key] = type(total)(orders=total.orders + 1, amount=total.amount + msg.value.amount)

    return Summing


async def run(kit: Kit, handler: Any, table: Table, **options: Any) -> dict[Any, Any]:
    """Handle what there is; what the table holds then."""
    engine = kit.engine(handler, **options)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        return {key: value for _, key, value in table.snapshot()}


@pytest.mark.parametrize("store", ["memory://", "rocksdb://"])
@pytest.mark.parametrize("serializer", [None, MessagePack()], ids=["json", "message pack"])
async def test_typed_messages_are_summed_in_a_typed_table_that_is_restored(
    kit: Kit, store: str, serializer: Any, tmp_path: Any
) -> None:
    source = await kit.topic("orders")

    def totals() -> Table:
        return Table("totals", store, key_type=str, value_type=Total, value_serializer=serializer, default=Total)

    order = b'{"id":"o-1","amount":2.5}'
    await kit.send(source, [(b"anna", order), (b"anna", order), (b"bert", order)])
    table = totals()
    assert await run(kit, summing(source, table), table, state_dir=tmp_path) == {
        "anna": Total(2, 5.0),
        "bert": Total(1, 2.5),
    }
    await kit.send(source, [(b"bert", order)])
    table = totals()
    assert (await run(kit, summing(source, table), table, state_dir=tmp_path))["bert"] == Total(2, 5.0)
    changelog = {record.key: record.value for record in await kit.read(f"{kit.group}-totals-changelog")}
    written = (serializer or Json()).deserialize(changelog[b"anna"])
    assert written == {"orders": 2, "amount": 5.0}


async def test_a_message_that_is_not_of_the_type_is_a_failed_message(kit: Kit) -> None:
    source = await kit.topic("orders")
    good, bad = b'{"id":"o-1","amount":2.5}', b'{"id":"o-2","amount":"much"}'
    await kit.send_values(source, good, bad, good)
    asked: list[tuple[int, Exception]] = []
    handled: list[Order] = []

    class Orders(Handler[Order]):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            handled.append(msg.value)

        @classmethod
        async def on_error(cls, e, msg, ctx):
            asked.append((msg.offset, e))

    async with kit.engine(Orders) as engine:
        await engine.caught_up()
    assert handled == [Order("o-1", 2.5)] * 2
    [(offset, error)] = asked
    assert offset == 1
    assert isinstance(error, DeserializationError)
    where = f"The value of {source}[0] offset 1 could not be decoded by Orders.value_type: "
    assert str(error).startswith(where)
    assert "`$.amount`" in str(error)

    class Strict(Orders):
        @classmethod
        async def on_error(cls, e, msg, ctx):
            return e

    with pytest.raises(DeserializationError, match=r"offset 1 could not be decoded by Strict\.value_type"):
        async with kit.engine(Strict, group_id=f"{kit.group}-2") as engine:
            await engine.caught_up()


async def test_a_message_that_is_not_of_the_type_is_not_handled_again_but_put_with_the_dead_letters(kit: Kit) -> None:
    source = await kit.topic("orders")
    bad = b'{"id":"o-2","amount":"much"}'
    await kit.send_values(source, bad)

    class Orders(Handler[Order]):
        topic = source
        retry = Retry(attempts=5)
        dead_letter = DeadLetter()

    async with kit.engine(Orders) as engine:
        await engine.caught_up()
        assert (engine.status().dead_lettered, engine.status().retried) == (1, 0)
    [letter] = await kit.read(f"{source}-dlt")
    assert letter.value == bad
    assert any(b"$.amount" in (data or b"") for _, data in letter.headers)


async def test_a_typed_table_refuses_what_its_type_does_not_allow(kit: Kit) -> None:
    source = await kit.topic("orders")
    await kit.send_values(source, b"x")
    totals = Table("totals", value_type=Total)
    refused: list[str] = []

    class Wrong(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            for value in (Total(orders="many"), {"orders": 1}, Total(amount=1)):  # type: ignore[arg-type]
                with pytest.raises(SerializationError, match=r"'totals', partition 0, key 'k'") as caught:
                    totals["k"] = value
                refused.append(str(caught.value))

    assert await run(kit, Wrong, totals) == {}
    assert len(refused) == 3
    assert "`$.orders`" in refused[0]
    assert "would come back from JSON as Total(orders=1, amount=0.0)" in refused[1]


async def changelog_of_totals(kit: Kit) -> str:
    """A changelog in which something is, and the topic that it came from."""
    source = await kit.topic("orders", partitions=2)
    await kit.send(source, [(b"anna", b'{"id":"o-1","amount":2.5}')], partition=1)
    table = Table("totals", key_type=str, value_type=Total, default=Total)
    await run(kit, summing(source, table), table)
    return source


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key_type": str, "value_type": TotalWithCurrency}, r"the value b'.*currency.*a new field needs a default"),
        ({"key_type": str, "value_type": Total, "value_serializer": MessagePack()}, r"the value b'.*MessagePack"),
        ({"key_serializer": Json(), "value_type": Total}, r"the key b'anna'.*JSON"),
    ],
    ids=["a field that is needed", "another serializer", "other keys"],
)
async def test_a_table_that_cannot_read_its_changelog_any_more_stops_the_start(
    kit: Kit, changed: Any, said: str
) -> None:
    source = await changelog_of_totals(kit)
    table = Table("totals", default=Total, **changed)
    changelog = f"{kit.group}-totals-changelog"
    with pytest.raises(
        ConfigurationError, match=rf"'totals' cannot read what is in its changelog: {said}.*paperboy reset"
    ) as caught:
        await run(kit, summing(source, table), table)
    assert f"of {changelog}[1] offset 0:" in str(caught.value)


async def test_a_type_that_reads_what_was_written_before_goes_on(kit: Kit) -> None:
    source = await changelog_of_totals(kit)
    table = Table("totals", key_type=str, value_type=TotalWithNote, default=TotalWithNote)
    assert await run(kit, summing(source, table), table) == {"anna": TotalWithNote(1, 2.5)}


async def test_a_global_table_has_types(kit: Kit) -> None:
    source = await kit.topic("in")
    topic = await kit.topic("totals", cleanup_policy="compact")
    await kit.send(topic, [(b"anna", b'{"orders":2}'), (b"bert", b'{"orders":"2"}')])
    table = GlobalTable("totals", topic, key_type=str, value_type=Total)

    class Nothing(Handler):
        topic = source

    engine = kit.engine(Nothing)
    engine.register_table(table)
    async with engine:
        await engine.caught_up()
        assert table["anna"] == Total(2, 0.0)
        with pytest.raises(DeserializationError, match=r"key 'bert'.*orders"):
            table.get("bert")


def test_keys_of_a_type_are_the_same_bytes_whatever_their_order() -> None:
    table = Table("visits", key_type=dict[str, int])
    assert table.codec.encode_key({"a": 1, "b": 2}) == table.codec.encode_key({"b": 2, "a": 1})


def test_what_is_no_type_names_the_table() -> None:
    with pytest.raises(ConfigurationError, match="Table 'totals': value_type: object is no type that messages"):
        Table("totals", value_type=object)
    with pytest.raises(ConfigurationError, match=r"Table 'totals': key_type: Strange is no type"):
        Table("totals", key_type=type("Strange", (), {}), key_serializer=String())


def test_a_type_changes_nothing_in_a_table_s_definition() -> None:
    """The bytes are its serializer's, and whether they can be read is looked at in the changelog."""
    assert Table("t", value_type=Total).definition == Table("t", value_serializer=Json()).definition
    assert Table("t", value_type=Total, value_serializer=Plain()).definition == (
        Table("t", value_serializer=Plain()).definition
    )


class Plain:
    def serialize(self, value: Any, /) -> bytes:
        return Json().serialize(value)

    def deserialize(self, data: bytes, /) -> Any:
        return Json().deserialize(data)
