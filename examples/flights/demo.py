"""New York's flights of 2013, added up by airline and by route while they come in, and checked.

    python examples/flights/demo.py                                       on the embedded broker
    python examples/flights/demo.py --bootstrap-servers localhost:9092    on a Kafka

Exit codes: 0 when every total equals the group-by over the source files, or after a clean stop (Ctrl-C, SIGTERM);
1 when a total differs, or the job failed.
"""

import argparse
import asyncio
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout, so that `examples.…` is found from anywhere

from examples.flights import data, oracle
from examples.flights.job import Flights, Mode
from examples.flights.load import load
from examples.flights.progress import Line, shown
from paperboy import PaperboyError

TOP = 10
IN_MEMORY = "memory://flights"


def main() -> int:
    arguments = parse()
    try:
        return asyncio.run(until_signalled(arguments))
    except (PaperboyError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Add up New York's flights of 2013 by airline and by route.")
    parser.add_argument(
        "--bootstrap-servers", default=IN_MEMORY, help=f"host:port of a Kafka, or memory://name ({IN_MEMORY})"
    )
    parser.add_argument("--partitions", type=positive, default=4, help="of each topic (4)")
    parser.add_argument("--limit", type=positive, default=data.FLIGHTS, help="how many flights (all)")
    parser.add_argument("--mode", choices=get_args(Mode), default="bulk", help="how flights are handled (bulk)")
    parser.add_argument(
        "--prefix",
        help="what the names of topics and group begin with; the same again goes on where it was"
        " (on a Kafka: new ones for each run)",
    )
    arguments = parser.parse_args(given)
    if arguments.bootstrap_servers == "memory://":
        arguments.bootstrap_servers = IN_MEMORY  # shared by name: loading and handling each connect to it
    if arguments.prefix is None:
        in_memory = arguments.bootstrap_servers.startswith("memory:")
        arguments.prefix = "" if in_memory else f"demo-{uuid.uuid4().hex[:8]}-"
    return arguments


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


async def until_signalled(arguments: argparse.Namespace) -> int:
    """Run the demo. The first SIGINT or SIGTERM ends it: the engine finishes what it has in hand, and commits it."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(demo(arguments), name="demo")

    def stop(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await running
    except asyncio.CancelledError:
        print("\nStopped: what was handled is committed", end="")
        print(f", and --prefix {arguments.prefix} goes on from there." if arguments.prefix else ".")
        return 0


async def demo(arguments: argparse.Namespace) -> int:
    bootstrap, limit = arguments.bootstrap_servers, arguments.limit
    job = Flights(arguments.prefix)

    prefix = f", with --prefix {arguments.prefix}" if arguments.prefix else ""
    print(f"{limit:,} flights on {bootstrap}, in {arguments.partitions} partitions{prefix}.")
    line = Line()
    await load(
        bootstrap,
        job.topics,
        partitions=arguments.partitions,
        limit=limit,
        report=lambda flights: line.show(f"loading {flights:>9,} flights"),
    )
    line.end(f"The topics hold {limit:,} flights.")

    async with job.engine(bootstrap, arguments.mode) as engine, shown(engine):
        await engine.caught_up()
        totals = oracle.totals_of(job.tables)

    print_airlines(totals)
    print_routes(totals)
    differences = totals.differences(oracle.group_by(limit))
    if differences:
        print("", f"{len(differences)} totals differ from the group-by:", *differences[:TOP], sep="\n", file=sys.stderr)
        return 1
    print(f"\n{limit:,} flights: every total equals the group-by.")
    return 0


def print_airlines(totals: oracle.Totals) -> None:
    print(f"\n{'Airline':<30}{'flights':>10}{'delay':>12}{'cancelled':>12}")
    for airline, flights in top(totals.flights):
        cancelled, delay = totals.cancellations[airline], totals.delays[airline] / flights
        print(f"{airline:<30}{flights:>10,}{delay:>8.1f} min{cancelled:>12,}")


def print_routes(totals: oracle.Totals) -> None:
    print(f"\n{'Route':<10}{'to':<32}{'flights':>10}{'seats':>12}")
    by_flights = {route: total["flights"] for route, total in totals.routes.items()}
    for route, flights in top(by_flights):
        total: dict[str, Any] = totals.routes[route]
        print(f"{route:<10}{total['to'] or '':<32}{flights:>10,}{total['seats']:>12,}")


def top(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP]


if __name__ == "__main__":
    sys.exit(main())
