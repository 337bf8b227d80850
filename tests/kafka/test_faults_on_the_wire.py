"""Each kind of request to a real Kafka meets each fault of a network, under load: nothing is lost, the engine lives.

`make test` runs a part of all combinations; `make faults` runs them all.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, NamedTuple

import pytest

from paperboy import Engine, Handler, Table
from paperboy.brokers.kafka import KafkaBroker
from paperboy.brokers.protocol import Producer, Record, TopicPartition
from paperboy.clock import random_id
from paperboy.errors import BrokerError
from paperboy.serializers.values import decode_value
from paperboy.tables.keys import decode_key
from tests.contract.engine.kit import Kit
from tests.kafka.proxy import HOST, Fault, Kind, Mishap, Proxy
from tests.kafka_server import KafkaServer

PATIENCE_SEC = 90.0
REQUEST_SEC = 3.0
DELAY_SEC = 4.5
"""So long that the client has given up the request by the time that it reaches the broker."""
CLIENT_OPTIONS = {
    "request_timeout_ms": round(REQUEST_SEC * 1000),
    "retry_backoff_ms": 50,
    "metadata_max_age_ms": 1000,
}
PARTITIONS = 2
KEYS = [b"%d" % key for key in range(4)]


class Moment(Enum):
    """What the engine is at when the fault is armed."""

    START = "start"
    LOAD = "load"
    JOIN = "join"
    """Another worker, with no proxy before it, joins the group: all is given back, and dealt out again."""
    STOP = "stop"


class Case(NamedTuple):
    guarantee: str
    kind: Kind
    moment: Moment
    fault: Fault

    def __str__(self) -> str:
        return f"{self.guarantee}: {self.kind.name} at {self.moment.value}: {self.fault.value}"


_ALWAYS = {
    Kind.FETCH: [Moment.LOAD],
    Kind.LIST_OFFSETS: [Moment.START, Moment.JOIN],
    Kind.METADATA: [Moment.START, Moment.LOAD],
    Kind.OFFSET_FETCH: [Moment.START, Moment.JOIN],
    Kind.FIND_COORDINATOR: [Moment.START],
    Kind.JOIN_GROUP: [Moment.START, Moment.JOIN],
    Kind.HEARTBEAT: [Moment.LOAD],
    Kind.LEAVE_GROUP: [Moment.STOP],
    Kind.SYNC_GROUP: [Moment.START, Moment.JOIN],
    Kind.CREATE_TOPICS: [Moment.START],
    Kind.DESCRIBE_CONFIGS: [Moment.START],
    Kind.INIT_PRODUCER_ID: [Moment.START],
    Kind.PRODUCE: [Moment.LOAD],
}
MOMENTS = {
    "at_least_once": {**_ALWAYS, Kind.OFFSET_COMMIT: [Moment.LOAD]},
    "exactly_once": {
        **_ALWAYS,
        Kind.FIND_COORDINATOR: [Moment.START, Moment.JOIN],
        Kind.INIT_PRODUCER_ID: [Moment.START, Moment.JOIN],
        Kind.ADD_PARTITIONS_TO_TXN: [Moment.LOAD],
        Kind.ADD_OFFSETS_TO_TXN: [Moment.LOAD],
        Kind.TXN_OFFSET_COMMIT: [Moment.LOAD],
        Kind.END_TXN: [Moment.LOAD],
    },
}
"""When an engine sends requests of each kind."""

EVERY = [
    Case(guarantee, kind, moment, fault)
    for guarantee, kinds in MOMENTS.items()
    for kind, moments in kinds.items()
    for moment in moments
    for fault in Fault
]


def chosen() -> list[Case]:
    if os.environ.get("PAPERBOY_WIRE_FAULTS") == "all":
        return EVERY
    return [case for case in EVERY if is_in_each_run(case)]


def is_in_each_run(case: Case) -> bool:
    """Each kind once, its answer cut off; and all that can happen to what makes work durable."""
    if case.fault is Fault.CUT_AFTER:
        return case.guarantee == "exactly_once" or case.kind in (Kind.PRODUCE, Kind.OFFSET_COMMIT, Kind.JOIN_GROUP)
    return case.kind in (Kind.OFFSET_COMMIT, Kind.END_TXN)


@pytest.fixture(scope="module")
def listening() -> Iterator[socket.socket]:
    """The proxies' address, which the broker tells its clients."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening


