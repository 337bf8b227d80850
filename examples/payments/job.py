"""Accounts and transfers, exactly once: books that balance at every moment.

A transfer takes from one account and gives to another. The two may stand in different partitions, with different
workers, and no transaction of Kafka's spans two tasks. So it takes two steps, with a message between them, and in
between the money is in neither account. Exactly once makes each step whole: the table, the message and the position in
the input become visible together or not at all.

The books balance all the same, in each partition and at every moment, by what bookkeepers have always done: every
movement is booked twice, on the account and, the other way round, on the partition's clearing account. So each
partition sums to zero in every committed state. What the clearing accounts of all partitions owe is what was paid in,
less what is on its way; once all is handled, the customers have together exactly what was paid in.
"""

import json
from collections.abc import Sequence
from typing import Any

from paperboy import Context, Engine, Handler, Table
from paperboy.handlers.handler import Message


class Books:
    """The table, and how anything is booked in it. Amounts are whole cents."""

    def __init__(self) -> None:
        self.balances = Table("balances", store="rocksdb://", default=0)

    def book(self, partition: int, account: str, amount: int) -> int:
        """Returns the account's new balance."""
        self.balances[clearing(partition)] -= amount
        self.balances[account] += amount
        balance: int = self.balances[account]
        return balance


def clearing(partition: int) -> str:
    """The account on which a partition books the other side of every movement."""
    return f"clearing-{partition}"


class Booking(Handler):
    """A step: what it books, it says in a statement."""

    key_serializer = bytes.decode
    value_serializer = json.loads

    def __init__(self, books: Books, prefix: str) -> None:
        self.books = books
        self.prefix = prefix

    async def move(self, msg: Message, ctx: Context, transfer: str, amount: int) -> None:
        balance = self.books.book(msg.partition, msg.key, amount)
        statement = {"transfer": transfer, "account": msg.key, "amount": amount, "balance": balance}
        await ctx.send(f"{self.prefix}-statements", encoded(statement), key=msg.key.encode())


class Deposits(Booking):
    """Money that comes from outside: keyed by account, ``{"id": …, "amount": …}``."""

    def __init__(self, books: Books, prefix: str) -> None:
        super().__init__(books, prefix)
        self.topic = f"{prefix}-deposits"

    async def on_message(self, msg: Message, ctx: Context) -> None:  # type: ignore[override]
        await self.move(msg, ctx, msg.value["id"], msg.value["amount"])


class Transfers(Booking):
    """The first step: keyed by who pays, ``{"id": …, "to": …, "amount": …}``."""

    def __init__(self, books: Books, prefix: str) -> None:
        super().__init__(books, prefix)
        self.topic = f"{prefix}-transfers"

    async def on_message(self, msg: Message, ctx: Context) -> None:  # type: ignore[override]
        transfer, amount = msg.value, msg.value["amount"]
        if self.books.balances[msg.key] < amount:
            await ctx.send(f"{self.prefix}-refused", encoded(transfer), key=msg.key.encode())
            return
        await self.move(msg, ctx, transfer["id"], -amount)
        credit = {"id": transfer["id"], "amount": amount}
        await ctx.send(f"{self.prefix}-credits", encoded(credit), key=transfer["to"].encode())


class Credits(Booking):
    """The second step: keyed by who is paid."""

    def __init__(self, books: Books, prefix: str) -> None:
        super().__init__(books, prefix)
        self.topic = f"{prefix}-credits"

    async def on_message(self, msg: Message, ctx: Context) -> None:  # type: ignore[override]
        await self.move(msg, ctx, msg.value["id"], msg.value["amount"])


def transfers_job(bootstrap_servers: str, prefix: str = "bank", **options: Any) -> tuple[Engine, Books]:
    """The engine, and its books.

    Args:
        prefix: of topics and group.
        options: further ones of the engine.
    """
    books = Books()
    handlers = [kind(books, prefix) for kind in (Deposits, Transfers, Credits)]
    return transfers_engine(books, handlers, bootstrap_servers=bootstrap_servers, group_id=prefix, **options), books


def transfers_engine(books: Books, handlers: Sequence[Booking], **options: Any) -> Engine:
    engine = Engine(*handlers, processing_guarantee="exactly_once", **options)
    engine.register_table(books.balances)
    return engine


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def topics(prefix: str) -> list[str]:
    """All that the job reads and writes. Those it reads share a table, and need one partition count."""
    return [f"{prefix}-{name}" for name in ("deposits", "transfers", "credits", "statements", "refused")]
