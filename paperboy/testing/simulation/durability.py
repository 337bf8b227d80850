"""What the logs of a simulation hold, held against what is committed, and against the stores."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from paperboy.brokers.memory import MemoryCluster
from paperboy.brokers.memory.log import Entry
from paperboy.brokers.protocol import Outgoing, TopicPartition
from paperboy.engine.topology import changelog_topic
from paperboy.tables.codec import codec
from paperboy.tables.stores.memory import MemoryStore
from paperboy.testing.loop import Process
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.ledger import NO_COUNT, NO_TOTAL, Count, Ledger, Total
from paperboy.testing.simulation.plan import Job, Op, Plan
from paperboy.testing.simulation.workload import GROUP, OUT, OUT_PARTITIONS, Tables

_CODEC = codec(None, None)
_encode_key, decode_value = _CODEC.encode_key, _CODEC.decode_value

Writer = tuple[Process | None, int]
"""A process, and which of its assignments."""


class _Changelog:
    """One partition of a table's changelog, as it was written."""

    def __init__(self) -> None:
        self.last: dict[bytes, tuple[bytes | None, Writer]] = {}
        """By key: the last value, and who wrote it."""
        self.owner: Writer | None = None
        """Who restored a store from it last."""
        self.strays: dict[bytes, Writer] = {}
        """Keys that somebody else has written since, whom the owner has not answered yet."""
        self.noticed: dict[bytes, Writer] = {}
        """Those that the owner must have seen: it has written behind them."""
        self.excused: set[bytes] = set()
        """Keys whose stray values another owner has restored: nobody promises anything about them."""


