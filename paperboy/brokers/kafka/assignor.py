"""Our assignor in the shape that aiokafka asks for."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from paperboy.brokers.protocol import Assignor, Member


class KafkaAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """An instance, not a class as aiokafka's own: each consumer's has its own state in it."""

    def __init__(self, assignor: Assignor) -> None:
        self._assignor = assignor

    @property
    def name(self) -> str:
        return self._assignor.name

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        return ConsumerProtocolMemberMetadata(0, sorted(topics), self._assignor.user_data())

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        known = {
            member_id: Member(frozenset(metadata.subscription), metadata.user_data or b"")
            for member_id, metadata in members.items()
        }
        topics = sorted({topic for member in known.values() for topic in member.topics})
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        assigned = self._assignor.assign(known, counts)
        return {member_id: _protocol(assigned.get(member_id, ())) for member_id in members}

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing: the consumer tells its listener."""


def _protocol(partitions: Iterable[tuple[str, int]]) -> ConsumerProtocolMemberAssignment:
    by_topic: dict[str, list[int]] = defaultdict(list)
    for topic, partition in sorted(partitions):
        by_topic[topic].append(partition)
    return ConsumerProtocolMemberAssignment(0, list(by_topic.items()), b"")
