"""A counting job on a real Kafka whose group never comes to rest: workers join, leave, are killed, and freeze."""

import itertools
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from paperboy.brokers.protocol import TopicPartition
from paperboy.serializers.values import decode_value
from paperboy.tables.keys import decode_key
from tests.chaos.group import PARTITIONS, Commits, Feed, Group, Handled, Worker
from tests.chaos.member import HEARTBEAT_SEC, SESSION_SEC
from tests.chaos.test_kill import verify
from tests.contract.engine.kit import Kit

CHANGES = int(os.environ.get("PAPERBOY_CHAOS_CHANGES", "12"))
SEED = int(os.environ.get("PAPERBOY_CHAOS_SEED", "0")) or random.randrange(1, 1 << 32)
KEYS = 100
"""In each partition: so few that whoever takes it over soon writes the keys that the one before had in hand."""
TAKEN_OVER = 100
"""Records of each of its partitions that others have handled when a frozen worker wakes."""
WORKERS = 2
"""At the start."""

pytestmark = pytest.mark.time_limit(120 + 10 * CHANGES)

_SECOND_NS = 1_000_000_000
_OPENINGS = ("restored", "back to what is durable")
"""What a worker says when a task goes on from what is committed."""


class Chaos:
    """What is done to a group, and the proof, each time, that it hit."""

    def __init__(self, group: Group, commits: Commits, topic: str, chance: random.Random) -> None:
        self.uncommitted: list[int] = []
        """Of each worker that was killed: how much it had handled that was not committed."""
        self.late_writes: list[bool] = []
        """Of each worker that froze: whether something of its own still came to a changelog when it woke."""
        self._group = group
        self._commits = commits
        self._topic = topic
        self._chance = chance

    async def change(self, kind: str) -> str:
        """One change of the membership. What it was, and how it is known to have hit."""
        does = {"join": self._join, "leave": self._leave, "kill": self._kill, "freeze": self._freeze}
        return await does[kind]()

    async def settle(self) -> None:
        """Until every partition has an owner, and that one has made something durable since now."""
        since = max((line[0] for worker in self._group.workers for line in worker.journal), default=0)

        def settled() -> bool:
            owners = self._group.owners
            return len(owners) == PARTITIONS and all(
                any(said.partition == number for said in owner.said("checkpoint", since))
                for number, owner in owners.items()
            )

        await self._group.until("every partition goes on", settled)

    async def _join(self) -> str:
        worker = self._group.join()
        await self._group.until_handling(worker)
        return f"{worker.name} joined, and handles partitions {sorted(worker.tasks)}"

    async def _leave(self) -> str:
        worker = await self._busy()
        had = sorted(worker.tasks)
        await self._group.leave(worker)
        assert worker.said("stopped")
        return f"{worker.name} left, and gave back partitions {had}"

    async def _kill(self) -> str:
        worker = await self._busy()
        worker.send(signal.SIGKILL)
        assert await worker.end() == -signal.SIGKILL
        committed = await self._commits.look()
        ahead = dict.fromkeys(sorted(worker.tasks), 0)
        for line in worker.journal:
            if isinstance(line, Handled) and line.partition in ahead:
                ahead[line.partition] = max(0, line.offset + 1 - committed[line.partition])
        self.uncommitted.append(sum(ahead.values()))
        return f"{worker.name} was killed; handled, not committed, by partition: {ahead}"

    async def _freeze(self) -> str:
        await self.settle()
        worker = await self._busy()
        had = sorted(worker.tasks)
        froze_ns = worker.send(signal.SIGSTOP)

        def taken_over() -> bool:
            others = [other for other in self._group.living if other is not worker]
            handled = sum((handled_since(other, froze_ns) for other in others), Counter[int]())
            return all(handled[number] >= TAKEN_OVER for number in had)

        await self._group.until(f"others handle the partitions of {worker.name}", taken_over)
        committed = await self._commits.look()
        worker.look()
        woke_ns = worker.send(signal.SIGCONT)
        least_ns = (SESSION_SEC - HEARTBEAT_SEC) * _SECOND_NS  # a session lasts from the last heartbeat on
        assert woke_ns - froze_ns > least_ns, "others can only have them when its session is over"
        await self._group.until(
            f"{worker.name} joins anew",
            lambda: any(said.fields["partitions"] for said in worker.said("assigned", woke_ns)),
        )
        anew_ns = worker.said("assigned", woke_ns)[0].at_ns
        late = [said for said in worker.said("checkpoint", woke_ns) if said.at_ns < anew_ns]
        for said in late:  # it may still have to hear of a commit that had reached the broker before
            for number in range(PARTITIONS):
                position = said.fields["positions"].get(f"{TopicPartition(self._topic, number)}", 0)
                assert position <= committed[number], f"{worker.name} committed after it had lost partition {number}"
        others = {other.home for other in self._group.living if other is not worker and other.said("state kept")}
        assert worker.home not in others
        await self.settle()
        # It asks the group before it writes; it may have frozen right after that.
        late_write = any(other.said("changelog reclaimed", woke_ns) for other in self._group.living)
        self.late_writes.append(late_write)
        frozen_sec, lost = (woke_ns - froze_ns) / _SECOND_NS, worker.said("task lost", woke_ns)
        return (
            f"{worker.name} froze for {frozen_sec:.1f} s (session: {SESSION_SEC} s) and lost partitions {had}; awake,"
            f" it gave up {sum(said.at_ns < anew_ns for said in lost)} tasks, committed nothing of theirs, and"
            f" {'wrote late, which was taken back' if late_write else 'wrote nothing'}"
        )

    async def _busy(self) -> Worker:
        """One of those that have tasks, while it handles records."""
        await self._group.until("somebody has tasks", lambda: bool(self._group.owners))
        worker = self._chance.choice(sorted(set(self._group.owners.values()), key=lambda worker: worker.name))
        await self._group.until_handling(worker)
        return worker


