"""Moves money between accounts in several partitions, exactly once, and shows that none is lost or made.

python -m examples.payments.demo                                       on the embedded broker
python -m examples.payments.demo --bootstrap-servers localhost:9092    on a Kafka
"""

import argparse
import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from examples.payments.job import encoded, topics, transfers_job
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicSpec
from paperboy.clock import random_id

ACCOUNTS = [f"account-{number}" for number in range(20)]
PARTITIONS = 4
PAID_IN = 100_00


@dataclass(frozen=True)
class Result:
    total: int
    """What all customers have together, in cents."""
    sums: dict[int, int]
    """What the books of each partition sum to."""


async def main(bootstrap_servers: str, transfers: int = 2_000) -> Result:
    prefix = f"bank-{random_id()[:8]}"
    await make_topics(bootstrap_servers, prefix)
    chance = random.Random(prefix)
    with TemporaryDirectory() as state_dir:
        engine, books = transfers_job(bootstrap_servers, prefix, state_dir=state_dir)
        async with engine:
            for account in ACCOUNTS:
                deposit = {"id": f"opening of {account}", "amount": PAID_IN}
                await engine.send(f"{prefix}-deposits", encoded(deposit), key=account.encode())
            await engine.caught_up()  # no order holds between topics: who has nothing yet would be refused
            for number in range(transfers):
                payer, payee = chance.sample(ACCOUNTS, 2)
                transfer = {"id": f"transfer {number}", "to": payee, "amount": chance.randrange(1, 50_00)}
                await engine.send(f"{prefix}-transfers", encoded(transfer), key=payer.encode())
            await engine.caught_up()
            sums: Counter[int] = Counter()
            total = 0
            for partition, account, balance in books.balances.snapshot():
                sums[partition] += balance
                total += 0 if account.startswith("clearing-") else balance
    return Result(total, dict(sums))


async def make_topics(bootstrap_servers: str, prefix: str) -> None:
    broker = open_broker(bootstrap_servers)
    await broker.start()
    try:
        await broker.create_topics([TopicSpec(topic, PARTITIONS) for topic in topics(prefix)])
    finally:
        await broker.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Move money between accounts, exactly once.")
    parser.add_argument("--bootstrap-servers", default="memory://transfers", help="host:port of a Kafka")
    parser.add_argument("--transfers", type=int, default=2_000)
    given = parser.parse_args()
    result = asyncio.run(main(given.bootstrap_servers, given.transfers))
    print(f"{len(ACCOUNTS)} accounts have {result.total / 100:.2f}; {len(ACCOUNTS) * PAID_IN / 100:.2f} were paid in.")
    print(f"The books of the partitions sum to {result.sums}.")
