"""Payments on three brokers, exactly once, while workers are killed and freeze, brokers die, and the group changes."""

import asyncio
import json
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import CoordinationType

from examples.payments.job import clearing, encoded, topics
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Record, TopicPartition, TopicSpec
from paperboy.errors import BrokerError
from paperboy.serializers.values import decode_value
from paperboy.tables.keys import decode_key
from tests.chaos.group import Group, Handled, Worker
from tests.chaos.payer import HEARTBEAT_SEC, SESSION_SEC
from tests.chaos.test_kill import verify
from tests.contract.engine.kit import Kit
from tests.kafka_server import KafkaCluster, KafkaServer

SHARE = float(os.environ.get("PAPERBOY_CHAOS_SHARE", "0.1"))
"""Of all that `make chaos` does."""
TRANSFERS = round(100_000 * SHARE)
CHANGES = {
    "kill": round(100 * SHARE),
    "broker": round(20 * SHARE),
    "freeze": round(20 * SHARE),
    "move": round(20 * SHARE),
}
SEED = int(os.environ.get("PAPERBOY_CHAOS_SEED", "0")) or random.randrange(1, 1 << 32)
PARTITIONS = 4
ACCOUNTS = [f"account-{number}" for number in range(40)]
PAID_IN = 1_000_000_00
"""Each account's, so much that no transfer is ever refused: what the balances are in the end hangs on no order."""
WORKERS = 3
PATIENCE_SEC = 180.0
TAKEN_OVER = 3
"""Transfers of each of its partitions that others have handled when a frozen worker wakes."""

pytestmark = pytest.mark.time_limit(600 + 12_000 * SHARE)

_PAUSE_SEC = 0.05
_BATCH = 6
_SECOND_NS = 1_000_000_000


class Bank:
    """The topics of one run, what goes in, and what has come of it."""

    def __init__(self, kit: Kit, prefix: str) -> None:
        self.kit = kit
        self.prefix = prefix
        self.sent = 0
        self.transfers = [TopicPartition(f"{prefix}-transfers", number) for number in range(PARTITIONS)]
        self.inputs = [
            TopicPartition(f"{prefix}-{name}", number)
            for name in ("deposits", "transfers", "credits")
            for number in range(PARTITIONS)
        ]

    async def open(self) -> None:
        """Topics, and what each account has at first."""
        # Compaction would thin out the changelog, which is to be read transaction by transaction.
        uncompacted = {"cleanup.policy": "compact", "min.compaction.lag.ms": "86400000"}
        async with self.kit.broker() as broker:
            await broker.create_topics([TopicSpec(topic, PARTITIONS) for topic in topics(self.prefix)])
            await broker.create_topics([TopicSpec(self.changelog, PARTITIONS, None, uncompacted)])
        for number in range(PARTITIONS):
            deposits = [
                (account.encode(), encoded({"id": f"opening of {account}", "amount": PAID_IN}))
                for account in ACCOUNTS
                if partition_for_key(account.encode(), PARTITIONS) == number
            ]
            await self.kit.send(f"{self.prefix}-deposits", deposits, number)

    @property
    def changelog(self) -> str:
        return f"{self.kit.group}-balances-changelog"

    @asynccontextmanager
    async def paying(self, chance: random.Random) -> AsyncIterator[None]:
        """Transfers without an end, and at the end of the block as many as are still lacking."""
        stop = asyncio.Event()
        sending = asyncio.create_task(self._pay(chance, stop))
        try:
            yield
        finally:
            stop.set()
            await sending

    async def _pay(self, chance: random.Random, stop: asyncio.Event) -> None:
        async with self.kit.broker() as broker:
            producer = broker.producer()
            await producer.start()
            try:
                while not stop.is_set() or self.sent < TRANSFERS:
                    batches: defaultdict[int, list[Any]] = defaultdict(list)
                    for _ in range(_BATCH if not stop.is_set() else 100):
                        payer, payee = chance.sample(ACCOUNTS, 2)
                        self.sent += 1
                        transfer = {"id": str(self.sent), "to": payee, "amount": chance.randrange(1, 10_00)}
                        record = (payer.encode(), encoded(transfer), (), broker.clock.time_ms())
                        batches[partition_for_key(payer.encode(), PARTITIONS)].append(record)
                    for number, records in batches.items():
                        for ack in await producer.send(self.transfers[number], records):
                            await ack
                    if not stop.is_set():
                        await asyncio.sleep(_PAUSE_SEC)
            finally:
                await producer.stop()

    async def committed(self) -> dict[TopicPartition, int]:
        """Where the group stands; asked again while brokers come and go."""
        async with asyncio.timeout(PATIENCE_SEC):
            while True:
                try:
                    async with self.kit.broker() as broker:
                        found = await broker.committed(self.kit.group, self.inputs)
                    return {partition: offset or 0 for partition, offset in found.items()}
                except (BrokerError, TimeoutError):
                    await asyncio.sleep(0.2)

    async def until_committed(self, reached: Callable[[Mapping[TopicPartition, int]], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SEC):
            while not reached(await self.committed()):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)

    async def until_moved(self) -> None:
        """Until more transfers of every partition are committed than now."""
        before = await self.committed()
        await self.until_committed(lambda now: all(now[each] > before[each] for each in self.transfers))

    async def until_done(self) -> None:
        """Until everything is handled: transfers are, and then their credits, which show a moment later."""
        await self.until_handled("deposits", "transfers")
        async with asyncio.timeout(PATIENCE_SEC):
            while len(await self.kit.read(f"{self.prefix}-credits")) < self.sent:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(1)
        await self.until_handled("credits")

    async def until_handled(self, *names: str) -> None:
        """Until all that is in these topics now is handled and committed."""
        partitions = [each for each in self.inputs if each.topic in [f"{self.prefix}-{name}" for name in names]]
        async with self.kit.broker() as broker:
            ends = await broker.end_offsets(partitions)
        await self.until_committed(lambda now: all(now[each] >= end for each, end in ends.items()))