class Durability:
    """See above. Sees every batch and every commit as it reaches the broker; raises `Broken` where a promise is."""

    def __init__(self, plan: Plan, cluster: MemoryCluster) -> None:
        self.ledger: Ledger
        """Set before anything happens, as is `store_of`."""
        self.store_of: Callable[[Process, TopicPartition], MemoryStore | None] = lambda process, changelog: None
        """The store that a process has of a changelog's partition."""
        self.outputs: Counter[tuple[str, int]] = Counter()
        """By key and number: how often it was sent."""
        self._plan = plan
        self._cluster = cluster
        self._changelogs: dict[TopicPartition, _Changelog] = {}
        self._topics: dict[tuple[str, str], str] = {}
        for job in plan.jobs:
            for kind, table in zip(("counts", "notes", "totals"), Tables(job, plan).all(), strict=True):
                topic = self._topics[job.name, kind] = changelog_topic(table, GROUP)
                for number in range(plan.partitions):
                    self._changelogs[TopicPartition(topic, number)] = _Changelog()

    @property
    def changelog_topics(self) -> list[str]:
        return list(self._topics.values())

    def excuses(self, job: Job, kind: str, partition: int, key: str) -> bool:
        """Whether a zombie's late write may stand in place of what was there."""
        return _encode_key(key) in self._changelog(job, kind, partition).excused

    # What reaches the broker.

    def restores(self, writer: Writer, partitions: Collection[TopicPartition]) -> None:
        """A member of the group begins to restore from these, if they are changelogs."""
        for partition in partitions:
            changelog = self._changelogs.get(partition)
            if changelog is not None:
                changelog.excused.update(changelog.strays, changelog.noticed)
                changelog.strays.clear()
                changelog.noticed.clear()
                changelog.owner = writer

    def sends(self, process: Process | None, partition: TopicPartition, is_member: bool, now: float) -> None:
        """A batch is on its way."""
        if partition not in self._changelogs or is_member or not isinstance(process, Incarnation):
            return
        if now - process.confirmed_at > 1.0 and not process.stood_still:
            raise self.ledger.breaks(
                f"{process.name} writes to {partition}, has lost it, and has not asked the group since"
                f" {process.confirmed_at:.3f} s."
            )

    def appended(self, writer: Writer, partition: TopicPartition, records: Sequence[Outgoing]) -> None:
        """A batch is in the log."""
        if partition.topic == OUT:
            for key, value, _, _ in records:
                assert key is not None
                assert value is not None
                if key.endswith(b"poison"):
                    raise self.ledger.breaks(f"{partition} holds what a message sent that failed: {key!r}.")
                self.outputs[key.decode(), int(value)] += 1
            return
        changelog = self._changelogs.get(partition)
        if changelog is None:
            return
        is_stray = writer != changelog.owner
        if not is_stray and changelog.strays:
            changelog.noticed.update(changelog.strays)
            changelog.strays.clear()
        for key, value, _, _ in records:
            assert key is not None
            if is_stray:
                changelog.strays[key] = writer
            else:
                changelog.noticed.pop(key, None)
            changelog.last[key] = (value, writer)

    def committed(self, process: Process | None, offsets: Mapping[TopicPartition, int]) -> None:
        """Offsets are committed: everything below has to be in the log."""
        ledger = self.ledger
        if self._plan.exactly_once:
            self._read_logs()
        for partition, offset in offsets.items():
            before = ledger.committed.get(partition, 0)
            if offset < before:
                raise self.ledger.breaks(f"The committed offset of {partition} went back from {before} to {offset}.")
            ledger.committed[partition] = offset
            for at, op in ledger.ops.get(partition, {}).items():
                if before <= at < offset and op.seq:
                    self._check_durable(op, at)
        for partition in offsets:
            job = ledger.jobs[partition.topic]
            self._check_total(job, partition.partition)
            if self._plan.exactly_once:
                self._check_exact(partition)
            if process is not None:
                self._check_strays(job, partition.partition, process)

    # In the end, and in between.

    def check_store(self, store: MemoryStore, changelog: TopicPartition) -> None:
        """A store at the end of its changelog holds what that says, byte for byte."""
        if self.is_at_end(changelog, store.changelog_offset):
            self.check_bytes(dict(store._entries), changelog, "The store")

    def is_at_end(self, changelog: TopicPartition, offset: int | None) -> bool:
        """Whether nothing stands behind this offset, but for the marker that ends a transaction."""
        return offset is not None and offset >= self._cluster.log(changelog).end_offset - int(self._plan.exactly_once)

    def check_bytes(self, entries: Mapping[bytes, bytes], changelog: TopicPartition, what: str) -> None:
        wanted = folded(self._cluster, changelog)
        if entries != wanted:
            differ = sorted(key for key in {*entries, *wanted} if entries.get(key) != wanted.get(key))
            shown = [(key, entries.get(key), wanted.get(key)) for key in differ[:3]]
            raise self.ledger.breaks(
                f"{what} of {changelog} differs from its changelog (key, store, changelog): {shown}."
            )

    def check_end(self) -> None:
        """Everything is handled and committed."""
        ledger = self.ledger
        if self._plan.exactly_once:
            self._read_logs()
            for partition in ledger.ops:
                self._check_exact(partition)
        for partition, ops in ledger.ops.items():
            end = self._cluster.log(partition).end_offset
            if ledger.committed.get(partition, 0) != end:
                raise self.ledger.breaks(
                    f"{partition} ends at {end}, and {ledger.committed.get(partition, 0)} is committed."
                )
            for at, op in ops.items():
                if op.seq:
                    self._check_durable(op, at)
        for key, seq in self.outputs:
            if self.outputs[key, seq] > ledger.handled[key, seq]:
                raise self.ledger.breaks(
                    f"Number {seq} of key {key} was sent {self.outputs[key, seq]} times, and handled"
                    f" {ledger.handled[key, seq]} times."
                )
        for key, seq in ledger.furthest.items():
            job, number = self._of(key)
            count = self._count(job, number, key)
            handled = sum(ledger.handled[key, each] for each in range(1, seq + 1))
            if count[0] > handled:
                raise self.ledger.breaks(f"Key {key} counts {count[0]}, and {handled} records of it were handled.")
            if self._excused(job, "counts", number, key):
                continue
            if count[0] < seq or count[1] != seq:
                raise self.ledger.breaks(f"Key {key} counts {count}, and has had {seq} records.")
        for key, seq in ledger.furthest.items():
            job, number = self._of(key)
            note = self._last(job, "notes", number, key)
            wanted = ledger.note_after(key, seq)
            if (None if note is None else decode_value(note)) != wanted and not self._excused(
                job, "notes", number, key
            ):
                raise self.ledger.breaks(f"Key {key} has the note {note!r}, and not {wanted}.")
        for job in self._plan.jobs:
            for number in range(self._plan.partitions):
                total = self._check_total(job, number)
                if total[0] > ledger.totals[job.name, number]:
                    raise self.ledger.breaks(
                        f"Job {job.name} counts {total[0]} in partition {number}, and"
                        f" {ledger.totals[job.name, number]} records were handled."
                    )

    def _read_logs(self) -> None:
        """What readers of committed records see now."""
        self.outputs.clear()
        for number in range(OUT_PARTITIONS):
            for _, _, key, value, _, _ in _committed(self._cluster, TopicPartition(OUT, number)):
                assert key is not None
                assert value is not None
                self.outputs[key.decode(), int(value)] += 1
        for (key_, seq), times in self.outputs.items():
            if times > 1 or not seq:
                raise self.ledger.breaks(f"Number {seq} of key {key_} was sent {times} times.")
        for partition, changelog in self._changelogs.items():
            changelog.last.clear()
            for _, _, key, value, _, _ in _committed(self._cluster, partition):
                assert key is not None
                changelog.last[key] = (value, (None, 0))

    def _check_exact(self, partition: TopicPartition) -> None:
        """What is committed has counted once."""
        job, number = self.ledger.jobs[partition.topic], partition.partition
        seqs: dict[str, int] = {}
        for at, op in self.ledger.ops.get(partition, {}).items():
            if op.seq and at < self.ledger.committed.get(partition, 0):
                seqs[op.key] = op.seq
        for key, seq in seqs.items():
            if (count := self._count(job, number, key))[:2] != (seq, seq):
                raise self.ledger.breaks(f"Key {key} counts {count} where {seq} records are committed.")
        total, committed = self._check_total(job, number), self.ledger.committed_records(job, number)
        if total[0] != committed:
            raise self.ledger.breaks(
                f"Job {job.name} counts {total} in partition {number}, where {committed} are committed."
            )

    def _check_durable(self, op: Op, offset: int) -> None:
        where = f"{op.partition} offset {offset}, number {op.seq} of key {op.key}, is committed"
        job, number, ledger = self.ledger.jobs[op.partition.topic], op.partition.partition, self.ledger
        if ledger.furthest.get(op.key, 0) < op.seq:
            raise self.ledger.breaks(f"{where}, and was never handled.")
        if not self.outputs[op.key, op.seq]:
            raise self.ledger.breaks(f"{where}, and what it sent is not in {OUT}.")
        count = self._count(job, number, op.key)
        if (count[1] < op.seq or count[0] < op.seq) and not self._excused(job, "counts", number, op.key):
            raise self.ledger.breaks(f"{where}, and the changelog counts {count}.")
        note = self._last(job, "notes", number, op.key)
        shown = None if note is None else decode_value(note)
        if shown not in ledger.notes_since(op.key, op.seq) and not self._excused(job, "notes", number, op.key):
            raise self.ledger.breaks(f"{where}, and the changelog has the note {shown}.")

    def _check_total(self, job: Job, partition: int) -> Total:
        data = self._last(job, "totals", partition, "all")
        total = NO_TOTAL if data is None else tuple(decode_value(data))
        committed = self.ledger.committed_records(job, partition)
        if total[0] < committed and not self._excused(job, "totals", partition, "all"):
            raise self.ledger.breaks(
                f"Job {job.name} has {committed} committed records in partition {partition}, and counts {total}."
            )
        return total

    def _check_strays(self, job: Job, partition: int, process: Process) -> None:
        """Who commits has finished a checkpoint: what it must have noticed, it has answered."""
        for kind in ("counts", "notes", "totals"):
            changelog = self._changelog(job, kind, partition)
            if changelog.owner is None or changelog.owner[0] is not process or not changelog.noticed:
                continue
            store = self.store_of(process, TopicPartition(self._topics[job.name, kind], partition))
            for key, stray in changelog.noticed.items():
                value, writer = changelog.last[key]
                if writer == stray and store is not None and store._entries.get(key) != value:
                    raise self.ledger.breaks(
                        f"A stray write to {kind} of job {job.name}, key {key!r}, still stands: {value!r}."
                    )
            changelog.noticed.clear()

    def _excused(self, job: Job, kind: str, partition: int, key: str) -> bool:
        """As `excuses`, and while a stray value stands that nobody has answered yet."""
        changelog, encoded = self._changelog(job, kind, partition), _encode_key(key)
        return encoded in changelog.excused or encoded in changelog.strays or encoded in changelog.noticed

    def _count(self, job: Job, partition: int, key: str) -> Count:
        data = self._last(job, "counts", partition, key)
        return NO_COUNT if data is None else tuple(decode_value(data))

    def _last(self, job: Job, kind: str, partition: int, key: str) -> bytes | None:
        return self._changelog(job, kind, partition).last.get(_encode_key(key), (None, None))[0]

    def _changelog(self, job: Job, kind: str, partition: int) -> _Changelog:
        return self._changelogs[TopicPartition(self._topics[job.name, kind], partition)]

    def _of(self, key: str) -> tuple[Job, int]:
        """The job and the partition of a key, which begins with both."""
        return self.ledger.jobs[key[0]], int(key[1])


def folded(cluster: MemoryCluster, changelog: TopicPartition) -> dict[bytes, bytes]:
    """What a changelog says, from its beginning to its end."""
    entries: dict[bytes, bytes] = {}
    for _, _, key, value, _, _ in _committed(cluster, changelog):
        assert key is not None
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
    return entries


def _committed(cluster: MemoryCluster, partition: TopicPartition) -> list[Entry]:
    """The entries of a log that readers of committed records see now, or will."""
    log = cluster.log(partition)
    if not log._open:
        return log._entries
    open_now = {offset for ranges in log._open.values() for offsets in ranges for offset in offsets}
    return [entry for entry in log._entries if entry[0] not in open_now]
