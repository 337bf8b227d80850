"""Tests of page_views.py, as they stand beside any job: ``pytest examples``."""

from examples.page_views import page_views
from paperboy.testing import EngineTest


async def test_views_are_counted_by_page(engine_test: type[EngineTest]) -> None:
    async with engine_test(page_views("localhost:9092")) as t:
        for page in ("home", "docs", "home"):
            await t.send("page-views", "viewed", key=page)
        await t.settle()
        assert t.table("views") == {"home": 2, "docs": 1}


async def test_a_page_that_is_gone_is_forgotten_through_a_restart(engine_test: type[EngineTest]) -> None:
    async with engine_test(page_views("localhost:9092")) as t:
        await t.send("page-views", "viewed", key="old")
        await t.send("page-views", None, key="old")
        await t.settle()
        await t.restart()
        assert "old" not in t.table("views")
