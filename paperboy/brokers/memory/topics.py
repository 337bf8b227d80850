"""Topics: their partitions, and their settings with Kafka's defaults."""

import re
from collections.abc import Mapping

from paperboy.brokers.memory.batches import Batch, exceeds
from paperboy.brokers.memory.log import PartitionLog
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.clock import random_id
from paperboy.errors import BrokerError, RecordTooLarge

_NEVER = str(2**63 - 1)
_WEEK_MS = str(7 * 24 * 60 * 60 * 1000)

DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.type": "producer",
    "compression.zstd.level": "3",
    "delete.retention.ms": "86400000",
    "file.delete.delay.ms": "60000",
    "flush.messages": _NEVER,
    "flush.ms": _NEVER,
    "follower.replication.throttled.replicas": "",
    "index.interval.bytes": "4096",
    "leader.replication.throttled.replicas": "",
    "local.retention.bytes": "-2",
    "local.retention.ms": "-2",
    "max.compaction.lag.ms": _NEVER,
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": _NEVER,
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "remote.log.copy.disable": "false",
    "remote.log.delete.on.disable": "false",
    "remote.storage.enable": "false",
    "retention.bytes": "-1",
    "retention.ms": _WEEK_MS,
    "segment.bytes": "1073741824",
    "segment.index.bytes": "10485760",
    "segment.jitter.ms": "0",
    "segment.ms": _WEEK_MS,
    "unclean.leader.election.enable": "false",
}
"""Every setting a topic can have. The broker acts on those that `Topic` reads; it shows them all."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "cleanup.policy": ("delete", "compact"),
    "message.timestamp.type": ("CreateTime", "LogAppendTime"),
}
_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class Topic:
    """A topic as it was created.

    Raises:
        BrokerError: name, partition count or a setting is none that Kafka takes.
    """

    def __init__(self, spec: TopicSpec) -> None:
        _check(spec)
        self.name = spec.name
        self.spec = spec
        """As it was created; it may have grown since."""
        self.id = random_id()
        """A store on disk outlives this process: no topic of any process has another's id."""
        self.config = {**DEFAULTS, **spec.config}
        self.compacted = "compact" in self.config["cleanup.policy"].split(",")
        self.delete_retention_ms = int(self.config["delete.retention.ms"])
        self._max_message_bytes = int(self.config["max.message.bytes"])
        self._after_max_ms = int(self.config["message.timestamp.after.max.ms"])
        self._before_max_ms = int(self.config["message.timestamp.before.max.ms"])
        self._append_time = self.config["message.timestamp.type"] == "LogAppendTime"
        self.logs: list[PartitionLog] = []
        self.grow(spec.partitions)

    def grow(self, partitions: int) -> None:
        """Add partitions up to this count."""
        for number in range(len(self.logs), partitions):
            self.logs.append(PartitionLog(TopicPartition(self.name, number), int(self._append_time)))

    def append(self, partition: int, batch: Batch, now_ms: int, transactional_id: str | None = None) -> int:
        """Append a batch as a whole, or refuse it as a whole. Returns its first offset.

        Args:
            transactional_id: whose open transaction it belongs to; None for none.

        Raises:
            RecordTooLarge: the batch is larger than max.message.bytes.
            BrokerError: a timestamp or a key is one that the topic does not take.
        """
        records, _ = batch
        log = self.logs[partition]
        if exceeds(batch, self._max_message_bytes):
            raise RecordTooLarge(
                f"A batch of {len(records)} records for {log.partition} is larger than the topic's max.message.bytes"
                f" of {self._max_message_bytes}; raise it, or send less."
            )
        if self._append_time:
            return log.append(batch, now_ms, transactional_id)
        lowest = max(0, now_ms - self._before_max_ms)
        highest = now_ms + self._after_max_ms
        for key, _, _, timestamp in records:
            if not lowest <= timestamp <= highest:
                raise BrokerError(
                    f"Timestamp {timestamp} of a record for {log.partition} is not between {lowest} and {highest}:"
                    " it is to be in milliseconds, and not far in the future."
                )
            if key is None and self.compacted:
                raise BrokerError(f"A record for {log.partition} has no key, and the topic is compacted.")
        return log.append(batch, None, transactional_id)


def _check(spec: TopicSpec) -> None:
    doing = f"Creating topic {spec.name!r} failed:"
    if not _LEGAL_NAME.fullmatch(spec.name) or spec.name in (".", ".."):
        raise BrokerError(f"{doing} a name is 1 to 249 letters, digits, dots, underscores and hyphens.")
    if spec.partitions < 1:
        raise BrokerError(f"{doing} {spec.partitions} partitions are too few; it needs at least 1.")
    if spec.replication_factor is not None and spec.replication_factor < 1:
        raise BrokerError(f"{doing} a replication factor of {spec.replication_factor} is too low.")
    for name, value in spec.config.items():
        default = DEFAULTS.get(name)
        if default is None:
            raise BrokerError(f"{doing} unknown topic config name: {name}.")
        if name in _CHOICES and not set(value.split(",")) <= set(_CHOICES[name]):
            raise BrokerError(f"{doing} {name} is one of {', '.join(_CHOICES[name])}, and not {value!r}.")
        if re.fullmatch(r"-?\d+", default) and not re.fullmatch(r"-?\d+", value):
            raise BrokerError(f"{doing} {name} is a whole number, and not {value!r}.")
