"""A worker's broker, which tells what the group does with the worker."""

from collections.abc import Collection
from typing import Any, cast

from paperboy.brokers.protocol import Assignment, Broker, Consumer, RebalanceListener, TopicPartition


class Assignments:
    """What the group has assigned to one worker so far."""

    def __init__(self) -> None:
        self.count = 0
        """How often it was assigned something, or nothing."""
        self.is_current = False
        """Whether the last one was not revoked."""
        self.consumer: Consumer | None = None
        """The worker's member of the group."""


def watched(broker: Broker, assignments: Assignments) -> Broker:
    """The same broker; its consumer notes in `assignments` what becomes of it."""
    return cast(Broker, _WatchedBroker(broker, assignments))


class _WatchedBroker:
    def __init__(self, broker: Broker, assignments: Assignments) -> None:
        self._broker = broker
        self._assignments = assignments

    def consumer(self, *args: Any, **options: Any) -> Consumer:
        consumer = self._assignments.consumer = self._broker.consumer(*args, **options)
        return cast(Consumer, _WatchedConsumer(consumer, self._assignments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


class _WatchedConsumer:
    def __init__(self, consumer: Consumer, assignments: Assignments) -> None:
        self._consumer = consumer
        self._assignments = assignments

    async def start(self, listener: RebalanceListener) -> None:
        await self._consumer.start(cast(RebalanceListener, _WatchedListener(listener, self._assignments)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class _WatchedListener:
    def __init__(self, listener: RebalanceListener, assignments: Assignments) -> None:
        self._listener = listener
        self._assignments = assignments

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._assignments.is_current = False
        await self._listener.on_revoked(partitions)

    def on_assigned(self, assignment: Assignment) -> None:
        self._listener.on_assigned(assignment)
        self._assignments.is_current = True
        self._assignments.count += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)
