"""A worker that restores the table "counts" and stops: BOOTSTRAP TOPIC GROUP STATE_DIR [--watch].

Prints how many entries it has, how many changelog records it read, and its memory in MB before the restore and
at its peak. With --watch it prints how many records it has restored so far, again and again.
"""

import asyncio
import resource
import sys
from pathlib import Path

from paperboy import Engine, Handler, Table


def main(bootstrap: str, source: str, group: str, state_dir: str, *options: str) -> None:
    table = Table("counts", store="rocksdb://")

    class Nothing(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx): ...

    engine = Engine(
        Nothing,
        bootstrap_servers=bootstrap,
        group_id=group,
        state_dir=state_dir,
        session_timeout_sec=6,
        heartbeat_interval_sec=1,
    )
    engine.register_table(table)

    async def run() -> None:
        async with engine:
            while not (tasks := engine.status().tasks) or not all(task.ready for task in tasks):
                if "--watch" in options and tasks and tasks[0].restoring is not None:
                    print(tasks[0].restoring.records, flush=True)
                await asyncio.sleep(0.002)
            restored_mb = peak()
            print(sum(1 for _ in table.snapshot()), engine.status().restored, base_mb, restored_mb)

    base_mb = peak()
    asyncio.run(run())


def peak() -> float:
    """The most memory this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(*sys.argv[1:])
