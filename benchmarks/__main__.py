"""``python -m benchmarks``: ours and the peers, side by side on one Kafka, in turns. See README.md.

Gets the peers where they are not here yet, runs every contender in every workload it can do, checks that each did the
whole work, and writes RESULTS.json and RESULTS.md: after each workload, so that a run can be given up and gone on with.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bars import publish
from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.environments import PeerUnavailable
from benchmarks.oracle import WorkMissing
from benchmarks.process import JobFailed
from benchmarks.report import report
from benchmarks.results import Results, this_machine
from benchmarks.trials import Figures, Trials
from benchmarks.workloads import WORKLOADS, Workload
from tests.kafka_server import KafkaServer
from tests.kafka_server.distribution import KAFKA_VERSION

HERE = Path(__file__).parent


def main() -> int:
    arguments = _arguments()
    results = _begun_results(arguments)
    available = _prepared(results, arguments.peers)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        bootstrap = arguments.bootstrap_servers or stack.enter_context(KafkaServer(heap="1g")).bootstrap
        trials = Trials(bootstrap, directory, arguments.records)
        trials.run(CONTENDERS["getmany"], WORKLOADS["noop"])  # not counted: the broker gets warm
        for name in arguments.only or [name for name in WORKLOADS if not WORKLOADS[name].on_request]:
            results.forget(name)
            measure(trials, WORKLOADS[name], available, results, arguments.repeats)
            _write(results, arguments.out)
    print(report(results))
    return 1 if any(OURS in contenders for contenders in results.missing.values()) else 0


def measure(
    trials: Trials, workload: Workload, available: Mapping[str, str | None], results: Results, repeats: int
) -> None:
    """One workload by all who can do it, in turns: forwards and backwards, so that what drifts drifts for all."""
    turns = []
    for contender in CONTENDERS.values():
        if contender.peer.name not in available:
            continue
        why_not = contender.cannot.get(workload.name)
        if why_not is None and workload.name in contender.does:
            why_not = available[contender.peer.name]
            if why_not is None:
                turns.append(contender)
        if why_not is not None:
            results.miss(workload.name, contender.name, why_not)
    for repeat in range(repeats):
        for contender in turns if repeat % 2 == 0 else reversed(turns):
            try:
                figures = trials.run(contender, workload)
            except (JobFailed, WorkMissing) as error:
                results.miss(workload.name, contender.name, f"in run {repeat + 1}: {error}")
                _say(repeat, workload, contender, str(error))
            else:
                results.note(workload.name, contender.name, figures)
                _say(repeat, workload, contender, _shown(figures))


def _write(results: Results, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    results.write(out / "RESULTS.json")
    (out / "RESULTS.md").write_text(report(results))
    if out == HERE:
        publish(results, HERE.parent / "docs")


def _prepared(results: Results, peers: Collection[str] | None) -> dict[str, str | None]:
    """By peer that is wanted: why it cannot be had, or None."""
    available: dict[str, str | None] = {}
    for peer in {contender.peer.name: contender.peer for contender in CONTENDERS.values()}.values():
        if peers is not None and peer.name not in peers:
            continue
        try:
            peer.prepare()
            peer.command()
        except PeerUnavailable as error:
            available[peer.name] = str(error)
        else:
            available[peer.name] = None
            results.versions[peer.name] = peer.version()
    return available


def _begun_results(arguments: argparse.Namespace) -> Results:
    """Empty, or those of an earlier run that this one adds to."""
    command = f"python -m benchmarks --records {arguments.records} --repeats {arguments.repeats}"
    for name in ("only", "peers"):
        if getattr(arguments, name) is not None:
            command += f" --{name} {','.join(getattr(arguments, name))}"
    begun = Results(
        measured=datetime.now(UTC).date().isoformat(),
        command=command,
        asked=arguments.records,
        repeats=arguments.repeats,
        machine=this_machine(),
        versions={"kafka": f"Apache Kafka {KAFKA_VERSION}"},
    )
    if arguments.add:
        earlier = Results.read(arguments.out / "RESULTS.json")
        if (earlier.asked, earlier.machine) != (begun.asked, begun.machine):
            sys.exit("--add: RESULTS.json is of another machine, or of another number of records: leave --add out.")
        begun.command = f"{earlier.command}; {command} --add"
        begun.repeats = min(begun.repeats, earlier.repeats)
        begun.versions, begun.runs, begun.missing = earlier.versions, earlier.runs, earlier.missing
    return begun


def _shown(figures: Figures) -> str:
    words = (("rate", "{:,.0f}/s"), ("seconds", "{:.2f} s"), ("p50_ms", "p50 {:.2f} ms"), ("p99_ms", "p99 {:.2f} ms"))
    return ", ".join(words.format(figures[name]) for name, words in words if figures.get(name) is not None)


def _say(repeat: int, workload: Workload, contender: Contender, what: str) -> None:
    print(f"  {repeat + 1}: {workload.name:<20}{contender.name:<20}{what}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--records", type=int, default=3_000_000, help="records in a topic (default: 3,000,000)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender (default: 5)")
    parser.add_argument("--only", type=_names(WORKLOADS), help=f"workloads, of {', '.join(WORKLOADS)}")
    peers = sorted({contender.peer.name for contender in CONTENDERS.values()})
    parser.add_argument("--peers", type=_names(peers), help=f"contenders, of {', '.join(peers)}")
    parser.add_argument("--add", action="store_true", help="keep what RESULTS.json has of other workloads")
    parser.add_argument("--bootstrap-servers", help="a Kafka to use; one is started otherwise")
    parser.add_argument("--out", type=Path, default=HERE, help="where RESULTS.md and RESULTS.json go (default: here)")
    return parser.parse_args()


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
