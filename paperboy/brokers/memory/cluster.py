"""What the memory broker keeps: it outlives clients, engines and event loops, as a real cluster does."""

from collections.abc import Collection, Mapping, Sequence

from paperboy.brokers.memory.clock import MemoryClock
from paperboy.brokers.memory.faults import Faults
from paperboy.brokers.memory.group import Group
from paperboy.brokers.memory.log import PartitionLog
from paperboy.brokers.memory.topics import Topic
from paperboy.brokers.memory.transactions import Transactions
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.errors import BrokerError, TopicNotFound

_clusters: "dict[str, MemoryCluster]" = {}


def memory_cluster(name: str, partitions: int = 1) -> "MemoryCluster":
    """The cluster of this name in this process; made with `partitions` where there is none yet."""
    if name not in _clusters:
        _clusters[name] = MemoryCluster(name, partitions)
    return _clusters[name]


class MemoryCluster:
    """Topics, groups and committed offsets, and a clock.

    It serves one event loop after another, each from where the last one stopped; not several threads at once.

    Args:
        name: for messages.
        partitions: how many a topic gets that its user did not create, where the address does not say.
        epoch_ms: what the clock shows at first; None is the machine's time now.
    """

    def __init__(self, name: str = "", partitions: int = 1, epoch_ms: int | None = None) -> None:
        self.name = name
        self.partitions = partitions
        self.clock = MemoryClock(epoch_ms)
        self.faults = Faults()
        self.fail_next = self.faults.fail_next
        self.hold = self.faults.hold
        self.release = self.faults.release
        self.topics: dict[str, Topic] = {}
        self.transactions = Transactions(
            self.clock, lambda group, by, offsets: self.group(group).commit_transaction(by, offsets)
        )
        self._groups: dict[str, Group] = {}

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that do not exist.

        Raises:
            BrokerError: one was refused; the others have been created.
        """
        refused = None
        for spec in specs:
            if spec.name in self.topics:
                continue
            try:
                self.topics[spec.name] = Topic(spec)
            except BrokerError as error:
                refused = refused or error
            else:
                self._topic_changed(spec.name)
        if refused is not None:
            raise refused

    def delete_topics(self, names: Collection[str]) -> None:
        """Delete those of them that exist, with what groups have committed for them."""
        for name in dict.fromkeys(names):
            if self.topics.pop(name, None) is not None:
                for group in self._groups.values():
                    group.forget_topic(name)
                self._topic_changed(name)

    def create_partitions(self, topic: str, partitions: int) -> None:
        """Let a topic grow to this many partitions; groups that read it rebalance."""
        self.topic(topic).grow(partitions)
        self._topic_changed(topic)

    def delete_records(self, partition: TopicPartition, before: int) -> None:
        """Drop a log's records below an offset."""
        self.log(partition).delete_before(before)

    def compact(self, topic: str, before: int | None = None) -> None:
        """Run the cleaner over a compacted topic once; see `PartitionLog.compact`. It never runs by itself."""
        found = self.topic(topic)
        if not found.compacted:
            raise BrokerError(
                f"Topic {topic!r} is not compacted: its cleanup.policy is {found.config['cleanup.policy']}."
            )
        for log in found.logs:
            log.compact(self.clock.time_ms(), found.delete_retention_ms, before)

    def append_marker(self, partition: TopicPartition) -> int:
        """Append a transaction's marker, which takes an offset and is never handed out. Returns that offset."""
        return self.log(partition).append_marker()

    def topic(self, name: str) -> Topic:
        """The topic of this name.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self.topics.get(name)
        if topic is None:
            raise TopicNotFound(f"Topic {name!r} does not exist on {self}; create it first.")
        return topic

    def log(self, partition: TopicPartition) -> PartitionLog:
        """The log of this partition.

        Raises:
            TopicNotFound: there is none.
        """
        logs = self.topic(partition.topic).logs
        if not 0 <= partition.partition < len(logs):
            raise TopicNotFound(f"{partition} does not exist on {self}: the topic has {len(logs)} partitions.")
        return logs[partition.partition]

    def has(self, partition: TopicPartition) -> bool:
        """Whether this partition exists."""
        topic = self.topics.get(partition.topic)
        return topic is not None and 0 <= partition.partition < len(topic.logs)

    def group(self, name: str) -> Group:
        """The coordinator of this group."""
        if name not in self._groups:
            self._groups[name] = Group(name, self.clock)
        return self._groups[name]

    def committed(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        """A group's committed offsets; None where it has none."""
        group = self._groups.get(group_id)
        offsets: Mapping[TopicPartition, int] = {} if group is None else group.offsets
        return {partition: offsets.get(partition) for partition in partitions}

    def committed_by(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, str | None]:
        """The transactional ids that have committed a group's offsets; None where none has."""
        group = self._groups.get(group_id)
        return {partition: None if group is None else group.committed_by.get(partition) for partition in partitions}

    def reset_committed(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Let a group without members stand at these offsets.

        Raises:
            BrokerError: it has members.
            TopicNotFound: one of the partitions does not exist.
        """
        for partition in offsets:
            self.log(partition)
        self.group(group_id).reset(offsets)

    def partition_counts(self, topics: Collection[str]) -> dict[str, int]:
        """How many partitions each of these topics has, by name; 0 where it does not exist."""
        return {name: len(self.topics[name].logs) if name in self.topics else 0 for name in sorted(topics)}

    def _topic_changed(self, name: str) -> None:
        for group in self._groups.values():
            group.topic_changed(name)

    def __str__(self) -> str:
        return f"memory://{self.name}"
