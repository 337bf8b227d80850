"""The command ``paperboy reset``."""

import argparse
import sys
from typing import Any

from paperboy.cli.administration import Administration, open_administration
from paperboy.cli.loading import definition_of, load_engine
from paperboy.cli.moments import moment
from paperboy.cli.progress import progress_bar
from paperboy.cli.reset import Reset, Start, carry_out, described, plan

_DESCRIPTION = """\
Let an engine's group begin anew: its committed offsets, the changelogs of its tables and the local stores of this
machine, all together. Changelogs are made anew with as many partitions as the input has now. Says what it would do;
with --yes it does it. All workers of the group have to be stopped. One that was interrupted is run again, and ends."""


def add_to(commands: Any) -> None:
    """Add it to argparse's subparsers."""
    parser = commands.add_parser(
        "reset", help="let a group begin anew: offsets, changelogs and local stores", description=_DESCRIPTION
    )
    parser.add_argument("engine", metavar="MODULE:ENGINE", help="as in app:engine, looked for in this directory first")
    parser.add_argument(
        "--to",
        type=_start,
        default="earliest",
        metavar="earliest|latest|TIME",
        help="where the input begins: a time is ISO 8601, and in UTC if it names no zone (default: earliest)",
    )
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.set_defaults(run=run)


async def run(given: argparse.Namespace) -> bool:
    definition = definition_of(await load_engine(given.engine))
    options = definition.options
    broker = open_administration(
        options.bootstrap_servers,
        client_options=options.client_options,
        connect_timeout_sec=options.connect_timeout_sec,
    )
    try:
        await broker.start()
        reset = await plan(definition, broker, given.to)
        what = "is reset now" if given.yes else "would be reset"
        print(f"Group {reset.group_id!r} on {broker.name} {what}.", *described(reset), sep="\n", flush=True)
        if given.yes:
            await _carry_out(reset, broker)
            print(f"Group {reset.group_id!r} has been reset.")
        else:
            print("Nothing was changed: --yes does it, when all workers of the group are stopped.")
    finally:
        await broker.stop()
    return False


async def _carry_out(reset: Reset, broker: Administration) -> None:
    begun = False
    with progress_bar(reset.steps, "steps", "resetting") as bar:

        def report(done: str) -> None:
            nonlocal begun
            begun = True
            bar.set_postfix_str(done, refresh=False)
            bar.update()

        try:
            await carry_out(reset, broker, report)
        except BaseException:
            if begun:
                print("paperboy: run the same reset again to end it; no worker goes on before that.", file=sys.stderr)
            raise


def _start(text: str) -> Start:
    if text in _NAMED_STARTS:
        return _NAMED_STARTS[text]
    try:
        return moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither earliest nor latest nor a time such as 2026-11-21T08:30:00+01:00."
        ) from None


_NAMED_STARTS: dict[str, Start] = {"earliest": "earliest", "latest": "latest"}
