"""The blocks of README.md that name a Kafka run on one as printed, but for its address."""

import asyncio
import uuid
from pathlib import Path

import pytest

from tests.programs.readme import PRINTED_ADDRESS, PYTHON_BLOCKS, Block, provide, run, with_own_names


@pytest.mark.parametrize("block", [block for block in PYTHON_BLOCKS if block.needs_kafka], ids=str)
def test_a_block_does_what_the_readme_says_on_a_real_kafka(block: Block, kafka_bootstrap: str, tmp_path: Path) -> None:
    own = uuid.uuid4().hex[:8]
    asyncio.run(provide(block, kafka_bootstrap, own))
    run(block, with_own_names(block, own).replace(PRINTED_ADDRESS, kafka_bootstrap), tmp_path)
