"""What `paperboy topics plan` says that an engine's user has to be allowed: enough, and no more than that."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
)

from paperboy import DeadLetter, Engine, GlobalTable, Handler, PaperboyError, Retry, Table, Topic
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.engine.permissions import Permission, permissions_needed
from paperboy.engine.topics import topics_needed
from tests.kafka_server import KafkaServer
from tests.kafka_server.server import PLAIN_USER

LOGIN: dict[str, object] = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": PLAIN_USER[0],
    "sasl_plain_password": PLAIN_USER[1],
}
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}
RESOURCES = {
    "transactional-id": ConfigResource.Type.TRANSACTIONAL_ID,
    "topic": ConfigResource.Type.TOPIC,
    "group": ConfigResource.Type.GROUP,
    "cluster": ConfigResource.Type.BROKER,
}


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    """A Kafka on which whoever logs in may do nothing, and whoever does not, everything."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with KafkaServer(properties=properties, sasl=True) as server:
        yield server


@contextmanager
def allowed(server: KafkaServer, permissions: Sequence[Permission]) -> Iterator[None]:
    """The user may do just this."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    bindings = [
        AclBinding(
            RESOURCES[resource], name, _pattern(is_prefix), f"User:{PLAIN_USER[0]}", "*",
            OPERATIONS[operation], AclPermissionType.ALLOW,
        )
        for resource, name, operations, is_prefix in permissions
        for operation in operations
    ]  # fmt: skip
    for made in admin.create_acls(bindings).values():
        made.result(30)
    try:
        yield
    finally:
        nothing: Any = None
        everything = AclBindingFilter(
            ConfigResource.Type.ANY, nothing, ResourcePatternType.ANY, nothing, nothing, AclOperation.ANY,
            AclPermissionType.ANY,
        )  # fmt: skip
        for gone in admin.delete_acls([everything]).values():
            gone.result(30)


def _pattern(is_prefix: bool) -> ResourcePatternType:
    return ResourcePatternType.PREFIXED if is_prefix else ResourcePatternType.LITERAL


class Job:
    """An engine that does all that engines do with topics, and topics of its own for it."""

    def __init__(self, server: KafkaServer, **options: Any) -> None:
        unique = random_id()
        self.source, self.shown = f"in-{unique}", f"shown-{unique}"
        target = Topic(f"out-{unique}", partitions=1, ensure=True)
        table = self.table = Table("counts")

        class Handle(Handler):
            topic = self.source
            outputs = (target,)
            retry = Retry(delays=["100ms"], via="topics")
            dead_letter = DeadLetter()

            @classmethod
            async def on_message(cls, msg: Any, ctx: Any) -> None:
                table["n"] = table.get("n", 0) + 1
                await ctx.send(target, msg.value)
                if msg.value == b"bad":
                    raise ValueError(msg.value)

        self.target = target.name
        self.engine = Engine(
            Handle,
            bootstrap_servers=server.sasl_bootstrap,
            group_id=f"group-{unique}",
            client_options=LOGIN,
            commit_interval_sec=0.2,
            checkpoint_attempts=1,
            **options,
        )
        self.engine.register_table(table)
        self.engine.register_table(GlobalTable("shown", self.shown))

    @property
    def permissions(self) -> list[Permission]:
        engine = self.engine
        needed = topics_needed(engine._options, engine._dispatches, engine._tables, engine._global_tables, {})
        return permissions_needed(engine._options, needed)

    async def prepare(self, server: KafkaServer) -> None:
        broker = open_broker(server.bootstrap)
        await broker.start()
        compacted = {"cleanup.policy": "compact"}
        await broker.create_topics([TopicSpec(self.source, 1), TopicSpec(self.shown, 1, None, compacted)])
        producer = broker.producer()
        await producer.start()
        records = [(b"k", value, (), broker.clock.time_ms()) for value in (b"good", b"bad")]
        for ack in await producer.send(TopicPartition(self.source, 0), records):
            await ack
        await producer.stop()
        await broker.stop()

    async def run(self) -> None:
        """Until all is handled: one message, and another one twice, which ends with the dead letters."""
        async with self.engine:
            while self.engine.status().dead_lettered < 1:
                await asyncio.sleep(0.05)
                if self.engine.status().failure is not None:
                    break
            await self.engine.caught_up()
            assert {key: value for _, key, value in self.table.snapshot()} == {"n": 1}


@pytest.mark.time_limit(120)
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
async def test_with_what_the_plan_says_an_engine_does_all_that_it_does(server: KafkaServer, guarantee: str) -> None:
    job = Job(server, processing_guarantee=guarantee)
    await job.prepare(server)
    with allowed(server, job.permissions):
        await job.run()


@pytest.mark.time_limit(240)
async def test_without_any_one_of_them_it_does_not(server: KafkaServer) -> None:
    exactly = {"processing_guarantee": "exactly_once"}
    count = len([operation for permission in Job(server, **exactly).permissions for operation in permission.operations])
    assert count > 20
    worked: list[tuple[str, str]] = []
    for number in range(count):
        job = Job(server, **exactly)
        await job.prepare(server)
        every = [(permission, operation) for permission in job.permissions for operation in permission.operations]
        left_out, operation = every.pop(number)
        with allowed(server, [permission._replace(operations=(each,)) for permission, each in every]):
            try:
                async with asyncio.timeout(15):
                    await job.run()
            except (PaperboyError, AssertionError, TimeoutError):
                continue
        worked.append((left_out.name, operation))
    # A changelog that was just created needs no reading; it does after the next start.
    assert [(name[-9:], operation) for name, operation in worked] == [("changelog", "Read")]
