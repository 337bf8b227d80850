"""What the handlers of a simulation were given, found in their tables and wrote, and what of it cannot be."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from paperboy.brokers.protocol import TopicPartition
from paperboy.testing.simulation.incarnation import Incarnation
from paperboy.testing.simulation.plan import Job, Op, Plan

Count = tuple[int, int, int]
"""What the table of counts holds for a key: how many records, the number of the last one, and who wrote it."""
Total = tuple[int, int]
"""The same for a partition: how many records, and who wrote it."""

NO_COUNT: Count = (0, 0, 0)
NO_TOTAL: Total = (0, 0)


class Broken(Exception):
    """A promise was broken. The message says which, and where."""


@dataclass(slots=True)
class Attempt:
    """A message in a handler's hands, once."""

    token: int
    op: Op
    index: int
    """Which record of its partition it is, from 0 on."""
    process: Incarnation
    opening: "Opening"
    count: Count = NO_COUNT
    """What it found."""
    total: Total = NO_TOTAL
    returned: bool = False
    failed: bool = False

    @property
    def new_count(self) -> Count:
        return (self.count[0] + 1, self.op.seq, self.token)

    @property
    def new_total(self) -> Total:
        return (self.total[0] + 1, self.token)


@dataclass(slots=True)
class Opening:
    """The time for which a worker has a task, as far as its handlers can tell."""

    last: dict[str, Attempt] = field(default_factory=dict)
    """By key: the last one that returned."""
    found: dict[tuple[str, int], Count] = field(default_factory=dict)
    """By key and number: what was found when the record was handled first."""
    index: dict[TopicPartition, int] = field(default_factory=dict)
    """Of the last record that was begun."""
    total: dict[int, Attempt] = field(default_factory=dict)
    """By partition: the last one that returned, where nothing was handled again since."""


