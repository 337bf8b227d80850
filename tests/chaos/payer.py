"""A worker of the payments example that chaos changes, with a journal.

    python -m tests.chaos.payer BOOTSTRAP PREFIX GROUP STATE_DIR JOURNAL WAIT_SEC COMMIT_SEC

The journal is that of `tests.chaos.member`; what is handled are transfers. Each waits for WAIT_SEC, if that is not 0,
after it was booked; COMMIT_SEC is the interval of the transactions.
"""

import asyncio
import logging
import sys

from examples.payments.job import Books, Credits, Deposits, Transfers, transfers_engine
from paperboy import Context
from paperboy.handlers.handler import Message
from tests.chaos.member import Journal

SESSION_SEC, HEARTBEAT_SEC = 3.0, 0.5


def main(bootstrap: str, prefix: str, group: str, state_dir: str, journal_path: str, wait: str, commit: str) -> None:
    journal = Journal(journal_path)
    logger = logging.getLogger("paperboy")
    logger.addHandler(journal)
    logger.setLevel(logging.DEBUG)
    wait_sec = float(wait)

    class NotedTransfers(Transfers):
        async def on_message(self, msg: Message, ctx: Context) -> None:  # type: ignore[override]
            await super().on_message(msg, ctx)
            journal.handled(msg.partition, msg.offset, -1)
            if wait_sec:
                await asyncio.sleep(wait_sec)

    books = Books()
    engine = transfers_engine(
        books,
        [Deposits(books, prefix), NotedTransfers(books, prefix), Credits(books, prefix)],
        bootstrap_servers=bootstrap,
        group_id=group,
        state_dir=state_dir,
        transaction_interval_sec=float(commit),
        transaction_timeout_sec=20,
        drain_timeout_sec=5,
        session_timeout_sec=SESSION_SEC,
        heartbeat_interval_sec=HEARTBEAT_SEC,
        checkpoint_attempts=20,
        bulk_mode_threshold=100_000_000,
    )
    asyncio.run(engine.start())


if __name__ == "__main__":
    main(*sys.argv[1:])