def handled_since(worker: Worker, since_ns: int) -> Counter[int]:
    """How many records of each partition it has handled."""
    lines = itertools.takewhile(lambda line: line.at_ns > since_ns, reversed(worker.journal))
    return Counter(line.partition for line in lines if isinstance(line, Handled))


def changes(chance: random.Random, living: int) -> Iterator[str]:
    """Kinds of change without an end, in six every kind at least once, with 2 to 4 workers before each but a join."""
    while True:
        deck = ["join", "join", "leave", "kill", "freeze", "freeze"]
        chance.shuffle(deck)
        while deck:
            kind = next(kind for kind in deck if (living < 4 if kind == "join" else living > 1))
            deck.remove(kind)
            living += {"join": 1, "freeze": 0}.get(kind, -1)
            yield kind


@pytest.mark.parametrize("seed", range(20))
def test_every_six_changes_hold_every_kind_and_leave_somebody_to_go_on(seed: int) -> None:
    kinds = list(itertools.islice(changes(random.Random(seed), WORKERS), 60))
    assert all(set(kinds[at : at + 6]) == {"join", "leave", "kill", "freeze"} for at in range(0, 60, 6))
    living = list(itertools.accumulate(({"join": 1, "freeze": 0}.get(kind, -1) for kind in kinds), initial=WORKERS))
    assert set(living) <= {1, 2, 3, 4}
    assert all(before > 1 for before, kind in zip(living, kinds, strict=False) if kind != "join")