@pytest.fixture(scope="module")
def server(listening: socket.socket) -> Iterator[KafkaServer]:
    with KafkaServer(proxy_port=listening.getsockname()[1]) as server:
        yield server


class Job:
    """Counts in a table, and sends each record on with its count; workers may be added."""

    def __init__(self, kit: Kit, source: str, target: str, guarantee: str) -> None:
        self.kit = kit
        self.source = source
        self.target = target
        self.guarantee = guarantee
        self.handled: Counter[bytes] = Counter()

    def worker(self, bootstrap: str) -> Engine:
        counts, handled, target = Table("counts"), self.handled, self.target

        class Count(Handler):
            topic = self.source

            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                count = counts.update(msg.key, lambda count: count + 1, default=0)
                await ctx.send(target, b"%s %d" % (msg.value, count), key=msg.key, partition=msg.partition)
                handled[msg.value] += 1

        engine = self.kit.engine(
            Count,
            bootstrap_servers=bootstrap,
            processing_guarantee=self.guarantee,
            drain_timeout_sec=5,
            client_options=CLIENT_OPTIONS,
        )
        engine.register_table(counts)
        return engine


class Load:
    """Records that keep coming; each value is there once."""

    def __init__(self, producer: Producer, topic: str, time_ms: int) -> None:
        self._producer = producer
        self._topic = topic
        self._time_ms = time_ms
        self._is_over = False
        self._more = asyncio.Event()
        self.values: list[bytes] = []
        """What is in the topic."""
        self.counts: Counter[tuple[int, bytes]] = Counter()
        """How many of them, by partition and key."""

    async def run(self) -> None:
        while not self._is_over:
            for partition in range(PARTITIONS):
                numbers = range(len(self.values), len(self.values) + 2 * len(KEYS))
                records = [(KEYS[n % len(KEYS)], b"%d" % n, (), self._time_ms) for n in numbers]
                for ack in await self._producer.send(TopicPartition(self._topic, partition), records):
                    await ack
                self.values += [value for _, value, *_ in records]
                self.counts.update((partition, key) for key, *_ in records)
            self._more.set()
            await asyncio.sleep(0.02)  # so much is the load

    async def more(self) -> None:
        """Returns when records are in the topic that were not when it was called."""
        for _ in range(2):  # those on their way may have been sent before
            self._more.clear()
            await self._more.wait()

    def end(self) -> None:
        self._is_over = True


@asynccontextmanager
async def load(job: Job) -> AsyncIterator[Load]:
    async with job.kit.broker() as broker, asyncio.TaskGroup() as tasks:
        producer = broker.producer()
        await producer.start()
        load = Load(producer, job.source, broker.clock.time_ms())
        running = tasks.create_task(load.run(), name="load")
        try:
            yield load
        finally:
            load.end()
            await asyncio.wait([running])
            await producer.stop()