class Chaos:
    """What is done to workers and brokers, and the proof, each time, that it hit."""

    def __init__(self, group: Group, bank: Bank, cluster: KafkaCluster, chance: random.Random) -> None:
        self.uncommitted: list[int] = []
        """Of each worker that was killed: how many transfers it had handled that were not committed."""
        self.fenced = 0
        """Of the workers that froze: how many tasks of theirs ended by a fence, after they woke."""
        self.roles: Counter[str] = Counter()
        """Of the brokers that were killed: what they were."""
        self._group = group
        self._bank = bank
        self._cluster = cluster
        self._chance = chance

    async def change(self, kind: str) -> str:
        does = {"kill": self._kill, "freeze": self._freeze, "move": self._move, "broker": self._kill_broker}
        return await does[kind]()

    async def settle(self) -> None:
        """Until every partition has an owner, and more of each is committed."""
        await self._group.until("all have owners", lambda: len(self._group.owners) == PARTITIONS, PATIENCE_SEC)
        await self._bank.until_moved()

    async def _kill(self) -> str:
        worker = await self._busy()
        worker.send(signal.SIGKILL)
        assert await worker.end() == -signal.SIGKILL
        committed = await self._bank.committed()
        ahead = dict.fromkeys(sorted(worker.tasks), 0)
        for line in worker.journal:
            if isinstance(line, Handled) and line.partition in ahead:
                position = committed[self._bank.transfers[line.partition]]
                ahead[line.partition] = max(0, line.offset + 1 - position)
        self.uncommitted.append(sum(ahead.values()))
        self._group.join()
        return f"{worker.name} was killed; handled, not committed, by partition: {ahead}"

    async def _move(self) -> str:
        if len(self._group.living) > WORKERS:
            worker = await self._busy()
            had = sorted(worker.tasks)
            await self._group.leave(worker)
            return f"{worker.name} left, and gave back partitions {had}"
        worker = self._group.join()
        await self._group.until(
            f"{worker.name} is assigned something", lambda: bool(worker.said("assigned")), PATIENCE_SEC
        )
        return f"{worker.name} joined"

    async def _freeze(self) -> str:
        await self.settle()
        worker = await self._busy()
        had = sorted(worker.tasks)
        froze_ns = worker.send(signal.SIGSTOP)

        def taken_over() -> bool:
            handled: Counter[int] = Counter()
            for other in self._group.living:
                if other is not worker:
                    handled.update(line.partition for line in _handled_since(other, froze_ns))
            return all(handled[number] >= TAKEN_OVER for number in had)

        await self._group.until(f"others handle the partitions of {worker.name}", taken_over, PATIENCE_SEC)
        worker.look()
        woke_ns = worker.send(signal.SIGCONT)
        least_ns = (SESSION_SEC - HEARTBEAT_SEC) * _SECOND_NS  # a session lasts from the last heartbeat on
        assert woke_ns - froze_ns > least_ns, "others can only have them when its session is over"
        await self._group.until(
            f"{worker.name} joins anew", lambda: bool(worker.said("assigned", woke_ns)), PATIENCE_SEC
        )
        anew_ns = worker.said("assigned", woke_ns)[0].at_ns
        ended = [
            said
            for event in ("task lost", "back to what is durable", "revoked")
            for said in worker.said(event, woke_ns)
            if said.at_ns <= anew_ns
        ]
        assert ended, f"{worker.name} has not noticed that it was a zombie"
        fenced = [said for said in ended if "another producer" in str(said.fields.get("error"))]
        self.fenced += len(fenced)
        return (
            f"{worker.name} froze for {(woke_ns - froze_ns) / _SECOND_NS:.1f} s (session: {SESSION_SEC} s) and lost"
            f" partitions {had}; awake, {len(fenced)} of its tasks were fenced"
        )

    async def _kill_broker(self) -> str:
        await self.settle()
        role, number = await self._one_that_matters()
        node = self._cluster.nodes[number - 1]
        node.kill()
        self.roles[role] += 1
        while await self._holder(role) == number:  # noqa: ASYNC110 - somebody else has to become it
            await asyncio.sleep(0.2)
        await self._bank.until_moved()
        await asyncio.to_thread(KafkaServer.start, node)
        await self._in_sync()
        return f"node {number} was killed, {role}; the group went on without it"

    async def _one_that_matters(self) -> tuple[str, int]:
        roles = [f"leader of {self._bank.transfers[number]}" for number in range(PARTITIONS)]
        roles += ["coordinator of the group", *(f"coordinator of {name}" for name in self._ids())]
        role = self._chance.choice(roles)
        return role, await self._holder(role)

    def _ids(self) -> list[str]:
        return [f"{self._bank.kit.group}:{self._bank.prefix}-credits:{number}" for number in range(PARTITIONS)]

    async def _holder(self, role: str) -> int:
        """The node that has it now."""
        what, name = role.split(" of ")
        async with asyncio.timeout(PATIENCE_SEC):
            while True:
                try:
                    async with self._admin() as admin:
                        if what == "leader":
                            topic, number = name.removesuffix("]").split("[")
                            (described,) = await admin.describe_topics([topic])
                            found = {each["partition"]: each["leader"] for each in described["partitions"]}
                            node = found[int(number)]
                        elif name == "the group":
                            node = await admin.find_coordinator(self._bank.kit.group)
                        else:
                            lookup = admin._client.coordinator_lookup
                            node = await lookup(CoordinationType.TRANSACTION, name)
                    if node > 0:
                        return int(node)
                except Exception as error:  # noqa: BLE001 - brokers come and go
                    print(f"  asking for the {role}: {error!r}")
                await asyncio.sleep(0.2)

    async def _in_sync(self) -> None:
        """Until every replica has caught up, so that another node may go."""
        names = [*topics(self._bank.prefix), self._bank.changelog, "__transaction_state", "__consumer_offsets"]
        async with asyncio.timeout(PATIENCE_SEC):
            while True:
                try:
                    async with self._admin() as admin:
                        described = await admin.describe_topics(names)
                    partitions = [each for topic in described for each in topic["partitions"]]
                    if partitions and all(len(each["isr"]) == len(each["replicas"]) for each in partitions):
                        return
                except Exception as error:  # noqa: BLE001 - as above
                    print(f"  asking for replicas: {error!r}")
                await asyncio.sleep(0.5)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._cluster.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def _busy(self) -> Worker:
        """One of those that have tasks, while it handles records."""
        await self._group.until("somebody has tasks", lambda: bool(self._group.owners), PATIENCE_SEC)
        worker = self._chance.choice(sorted(set(self._group.owners.values()), key=lambda worker: worker.name))
        before = worker.handled
        await self._group.until(f"{worker.name} handles records", lambda: worker.handled > before, PATIENCE_SEC)
        return worker


