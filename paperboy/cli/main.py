"""Reading the command line, and doing what it asks for."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from paperboy import __version__
from paperboy.cli import dlt_command, reset_command, table_command, topics_command, worker_command
from paperboy.cli.errors import Misuse
from paperboy.errors import PaperboyError

FINE, FOUND_SOMETHING, MISUSED = 0, 1, 2
"""Exit codes. What stands for the second in each command, its description says."""
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what these arguments, or the process's own, ask for. Returns the exit code."""
    given = _parser().parse_args(arguments)
    # What aiokafka logs of each attempt to connect ends as one sentence of ours; `worker` logs it all the same.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        code: int = asyncio.run(given.run(given))  # or whether it has found something, which is as good
        sys.stdout.flush()
    except Misuse as error:
        print(f"paperboy: {error}", file=sys.stderr)
        return MISUSED
    except PaperboyError as error:
        print(f"paperboy: {error}", file=sys.stderr)
        return FOUND_SOMETHING
    except KeyboardInterrupt:
        print("paperboy: interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # whoever reads our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paperboy", description="Look after stateful stream processing on Kafka.")
    parser.add_argument("--version", action="version", version=f"paperboy {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    dlt_command.add_to(commands)
    reset_command.add_to(commands)
    table_command.add_to(commands)
    topics_command.add_to(commands)
    worker_command.add_to(commands)
    return parser
