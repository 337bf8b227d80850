"""The transaction coordinator of a memory cluster."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from paperboy.brokers.memory.clock import Alarm, MemoryClock
from paperboy.brokers.memory.log import PartitionLog
from paperboy.brokers.protocol import TopicPartition
from paperboy.errors import BrokerError, ProducerFenced

LONGEST_SEC = 900.0
"""How long a transaction may stand open, as Kafka's transaction.max.timeout.ms."""


def check_timeout(timeout_sec: float) -> None:
    """Raises BrokerError where it is too long."""
    if timeout_sec > LONGEST_SEC:
        raise BrokerError(
            f"transaction_timeout_sec={timeout_sec:g} is longer than a memory broker allows: lower it to"
            f" {LONGEST_SEC:g}, as Kafka's own transaction.max.timeout.ms."
        )


@dataclass
class _Producer:
    """What is known of a transactional id."""

    timeout_sec: float
    epoch: int = 0
    is_open: bool = False
    ends_at: float = 0.0
    """When an open transaction is aborted, in the clock's elapsed time."""
    logs: dict[TopicPartition, PartitionLog] = field(default_factory=dict)
    """Those that hold something of the open transaction."""
    offsets: list[tuple[str, Mapping[TopicPartition, int]]] = field(default_factory=list)
    """What it commits, by group."""
    committed_last: bool | None = None
    """How the last transaction of this epoch ended; None where there was none."""


class Transactions:
    """Epochs fence: only the producer that began anew last may write under an id.

    Args:
        commit: takes over the offsets that a transaction commits: group, transactional id, offsets.
    """

    def __init__(self, clock: MemoryClock, commit: Callable[[str, str, Mapping[TopicPartition, int]], None]) -> None:
        self._clock = clock
        self._commit = commit
        self._producers: dict[str, _Producer] = {}
        self._alarm = Alarm(clock, self._abort_what_is_due)

    def begin_anew(self, transactional_id: str, timeout_sec: float) -> int:
        """Abort what is open, and fence whoever had the id. Returns the new producer's epoch."""
        check_timeout(timeout_sec)
        producer = self._producers.setdefault(transactional_id, _Producer(timeout_sec))
        if producer.is_open:
            self._end(transactional_id, producer, commits=False)
        producer.timeout_sec = timeout_sec
        producer.epoch += 1
        producer.committed_last = None
        return producer.epoch

    def add_log(self, transactional_id: str, epoch: int, log: PartitionLog) -> None:
        """Something is about to be written there. Raises ProducerFenced."""
        self._open(transactional_id, epoch).logs[log.partition] = log

    def add_offsets(
        self, transactional_id: str, epoch: int, group_id: str, offsets: Mapping[TopicPartition, int]
    ) -> None:
        """The transaction commits these. Raises ProducerFenced."""
        self._open(transactional_id, epoch).offsets.append((group_id, dict(offsets)))

    def end(self, transactional_id: str, epoch: int, *, commits: bool) -> None:
        """Commit or abort. Asked for again, because its answer got lost, it is answered alike.

        Raises:
            ProducerFenced: this producer's time is over.
            BrokerError: the transaction has ended otherwise.
        """
        producer = self._current(transactional_id, epoch)
        if producer.is_open:
            self._end(transactional_id, producer, commits=commits)
        elif producer.committed_last is not None and producer.committed_last is not commits:
            ended = "committed" if producer.committed_last else "aborted"
            raise BrokerError(f"The transaction of {transactional_id!r} is {ended} already.")

    def _open(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._current(transactional_id, epoch)
        if not producer.is_open:
            producer.is_open = True
            producer.ends_at = self._clock.elapsed() + producer.timeout_sec
            self._set_alarm()
        return producer

    def _current(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._producers[transactional_id]
        if producer.epoch != epoch:
            raise ProducerFenced(
                f"The transaction of {transactional_id!r} is over: another producer has begun under this id, or it was"
                " open for longer than transaction_timeout_sec: raise that where messages take as long."
            )
        return producer

    def _end(self, transactional_id: str, producer: _Producer, *, commits: bool) -> None:
        for log in producer.logs.values():
            log.end_transaction(transactional_id, commits=commits)
        if commits:
            for group_id, offsets in producer.offsets:
                self._commit(group_id, transactional_id, offsets)
        producer.is_open = False
        producer.logs, producer.offsets = {}, []
        producer.committed_last = commits

    def _abort_what_is_due(self) -> None:
        now = self._clock.elapsed()
        for transactional_id, producer in self._producers.items():
            if producer.is_open and producer.ends_at <= now:
                self._end(transactional_id, producer, commits=False)
                producer.epoch += 1
        self._set_alarm()

    def _set_alarm(self) -> None:
        due = [producer.ends_at for producer in self._producers.values() if producer.is_open]
        if due:
            self._alarm.set(min(due))
