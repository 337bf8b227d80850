"""Orders in, customers' totals in a table, large orders out: all of it in Avro, in schemas of a registry."""

from decimal import Decimal

from examples.orders_avro.schemas import CUSTOMER, ORDER_WITH_CURRENCY
from paperboy import Context, Engine, Handler, Table
from paperboy.handlers.handler import Message
from paperboy.serializers import Avro, SchemaRegistry, String

LARGE = Decimal("100.00")


class Orders(Handler):
    """Takes its table and its serializer from outside, so that one process, or test, can have several."""

    key_serializer = bytes.decode

    def __init__(self, topic: str, large: str, orders: Avro, customers: Table) -> None:
        self.topic = topic
        self.value_serializer = orders
        self.large = large
        self.orders = orders
        self.customers = customers

    async def on_message(self, msg: Message, ctx: Context) -> None:  # type: ignore[override]
        order = msg.value  # as ORDER_WITH_CURRENCY says, whichever schema it was written in
        customer = self.customers.get(order["customer"])
        if customer is None:
            customer = {"orders": 0, "spent": Decimal("0.00"), "currency": order["currency"]}
        customer["orders"] += 1
        customer["spent"] += order["amount"]
        await self.customers.set(order["customer"], customer)
        if order["amount"] >= LARGE:
            await ctx.send(self.large, order, key=order["customer"].encode(), serializer=self.orders)


def orders_job(bootstrap_servers: str, registry: SchemaRegistry, prefix: str = "shop") -> tuple[Engine, Table]:
    """The engine, and its table.

    Args:
        prefix: of topics and group.
    """
    orders = Avro(registry, ORDER_WITH_CURRENCY)
    customers = Table("customers", key_serializer=String(), value_serializer=Avro(registry, CUSTOMER))
    handler = Orders(f"{prefix}-orders", f"{prefix}-large-orders", orders, customers)
    engine = Engine(handler, bootstrap_servers=bootstrap_servers, group_id=f"{prefix}-orders")
    engine.register_table(customers)
    return engine, customers
