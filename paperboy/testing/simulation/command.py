"""``paperboy-sim``: run seeds, and look at one."""

import argparse
import sys
from collections.abc import Sequence

from paperboy.testing.simulation.run import simulate

FINE, BROKEN = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what these arguments, or the process's own, ask for. Returns the exit code: 1 where a promise is broken."""
    given = _parser().parse_args(arguments)
    if given.command == "replay":
        return _replay(given.seed, given.quiet)
    if given.command == "digests":
        return _digests(given.first, given.seeds)
    return _run(given.first, given.seeds)


def _replay(seed: int, quiet: bool) -> int:
    outcome = simulate(seed, show=None if quiet else print)
    print(f"seed {seed}: {outcome.broken or 'every promise holds'}")
    print(
        f"{outcome.events} events, {outcome.steps} steps, {outcome.virtual_sec:g} s of virtual time, {outcome.digest}"
    )
    return FINE if outcome.broken is None else BROKEN


def _run(first: int, seeds: int) -> int:
    for seed in range(first, first + seeds):
        outcome = simulate(seed)
        if outcome.broken is not None:
            print(f"seed {seed}: {outcome.broken}")
            return BROKEN
    print(f"{seeds} seeds: every promise holds")
    return FINE


def _digests(first: int, seeds: int) -> int:
    for seed in range(first, first + seeds):
        print(f"seed {seed}: {simulate(seed).digest}")
    return FINE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paperboy-sim",
        description="Run workers of a group against a simulated broker, with faults that a seed draws, and check"
        " what paperboy promises.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    replay = commands.add_parser("replay", help="run one seed, and show what happens, event by event")
    replay.add_argument("seed", type=int)
    replay.add_argument("--quiet", action="store_true", help="show the verdict only")
    run = commands.add_parser("run", help="run many seeds, until one breaks a promise")
    digests = commands.add_parser("digests", help="run many seeds, and tell two runs of them apart")
    for command in (run, digests):
        command.add_argument("--first", type=int, default=0, help="the first seed (0)")
        command.add_argument("--seeds", type=int, default=100, help="how many (100)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
