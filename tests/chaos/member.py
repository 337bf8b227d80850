"""A worker of the group that chaos changes: counts records by key, keeps each key's last offset, and a journal.

    python -m tests.chaos.member BOOTSTRAP TOPIC GROUP STATE_DIR JOURNAL WAIT_SEC COMMIT_SEC

The journal is a file of lines, each written at once, so that it outlives the process however that ends:

    NANOSECONDS handled PARTITION OFFSET BEFORE     BEFORE is what the handler saw as the key's last offset, or -1
    NANOSECONDS said {"event": …}                   a log line of the engine

The nanoseconds are those of the machine's monotonic clock, which all workers share. Each record waits for an answer for
WAIT_SEC, if that is not 0, and has the worker's one connection to itself meanwhile. COMMIT_SEC is the commit interval.
"""

import asyncio
import json
import logging
import os
import sys
import time

from paperboy import Engine, Handler, Table

SESSION_SEC, HEARTBEAT_SEC = 1.5, 0.3


class Journal(logging.Handler):
    def __init__(self, path: str) -> None:
        super().__init__(logging.DEBUG)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handled(self, partition: int, offset: int, before: int) -> None:
        self._write(f"handled {partition} {offset} {before}")

    def emit(self, record: logging.LogRecord) -> None:
        self._write(f"said {json.dumps(record.__dict__['paperboy'], default=str)}")

    def _write(self, line: str) -> None:
        os.write(self._file, f"{time.monotonic_ns()} {line}\n".encode())


def main(bootstrap: str, topic: str, group: str, state_dir: str, journal_path: str, wait: str, commit: str) -> None:
    journal = Journal(journal_path)
    logger = logging.getLogger("paperboy")
    logger.addHandler(journal)
    logger.setLevel(logging.DEBUG)
    counts = Table("counts", store="rocksdb://")
    last = Table("last", store="rocksdb://")
    wait_sec = float(wait)
    connection = asyncio.Lock()

    class Counting(Handler):
        @classmethod
        async def on_message(cls, msg, ctx):
            if wait_sec:
                async with connection:
                    await asyncio.sleep(wait_sec)
            before = last.get(msg.key, -1)
            counts[msg.key] = counts.get(msg.key, 0) + 1
            last[msg.key] = msg.offset
            journal.handled(msg.partition, msg.offset, before)

    Counting.topic = topic
    engine = Engine(
        Counting,
        bootstrap_servers=bootstrap,
        group_id=group,
        state_dir=state_dir,
        commit_interval_sec=float(commit),
        drain_timeout_sec=5,
        session_timeout_sec=SESSION_SEC,
        heartbeat_interval_sec=HEARTBEAT_SEC,
    )
    engine.register_table(counts)
    engine.register_table(last)
    asyncio.run(engine.start())


if __name__ == "__main__":
    main(*sys.argv[1:])
