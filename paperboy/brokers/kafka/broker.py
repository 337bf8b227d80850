"""A Kafka cluster, as one engine is connected to it."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.record import default_records

from paperboy.brokers.kafka.closing import stop_consumer
from paperboy.brokers.kafka.consumer import KafkaConsumer
from paperboy.brokers.kafka.errors import translated, translating
from paperboy.brokers.kafka.options import ClientOptions
from paperboy.brokers.kafka.producer import KafkaProducer
from paperboy.brokers.kafka.reader import KafkaReader
from paperboy.brokers.protocol import (
    Assignor,
    Consumer,
    MembershipOptions,
    Producer,
    Reader,
    TopicDescription,
    TopicPartition,
    TopicSpec,
)
from paperboy.clock import Clock, SystemClock
from paperboy.errors import AuthenticationFailed, BrokerError, BrokerUnreachable
from paperboy.log import get_logger

_log = get_logger("paperboy.kafka")

_RETRY_SEC = 0.5
_TOPIC_EXISTS = 36


class KafkaBroker:
    """Connects to `bootstrap_servers` ("host:port", several with commas).

    Args:
        client_options: further options for aiokafka's clients, by their names there (security, sizes, time-outs).
        connect_timeout_sec: how long `start` tries before it says that nobody answers.

    Raises:
        ConfigurationError: a client option is unknown, or not the user's to set.
    """

    new_topic_partitions: int | None = None

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_options: Mapping[str, object] | None = None,
        connect_timeout_sec: float = 30.0,
    ) -> None:
        self.name = bootstrap_servers
        self.clock: Clock = SystemClock()
        self._options = ClientOptions(client_options or {})
        self._connect_timeout_sec = connect_timeout_sec
        self._admin: AIOKafkaAdminClient | None = None
        self._offsets: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        if default_records.DefaultRecordBatchBuilder is default_records._DefaultRecordBatchBuilderPy:
            _log.warning("aiokafka has no C extensions here, which makes it 5 to 10 times slower", broker=self.name)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_timeout_sec
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._connect()
                return
            except (kafka_errors.KafkaConnectionError, kafka_errors.KafkaTimeoutError, OSError, TimeoutError) as error:
                await self.stop()
                if loop.time() + _RETRY_SEC >= deadline:
                    raise BrokerUnreachable(
                        f"No Kafka broker answered at {self.name} within {self._connect_timeout_sec:g} s"
                        f" (connect_timeout_sec); is it running, and is the address right? Last error: {error}"
                    ) from error
                await self._raise_if_refused(deadline)
            await asyncio.sleep(_RETRY_SEC)

    async def stop(self) -> None:
        admin, offsets = self._admin, self._offsets
        self._admin = self._offsets = None
        if admin is not None:
            await admin.close()
        if offsets is not None:
            await stop_consumer(offsets)

    async def describe_topics(self, names: Collection[str]) -> dict[str, TopicDescription]:
        with translating(f"Describing topics on {self.name}"):
            # Asking for a missing topic by name would create it where the cluster creates topics by itself.
            existing = sorted(set(names) & set(await self._connected.list_topics()))
            if not existing:
                return {}
            described = await self._connected.describe_topics(existing)
            partitions = {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}
            configs = await self._configs(ConfigResourceType.TOPIC, list(partitions))
            return {name: TopicDescription(name, count, configs[name]) for name, count in partitions.items()}

    async def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        if not topics:
            return
        default_replication = None
        if any(spec.replication_factor is None for spec in topics):
            default_replication = await self._default_replication_factor()
        new = [
            NewTopic(
                spec.name, spec.partitions, spec.replication_factor or default_replication, None, dict(spec.config)
            )
            for spec in topics
        ]
        with translating(f"Creating topics on {self.name}"):
            response = await self._connected.create_topics(new)
            for name, code, *rest in response.topic_errors:
                if code not in (0, _TOPIC_EXISTS):
                    reason = (rest[0] if rest else None) or kafka_errors.for_code(code).__name__
                    raise BrokerError(f"Creating topic {name!r} on {self.name} failed: {reason}")
            async with asyncio.timeout(self._connect_timeout_sec):
                await self._until_usable([spec.name for spec in topics])

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        with translating(f"Asking {self.name} for beginning offsets"):
            found = await self._connected_offsets.beginning_offsets(_theirs(partitions))
        return {partition: found[partition] for partition in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        with translating(f"Asking {self.name} for end offsets"):
            found = await self._connected_offsets.end_offsets(_theirs(partitions))
        return {partition: found[partition] for partition in partitions}

    async def committed(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        if not partitions:
            return {}
        with translating(f"Asking {self.name} for the committed offsets of group {group_id!r}"):
            found = await self._retrying(
                lambda: self._connected.list_consumer_group_offsets(group_id, partitions=_theirs(partitions))
            )
        offsets = {partition: found[partition].offset for partition in partitions if partition in found}
        return {partition: offset if (offset := offsets.get(partition, -1)) >= 0 else None for partition in partitions}

    def consumer(
        self, group_id: str, topics: Collection[str], assignor: Assignor, options: MembershipOptions
    ) -> Consumer:
        return KafkaConsumer(self.name, group_id, topics, assignor, options, self._options.consumer, self.clock)

    def reader(self) -> Reader:
        return KafkaReader(self.name, self._options.consumer)

    def producer(self) -> Producer:
        return KafkaProducer(self.name, self._options.producer)

    @property
    def _connected(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            raise BrokerError(f"The connection to {self.name} is not open.")
        return self._admin

    @property
    def _connected_offsets(self) -> AIOKafkaConsumer:
        if self._offsets is None:
            raise BrokerError(f"The connection to {self.name} is not open.")
        return self._offsets

    async def _connect(self) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self.name, **self._options.admin)
        await self._admin.start()
        self._offsets = AIOKafkaConsumer(
            bootstrap_servers=self.name,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            **self._options.consumer,
        )
        await self._offsets.start()

    async def _raise_if_refused(self, deadline: float) -> None:
        """aiokafka's bootstrap hides why a connection failed: connect once more, by hand, to hear it."""
        options = self._options.admin
        names = ("ssl_context", "security_protocol", "request_timeout_ms")
        known = {name: value for name, value in options.items() if name in names or name.startswith("sasl_")}
        for host, port, _ in collect_hosts(self.name):
            try:
                async with asyncio.timeout_at(deadline):
                    connection = await create_conn(host, port, **known)
            except (OSError, TimeoutError, kafka_errors.KafkaError) as error:
                refused = translated(error, f"Logging in at {self.name}")
                if isinstance(refused, AuthenticationFailed):
                    raise refused from error
            else:
                connection.close()

    async def _configs(self, kind: ConfigResourceType, names: list[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {name: {} for name in names}
        for response in await self._connected.describe_configs([ConfigResource(kind, name) for name in names]):
            for code, message, _, name, entries in response.resources:
                if code:
                    raise BrokerError(f"Reading the settings of {name!r} on {self.name} failed: {message}")
                found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        return found

    async def _default_replication_factor(self) -> int:
        with translating(f"Asking {self.name} for its default replication factor"):
            cluster = await self._connected.describe_cluster()
            node = str(cluster["brokers"][0]["node_id"])
            return int((await self._configs(ConfigResourceType.BROKER, [node]))[node]["default.replication.factor"])

    async def _until_usable(self, names: list[str]) -> None:
        """A created topic has leaders a moment later."""
        while True:
            described = await self._connected.describe_topics(names)
            if all(
                not topic["error_code"] and all(not partition["error_code"] for partition in topic["partitions"])
                for topic in described
            ):
                return
            await asyncio.sleep(0.02)

    async def _retrying(self, ask: Any) -> Any:
        """A coordinator that moves or loads is no answer: ask again for as long as connecting may take."""
        async with asyncio.timeout(self._connect_timeout_sec):
            while True:
                try:
                    return await ask()
                except kafka_errors.KafkaError as error:
                    if not error.retriable:
                        raise
                await asyncio.sleep(0.1)


def _theirs(partitions: Collection[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(*partition) for partition in partitions]
