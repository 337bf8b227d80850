"""``make simulate`` and ``make mutants``."""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.simulation import campaign
from tests.simulation.mutants import MUTANTS, hunt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    seeds = commands.add_parser("seeds", help="run many seeds on all cores, up to the first that breaks a promise")
    seeds.add_argument("--first", type=int, default=0)
    seeds.add_argument("--seeds", type=int, default=10_000)
    mutants = commands.add_parser("mutants", help="let the simulation find deliberate mistakes in the engine")
    mutants.add_argument("names", nargs="*", help="parts of names; all by default")
    given = parser.parse_args()
    return _seeds(given.first, given.seeds) if given.command == "seeds" else _mutants(given.names)


def _seeds(first: int, seeds: int) -> int:
    def tell(done: int) -> None:
        if done % 1_000 == 0:
            print(f"{done} seeds", flush=True)

    result = campaign.run(seeds, first, tell=tell)
    print(f"{result.seeds} seeds in {result.elapsed_sec:.0f} s: {result.seeds_per_sec:.1f} seeds/s")
    if result.found is None:
        print("every promise holds")
        return 0
    print(f"seed {result.found.seed}: {result.found.broken}")
    print(f"to see what happens: .venv/bin/paperboy-sim replay {result.found.seed}")
    return 1


def _mutants(names: list[str]) -> int:
    wanted = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    missed = 0
    print(f"{'mistake':55} {'found by seed':>13} {'within':>7}  as")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for mutant, found in zip(wanted, threads.map(hunt, wanted), strict=True):
            missed += found is None
            seed, broken = ("MISSED", "") if found is None else (str(found.seed), found.broken)
            print(f"{mutant.name:55} {seed:>13} {mutant.within:>7}  {broken[:110]}", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