class Ledger:
    """See above. Every method raises `Broken` where a promise is.

    Args:
        is_member: whether a process is in the group's present generation: another one sees what was, and is told later.
        say: told what is broken.
        excuses: whether what is found of a key, in a table of a job, may be older than it should: a zombie's late
            write, which nobody has promised anything about, stands there.
    """

    def __init__(
        self,
        plan: Plan,
        excuses: Callable[[Job, str, int, str], bool],
        is_member: Callable[[Incarnation], bool],
        say: Callable[[str], object],
    ) -> None:
        self.jobs = {topic: job for job in plan.jobs for topic in job.topics}
        self.ops: dict[TopicPartition, dict[int, Op]] = {}
        """By partition and offset: everything that was sent."""
        self.furthest: dict[str, int] = {}
        """By key: the highest number that any handler has finished."""
        self.handled: Counter[tuple[str, int]] = Counter()
        """By key and number: how often it was finished, whoever kept it."""
        self.totals: Counter[tuple[str, int]] = Counter()
        """By job and partition: how often a record was finished."""
        self.committed: dict[TopicPartition, int] = {}
        self.steps = plan.jobs if plan.steps else ()
        """The jobs, where they are taken in steps."""
        self.broken: list[str] = []
        """What was found to be broken."""
        self._attempts: dict[int, Attempt] = {}
        self._indexes: dict[tuple[TopicPartition, int], int] = {}
        self._numbers: dict[tuple[TopicPartition, int], int] = {}
        """By partition and record: how many of those before it do not fail for good."""
        self._after: dict[tuple[str, int], int | None] = {}
        self._openings: dict[tuple[Incarnation, int, str], Opening] = {}
        self._latest: dict[tuple[Incarnation, TopicPartition, int], Attempt] = {}
        self._boomed: set[tuple[str, int]] = set()
        self._exactly_once = plan.exactly_once
        self._excuses = excuses
        self._is_member = is_member
        self._say = say

    def breaks(self, sentence: str) -> Broken:
        """A promise is broken. Whoever swallows the error that this makes does not hide it."""
        self.broken.append(sentence)
        self._say(f"BROKEN: {sentence}")
        return Broken(sentence)

    # What is sent.

    def sent(self, op: Op, offset: int) -> None:
        ops = self.ops.setdefault(op.partition, {})
        self._indexes[op.partition, offset] = len(ops)
        self._numbers[op.partition, len(ops)] = sum(1 for each in ops.values() if each.seq)
        ops[offset] = op
        if op.seq:
            self._after[op.key, op.seq] = op.seq if op.kind == "set" else None

    def note_after(self, key: str, seq: int) -> int | None:
        """What the table of notes holds for a key after this record."""
        return self._after[key, seq] if seq else None

    def notes_since(self, key: str, seq: int) -> set[int | None]:
        """What it may hold where the last record that counts is this one or a later one that was handled."""
        return {self.note_after(key, each) for each in range(seq, max(seq, self.furthest.get(key, 0)) + 1)}

    # What a handler does.

    def begin(
        self, process: Incarnation, partition: TopicPartition, offset: int, key: object, value: object
    ) -> Attempt:
        """A message comes to a handler."""
        op = self.ops[partition][offset]
        where = f"{process.name} {partition} offset {offset}"
        if (key, value) != (op.key.encode(), value_of(op)):
            raise self.breaks(f"{where}: the handler got {key!r}, {value!r}, and {op} was sent.")
        index = self._indexes[partition, offset]
        job = self.jobs[partition.topic]
        opening = self._openings.setdefault((process, process.assignments, job.name), Opening())
        attempt = Attempt(len(self._attempts) + 1, op, index, process, opening)
        self._attempts[attempt.token] = attempt
        self._latest[process, partition, offset] = attempt
        before = opening.index.get(partition)
        if before is not None and index <= before:
            opening.total.pop(partition.partition, None)
        if before is not None and index > before + 1 and job.concurrency == 1:
            raise self.breaks(f"{where}: record {index} of its partition was handled after record {before}.")
        opening.index[partition] = index
        self._check_step(where, job)
        if op.seq > self.furthest.get(op.key, 0) + 1:
            raise self.breaks(
                f"{where}: number {op.seq} of key {op.key} was handed over, and nobody has handled"
                f" {self.furthest.get(op.key, 0) + 1}."
            )
        last = opening.last.get(op.key)
        if last is not None and op.seq > last.op.seq + 1:
            raise self.breaks(f"{where}: number {op.seq} of key {op.key} was handled after {last.op.seq}.")
        return attempt

    def found(self, attempt: Attempt, count: Count, note: int | None) -> None:
        """What the tables hold for its key."""
        op, process = attempt.op, attempt.process
        where = f"{process.name} {op.partition} number {op.seq} of key {op.key}"
        attempt.count = count
        if op.kind == "poison":
            if count != NO_COUNT or note is not None:
                raise self.breaks(
                    f"{where}: tables show {count}, {note}, which only messages that failed have written."
                )
            return
        self._check_written(where, op, count)
        if self._exactly_once and count[:2] != (op.seq - 1, op.seq - 1):
            raise self.breaks(f"{where}: the count is not exact: it shows {count}.")
        job, partition = self.jobs[op.partition.topic], op.partition.partition
        excused = self._excuses(job, "counts", partition, op.key)
        if count[1] < op.seq - 1 and not excused:
            raise self.breaks(f"{where}: the table has forgotten number {op.seq - 1}: it shows {count}.")
        if count[0] < op.seq - 1 and not excused:
            raise self.breaks(f"{where}: the count is too low: it shows {count}.")
        if note not in self.notes_since(op.key, op.seq - 1) and not self._excuses(job, "notes", partition, op.key):
            raise self.breaks(
                f"{where}: the table of notes shows {note}, and not {self.notes_since(op.key, op.seq - 1)}."
            )
        opening = attempt.opening
        last = opening.last.get(op.key)
        if last is not None and last.op.seq == op.seq - 1:
            if count != last.new_count:
                raise self.breaks(f"{where}: the same worker has just written {last.new_count}, and finds {count}.")
            if note != self.note_after(op.key, op.seq - 1):
                raise self.breaks(f"{where}: the same worker finds the note {note} after number {op.seq - 1}.")
        before = opening.found.setdefault((op.key, op.seq), count)
        # With concurrency, what had finished above a message that had not is durable before its turn to be committed.
        is_exact = job.concurrency == 1 and not process.may_repeat and not excused
        if before[:2] != count[:2] and is_exact:
            raise self.breaks(f"{where}: handled again by the same worker, it finds {count}, where it found {before}.")
        if process.may_repeat:
            opening.found[op.key, op.seq] = count

    def found_total(self, attempt: Attempt, total: Total) -> None:
        """What the table of totals holds for its partition."""
        op, process = attempt.op, attempt.process
        where = f"{process.name} {op.partition} number {op.seq} of key {op.key}"
        attempt.total = total
        job, partition = self.jobs[op.partition.topic], op.partition.partition
        writer = self._attempts.get(total[1])
        if total != NO_TOTAL and (writer is None or writer.failed or not writer.returned or writer.new_total != total):
            raise self.breaks(f"{where}: the total shows {total}, which nobody has written, or one that failed has.")
        if (
            total[0] < self.committed_records(job, partition)
            and self._is_member(process)
            and not self._excuses(job, "totals", partition, "all")
        ):
            raise self.breaks(
                f"{where}: the total shows {total}, and {self.committed_records(job, partition)} records are committed."
            )
        before = self._numbers[op.partition, attempt.index]
        if self._exactly_once and job.concurrency == 1 and len(job.topics) == 1 and total[0] != before:
            raise self.breaks(f"{where}: the total is not exact: it shows {total} after {before} records.")
        last = attempt.opening.total.get(partition)
        if last is not None and job.concurrency == 1 and len(job.topics) == 1 and total != last.new_total:
            raise self.breaks(
                f"{where}: the same worker has just written the total {last.new_total}, and finds {total}."
            )

    def booms(self, attempt: Attempt) -> bool:
        """Whether its handler is to fail now."""
        op = attempt.op
        if not op.booms or (op.key, op.seq) in self._boomed:
            return False
        self._boomed.add((op.key, op.seq))
        return True

    def returned(self, attempt: Attempt) -> None:
        """The hook has returned."""
        op = attempt.op
        attempt.returned = True
        attempt.opening.last[op.key] = attempt
        attempt.opening.total[op.partition.partition] = attempt
        self.furthest[op.key] = max(op.seq, self.furthest.get(op.key, 0))
        self.handled[op.key, op.seq] += 1
        self.totals[self.jobs[op.partition.topic].name, op.partition.partition] += 1

    def failed(self, process: Incarnation, partition: TopicPartition, offset: int) -> None:
        """The engine says that a message has failed."""
        attempt = self._latest.get((process, partition, offset))
        if attempt is None:
            return
        op, opening = attempt.op, attempt.opening
        attempt.failed = True
        if opening.last.get(op.key) is attempt:
            del opening.last[op.key]
        if opening.total.get(partition.partition) is attempt:
            del opening.total[partition.partition]

    def committed_records(self, job: Job, partition: int) -> int:
        """How many records of a job's partition are committed, those aside that fail."""
        return sum(
            1
            for topic in job.topics
            for offset, op in self.ops.get(TopicPartition(topic, partition), {}).items()
            if op.seq and offset < self.committed.get(op.partition, 0)
        )

    def _check_step(self, where: str, job: Job) -> None:
        """What was there from the beginning, in the topics of earlier steps, is committed."""
        for partition, ops in self.ops.items():
            if self.steps and self.steps.index(self.jobs[partition.topic]) < self.steps.index(job):
                left = [at for at, op in ops.items() if op.at == 0 and at >= self.committed.get(partition, 0)]
                if left:
                    raise self.breaks(f"{where}: it is not its turn: {partition} offset {left[0]} is not committed.")

    def _check_written(self, where: str, op: Op, count: Count) -> None:
        if count == NO_COUNT:
            return
        writer = self._attempts.get(count[2])
        if writer is None or writer.op.key != op.key or writer.new_count != count:
            raise self.breaks(f"{where}: the table shows {count}, which nobody has written.")
        if writer.failed or not writer.returned:
            raise self.breaks(f"{where}: the table shows {count}, whose writer has failed or has not finished.")


def value_of(op: Op) -> bytes:
    """The record's value."""
    return f"{op.kind} {op.seq}".encode()
