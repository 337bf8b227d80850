"""The job that chaos kills: counts records by key, and keeps each key's last value.

    python -m tests.chaos.job BOOTSTRAP TOPIC GROUP STATE_DIR NOTES [--slowly] [--to-the-end]

It writes into the file NOTES, for each partition, how far it has handled: a mapped file keeps that however the process
ends. With --to-the-end it stops there, and prints its tables as JSON. With --slowly it pauses often, so that its input
lasts for many kills.
"""

import asyncio
import json
import mmap
import struct
import sys
from pathlib import Path

from paperboy import Engine, Handler, Table

PARTITIONS = 4
NEXT = struct.Struct("<q")
"""The offset after the last record handled, one for each partition."""


def make_notes(path: Path) -> None:
    path.write_bytes(bytes(NEXT.size * PARTITIONS))


def read_notes(path: Path) -> list[int]:
    return [position for (position,) in NEXT.iter_unpack(path.read_bytes())]


def main(bootstrap: str, topic: str, group: str, state_dir: str, notes: str, *options: str) -> None:
    counts = Table("counts", store="rocksdb://")
    last = Table("last", store="rocksdb://")
    is_slow = "--slowly" in options
    with open(notes, "r+b") as file:
        noted = mmap.mmap(file.fileno(), 0)

    class Counting(Handler):
        @classmethod
        async def on_message(cls, msg, ctx):
            counts[msg.key] = counts.get(msg.key, 0) + 1
            last[msg.key] = msg.value
            if is_slow and msg.offset % 16 == 0:
                await asyncio.sleep(0.001)
            at = NEXT.size * msg.partition
            # In one copy: pack_into writes zeros first, and a kill between would leave them.
            noted[at : at + NEXT.size] = NEXT.pack(msg.offset + 1)

    Counting.topic = topic
    engine = Engine(
        Counting,
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id="worker",  # who comes back at once need not wait for its own session to end
        state_dir=state_dir,
        commit_interval_sec=0.02,
        session_timeout_sec=6,
        heartbeat_interval_sec=1,
    )
    engine.register_table(counts)
    engine.register_table(last)

    async def run() -> None:
        async with engine:
            if "--to-the-end" in options:
                await engine.caught_up()
                print(json.dumps({table.name: plain(table) for table in (counts, last)}))
            else:
                await asyncio.Event().wait()

    asyncio.run(run())


def plain(table: Table) -> list[object]:
    """Its entries as JSON takes them."""
    return [
        [entry.partition, entry.key.decode(), entry.value.decode() if type(entry.value) is bytes else entry.value]
        for entry in table.snapshot()
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