async def test_whoever_joins_leaves_dies_or_freezes_no_record_is_lost_and_every_key_keeps_its_order(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    print(f"PAPERBOY_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    kit = Kit(kafka_bootstrap, f"members-{SEED}-{os.getpid()}")
    topic = await kit.topic("in", PARTITIONS)
    changelogs = {table: await kit.changelog(table, PARTITIONS) for table in ("counts", "last")}
    feed, commits = Feed(kit, topic, KEYS, random.Random(SEED)), Commits(kit, topic)
    with Group(kit, topic, tmp_path) as group:
        chaos = Chaos(group, commits, topic, chance)
        for _ in range(WORKERS):
            group.join()
        async with commits.watched():
            async with feed.running():
                await chaos.settle()
                for number, kind in enumerate(itertools.islice(changes(chance, WORKERS), CHANGES)):
                    print(f"[{number + 1}] {await chaos.change(kind)}")
                    if chance.random() < 0.5:  # else the next one comes in the midst of this one
                        await chaos.settle()
                await chaos.settle()
            await commits.until(feed.log)
        for worker in group.living:
            await group.leave(worker)
    no_two_have_one_home(group.workers)
    every_partition_is_handled_in_order(group, feed.log)
    counted, last = [await content(kit, changelogs[table]) for table in ("counts", "last")]
    handled = Counter(feed.log[line.partition][line.offset] for _, line in group.handled())
    oracle = Counter(key for keys in feed.log for key in keys)
    assert last == {key: offset for keys in feed.log for offset, key in enumerate(keys)}
    assert counted.keys() == oracle.keys()
    wrong = {key: (oracle[key], counted[key], handled[key]) for key in oracle}
    assert not {key: each for key, each in wrong.items() if not each[0] <= each[1] <= each[2]}, "below, or above"
    assert CHANGES < 6 or sum(chaos.uncommitted) > 0, "no kill hit work that was not committed"
    assert CHANGES < 6 or not all(chaos.late_writes), "whoever wakes writes before it asks the group"
    await verify(kit, group.state_dir)
    print(
        f"{oracle.total()} records, {len(group.workers)} workers, {CHANGES} changes:"
        f" {handled.total() - oracle.total()} handled again, {sum(counted.values()) - oracle.total()} counted twice"
    )


async def content(kit: Kit, changelog: str) -> dict[str, int]:
    """What a worker that starts now would restore."""
    values = {record.key: record.value for record in await kit.read(changelog)}
    found = {}
    for key, value in values.items():
        name, number = decode_key(key), decode_value(value)
        assert isinstance(name, bytes)
        assert isinstance(number, int)
        found[name.decode()] = number
    return found


def no_two_have_one_home(workers: Sequence[Worker]) -> None:
    """No two workers that lived at one time kept their stores in one directory."""
    homes: dict[str, int] = {}
    for worker in sorted((worker for worker in workers if worker.said("state kept")), key=_taken_ns):
        assert worker.ended_ns is not None
        assert homes.get(worker.home, 0) < _taken_ns(worker), f"{worker.name} took a home that was another's"
        homes[worker.home] = worker.ended_ns


def _taken_ns(worker: Worker) -> int:
    return worker.said("state kept")[0].at_ns


def every_partition_is_handled_in_order(group: Group, log: Sequence[Sequence[str]]) -> None:
    """What order means where records may be handled again. In each partition,

    - every record is handled at least once;
    - from one opening of its task to the next, a worker handles one offset after another, without a gap, and begins
      no further on than the offset after the furthest that anybody has handled;
    - what the handler then sees as its key's last offset is that of the key's record before this one, exactly, where
      this one is handled for the first time. Where it is handled again, because it was not committed, it may be a later
      one (the changelog is ahead of the commit), and never an earlier one.
    """
    before = [_offsets_before(keys) for keys in log]
    first: list[dict[int, Handled]] = [{} for _ in log]
    furthest: dict[Handled, int] = {}
    ends = [0] * len(log)
    for _, line in sorted(group.handled(), key=lambda each: each[1].at_ns):
        first[line.partition].setdefault(line.offset, line)
        furthest[line] = ends[line.partition]
        ends[line.partition] = max(ends[line.partition], line.offset + 1)
    assert [len(found) for found in first] == [len(keys) for keys in log], "records were lost"
    for worker in group.workers:
        for records in _openings(worker):
            begin = records[0]
            assert begin.offset <= furthest[begin], f"{worker.name} passed over records before {begin}"
            assert [line.offset for line in records] == list(range(begin.offset, begin.offset + len(records)))
            for line in records:
                expected = before[line.partition][line.offset]
                assert line.before >= expected, f"{worker.name}: the record before {line} was lost: {expected}"
                if first[line.partition][line.offset] == line:
                    assert line.before == expected, f"{worker.name}: {line} was handled before it was its turn"


def _offsets_before(keys: Sequence[str]) -> list[int]:
    """For each offset, that of the record of the same key before it; -1 for none."""
    last: defaultdict[str, int] = defaultdict(lambda: -1)
    found = []
    for offset, key in enumerate(keys):
        found.append(last[key])
        last[key] = offset
    return found


def _openings(worker: Worker) -> Iterator[list[Handled]]:
    """What it handled of a partition from one opening of its task to the next."""
    current: dict[int, list[Handled]] = defaultdict(list)
    for line in worker.journal:
        if isinstance(line, Handled):
            current[line.partition].append(line)
        elif line.event in _OPENINGS and line.partition is not None and line.partition in current:
            yield current.pop(line.partition)
    yield from current.values()
