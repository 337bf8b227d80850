"""A Kafka cluster, as one engine is connected to it."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import CoordinationType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.record import default_records

from paperboy.brokers.kafka.closing import stop_consumer
from paperboy.brokers.kafka.commit import NO_MEMBER, commit_errors, commit_request, fetch_request, fetched_offsets
from paperboy.brokers.kafka.consumer import KafkaConsumer
from paperboy.brokers.kafka.errors import translated, translating
from paperboy.brokers.kafka.metadata import TopicMetadata, topic_metadata
from paperboy.brokers.kafka.options import ClientOptions
from paperboy.brokers.kafka.producer import KafkaProducer
from paperboy.brokers.kafka.reader import KafkaReader
from paperboy.brokers.kafka.transactions import MARK, KafkaTransactionalProducer
from paperboy.brokers.protocol import (
    Assignor,
    Consumer,
    MembershipOptions,
    Producer,
    Reader,
    TopicDescription,
    TopicPartition,
    TopicSpec,
    TransactionalProducer,
)
from paperboy.clock import Clock, SystemClock
from paperboy.errors import AuthenticationFailed, BrokerError, BrokerUnreachable
from paperboy.log import get_logger

_log = get_logger("paperboy.kafka")

_RETRY_SEC = 0.5
_LOST_REQUEST_SEC = 10.0
"""How long a question is asked again after a request that nobody answered: what is silent is a connection, at first."""
_TOPIC_EXISTS = 36
_OF_THE_TOPIC = 1
"""Among the places that a setting of a topic can come from: the topic itself."""
_NOT_EMPTY = (
    kafka_errors.UnknownMemberIdError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
)
"""What a group with members says to a commit of somebody who is none."""


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
        # A request that is given up before its own time is over leaves its connection, though silent, to the next one.
        self._answer_sec = max(connect_timeout_sec, self._options.request_timeout_sec + _LOST_REQUEST_SEC)
        self._admin: AIOKafkaAdminClient | None = None
        self._offsets: AIOKafkaConsumer | None = None
        self._asking: dict[asyncio.Timeout, None] = {}

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
        for alive in self._asking:  # a client that is closed would be asked again, in vain
            if not alive.expired():
                alive.reschedule(asyncio.get_running_loop().time())
        if admin is not None:
            await admin.close()
        if offsets is not None:
            await stop_consumer(offsets)

    async def describe_topics(self, names: Collection[str]) -> dict[str, TopicDescription]:
        with translating(f"Describing topics on {self.name}"):
            found = await self._topics(names)
            configs = await self._retrying(lambda: self._configs(ConfigResourceType.TOPIC, list(found)))
            return {
                name: TopicDescription(name, topic.partitions, configs[name], topic.id, topic.replication_factor)
                for name, topic in found.items()
            }

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
            response = await self._retrying(lambda: self._connected.create_topics(new))  # those that exist are refused
            for name, code, *rest in response.topic_errors:
                if code not in (0, _TOPIC_EXISTS):
                    reason = (rest[0] if rest else None) or kafka_errors.for_code(code).__name__
                    raise BrokerError(f"Creating topic {name!r} on {self.name} failed: {reason}")
            names = {spec.name for spec in topics}
            await self._until(
                names, lambda found: found.keys() == names and all(topic.usable for topic in found.values())
            )

    async def topic_names(self) -> list[str]:
        """Every topic there is, sorted."""
        with translating(f"Listing the topics of {self.name}"):
            return sorted(await self._connected.list_topics())

    async def topic_specs(self, names: Collection[str]) -> dict[str, TopicSpec]:
        """Those of these topics that exist, as they would be created again: with the settings that are their own, and
        without those that are the cluster's."""
        with translating(f"Describing topics on {self.name}"):
            found = await self._topics(names)
            entries = await self._retrying(lambda: self._config_entries(ConfigResourceType.TOPIC, list(found)))
        return {
            name: TopicSpec(
                name,
                topic.partitions,
                topic.replication_factor,
                {key: value for key, value, _, source, *_ in entries[name] if source == _OF_THE_TOPIC},
            )
            for name, topic in found.items()
        }

    async def delete_topics(self, names: Collection[str]) -> None:
        if not names:
            return
        with translating(f"Deleting topics on {self.name}"):
            response = await self._connected.delete_topics(sorted(set(names)))
            for name, code in response.topic_error_codes:
                error = kafka_errors.for_code(code)
                if error not in (kafka_errors.NoError, kafka_errors.UnknownTopicOrPartitionError):
                    raise error(f"topic {name!r}")
            await self._until(names, lambda found: not found)

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        with translating(f"Asking {self.name} for beginning offsets"):
            found = await self._retrying(lambda: self._connected_offsets.beginning_offsets(_theirs(partitions), None))
        return {partition: found[partition] for partition in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        with translating(f"Asking {self.name} for end offsets"):
            found = await self._retrying(lambda: self._connected_offsets.end_offsets(_theirs(partitions), None))
        return {partition: found[partition] for partition in partitions}

    async def offsets_since(self, partitions: Collection[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        """Of each partition, the offset of the first record of this time (ms since 1970, UTC) or later; its end where
        there is none."""
        with translating(f"Asking {self.name} for offsets by time"):
            times = dict.fromkeys(_theirs(partitions), max(0, time_ms))
            found = await self._retrying(lambda: self._connected_offsets.get_offsets_by_times(times, None))
        ends = await self.end_offsets(partitions)
        return {
            partition: end if (since := found.get(partition)) is None else since.offset
            for partition, end in ends.items()
        }

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below an offset of each partition, and return when they are gone.

        Raises:
            TopicNotFound: one of them does not exist.
            BrokerError: an offset lies beyond the end, or a topic is compacted and nothing else.
        """
        if not before:
            return
        with translating(f"Deleting records on {self.name}"):
            names = {partition.topic for partition in before}
            for name in sorted(names - (await self._topics(names)).keys()):
                raise kafka_errors.UnknownTopicOrPartitionError(f"topic {name!r}")
            await self._retrying(
                lambda: self._connected.delete_records(
                    {KafkaTopicPartition(*partition): RecordsToDelete(offset) for partition, offset in before.items()}
                )
            )

    async def committed(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        found = await self._committed(group_id, partitions)
        return {
            partition: offset if (offset := found.get(partition, (-1, ""))[0]) >= 0 else None
            for partition in partitions
        }

    async def committed_by(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, str | None]:
        found = await self._committed(group_id, partitions)
        return {
            partition: by.removeprefix(MARK) if (by := found.get(partition, (-1, ""))[1]).startswith(MARK) else None
            for partition in partitions
        }

    async def reset_committed(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        if not offsets:
            return
        with translating(f"Resetting the committed offsets of group {group_id!r} on {self.name}"):
            try:
                await self._retrying(lambda: self._commit_for_nobody(group_id, offsets))
            except _NOT_EMPTY as error:
                raise BrokerError(
                    f"Group {group_id!r} has members, which would go on where they are: stop its workers first; one"
                    " that was killed is a member until its session has ended."
                ) from error

    async def check_transactions(self, transactional_ids: Collection[str], timeout_sec: float) -> None:
        try:
            with translating(f"Asking {self.name} for its transaction.max.timeout.ms"):
                longest_ms = await self._setting("transaction.max.timeout.ms")
        except BrokerError as error:  # who may not ask hears of it when the first transaction begins
            _log.info("longest transaction unknown", error=str(error))
            longest_ms = None
        if longest_ms is not None and timeout_sec * 1000 > int(longest_ms):
            raise BrokerError(
                f"transaction_timeout_sec={timeout_sec:g} is longer than {self.name} allows: lower it, or raise the"
                f" broker's transaction.max.timeout.ms={longest_ms}."
            )
        for transactional_id in sorted(transactional_ids):
            with translating(f"Asking {self.name} about transactions of {transactional_id!r}"):
                lookup = self._connected._client.coordinator_lookup
                await self._retrying(partial(lookup, CoordinationType.TRANSACTION, transactional_id))

    def consumer(
        self, group_id: str, topics: Collection[str], assignor: Assignor, options: MembershipOptions
    ) -> Consumer:
        return KafkaConsumer(self.name, group_id, topics, assignor, options, self._options.consumer, self.clock)

    def reader(self) -> Reader:
        return KafkaReader(self.name, self._options.consumer)

    def producer(self) -> Producer:
        return KafkaProducer(self.name, self._options.producer)

    def transactional_producer(self, transactional_id: str, timeout_sec: float) -> TransactionalProducer:
        return KafkaTransactionalProducer(self.name, transactional_id, timeout_sec, self._options.producer)

    @property
    def _connected(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            raise BrokerError(f"The connection to {self.name} is not open.")
        return self._admin

    @property
    def _connected_offsets(self) -> Any:
        """aiokafka's fetcher: the consumer's own methods have no more time than one request, and none to ask again."""
        if self._offsets is None:
            raise BrokerError(f"The connection to {self.name} is not open.")
        return self._offsets._fetcher

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

    async def _topics(self, names: Collection[str]) -> dict[str, TopicMetadata]:
        found: dict[str, TopicMetadata] = await self._retrying(lambda: topic_metadata(self._connected, names))
        return found

    async def _configs(self, kind: ConfigResourceType, names: list[str]) -> dict[str, dict[str, str]]:
        found = await self._config_entries(kind, names)
        return {
            name: {entry[0]: entry[1] for entry in entries if entry[1] is not None} for name, entries in found.items()
        }

    async def _config_entries(self, kind: ConfigResourceType, names: list[str]) -> dict[str, list[Any]]:
        """As aiokafka has them: name, value, whether it can be read only, whose setting it is, and more."""
        found: dict[str, list[Any]] = {name: [] for name in names}
        for response in await self._connected.describe_configs([ConfigResource(kind, name) for name in names]):
            for code, message, _, name, entries in response.resources:
                if code:
                    raise BrokerError(f"Reading the settings of {name!r} on {self.name} failed: {message}")
                found[name] = entries
        return found

    async def _default_replication_factor(self) -> int:
        with translating(f"Asking {self.name} for its default replication factor"):
            return int(await self._setting("default.replication.factor"))

    async def _setting(self, name: str) -> str:
        """One of the brokers' own, of the first that answers: one that has just died is listed for a while."""
        return str(await self._retrying(lambda: self._first_setting(name)))

    async def _first_setting(self, name: str) -> str:
        cluster = await self._connected.describe_cluster()
        nodes = [str(broker["node_id"]) for broker in cluster["brokers"]]
        for node in nodes:
            try:
                return (await self._configs(ConfigResourceType.BROKER, [node]))[node][name]
            except kafka_errors.KafkaError as error:
                if not error.retriable or node == nodes[-1]:
                    raise
        raise BrokerError(f"{self.name} names no brokers.")

    async def _until(self, names: Collection[str], done: Callable[[Mapping[str, TopicMetadata]], bool]) -> None:
        """What the controller has done to these topics the brokers hear a moment later."""
        async with asyncio.timeout(self._answer_sec):
            while True:
                if done(await self._topics(names)):
                    return
                await asyncio.sleep(0.02)

    async def _committed(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str]]:
        """Offsets, and their metadata."""
        if not partitions:
            return {}
        with translating(f"Asking {self.name} for the committed offsets of group {group_id!r}"):
            found: dict[TopicPartition, tuple[int, str]] = await self._retrying(
                lambda: self._fetch_committed(group_id, partitions)
            )
        return found

    async def _fetch_committed(
        self, group_id: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str]]:
        """aiokafka's admin client would not hear of what keeps the whole group from being answered: a coordinator that
        loads, or is none any more, says so in place of the offsets, which then seem never to have been committed."""
        admin = self._connected
        coordinator = await admin.find_coordinator(group_id)
        response = await admin._client.send(coordinator, fetch_request(group_id, partitions))
        found = fetched_offsets(response)
        absent = [str(partition) for partition in partitions if partition not in found]
        if absent:
            raise BrokerError(f"{self.name} says nothing about the committed offsets of {', '.join(absent)}.")
        return found

    async def _commit_for_nobody(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """A coordinator takes a commit of no member's while its group has none, and refuses it otherwise."""
        admin = self._connected
        coordinator = await admin.find_coordinator(group_id)
        for error in commit_errors(await admin._client.send(coordinator, commit_request(group_id, NO_MEMBER, offsets))):
            raise error

    async def _retrying(self, ask: Any) -> Any:
        """A connection that is lost, and a coordinator that moves or loads, are no answer: ask again, for a while."""
        last: kafka_errors.KafkaError | None = None
        alive = asyncio.timeout(self._answer_sec)
        try:
            async with alive:
                self._asking[alive] = None
                while True:
                    try:
                        return await ask()
                    except kafka_errors.KafkaError as error:
                        if not error.retriable:
                            raise
                        last = error
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            if last is None:
                raise
            raise last from error
        finally:
            self._asking.pop(alive, None)


def _theirs(partitions: Collection[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(*partition) for partition in partitions]
