"""How far the whole group has come: what steps, `stop_at_end` and `caught_up` wait for."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from paperboy.brokers.protocol import Broker, TopicPartition
from paperboy.engine.membership import Membership
from paperboy.engine.steps import Steps, reached
from paperboy.errors import BrokerError, PaperboyError
from paperboy.log import get_logger

_log = get_logger("paperboy.progress")

T = TypeVar("T")

_TICK_SEC = 0.25
"""How often the group's commits are asked for while other workers, not this one, are making progress."""
_PAUSE_SEC = 0.005
"""The least time between two questions to the broker."""


class Progress:
    """Waits for the group's committed offsets: they are durable, and say what other workers have done too.

    Args:
        inputs: every partition of every input topic.
        failure: what has stopped the engine, if anything has.
    """

    def __init__(
        self,
        broker: Broker,
        group_id: str,
        inputs: Sequence[TopicPartition],
        membership: Membership,
        steps: Steps,
        failure: Callable[[], BaseException | None],
    ) -> None:
        self._broker = broker
        self._group_id = group_id
        self._inputs = inputs
        self._membership = membership
        self._steps = steps
        self._failure = failure
        self._moved = asyncio.Event()
        self._ended = False

    def moved(self) -> None:
        """A task of this worker has become ready, has committed, or has come to rest."""
        self._moved.set()

    def end(self) -> None:
        """The engine stops: whoever waits hears of it."""
        self._ended = True
        self._moved.set()

    async def input_ends(self) -> dict[TopicPartition, int]:
        """The end offsets of every input partition, asked for until the broker answers."""
        return await self._ends(self._inputs)

    async def take_steps(self) -> None:
        """Open one step after another; each ends when the whole group has committed up to its end."""
        while (current := self._steps.current) is not None:
            topics = self._steps.topics
            ends = await self._ends([source for source in self._inputs if source.topic in topics])
            _log.info("step begins", step=current, topics=sorted(topics))
            self._steps.begin(ends)
            self._membership.apply_limits()
            await self.until_committed(ends)
            self._steps.pass_on()
            _log.info("step ends", step=current)
            self._membership.apply_limits()

    async def caught_up(self) -> None:
        """Until what is in the inputs now is committed, and what handling it sent to inputs as well.

        Raises:
            PaperboyError: the engine has stopped meanwhile; or what stopped it.
        """
        while not self._membership.is_ready:
            await self._until_moved()
        before: Mapping[TopicPartition, int] = {}
        await self._count_inputs()
        for _ in range(len(self._inputs) + 1):  # no chain of topics is longer
            ends = await self.input_ends()
            if ends == before:
                return
            await self.until_committed(ends)
            before = ends

    async def _count_inputs(self) -> None:
        """Topics may have been given more partitions."""
        found = await self._answer(
            lambda: self._broker.describe_topics({partition.topic for partition in self._inputs}), "partitions unknown"
        )
        grown = [TopicPartition(name, number) for name, topic in found.items() for number in range(topic.partitions)]
        self._inputs = list(dict.fromkeys([*self._inputs, *grown]))

    async def until_committed(self, ends: Mapping[TopicPartition, int]) -> None:
        """Until the group has committed these offsets, those of other workers' partitions too."""
        partitions = list(ends)
        while True:
            self._hurry_checkpoints(ends)
            try:
                committed = await self._broker.committed(self._group_id, partitions)
                if reached(committed, await self._broker.beginning_offsets(partitions), ends):
                    return
            except BrokerError as error:
                _log.warning("committed offsets unknown", error=str(error))
            await self._until_moved()

    async def _ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._answer(lambda: self._broker.end_offsets(partitions), "end offsets unknown")

    async def _answer(self, question: Callable[[], Awaitable[T]], unknown: str) -> T:
        """What the broker says, asked until it answers."""
        while True:
            try:
                return await question()
            except BrokerError as error:
                _log.warning(unknown, error=str(error))
            await self._until_moved()

    def _hurry_checkpoints(self, ends: Mapping[TopicPartition, int]) -> None:
        """Tasks that have come to the ends that somebody waits for need not wait for the interval."""
        for task in self._membership.tasks.values():
            sources = [source for source in task.sources if source.partition in ends]
            if any(source.position > source.committed for source in sources) and all(
                source.position >= ends[source.partition] for source in sources
            ):
                task.request_checkpoint()

    async def _until_moved(self) -> None:
        """A moment, or until a task of this worker has made progress."""
        await asyncio.sleep(_PAUSE_SEC)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK_SEC):
                await self._moved.wait()
        self._moved.clear()
        if self._ended:
            raise self._failure() or PaperboyError("The engine stopped before it had caught up.")
