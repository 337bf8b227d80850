"""The job that chaos kills while messages fail: some are tried again and get better, some become dead letters.

    python -m tests.chaos.failing_job BOOTSTRAP WAITING DELAYED GROUP STATE_DIR JOURNAL [--to-the-end]

Messages of topic WAITING wait in their place, those of DELAYED in a retry topic. The value says what becomes of a
message: "good", "flaky" fails at first, "bad" always. The table "done" has the topic, partition and offset of each that
was handled. The journal has a line for each time that a message was begun, and outlives the process. With --to-the-end
it stops when nothing is left, in retry topics neither.
"""

import asyncio
import os
import sys

from paperboy import DeadLetter, Engine, Exponential, Handler, Retry, Table
from tests.contract.engine.kit import until


def main(bootstrap: str, waiting: str, delayed: str, group: str, state_dir: str, journal: str, *options: str) -> None:
    done = Table("done", store="rocksdb://")
    lines = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    class Failing(Handler):
        dead_letter = DeadLetter()

        @classmethod
        async def on_message(cls, msg, ctx):
            os.write(lines, f"{msg.topic} {msg.partition} {msg.offset} {ctx.attempt} {msg.value.decode()}\n".encode())
            done[f"{msg.topic} {msg.partition} {msg.offset}"] = ctx.attempt
            if msg.value == b"bad" or (msg.value == b"flaky" and ctx.attempt == 1):
                raise ValueError(msg.value.decode())

    class Waiting(Failing):
        topic = waiting
        retry = Retry(attempts=3, backoff=Exponential("2ms"))

    class Delayed(Failing):
        topic = delayed
        retry = Retry(delays=["100ms", "300ms"], via="topics")

    engine = Engine(
        Waiting,
        Delayed,
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id="worker",  # who comes back at once need not wait for its own session to end
        state_dir=state_dir,
        commit_interval_sec=0.05,
        session_timeout_sec=6,
        heartbeat_interval_sec=1,
    )
    engine.register_table(done)

    async def run() -> None:
        async with engine:
            if "--to-the-end" not in options:
                await asyncio.Event().wait()
            await engine.caught_up()
            await until(lambda: engine.status().lag == 0)

    asyncio.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