@pytest.mark.time_limit(240)
@pytest.mark.parametrize("case", chosen(), ids=str)
async def test_nothing_is_lost(case: Case, server: KafkaServer, listening: socket.socket) -> None:
    kit = Kit(server.bootstrap, random_id()[:12])
    job = Job(kit, await kit.topic("in", PARTITIONS), await kit.topic("out", PARTITIONS), case.guarantee)
    async with Proxy(listening, server.proxied_port, DELAY_SEC) as proxy, load(job) as records:
        async with asyncio.timeout(PATIENCE_SEC):
            hits = await under_load(case, job, records, proxy)
    assert hits == 1
    await check(case, job, records)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Kind.METADATA, Fault.DROP),
        (Kind.METADATA, Fault.CUT_AFTER),
        (Kind.LIST_OFFSETS, Fault.DROP),
        (Kind.OFFSET_FETCH, Fault.DROP),
        (Kind.FIND_COORDINATOR, Fault.CUT_AFTER),
        (Kind.DESCRIBE_CONFIGS, Fault.CUT_AFTER),
    ],
    ids=lambda each: each.name,
)
async def test_a_question_that_is_lost_is_asked_again_on_another_connection(
    kind: Kind, fault: Fault, server: KafkaServer, listening: socket.socket
) -> None:
    """Even where connecting may take less time than a request, as it may by default."""
    kit = Kit(server.bootstrap, random_id()[:12])
    partition = TopicPartition(await kit.topic("asked"), 0)
    mishap = Mishap(kind, fault)
    async with Proxy(listening, server.proxied_port, DELAY_SEC) as proxy:
        broker = KafkaBroker(
            proxy.bootstrap,
            client_options={"request_timeout_ms": round(REQUEST_SEC * 1000)},
            connect_timeout_sec=REQUEST_SEC - 0.1,
        )
        await broker.start()
        try:
            await broker.committed(kit.group, [partition])
            proxy.arm(mishap)
            assert (await broker.describe_topics([partition.topic]))[partition.topic].partitions == 1
            assert await broker.end_offsets([partition]) == {partition: 0}
            assert await broker.committed(kit.group, [partition]) == {partition: None}
        finally:
            await broker.stop()
    assert mishap.hits == 1


async def test_whoever_waits_for_an_answer_hears_that_the_broker_was_left(server: KafkaServer) -> None:
    broker = KafkaBroker(server.bootstrap)
    await broker.start()
    asking = asyncio.create_task(broker.end_offsets([TopicPartition("absent", 0)]), name="asking")
    await asyncio.wait([asking], timeout=0.1)
    assert not asking.done()
    await broker.stop()
    with pytest.raises(BrokerError, match=r"Asking .* for end offsets failed"):
        async with asyncio.timeout(20):  # far less than a question's own time
            await asking


async def under_load(case: Case, job: Job, records: Load, proxy: Proxy) -> int:
    """Run the case; how many requests have met their fault."""
    mishap = Mishap(case.kind, case.fault)
    worker, another = job.worker(proxy.bootstrap), job.worker(job.kit.bootstrap)
    await records.more()
    if case.moment is Moment.START:
        proxy.arm(mishap)
    async with worker:
        await worker.caught_up()
        if case.moment in (Moment.LOAD, Moment.JOIN):
            proxy.arm(mishap)
        if case.moment is Moment.JOIN:
            async with another:
                await mishap.over.wait()
                await records.more()
                await another.caught_up()
                await worker.caught_up()
        if case.moment is not Moment.STOP:
            await mishap.over.wait()
        await records.more()
        records.end()
        await worker.caught_up()
        assert worker.status().failure is None
        if case.moment is Moment.STOP:
            proxy.arm(mishap)
    await mishap.over.wait()
    return mishap.hits


async def check(case: Case, job: Job, records: Load) -> None:
    """What a reader of committed records finds, against what was sent."""
    counts: dict[tuple[int, Any], Any] = {
        (record.partition, decode_key(record.key)): decode_value(record.value)
        for record in await job.kit.read(f"{job.kit.group}-counts-changelog")
    }
    outputs = [told(record) for record in await job.kit.read(job.target)]
    times_sent = Counter(value for _, _, value, _ in outputs)
    assert times_sent.keys() == set(records.values)
    if case.guarantee == "exactly_once":
        assert counts == records.counts
        assert set(times_sent.values()) == {1}
        for partition_and_key, count in records.counts.items():
            told_counts = [count for partition, key, _, count in outputs if (partition, key) == partition_and_key]
            assert told_counts == list(range(1, count + 1)), partition_and_key
    else:
        assert counts.keys() == records.counts.keys()
        assert all(counts[key] >= count for key, count in records.counts.items()), (counts, records.counts)
        assert sum(counts.values()) <= job.handled.total()


def told(record: Record) -> tuple[int, bytes, bytes, int]:
    """Partition and key of an output, the value it was made of, and the count."""
    assert record.key is not None
    assert record.value is not None
    value, count = record.value.split()
    return record.partition, record.key, value, int(count)
