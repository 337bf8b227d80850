"""The example with Avro, on the embedded broker with an embedded registry, and on a real Kafka with a real one."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from examples.orders_avro import demo
from paperboy.serializers import Avro, SchemaRegistry
from tests.contract.engine.kit import Kit


async def test_orders_are_added_up(kit: Kit, request: pytest.FixtureRequest) -> None:
    is_memory = kit.bootstrap.startswith("memory:")
    url = f"memory://{kit.unique}" if is_memory else request.getfixturevalue("registry_url")
    assert await demo.main(kit.bootstrap, url, kit.unique) == {
        "anna": {"orders": 2, "spent": Decimal("27.50"), "currency": "EUR"},
        "bert": {"orders": 1, "spent": Decimal("150.00"), "currency": "EUR"},
        "carla": {"orders": 1, "spent": Decimal("99.99"), "currency": "CHF"},
    }
    (large,) = await kit.read(f"{kit.unique}-large-orders")
    registry = SchemaRegistry(url)
    await registry.versions(f"{kit.unique}-large-orders-value")
    assert Avro(registry).deserialize(large.value)["customer"] == "bert"


def test_the_program_runs_as_its_first_lines_say() -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "examples.orders_avro.demo"]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines() == [
        "anna: 2 orders, 27.50 EUR",
        "bert: 1 orders, 150.00 EUR",
        "carla: 1 orders, 99.99 CHF",
    ]
