"""The payments example on each broker."""

import pytest

from examples.payments import demo
from tests.contract.engine.kit import Kit


@pytest.mark.time_limit(120)
async def test_money_is_neither_lost_nor_made(kit: Kit) -> None:
    result = await demo.main(kit.bootstrap, transfers=300)
    assert result.total == len(demo.ACCOUNTS) * demo.PAID_IN
    assert result.sums == dict.fromkeys(range(demo.PARTITIONS), 0)
