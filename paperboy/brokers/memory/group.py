"""The coordinator of one consumer group: members, generations, assignments and committed offsets.

It speaks as Kafka's does, and knows nothing of the clients but their calls: who joins waits until everybody has,
who does not join in time is out, the leader assigns, and each hears of a rebalance by its next heartbeat.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from paperboy.brokers.memory.clock import Alarm, MemoryClock
from paperboy.brokers.memory.waiting import refuse, settle
from paperboy.brokers.protocol import Member, MembershipOptions, TopicPartition
from paperboy.errors import BrokerError, NotOwner

_log = logging.getLogger("paperboy.brokers.memory")


class MemberUnknown(NotOwner):
    """The group does not know this member any more: its session has ended, or another took its place."""


class GenerationOver(NotOwner):
    """The group has rebalanced since."""


class RebalanceUnderWay(NotOwner):
    """The group rebalances: join it."""


class Joined(NamedTuple):
    """The answer to a join, given when everybody has joined."""

    generation: int
    members: Mapping[str, Member] | None
    """For the one who is to assign; None for the others."""


class _State(Enum):
    EMPTY = "empty"
    JOINING = "joining"
    SYNCING = "syncing"
    STABLE = "stable"


@dataclass(slots=True)
class _Member:
    id: str
    options: MembershipOptions
    subscription: Member
    expires_at: float = 0.0
    joining: "asyncio.Future[Joined] | None" = None
    syncing: "asyncio.Future[Sequence[TopicPartition]] | None" = None
    assignment: Sequence[TopicPartition] = ()


class Group:
    """See the module. Members are known by ids that the group gives; calls of an id it does not know are refused."""

    def __init__(self, name: str, clock: MemoryClock) -> None:
        self.name = name
        self.generation = 0
        self.offsets: dict[TopicPartition, int] = {}
        self.committed_by: dict[TopicPartition, str] = {}
        """The transactional id whose transaction has committed an offset, where one has."""
        self._clock = clock
        self._state = _State.EMPTY
        self._members: dict[str, _Member] = {}
        self._leader: str | None = None
        self._join_deadline = 0.0
        self._ids = 0
        self._alarm = Alarm(clock, self._expire_what_is_due)

    def join(
        self, member_id: str | None, options: MembershipOptions, subscription: Member
    ) -> tuple[str, "asyncio.Future[Joined]"]:
        """Join, or join again. Returns the member's id at once, and the answer when everybody has joined.

        Raises:
            MemberUnknown: `member_id` is no member; join again with None.
        """
        answer: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()
        if member_id is None:
            member = self._static_member(options.group_instance_id)
            if member is not None:
                return self._take_over(member, options, subscription, answer), answer
            member = _Member(self._new_id(options), options, subscription)
            self._members[member.id] = member
        else:
            member = self._known(member_id)
            unchanged = member.subscription == subscription
            member.subscription = subscription
            if self._state is _State.STABLE and unchanged and member.id != self._leader:
                self._hear_from(member)
                settle(answer, Joined(self.generation, None))
                return member.id, answer
        member.joining = answer
        self._begin_rebalance()
        self._end_join_if_complete()
        return member.id, answer

    def sync(
        self, member_id: str, generation: int, assignments: Mapping[str, Sequence[TopicPartition]] | None
    ) -> "asyncio.Future[Sequence[TopicPartition]]":
        """Bring the leader's `assignments` (None from the others), get one's own when the leader has.

        Raises:
            NotOwner: the group has moved on; join again.
        """
        member = self._current(member_id, generation)
        if self._state is _State.JOINING:
            raise RebalanceUnderWay(f"Group {self.name!r} rebalances.")
        answer: asyncio.Future[Sequence[TopicPartition]] = asyncio.get_running_loop().create_future()
        member.syncing = answer
        if self._state is _State.SYNCING and assignments is not None and member.id == self._leader:
            for each in self._members.values():
                each.assignment = tuple(sorted(assignments.get(each.id, ())))
            self._state = _State.STABLE
        if self._state is _State.STABLE:
            for each in self._members.values():
                if each.syncing is not None:
                    self._hear_from(each)
                    settle(each.syncing, each.assignment)
                    each.syncing = None
        return answer

    def heartbeat(self, member_id: str, generation: int) -> None:
        """A sign of life.

        Raises:
            RebalanceUnderWay: join again; the session has been prolonged.
            NotOwner: the member is out.
        """
        self._hear_from(self._current(member_id, generation))
        if self._state is _State.JOINING:
            raise RebalanceUnderWay(f"Group {self.name!r} rebalances.")

    def commit(self, member_id: str, generation: int, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for a member of the current generation.

        Raises:
            NotOwner: it is none; nothing was committed.
        """
        member = self._current(member_id, generation)
        if self._state is _State.SYNCING:
            raise RebalanceUnderWay(f"Group {self.name!r} rebalances: nothing is committed before its assignment.")
        self._hear_from(member)
        self._take(offsets, None)

    def commit_transaction(self, transactional_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """A transaction has committed these, whoever began it: the group is not asked."""
        self._take(offsets, transactional_id)

    def reset(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for nobody.

        Raises:
            BrokerError: there are members.
        """
        if self._members:
            raise BrokerError(
                f"Group {self.name!r} has members, which would go on where they are: stop its workers first; one that"
                " was killed is a member until its session has ended."
            )
        self._take(offsets, None)

    def _take(self, offsets: Mapping[TopicPartition, int], transactional_id: str | None) -> None:
        for partition, offset in offsets.items():
            self.offsets[partition] = offset
            self.committed_by.pop(partition, None)
            if transactional_id is not None:
                self.committed_by[partition] = transactional_id

    def forget_topic(self, topic: str) -> None:
        """A topic was deleted, and what was committed for it with it."""
        self.offsets = {partition: offset for partition, offset in self.offsets.items() if partition.topic != topic}

    def leave(self, member_id: str) -> None:
        """Go; the others rebalance. Who is no member any more may say so too."""
        if member_id in self._members:
            self._remove([self._members[member_id]])

    def expire(self, member_id: str) -> None:
        """End a member's session as if its time were up."""
        if member_id in self._members:
            _log.warning("Group %r: the session of member %s has ended; the group rebalances.", self.name, member_id)
            self._remove([self._members[member_id]])

    def topic_changed(self, topic: str) -> None:
        """A topic was created, has grown or was deleted: rebalance where a member reads it."""
        if any(topic in member.subscription.topics for member in self._members.values()):
            self._begin_rebalance()

    def _static_member(self, instance_id: str | None) -> _Member | None:
        if instance_id is None:
            return None
        return next((each for each in self._members.values() if each.options.group_instance_id == instance_id), None)

    def _take_over(
        self, old: _Member, options: MembershipOptions, subscription: Member, answer: "asyncio.Future[Joined]"
    ) -> str:
        """A static member is back, in a new process: its old id is void, and what it had is still its own."""
        new = _Member(self._new_id(options), options, subscription, assignment=old.assignment)
        # In the old one's place, so that a restart does not change the order in which leaders are chosen.
        self._members = {each.id: each for each in (new if each is old else each for each in self._members.values())}
        self._dismiss(old)
        if self._leader == old.id:
            self._leader = new.id
        if self._state is _State.STABLE and subscription.topics == old.subscription.topics:
            self._hear_from(new)
            settle(answer, Joined(self.generation, None))
        else:
            new.joining = answer
            self._begin_rebalance()
            self._end_join_if_complete()
        return new.id

    def _begin_rebalance(self) -> None:
        if self._state is _State.JOINING:
            self._set_alarm()  # the one that was set may have ended with its loop
            return
        self._state = _State.JOINING
        for member in self._members.values():
            if member.syncing is not None:
                refuse(member.syncing, RebalanceUnderWay(f"Group {self.name!r} rebalances."))
                member.syncing = None
                self._hear_from(member)
        self._wait_for_joins()

    def _wait_for_joins(self) -> None:
        longest = max(member.options.rebalance_timeout_sec for member in self._members.values())
        self._join_deadline = self._clock.elapsed() + longest
        self._set_alarm()

    def _end_join_if_complete(self) -> None:
        if self._state is _State.JOINING and all(member.joining is not None for member in self._members.values()):
            self._end_join()

    def _end_join(self) -> None:
        """Everybody has joined, or had the time to: the next generation is who is there."""
        here = [member for member in self._members.values() if member.joining is not None]
        if self._members and not here:  # static members only, all away: the first to be back goes on with this
            self._wait_for_joins()
            return
        self.generation += 1
        if not self._members:
            self._state = _State.EMPTY
            self._leader = None
            return
        self._state = _State.SYNCING
        if self._leader not in {member.id for member in here}:
            self._leader = here[0].id
        everybody = {member.id: member.subscription for member in self._members.values()}
        for member in here:
            assert member.joining is not None
            settle(member.joining, Joined(self.generation, everybody if member.id == self._leader else None))
            member.joining = None
            self._hear_from(member)

    def _remove(self, members: Sequence[_Member]) -> None:
        for member in members:
            del self._members[member.id]
            self._dismiss(member)
        if self._members:
            self._begin_rebalance()
            self._end_join_if_complete()
        else:
            self._end_join()

    def _dismiss(self, member: _Member) -> None:
        if member.joining is not None:
            refuse(member.joining, self._unknown(member.id))
        if member.syncing is not None:
            refuse(member.syncing, self._unknown(member.id))

    def _expire_what_is_due(self) -> None:
        now = self._clock.elapsed()
        for member in list(self._members.values()):
            if member.joining is None and member.syncing is None and member.expires_at <= now:
                self.expire(member.id)
        if self._state is _State.JOINING and self._join_deadline <= now:
            late = [each for each in self._members.values() if each.joining is None]
            for member in late:
                if member.options.group_instance_id is None:
                    _log.warning("Group %r goes on without %s, which did not join in time.", self.name, member.id)
                    del self._members[member.id]
            self._end_join()
        self._set_alarm()

    def _set_alarm(self) -> None:
        due = [each.expires_at for each in self._members.values() if each.joining is None and each.syncing is None]
        if self._state is _State.JOINING:
            due.append(self._join_deadline)
        if due:
            self._alarm.set(min(due))

    def _hear_from(self, member: _Member) -> None:
        member.expires_at = self._clock.elapsed() + member.options.session_timeout_sec
        self._set_alarm()

    def _new_id(self, options: MembershipOptions) -> str:
        self._ids += 1
        return f"{options.group_instance_id or self.name}-{self._ids}"

    def _current(self, member_id: str, generation: int) -> _Member:
        member = self._known(member_id)
        if generation != self.generation:
            raise GenerationOver(
                f"Generation {generation} of group {self.name!r} is over; the current one is {self.generation}."
            )
        return member

    def _known(self, member_id: str) -> _Member:
        member = self._members.get(member_id)
        if member is None:
            raise self._unknown(member_id)
        return member

    def _unknown(self, member_id: str) -> MemberUnknown:
        return MemberUnknown(
            f"Group {self.name!r} does not know member {member_id}: its session has ended, or another took its place."
        )
