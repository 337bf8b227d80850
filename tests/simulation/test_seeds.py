"""The same engine, several workers, one event loop, and whatever a seed draws: every promise holds."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from paperboy.testing.simulation.plan import plan_of
from paperboy.testing.simulation.run import simulate
from tests.simulation import campaign
from tests.simulation.mutants import MUTANTS, hunt

SEEDS = int(os.environ.get("PAPERBOY_SIM_SEEDS", "400"))
"""How many seeds a run of the tests takes; ``make simulate`` takes more."""

PINNED = {
    67: "compaction took what stood before an open transaction",
    122: "timers of virtual time rang early, and kept each other's time from coming",
    154: "an alarm of the broker was set for the moment in which it rang, for ever",
}
"""Seeds that have found a mistake, and which."""

HANDFUL = [
    "commit before ack",
    "no undo",
    "the log is believed after a failed checkpoint",
    "position instead of lowest unfinished",
    "conflicts are not seen",
    "restore drops tombstones",
]
"""Mutants that every run of the tests looks for; ``make mutants`` looks for all."""


def test_no_seed_breaks_a_promise() -> None:
    assert campaign.run(SEEDS).found is None


@pytest.mark.parametrize("seed", PINNED, ids=PINNED.get)
def test_what_was_found_is_mended(seed: int) -> None:
    assert simulate(seed).broken is None


def test_a_seed_does_the_same_in_another_process_to_the_last_event() -> None:
    def digests(hash_seed: str) -> str:
        return campaign.command(["digests", "--seeds", "100"], env={"PYTHONHASHSEED": hash_seed})

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(digests, ("1", "4242"))
    assert one == other
    assert len(set(one.split("\n"))) > 100


def test_seeds_differ() -> None:
    assert len({plan_of(seed).options["session_timeout_sec"] for seed in range(100)}) == 100
    assert {plan_of(seed).machines for seed in range(100)} == {1, 2, 3}


@pytest.mark.parametrize("name", HANDFUL)
def test_a_mistake_is_found(name: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    found = hunt(mutant)
    assert found is not None, f"{mutant.within} seeds do not find it"


def test_what_each_mutant_changes_is_there_once() -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.source().count(mutant.before) != 1] == []
    assert len(MUTANTS) >= 15
