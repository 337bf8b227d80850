"""``python -m benchmarks.quick``: whether we have become slower, in under three minutes. A fall of 15 % fails.

Ours over bare aiokafka getmany, in turns on one Kafka, compared with ``recorded.json``. ``--record`` writes that anew;
``--instructions`` compares (or records) what the hot paths execute in place of times, and needs no Kafka.
"""

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.contenders import AS_PYTHON, CONTENDERS
from benchmarks.hot import PATHS
from benchmarks.instructions import CannotCount, counted
from benchmarks.trials import Trials
from benchmarks.workloads import WORKLOADS
from tests.kafka_server import KafkaServer

RECORDED = Path(__file__).parent / "recorded.json"
QUICK = ("noop-bulk", "noop", "map", "count-hot", "count-unique")
WORST = 0.85
"""Of the recorded ratio: below that, it fails."""
MOST = 1.05
"""Of the recorded instructions: above that, it fails. They vary by less than a hundredth."""

Recorded = dict[str, dict[str, float]]
"""``ratios`` by workload; ``instructions 3.11`` (each Python has its own) by hot path."""


def main() -> int:
    arguments = _arguments()
    kind = f"instructions {'.'.join(platform.python_version_tuple()[:2])}" if arguments.instructions else "ratios"
    recorded: Recorded = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {}
    if not arguments.record and kind not in recorded:
        print(f"Nothing is recorded as {kind}: add --record, on a commit that is as it should be.", file=sys.stderr)
        return 1
    try:
        now = counted(list(PATHS)) if arguments.instructions else ratios(arguments.records, arguments.repeats)
    except CannotCount as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.record:
        recorded[kind] = {name: round(value, 3) for name, value in now.items()}
        RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")
    worse = worsened(now, recorded[kind], is_ratio=not arguments.instructions)
    for name, value in now.items():
        was = recorded[kind].get(name)
        print(f"{name:<16}{value:12,.3f}{'' if was is None else f'   recorded {was:,.3f}'}{' WORSE' * (name in worse)}")
    return 1 if worse else 0


def worsened(now: Mapping[str, float], recorded: Mapping[str, float], *, is_ratio: bool) -> list[str]:
    """What has fallen by more than it may: ratios are to be high, instructions to be low."""
    known = [name for name in now if name in recorded]
    if is_ratio:
        return [name for name in known if now[name] < WORST * recorded[name]]
    return [name for name in known if now[name] > MOST * recorded[name]]


def ratios(records: int, repeats: int) -> dict[str, float]:
    """Our rate over getmany's in the same turn: the median of the turns, by workload."""
    found: dict[str, list[float]] = {name: [] for name in QUICK}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        trials = Trials(stack.enter_context(KafkaServer(heap="1g")).bootstrap, directory, records)
        trials.run(CONTENDERS["getmany"], WORKLOADS["noop"])  # the broker gets warm
        for _ in range(repeats):
            bare = trials.run(CONTENDERS["getmany"], WORKLOADS["noop"])["rate"]
            for name in QUICK:
                found[name].append(trials.run(CONTENDERS[AS_PYTHON], WORKLOADS[name])["rate"] / bare)
    return {name: statistics.median(values) for name, values in found.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__)
    parser.add_argument("--records", type=int, default=400_000, help="records in a topic (default: 400,000)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--instructions", action="store_true", help="count instructions, not time")
    parser.add_argument("--record", action="store_true", help="write what is measured into recorded.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
