"""Step mode: topics in order, each step's up to the end it had when the step began."""

from collections.abc import Mapping, Sequence

from paperboy.brokers.protocol import TopicPartition

HELD_BACK = 0
"""A limit that lets no record through."""


class Steps:
    """Which records may be handled now.

    In a step its topics are consumed up to the end offsets taken when it began; topics of later steps, and those of
    no step, are held back. Topics of earlier steps go on: a worker that joins later waits for newer ends of theirs, and
    two workers that held back each other's would wait for ever.

    Args:
        steps: the topics of each step.
    """

    def __init__(self, steps: Sequence[frozenset[str]]) -> None:
        self._steps = steps
        self._index = 0
        self._ends: Mapping[TopicPartition, int] = {}

    @property
    def current(self) -> int | None:
        """The number of the current step, from 0; None when all are done."""
        return self._index if self._index < len(self._steps) else None

    @property
    def topics(self) -> frozenset[str]:
        """The current step's topics."""
        return self._steps[self._index] if self._index < len(self._steps) else frozenset()

    def begin(self, ends: Mapping[TopicPartition, int]) -> None:
        """The end offsets of all the current step's partitions, this worker's or not."""
        self._ends = ends

    def pass_on(self) -> None:
        """The group has committed up to the ends: the next step's turn."""
        self._index += 1
        self._ends = {}

    def limit(self, partition: TopicPartition) -> int | None:
        """The offset from which on this partition's records are held back; None for no limit."""
        if self.current is None or any(partition.topic in earlier for earlier in self._steps[: self._index]):
            return None
        if partition.topic in self.topics:
            return self._ends.get(partition, HELD_BACK)
        return HELD_BACK


def reached(
    committed: Mapping[TopicPartition, int | None],
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> bool:
    """Whether a group's committed offsets are at these ends. Without a commit it stands at the log's beginning."""
    return all(
        (begins[partition] if (offset := committed.get(partition)) is None else offset) >= end
        for partition, end in ends.items()
    )
