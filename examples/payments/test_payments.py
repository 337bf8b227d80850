"""Tests of the transfers job, as they stand beside any job: ``pytest examples``. No broker, no waiting."""

import random

from examples.payments.job import clearing, encoded, topics, transfers_job
from paperboy.testing import EngineTest

PARTITIONS = 3
ACCOUNTS = [f"account-{number}" for number in range(9)]
PAID_IN = 100_00


async def pay_in(t: EngineTest) -> None:
    for account in ACCOUNTS:
        await t.send("bank-deposits", encoded({"id": f"opening of {account}", "amount": PAID_IN}), key=account)


def sums(t: EngineTest) -> list[int]:
    return [sum(t.table("balances", partition=number).values()) for number in range(PARTITIONS)]


def total(t: EngineTest) -> int:
    balances = t.table("balances")
    return sum(balances.get(account, 0) for account in ACCOUNTS)


def job(engine_test: type[EngineTest]) -> EngineTest:
    engine, _ = transfers_job("kafka.example:9092")
    return engine_test(engine, partitions=PARTITIONS, topics=dict.fromkeys(topics("bank"), PARTITIONS))


async def test_what_one_account_pays_another_is_paid(engine_test: type[EngineTest]) -> None:
    async with job(engine_test) as t:
        await pay_in(t)
        await t.send("bank-transfers", encoded({"id": "1", "to": "account-1", "amount": 30_00}), key="account-0")
        await t.settle()
        assert t.table("balances")["account-0"] == 70_00
        assert t.table("balances")["account-1"] == 130_00


async def test_who_has_not_enough_pays_nothing(engine_test: type[EngineTest]) -> None:
    async with job(engine_test) as t:
        await pay_in(t)
        await t.send("bank-transfers", encoded({"id": "1", "to": "account-1", "amount": 100_01}), key="account-0")
        await t.settle()
        assert t.table("balances")["account-0"] == PAID_IN
        assert len(t.sent("bank-refused")) == 1


async def test_through_crashes_and_rebalances_the_books_balance_at_every_moment(engine_test: type[EngineTest]) -> None:
    chance = random.Random(7)
    async with job(engine_test) as t:
        await pay_in(t)
        await t.settle()
        for number in range(200):
            payer, payee = chance.sample(ACCOUNTS, 2)
            transfer = {"id": str(number), "to": payee, "amount": chance.randrange(1, 50_00)}
            await t.send("bank-transfers", encoded(transfer), key=payer)
            if number % 20 == 0:
                await t.advance("70ms")
                assert sums(t) == [0] * PARTITIONS
                assert total(t) <= len(ACCOUNTS) * PAID_IN, "the rest is on its way"
            if number % 50 == 49:
                await t.crash()
                await t.restart()
            if number % 50 == 25:
                await t.rebalance(workers=1 + number // 50 % 2)
        await t.settle()
        assert sums(t) == [0] * PARTITIONS
        assert total(t) == len(ACCOUNTS) * PAID_IN
        statements = t.sent("bank-statements")
        moved = [(statement.key, statement.value) for statement in statements]
        assert len(moved) == len(set(moved)) == len(ACCOUNTS) + 2 * (200 - len(t.sent("bank-refused")))
        assert clearing(0) in t.table("balances")
