"""Deliberate mistakes in the engine: what the simulation has to find."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns

from tests.simulation.campaign import Found, SimulationFailed, run_here

PACKAGE = Path(__file__).parents[2] / "paperboy"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake: in `file`, `before` stands once, and becomes `after`."""

    name: str
    file: str
    before: str
    after: str
    within: int
    """So many seeds find it, from 0 on."""

    def source(self) -> str:
        """What it is made in."""
        return Path(PACKAGE, self.file).read_text()


MUTANTS = [
    Mutant(
        "commit before ack",
        "engine/checkpoint.py",
        "        if waiting:\n            await asyncio.wait(waiting)\n",
        "        await self._commit()\n        if waiting:\n            await asyncio.wait(waiting)\n",
        100,
    ),
    Mutant(
        "outputs are not waited for",
        "engine/checkpoint.py",
        "waiting = [*self._outputs, *(ack",
        "waiting = [*(ack",
        500,
    ),
    Mutant(
        "a failed ack counts as an ack",
        "engine/checkpoint.py",
        "        for ack in waiting:\n            ack.result()\n"
        "        reached = [await self._reached(table, changes, acks) for table, changes, acks in written]\n",
        "        reached = [(t.partition.store.changelog_offset or 0) + len(c) for t, c, _ in written]\n",
        100,
    ),
    Mutant(
        "store write before ack",
        "engine/checkpoint.py",
        "        waiting = [*self._outputs",
        "        for table, changes, _ in written:\n"
        "            table.partition.store.write(changes, table.partition.store.changelog_offset or 0, now_ms)\n"
        "        waiting = [*self._outputs",
        500,
    ),
    Mutant(
        "ownership is not asked for before writing",
        "engine/checkpoint.py",
        "            await self._consumer.confirm(self._generation)\n",
        "            pass\n",
        1_000,
    ),
    Mutant(
        "foreign writes are not noticed",
        "engine/checkpoint.py",
        "            if base_offset != expected:\n",
        "            if base_offset < 0:\n",
        2_000,
    ),
    Mutant(
        "the old layer stays over the store",
        "engine/checkpoint.py",
        "            table.partition.thaw()\n",
        "",
        100,
    ),
    Mutant(
        "sends are left out of the checkpoint",
        "engine/checkpoints.py",
        "        await self.flush()\n        if self._transaction is not None and self._has_gaps()",
        "        if self._transaction is not None and self._has_gaps()",
        100,
    ),
    Mutant(
        "exactly once: store write before the transaction has ended",
        "engine/transaction.py",
        "        await self._producer.commit(self._group_id, self.positions)  # 5\n",
        "        for (table, changes, _), offset in zip(written, reached, strict=True):\n"
        "            table.partition.store.write(changes, offset, now_ms)\n"
        "        await self._producer.commit(self._group_id, self.positions)  # 5\n",
        2_000,
    ),
    Mutant(
        "exactly once: offsets beside the transaction",
        "engine/transaction.py",
        "        await self._producer.commit(self._group_id, self.positions)  # 5\n",
        "        await self._producer.commit(self._group_id, {})\n"
        "        await self._consumer.commit(self.positions, self._generation)\n",
        500,
    ),
    Mutant(
        "what a failed message sent is sent",
        "engine/work.py",
        "        del self.pending[mark[1] :]\n",
        "",
        100,
    ),
    Mutant(
        "no undo",
        "tables/layer.py",
        "        partition.put_back(key, before)\n",
        "        pass\n",
        100,
    ),
    Mutant(
        "forget a tombstone in the changelog",
        "tables/layer.py",
        "        for key, value in layer.items()\n    }",
        "        for key, value in layer.items()\n        if value is not DELETED\n    }",
        100,
    ),
    Mutant(
        "keep overlay after loss",
        "tables/partition.py",
        "        self._frozen = None\n        self._begin_layer()\n\n    def changes",
        "        self._frozen = None\n\n    def changes",
        500,
    ),
    Mutant(
        "read past the layer that is being checkpointed",
        "tables/partition.py",
        "                if self._frozen is not None:\n                    found = self._frozen.get(encoded, ABSENT)\n"
        "                if found is ABSENT:\n                    data",
        "                if found is ABSENT:\n                    data",
        100,
    ),
    Mutant(
        "restore ends one early",
        "engine/restore.py",
        "        ends = await broker.end_offsets(by_partition)\n",
        "        ends = await broker.end_offsets(by_partition)\n"
        "        ends = {at: max(begins[at], end - 1) for at, end in ends.items()}\n",
        1_000,
    ),
    Mutant(
        "restore begins one late",
        "engine/restore.py",
        "if (offset := table.partition.store.changelog_offset) is None else offset\n",
        "if (offset := table.partition.store.changelog_offset) is None else min(offset + 1, ends[changelog])\n",
        500,
    ),
    Mutant(
        "restore drops tombstones",
        "engine/restore.py",
        "store.write(changes.last, changes.end, in_step_ms)",
        "store.write({k: v for k, v in changes.last.items() if v is not None}, changes.end, in_step_ms)",
        500,
    ),
    Mutant(
        "stores that were away for too long are kept",
        "engine/restore.py",
        "    if offset < end and away_ms >= delete_retention_ms:\n",
        "    if False:\n",
        3_000,
    ),
    Mutant(
        "ready before it is restored",
        "engine/restore.py",
        "            await _read(by_partition, starts, ends, broker, progress, now_ms)\n",
        "            await _read(by_partition, starts, starts, broker, progress, now_ms)\n",
        100,
    ),
    Mutant(
        "a reclaim writes nothing",
        "engine/reclaim.py",
        "if ours[key] != value\n",
        "if False\n",
        1_000,
    ),
    Mutant(
        "the log is believed after a failed checkpoint",
        "engine/opening.py",
        "        if task.in_step:\n            try:",
        "        if False:\n            try:",
        500,
    ),
    Mutant(
        "position instead of lowest unfinished",
        "engine/window.py",
        "            self.position = window[0].record.offset\n",
        "            done = [each.record.offset + 1 for each in [*window, taken] if each.finished]\n"
        "            self.position = max(done)\n",
        1_000,
    ),
    Mutant(
        "messages of one key side by side",
        "engine/window.py",
        "            if behind is not None:\n                behind.append(taken)\n                continue\n",
        "",
        1_000,
    ),
    Mutant(
        "conflicts are not seen",
        "tables/isolation.py",
        "            if changed.get(key, 0) > read_at:\n",
        "            if False:\n",
        1_000,
    ),
    Mutant(
        "begin behind what is committed",
        "engine/opening.py",
        "        if begin <= committed <= end:\n            return committed\n",
        "        if begin <= committed <= end:\n            return min(committed + 1, end)\n",
        100,
    ),
    Mutant(
        "begin at what was fetched, not at what is committed",
        "engine/source.py",
        "        self.position = self.fetched = self.durable = offset\n",
        "        self.position = self.fetched = self.durable = max(offset, self.fetched)\n",
        1_000,
    ),
    Mutant(
        "no drain on a rebalance",
        "engine/membership.py",
        "        await self.drain()\n        self._stores.flush()\n",
        "        self.tasks.clear()\n        self._runners.clear()\n        self._stores.flush()\n",
        500,
    ),
    Mutant(
        "steps hold nothing back",
        "engine/steps.py",
        "            return self._ends.get(partition, HELD_BACK)\n        return HELD_BACK\n",
        "            return self._ends.get(partition, HELD_BACK)\n        return None\n",
        500,
    ),
    Mutant(
        "a store stands one further than it has come",
        "tables/stores/memory.py",
        "        self._changelog_offset = changelog_offset\n        self._in_step_ms = in_step_ms\n",
        "        self._changelog_offset = changelog_offset + 1 if changes else changelog_offset\n"
        "        self._in_step_ms = in_step_ms\n",
        500,
    ),
]


def hunt(mutant: Mutant, seeds: int | None = None) -> Found | None:
    """The first seed, from 0 on, that finds it; None where so many (by default, as many as it is to take) do not."""
    with tempfile.TemporaryDirectory() as directory:
        copytree(PACKAGE, Path(directory, "paperboy"), ignore=ignore_patterns("__pycache__"))
        source = mutant.source()
        if source.count(mutant.before) != 1:
            raise SimulationFailed(
                f"Mutant {mutant.name!r}: what it changes stands {source.count(mutant.before)} times in {mutant.file};"
                " change it with the code."
            )
        Path(directory, "paperboy", mutant.file).write_text(source.replace(mutant.before, mutant.after))
        return run_here(seeds or mutant.within, path=Path(directory))
