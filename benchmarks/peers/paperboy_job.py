"""Counting per key with paperboy: BOOTSTRAP TOPIC GROUP STATE_DIR RECORDS; prints JSON.

With RECORDS 0 it only restores its state, and stops.
"""

import asyncio
import json
import sys
import time

from paperboy import Engine, Handler, Table


def main(bootstrap: str, topic: str, group: str, state_dir: str, records: str) -> None:
    wanted, begun = int(records), 0.0
    counts = Table("counts", store="rocksdb://")

    class Count(Handler):
        @classmethod
        async def on_message(cls, msg, ctx):
            counts[msg.key] = counts.get(msg.key, 0) + 1

    Count.topic = topic
    engine = Engine(Count, bootstrap_servers=bootstrap, group_id=group, state_dir=state_dir)
    engine.register_table(counts)

    async def run() -> None:
        nonlocal begun
        async with engine:
            while not (tasks := engine.status().tasks):
                await asyncio.sleep(0.001)
            begun = time.perf_counter()
            while not all(task.ready for task in tasks):
                await asyncio.sleep(0.001)
                tasks = engine.status().tasks
            if wanted:
                begun = time.perf_counter()
                await engine.caught_up()
            else:
                print(json.dumps({"seconds": time.perf_counter() - begun, "records": engine.status().restored}))

    asyncio.run(run())
    if wanted:
        print(json.dumps({"seconds": time.perf_counter() - begun, "records": engine.status().handled}))


main(*sys.argv[1:])
