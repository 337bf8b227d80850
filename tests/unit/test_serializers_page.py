"""docs/serializers.md does what it says: its Python blocks about types and topics run, one after another."""

import re
from pathlib import Path
from typing import Any

import pytest

from paperboy import Engine
from paperboy.testing import EngineTest

PAGE = (Path(__file__).parents[2] / "docs" / "serializers.md").read_text()
SECTION = re.compile(r"^## (?P<name>.+?)\n(?P<text>.*?)(?=^## |\Z)", re.M | re.S)
FENCE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(*sections: str) -> list[str]:
    texts = {section["name"]: section["text"] for section in SECTION.finditer(PAGE)}
    return [found["code"] for name in sections for found in FENCE.finditer(texts[name])]


@pytest.fixture
def page() -> dict[str, Any]:
    """What the blocks have made."""
    names: dict[str, Any] = {"__name__": "serializers_page"}
    codes = blocks("Types", "Topics")
    assert len(codes) == 4
    for code in codes:
        exec(compile(code, "docs/serializers.md", "exec"), names)
    return names


async def test_the_engine_of_the_page_does_what_it_is_made_for(page: dict[str, Any]) -> None:
    engine: Engine = page["engine"]
    async with EngineTest(engine) as t:
        await t.send(page["orders"], page["Order"]("o-1", 3.6), key="anna")
        await t.settle()
        assert [(record.key, record.value) for record in t.sent(page["amounts"])] == [("anna", 4)]