def _handled_since(worker: Worker, since_ns: int) -> Iterator[Handled]:
    for line in reversed(worker.journal):
        if line.at_ns <= since_ns:
            return
        if isinstance(line, Handled):
            yield line


async def test_every_transfer_happens_once_and_the_books_balance_in_every_committed_state(tmp_path: Path) -> None:
    print(f"PAPERBOY_CHAOS_SEED={SEED} PAPERBOY_CHAOS_SHARE={SHARE:g}")
    chance = random.Random(SEED)
    kinds = [kind for kind, count in CHANGES.items() for _ in range(count)]
    chance.shuffle(kinds)
    with KafkaCluster() as cluster:
        kit = Kit(cluster.bootstrap, f"payments-{SEED}-{os.getpid()}")
        bank = Bank(kit, f"bank-{SEED}")
        await bank.open()
        with Group(kit, bank.prefix, tmp_path, program="tests.chaos.payer") as group:
            chaos = Chaos(group, bank, cluster, chance)
            for _ in range(WORKERS):
                group.join()
            await bank.until_handled("deposits")  # no order holds between topics: some would have nothing to pay with
            async with bank.paying(random.Random(SEED)):
                await chaos.settle()
                for number, kind in enumerate(kinds, 1):
                    print(f"[{number} of {len(kinds)}] {await chaos.change(kind)}", flush=True)
                    if chance.random() < 0.5:  # else the next one comes in the midst of this one
                        await chaos.settle()
                await chaos.settle()
            await bank.until_done()
            for worker in group.living:
                await group.leave(worker)
        every_output_is_there_once(await kit.read(f"{bank.prefix}-statements"), await replayed(bank))
        assert await kit.read(f"{bank.prefix}-refused") == []
        states = the_books_balance_in_every_committed_state(await kit.read(bank.changelog), await replayed(bank))
        await verify(kit, group.state_dir)
    assert sum(chaos.uncommitted) > 0, "no kill hit work that was not committed"
    assert sum(chaos.roles.values()) == CHANGES["broker"]
    back = sum(len(worker.said("back to what is durable")) for worker in group.workers)
    print(
        f"{bank.sent} transfers, {len(group.workers)} workers, {dict(CHANGES)}: {sum(chaos.uncommitted)} transfers"
        f" were handled and not committed by those that were killed, {chaos.fenced} tasks of zombies were fenced,"
        f" tasks went back {back} times; {states} committed states were looked at; brokers: {dict(chaos.roles)}"
    )


