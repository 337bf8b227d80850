"""Tests of charges.py: what becomes of orders when the service is away for a moment, for long, or refuses."""

import json
from collections.abc import Iterator

import pytest

from examples.charges import charges, service
from paperboy.testing import EngineTest


@pytest.fixture(autouse=True)
def _back_again() -> Iterator[None]:
    yield
    service.away = 0


def order(customer: str, amount: float) -> bytes:
    return json.dumps({"customer": customer, "amount": amount}).encode()


async def test_a_service_that_is_away_for_a_moment_costs_no_order(engine_test: type[EngineTest]) -> None:
    service.away = 2
    async with engine_test(charges("localhost:9092")) as t:
        await t.send("orders", order("anna", 7.5), key="1")
        await t.settle("10s")
        assert t.table("charged") == {"1": 7.5}
        assert t.dead_letters("orders") == []


async def test_a_service_that_stays_away_is_waited_for_and_costs_none_either(engine_test: type[EngineTest]) -> None:
    service.away = 12
    async with engine_test(charges("localhost:9092")) as t:
        for number in range(3):
            await t.send("orders", order("anna", 7.5), key=str(number))
        await t.settle("10m")
        assert t.table("charged") == {"0": 7.5, "1": 7.5, "2": 7.5}
        assert t.dead_letters("orders") == []


async def test_what_is_refused_becomes_a_dead_letter_and_the_next_order_is_charged(
    engine_test: type[EngineTest],
) -> None:
    service.away = 0
    async with engine_test(charges("localhost:9092")) as t:
        await t.send("orders", order("eve", 3.0), key="2")
        await t.send("orders", order("bert", 0.0), key="3")
        await t.send("orders", order("bert", 1.5), key="4")
        await t.settle()
        assert t.table("charged") == {"4": 1.5}
        (letter,) = t.dead_letters("orders")
        assert letter.value == order("eve", 3.0)
        assert dict(letter.headers)["paperboy.error.class"] == b"LookupError"
