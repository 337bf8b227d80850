"""A member of a Kafka consumer group."""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.protocol.group import HeartbeatRequest

from paperboy.brokers.kafka.assignor import KafkaAssignor
from paperboy.brokers.kafka.closing import stop_consumer
from paperboy.brokers.kafka.commit import commit_errors, commit_request
from paperboy.brokers.kafka.errors import translated, translating
from paperboy.brokers.kafka.fetch import fetch
from paperboy.brokers.kafka.unpack import unpack_chunks
from paperboy.brokers.protocol import (
    Assignment,
    Assignor,
    MembershipOptions,
    RebalanceListener,
    Record,
    TopicPartition,
    Watermark,
)
from paperboy.clock import Clock
from paperboy.errors import BrokerError, NotOwner

_ANSWER_SEC = 30.0
_RETRY_SEC = 0.1
_CONFIRMED_SEC = 1.0
"""How long the group's word that we are a member is taken: far less than any session."""
_FOR_EVER_MS = 2**31 - 1
_COORDINATOR_MOVED = (
    kafka_errors.GroupCoordinatorNotAvailableError,
    kafka_errors.NotCoordinatorForGroupError,
    kafka_errors.RequestTimedOutError,
)


class KafkaConsumer:
    """Joins `group_id` for `topics`.

    aiokafka's own ``commit`` stamps whatever generation is current when it gets to it, so a commit that began before
    a rebalance could pass after it. This class captures the generation at assignment and sends commit requests
    stamped with just that one: the only place in the package that knows a generation.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group_id: str,
        topics: Collection[str],
        assignor: Assignor,
        options: MembershipOptions,
        client_options: Mapping[str, object],
        clock: Clock,
    ) -> None:
        self._name = bootstrap_servers
        self._group_id = group_id
        self._topics = sorted(topics)
        self._assignor = assignor
        self._options = options
        self._client_options = client_options
        self._clock = clock
        self._consumer: AIOKafkaConsumer | None = None
        self._listener: RebalanceListener | None = None
        self._assignment = Assignment(0, ())
        self._membership: tuple[int, str] | None = None
        self._held: set[TopicPartition] = set()
        self._confirmed_at = -math.inf
        self._asking: dict[asyncio.Timeout, None] = {}
        self._nothing_asked = asyncio.Event()
        self._woken: asyncio.Future[None] | None = None
        """Of the fetch that is under way."""

    async def start(self, listener: RebalanceListener) -> None:
        self._listener = listener
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._name,
            group_id=self._group_id,
            group_instance_id=self._options.group_instance_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=(KafkaAssignor(self._assignor),),
            session_timeout_ms=int(self._options.session_timeout_sec * 1000),
            heartbeat_interval_ms=int(self._options.heartbeat_interval_sec * 1000),
            rebalance_timeout_ms=int(self._options.rebalance_timeout_sec * 1000),
            max_poll_interval_ms=_FOR_EVER_MS,
            **self._client_options,
        )
        with translating(f"Joining group {self._group_id!r} on {self._name}"):
            await self._consumer.start()
            unpack_chunks(self._consumer)
            self._consumer.subscribe(self._topics, listener=_Listener(self))

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._membership = None
        if consumer is not None:
            await self._end_questions()
            await stop_consumer(consumer)

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        consumer = self._connected
        with translating(f"Group {self._group_id!r} on {self._name}"):
            consumer._coordinator.check_errors()
        mine = [partition for partition in partitions if partition not in self._held]
        if not mine:
            return {}  # getmany of no partition would mean every partition
        self._woken = asyncio.get_running_loop().create_future()
        try:
            chunks = await fetch(consumer, mine, timeout_sec, max_records, self._name, self._woken)
        except NotOwner:
            return {}  # the rebalance that took them tells the listener
        finally:
            self._woken = None
        return {partition: records for partition, records in chunks.items() if partition not in self._held}

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def position(self, partition: TopicPartition) -> int | None:
        state = self._state(partition)
        return None if state is None or partition in self._held else int(state.position)

    def watermark(self, partition: TopicPartition) -> Watermark | None:
        state = self._state(partition)
        if state is None or state.highwater is None or state.timestamp is None:
            return None
        stable = state.lso
        end = state.highwater if stable is None or stable < 0 else stable
        return Watermark(end, max(0, self._clock.time_ms() - state.timestamp) / 1000)

    def release(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        if self._is_current(generation):
            self._check_assigned(offsets)
            self.seek(offsets, generation)
            self._held.difference_update(offsets)
            self._connected.resume(*_theirs(offsets))

    def seek(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        if self._is_current(generation):
            self._check_assigned(offsets)
            for partition, offset in zip(_theirs(offsets), offsets.values(), strict=True):
                self._connected.seek(partition, offset)

    def owns(self, generation: int) -> bool:
        if not self._is_current(generation):
            return False
        coordinator = self._connected._coordinator
        return self._membership == (coordinator.generation, coordinator.member_id)

    async def confirm(self, generation: int) -> None:
        doing = f"Asking group {self._group_id!r} on {self._name} whether its assignment still holds"
        membership = self._membership_of(generation, doing)
        now = asyncio.get_running_loop().time
        asked_at = now()
        if asked_at - self._confirmed_at < _CONFIRMED_SEC:
            return
        await self._ask(HeartbeatRequest(self._group_id, *membership), doing, _heartbeat_errors)
        if now() - asked_at >= self._options.session_timeout_sec:
            # We stood still with the answer in hand: what the group said was said before.
            await self._ask(HeartbeatRequest(self._group_id, *membership), doing, _heartbeat_errors)
        self._confirmed_at = asked_at

    async def commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        doing = f"Commit of group {self._group_id!r} on {self._name}"
        membership = self._membership_of(generation, doing)
        await self._ask(commit_request(self._group_id, membership, offsets), doing, commit_errors)

    def rejoin(self) -> None:
        self._connected._coordinator.request_rejoin()

    @property
    def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise BrokerError(f"The consumer of group {self._group_id!r} on {self._name} is not open.")
        return self._consumer

    def _is_current(self, generation: int) -> bool:
        return self._consumer is not None and self._membership is not None and generation == self._assignment.generation

    def _check_assigned(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition in offsets:
            if partition not in self._assignment.partitions:
                raise BrokerError(f"{partition} is not assigned to this member of group {self._group_id!r}.")

    def _state(self, partition: TopicPartition) -> Any:
        if self._consumer is None or self._membership is None or partition not in self._assignment.partitions:
            return None
        subscription = self._consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        return None if assignment is None or partition not in assignment.tps else assignment.state_value(partition)

    def _membership_of(self, generation: int, doing: str) -> tuple[int, str]:
        membership = self._membership
        if membership is None or not self.owns(generation):
            raise NotOwner(f"{doing} was not sent: the assignment it belongs to is over.")
        return membership

    async def _ask(self, request: Any, doing: str, errors_of: Callable[[Any], Iterable[type[Exception]]]) -> None:
        """Send a request of this member's to the group's coordinator, wherever it is, for a bounded time."""
        with translating(doing):
            async with asyncio.timeout(_ANSWER_SEC) as alive:
                self._asking[alive] = None
                self._nothing_asked.clear()
                try:
                    await self._until_answered(request, errors_of)
                finally:
                    del self._asking[alive]
                    if not self._asking:
                        self._nothing_asked.set()

    async def _until_answered(self, request: Any, errors_of: Callable[[Any], Iterable[type[Exception]]]) -> None:
        coordinator = self._connected._coordinator
        while True:
            await coordinator.ensure_coordinator_known()
            try:
                for error in errors_of(await coordinator._send_req(request)):
                    raise error
                return
            except kafka_errors.KafkaError as error:
                if isinstance(error, _COORDINATOR_MOVED):
                    coordinator.coordinator_dead()
                elif isinstance(translated(error, ""), NotOwner):
                    coordinator.request_rejoin()
                    raise
                if not error.retriable:
                    raise
            await asyncio.sleep(_RETRY_SEC)

    async def _end_questions(self) -> None:
        """Returns when no commit is alive, nor any other question to the coordinator."""
        for alive in list(self._asking):
            alive.reschedule(asyncio.get_running_loop().time())
        if self._asking:
            await self._nothing_asked.wait()

    async def _revoke(self) -> None:
        if self._membership is None or self._listener is None:
            return  # the first join revokes nothing
        try:
            await self._listener.on_revoked(self._assignment.partitions)
        finally:
            await self._end_questions()
            self._membership = None

    def _assign(self, partitions: Collection[KafkaTopicPartition]) -> None:
        if self._consumer is None or self._listener is None:
            return  # stopped while the group was being joined
        coordinator = self._consumer._coordinator
        # A position that is set, on a partition that is paused, keeps aiokafka from fetching or resetting anything.
        self._consumer.pause(*partitions)
        for partition in partitions:
            self._consumer.seek(partition, 0)
        mine = tuple(sorted(TopicPartition(*partition) for partition in partitions))
        self._held = set(mine)
        self._membership = (coordinator.generation, coordinator.member_id)
        self._confirmed_at = -math.inf
        self._assignment = Assignment(self._assignment.generation + 1, mine)
        self._listener.on_assigned(self._assignment)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Collection[KafkaTopicPartition]) -> None:
        await self._consumer._revoke()

    def on_partitions_assigned(self, assigned: Collection[KafkaTopicPartition]) -> None:
        self._consumer._assign(assigned)


def _theirs(partitions: Collection[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(*partition) for partition in partitions]


def _heartbeat_errors(response: Any) -> Iterable[type[Exception]]:
    """While the group rebalances, its members are its members."""
    error = kafka_errors.for_code(response.error_code)
    return [] if error in (kafka_errors.NoError, kafka_errors.RebalanceInProgressError) else [error]
