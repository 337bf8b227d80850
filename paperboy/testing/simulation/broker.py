"""The simulated broker: the memory broker, with everything that reaches it seen."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from paperboy.brokers.memory import MemoryBroker, MemoryCluster
from paperboy.brokers.memory.batches import Batch
from paperboy.brokers.memory.consumer import MemoryConsumer
from paperboy.brokers.memory.group import Group
from paperboy.brokers.memory.log import PartitionLog
from paperboy.brokers.memory.producer import MemoryProducer
from paperboy.brokers.memory.transactions import Transactions
from paperboy.brokers.protocol import (
    Ack,
    Assignment,
    Assignor,
    MembershipOptions,
    Outgoing,
    RebalanceListener,
    TopicPartition,
)
from paperboy.testing.loop import current_process
from paperboy.testing.simulation.durability import Durability
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.trace import Trace
from paperboy.testing.simulation.weather import Weather


class SimulatedBroker(MemoryBroker):
    """One worker's connection."""

    def __init__(
        self, cluster: MemoryCluster, process: Incarnation, durability: Durability, weather: Weather, trace: Trace
    ) -> None:
        super().__init__(cluster, name="simulation")
        self.process = process
        self.durability = durability
        self.weather = weather
        self.trace = trace
        self.member: SimulatedConsumer | None = None
        self._begun: frozenset[TopicPartition] = frozenset()

    def consumer(
        self, group_id: str, topics: Collection[str], assignor: Assignor, options: MembershipOptions
    ) -> MemoryConsumer:
        self.member = SimulatedConsumer(self, group_id, topics, assignor, options)
        return self.member

    def producer(self) -> MemoryProducer:
        return SimulatedProducer(self)

    @property
    def is_member(self) -> bool:
        """Whether this worker is one of the group, as the group sees it."""
        return self.member is not None and self.member.is_current

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        begins = await super().beginning_offsets(partitions)
        self._begun = self._begun | frozenset(partitions)  # a restore asks for these, a reclaim does not
        return begins

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        ends = await super().end_offsets(partitions)
        if self.is_member and self._begun.issuperset(partitions):
            self._begun = self._begun.difference(partitions)
            self.durability.restores((self.process, self.process.assignments), partitions)
        return ends


class SimulatedConsumer(MemoryConsumer):
    """A member whose assignments are counted."""

    def __init__(
        self,
        broker: SimulatedBroker,
        group_id: str,
        topics: Collection[str],
        assignor: Assignor,
        options: MembershipOptions,
    ) -> None:
        super().__init__(broker.cluster, group_id, topics, assignor, options)
        self._broker = broker

    async def start(self, listener: RebalanceListener) -> None:
        await super().start(cast(RebalanceListener, _Listener(listener, self._broker)))

    @property
    def is_current(self) -> bool:
        """Whether it is in the group's present generation."""
        group = self._group
        return self._member_id in group._members and self._generation == group.generation

    async def confirm(self, generation: int) -> None:
        await super().confirm(generation)
        process = self._broker.process
        process.confirmed_at = self._broker.weather.now()
        process.stood_still = False


class _Listener:
    def __init__(self, listener: RebalanceListener, broker: SimulatedBroker) -> None:
        self._listener = listener
        self._broker = broker

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._broker.trace.say(f"revoked {len(partitions)}")
        await self._listener.on_revoked(partitions)

    def on_assigned(self, assignment: Assignment) -> None:
        process = self._broker.process
        process.assignments += 1
        process.may_repeat = False
        self._broker.trace.say(f"assigned {', '.join(map(str, assignment.partitions))}")
        self._listener.on_assigned(assignment)


class SimulatedProducer(MemoryProducer):
    """A producer whose batches are seen when they reach the log."""

    def __init__(self, broker: SimulatedBroker) -> None:
        super().__init__(broker.cluster)
        self._broker = broker
        self._sent_in: dict[asyncio.Future[Ack], int] = {}
        """In which assignment each batch that waits was sent."""

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        broker = self._broker
        broker.durability.sends(broker.process, partition, broker.is_member, broker.weather.now())
        acks = await super().send(partition, records)
        self._sent_in.update(dict.fromkeys(acks, broker.process.assignments))
        return acks

    def _write(self, partition: TopicPartition, batch: Batch) -> Ack:
        broker = self._broker
        writer = (broker.process, self._sent_in.pop(self._queue[0][2]))
        ack = super()._write(partition, batch)
        broker.trace.say(f"log {partition} {ack.base_offset}+{ack.records}")
        broker.durability.appended(writer, partition, batch[0])
        return Ack(-1, ack.records) if broker.weather.hides_offset() else ack


class SimulatedTransactions(Transactions):
    """A coordinator of transactions, what happens in which is seen."""

    trace: Trace

    def begin_anew(self, transactional_id: str, timeout_sec: float) -> int:
        epoch = super().begin_anew(transactional_id, timeout_sec)
        self.trace.say(f"transactions of {transactional_id} begin anew, epoch {epoch}")
        return epoch

    def add_log(self, transactional_id: str, epoch: int, log: PartitionLog) -> None:
        super().add_log(transactional_id, epoch, log)
        self.trace.say(f"log {log.partition} {log.end_offset} in {transactional_id}")

    def _end(self, transactional_id: str, producer: Any, *, commits: bool) -> None:
        self.trace.say(f"transaction of {transactional_id} {'committed' if commits else 'aborted'}")
        super()._end(transactional_id, producer, commits=commits)


class SimulatedGroup(Group):
    """A coordinator whose commits are seen."""

    durability: Durability
    trace: Trace

    def commit(self, member_id: str, generation: int, offsets: Mapping[TopicPartition, int]) -> None:
        super().commit(member_id, generation, offsets)
        self.trace.say(f"commit {', '.join(f'{partition} {offset}' for partition, offset in offsets.items())}")
        self.durability.committed(current_process(), offsets)

    def commit_transaction(self, transactional_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        super().commit_transaction(transactional_id, offsets)
        self.trace.say(f"commit {', '.join(f'{partition} {offset}' for partition, offset in offsets.items())}")
        self.durability.committed(current_process(), offsets)
