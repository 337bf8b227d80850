"""The command ``paperboy worker``."""

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

from paperboy.cli.errors import Misuse
from paperboy.cli.logging_setup import LEVELS, configure_logging, default_format
from paperboy.cli.worker_restarts import Restarts
from paperboy.cli.worker_run import memory_mb_of
from paperboy.cli.worker_supervisor import Supervisor

_DESCRIPTION = """\
Run an engine in processes of their own, all in its group, and keep them running: one that dies is started again.
SIGTERM and Ctrl-C let all of them finish what is in hand and end; SIGHUP restarts them one by one. Ends with 0 after a
clean stop, 1 when a worker has failed for good, 2 when it was asked for something that it cannot do."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_to(commands: Any) -> None:
    """Add it to argparse's subparsers."""
    parser = commands.add_parser(
        "worker", help="run an engine in one or more processes, and keep them running", description=_DESCRIPTION
    )
    parser.add_argument("engine", metavar="MODULE:ENGINE", help="as in app:engine, looked for in this directory first")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="how many processes (default: 1)")
    parser.add_argument("--max-age", type=_duration, metavar="TIME", help="restart a worker after so long, as in 12h")
    parser.add_argument("--max-memory-mb", type=_positive, metavar="MB", help="restart a worker that is this large")
    parser.add_argument(
        "--stop-timeout",
        type=_duration,
        metavar="TIME",
        help="kill a worker that takes longer to end (default: the engine's drain_timeout_sec, and 60 s)",
    )
    parser.add_argument(
        "--attempts",
        type=_count,
        default=Restarts().attempts,
        metavar="N",
        help="give up after a worker has failed so often in a row (default: %(default)s)",
    )
    parser.add_argument(
        "--reload", action="store_true", help="for development: restart when a .py file below this directory changes"
    )
    parser.add_argument(
        "--log", choices=("text", "json"), help="how to log, to standard error (default: text on a terminal, else json)"
    )
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="(default: info)")
    parser.set_defaults(run=run)


async def run(given: argparse.Namespace) -> int:
    if given.max_memory_mb is not None and memory_mb_of(os.getpid()) is None:
        raise Misuse("--max-memory-mb needs /proc, which this system does not have: leave it out, or use --max-age.")
    log_format = given.log or default_format()
    configure_logging(log_format, given.log_level)
    command = [
        *(sys.executable, "-m", "paperboy.cli.worker_process", given.engine, "--of", str(given.workers)),
        *("--log", log_format, "--log-level", given.log_level),
        *(() if given.stop_timeout is None else ("--stop-timeout", str(given.stop_timeout))),
    ]
    supervisor = Supervisor(
        command,
        given.workers,
        Restarts(attempts=given.attempts, max_age_sec=given.max_age, max_memory_mb=given.max_memory_mb),
        given.stop_timeout,
        Path.cwd() if given.reload else None,
    )
    return await supervisor.run()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0.")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0.")
    return number


def _duration(text: str) -> float:
    """In seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 12h or 7d.")
    return float(found[1]) * _SECONDS[found[2]]