async def replayed(bank: Bank) -> dict[str, list[tuple[str, int]]]:
    """What a replay of the input gives: of each account, what was moved by which transfer, in no order."""
    moved: dict[str, list[tuple[str, int]]] = {account: [(f"opening of {account}", PAID_IN)] for account in ACCOUNTS}
    transfers = await bank.kit.read(f"{bank.prefix}-transfers")
    assert len(transfers) == bank.sent >= TRANSFERS
    for record in transfers:
        transfer = json.loads(record.value)
        moved[record.key.decode()].append((transfer["id"], -transfer["amount"]))
        moved[transfer["to"]].append((transfer["id"], transfer["amount"]))
    return moved


def every_output_is_there_once(statements: list[Record], moved: Mapping[str, list[tuple[str, int]]]) -> None:
    """Every movement has one statement, and those of an account follow one another, balance by balance."""
    balances: Counter[str] = Counter()
    said: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for record in statements:
        statement = json.loads(record.value)
        account, amount = statement["account"], statement["amount"]
        balances[account] += amount
        assert statement["balance"] == balances[account], f"not as the statement before it says: {statement}"
        said[account].append((statement["transfer"], amount))
    there = Counter((account, *each) for account in said for each in said[account])
    wanted = Counter((account, *each) for account in moved for each in moved[account])
    assert (sorted((wanted - there).elements()), sorted((there - wanted).elements())) == ([], []), "missing, too many"


def the_books_balance_in_every_committed_state(
    changelog: list[Record], moved: Mapping[str, list[tuple[str, int]]]
) -> int:
    """Each partition sums to zero after each transaction, and ends with what a replay gives.

    The marker of a transaction takes an offset that no reader sees: where one is lacking, a transaction has ended.

    Returns:
        How many states it has looked at.
    """
    books: list[dict[str, int]] = [{} for _ in range(PARTITIONS)]
    expected = [0] * PARTITIONS
    states = 0
    for record in changelog:
        entries = books[record.partition]
        if record.offset != expected[record.partition]:
            states += 1
            assert sum(entries.values()) == 0, f"before offset {record.offset} of partition {record.partition}"
        expected[record.partition] = record.offset + 1
        name, balance = decode_key(record.key), decode_value(record.value)
        assert isinstance(name, str)
        assert isinstance(balance, int)
        entries[name] = balance
    for number, entries in enumerate(books):
        assert entries.pop(clearing(number)) == -sum(entries.values())
    found = {account: balance for entries in books for account, balance in entries.items()}
    assert found == {account: sum(amount for _, amount in each) for account, each in moved.items()}
    assert sum(found.values()) == PAID_IN * len(ACCOUNTS)
    return states
