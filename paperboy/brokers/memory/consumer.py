"""A member of a consumer group."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

from paperboy.brokers.memory.cluster import MemoryCluster
from paperboy.brokers.memory.fetcher import Fetcher
from paperboy.brokers.memory.group import RebalanceUnderWay
from paperboy.brokers.protocol import (
    Assignment,
    Assignor,
    Member,
    MembershipOptions,
    RebalanceListener,
    Record,
    TopicPartition,
    Watermark,
)
from paperboy.errors import BrokerError, NotOwner

_log = logging.getLogger("paperboy.brokers.memory")


class MemoryConsumer:
    """A `Consumer` in a group of a memory cluster.

    One task joins whenever it has to; a timer beats for as long as the event loop turns. Whatever it knows of the
    group it knows from answers to its own calls, so that it can be wrong for a while, as a real member can.
    """

    def __init__(
        self,
        cluster: MemoryCluster,
        group_id: str,
        topics: Collection[str],
        assignor: Assignor,
        options: MembershipOptions,
    ) -> None:
        self._cluster = cluster
        self._group = cluster.group(group_id)
        self._topics = frozenset(topics)
        self._assignor = assignor
        self._options = options
        self._listener: RebalanceListener | None = None
        self._fetcher = Fetcher(cluster)
        self._assignment = Assignment(0, ())
        self._member_id: str | None = None
        self._generation: int | None = None
        """The group's, since the assignment and until we hear that it is over."""
        self._assigned = False
        self._revoking = False
        self._closing = False
        self._rejoin_needed = asyncio.Event()
        self._membership: asyncio.Task[None] | None = None
        self._heartbeat: asyncio.TimerHandle | None = None

    async def start(self, listener: RebalanceListener) -> None:
        self._listener = listener
        name = f"member of {self._group.name} on {self._cluster}"
        self._membership = asyncio.get_running_loop().create_task(self._take_part(), name=name)

    async def stop(self) -> None:
        task, self._membership = self._membership, None
        if task is None:
            return
        self._closing = True
        if not self._revoking:
            task.cancel()
        await asyncio.wait([task])
        self._stop_heartbeats()
        if self._member_id is not None and self._options.group_instance_id is None:
            self._group.leave(self._member_id)
        self._forget()

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_sec: float, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        task = self._membership
        if task is None:
            raise BrokerError(f"The consumer of group {self._group.name!r} on {self._cluster} is not open.")
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise BrokerError(f"Group {self._group.name!r} on {self._cluster}: joining failed: {error}") from error
        return await self._fetcher.fetch(partitions, timeout_sec, max_records)

    def wake(self) -> None:
        self._fetcher.wake()

    def position(self, partition: TopicPartition) -> int | None:
        return self._fetcher.position(partition)

    def watermark(self, partition: TopicPartition) -> Watermark | None:
        return self._fetcher.watermark(partition)

    def release(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        if self.owns(generation):
            self._check_assigned(offsets)
            self._fetcher.stand_at(offsets)

    def seek(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        if self.owns(generation):
            self._check_assigned(offsets)
            released = {at: offset for at, offset in offsets.items() if self._fetcher.position(at) is not None}
            self._fetcher.stand_at(released)

    def owns(self, generation: int) -> bool:
        return self._generation is not None and generation == self._assignment.generation

    async def confirm(self, generation: int) -> None:
        member_id, stamp = self._member_id, self._generation
        if not self.owns(generation) or member_id is None or stamp is None:
            raise NotOwner(f"The assignment of group {self._group.name!r} on {self._cluster} is over.")
        await self._cluster.faults.meet("confirm")
        try:
            self._group.heartbeat(member_id, stamp)
        except RebalanceUnderWay as error:
            self._hear(error, member_id, stamp)
        except NotOwner as error:
            self._hear(error, member_id, stamp)
            raise

    async def commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        member_id, stamp = self._member_id, self._generation
        if not self.owns(generation) or member_id is None or stamp is None:
            raise NotOwner(
                f"Commit of group {self._group.name!r} on {self._cluster} was not sent:"
                " the assignment it belongs to is over."
            )
        await self._cluster.faults.meet("commit")
        try:
            self._group.commit(member_id, stamp, offsets)
        except NotOwner as error:
            self._hear(error, member_id, stamp)
            raise
        await self._cluster.faults.meet("commit_ack")

    def rejoin(self) -> None:
        self._rejoin_needed.set()

    def freeze(self) -> None:
        """For tests: stop the heartbeats, as a process does that stands still. The session ends by time-out."""
        self._stop_heartbeats()

    def thaw(self) -> None:
        """For tests: after `freeze`, go on with a heartbeat at once, which tells what has happened meanwhile."""
        self._stop_heartbeats()
        self._beat()

    def expire(self) -> None:
        """For tests: end the session now, as if its time were up. The member hears of it as always: later."""
        if self._member_id is not None:
            self._group.expire(self._member_id)

    def crash(self) -> None:
        """For tests: be gone as if the process had been killed. The session stays behind."""
        task, self._membership = self._membership, None
        if task is not None:
            task.cancel()
        self._stop_heartbeats()
        self._forget()

    async def _take_part(self) -> None:
        while not self._closing:
            await self._join()
            await self._rejoin_needed.wait()
            await self._revoke()

    async def _revoke(self) -> None:
        assert self._listener is not None
        if not self._assigned:
            return
        self._revoking = True
        self._fetcher.hold()
        try:
            await self._listener.on_revoked(self._assignment.partitions)
        except Exception:  # noqa: BLE001 - logged, as aiokafka does
            _log.exception("Group %r: a listener failed while its partitions were revoked.", self._group.name)
        finally:
            self._revoking = False
            self._assigned = False
            self._generation = None
            self._fetcher.forget_all()

    async def _join(self) -> None:
        self._stop_heartbeats()
        while True:
            self._rejoin_needed.clear()
            try:
                about_us = Member(self._topics, self._assignor.user_data())
                self._member_id, answer = self._group.join(self._member_id, self._options, about_us)
                joined = await answer
                assignments = None if joined.members is None else self._assign(joined.members)
                partitions = await self._group.sync(self._member_id, joined.generation, assignments)
            except RebalanceUnderWay:
                continue
            except NotOwner:
                self._member_id = None
                continue
            break
        self._generation = joined.generation
        self._assignment = Assignment(self._assignment.generation + 1, tuple(partitions))
        self._assigned = True
        self._schedule_heartbeat()
        assert self._listener is not None
        try:
            self._listener.on_assigned(self._assignment)
        except Exception:  # noqa: BLE001 - logged, as aiokafka does
            _log.exception("Group %r: a listener failed when partitions were assigned.", self._group.name)

    def _assign(self, members: Mapping[str, Member]) -> Mapping[str, Sequence[TopicPartition]]:
        topics = {topic for member in members.values() for topic in member.topics}
        return self._assignor.assign(members, self._cluster.partition_counts(topics))

    def _beat(self) -> None:
        self._heartbeat = None
        if self._member_id is None or self._generation is None:
            return
        try:
            self._group.heartbeat(self._member_id, self._generation)
        except NotOwner as error:
            self._hear(error, self._member_id, self._generation)
        if self._member_id is not None:
            self._schedule_heartbeat()

    def _schedule_heartbeat(self) -> None:
        loop = asyncio.get_running_loop()
        self._heartbeat = loop.call_later(self._options.heartbeat_interval_sec, self._beat)

    def _stop_heartbeats(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    def _hear(self, error: NotOwner, member_id: str, stamp: int) -> None:
        """The group has told us that it has moved on; old news where we are somebody else by now."""
        if (member_id, stamp) != (self._member_id, self._generation):
            return
        if not isinstance(error, RebalanceUnderWay):
            self._forget()
        self._rejoin_needed.set()

    def _forget(self) -> None:
        self._stop_heartbeats()
        self._member_id = None
        self._generation = None
        self._fetcher.forget_all()

    def _check_assigned(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition in offsets:
            if partition not in self._assignment.partitions:
                raise BrokerError(f"{partition} is not assigned to this member of group {self._group.name!r}.")
