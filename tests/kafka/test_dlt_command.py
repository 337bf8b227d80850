"""``paperboy dlt`` on a real Kafka: a replay that is killed, and run again."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from paperboy.brokers.protocol import TopicPartition
from paperboy.clock import random_id
from tests.contract.engine.dead_letters import Desk, administration, new_desk, write
from tests.contract.engine.kit import Kit
from tests.contract.engine.test_cli_dlt import values

ROOT = Path(__file__).parents[2]
LETTERS = 4000
KILLS = 4

APP = """
from paperboy import DeadLetter, Engine, Handler

class Charge(Handler):
    topic = "{topic}"
    dead_letter = DeadLetter()

engine = Engine(Charge, bootstrap_servers="{bootstrap}", group_id="{group}")
"""

SLOWLY = """
import asyncio, sys
from paperboy.cli import replay
from paperboy.cli.main import main

send, replay._CHUNK_LETTERS = replay._send, 100

async def send_and_say(*arguments):
    await send(*arguments)
    print("chunk", flush=True)

replay._send = send_and_say
sys.exit(main())
"""
"""The command as it is, in chunks that are small enough to be killed between, which says when one is committed."""


@pytest.fixture
def kit(kafka_bootstrap: str) -> Kit:
    return Kit(kafka_bootstrap, random_id()[:12])


async def command(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SLOWLY,
        "dlt",
        *arguments,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def killed_after(chunks: int, process: asyncio.subprocess.Process) -> bool:
    """Kill it once so many chunks are committed, and the next one is under way. Returns whether it had not ended."""
    assert process.stdout is not None
    seen = 0
    while seen < chunks and (line := await process.stdout.readline()):
        seen += line == b"chunk\n"
    if process.returncode is None:
        process.kill()
    await process.communicate()
    return process.returncode == -9


@pytest.mark.time_limit(300)
async def test_a_replay_that_is_killed_again_and_again_ends_with_each_letter_sent_once_and_in_order(
    kit: Kit, tmp_path: Path
) -> None:
    desk: Desk = await new_desk(kit, partitions=2)
    await desk.make_topics()
    for partition in range(2):
        letters = [desk.letter(b"%d" % number, partition, number) for number in range(LETTERS // 2)]
        await write(kit, TopicPartition(desk.dead, partition), letters)
    (tmp_path / "app.py").write_text(APP.format(topic=desk.topic, bootstrap=kit.bootstrap, group=kit.group))
    replay = ("replay", "app:engine", desk.dead, "--yes")
    killed = 0
    for round_ in range(KILLS):
        killed += await killed_after(3 + 2 * round_, await command(tmp_path, *replay))
    assert killed == KILLS
    process = await command(tmp_path, *replay)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"replayed, all committed" in out
    left = out.count(b"chunk\n") * 100
    assert 0 < left < LETTERS
    async with administration(kit) as broker:
        await desk.until_visible(broker)
    found = values(await kit.read(desk.retry))
    assert found == [b"%d" % number for number in range(LETTERS // 2)] * 2
