"""What is measured, on which input, and what is aimed at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.bound import bound_mib

PARTITIONS = 4
"""Of every topic."""

Kind = Literal["stretch", "restore", "restart", "live"]
Check = Literal["handled", "kept", "output", "counts"]
Form = Literal["bytes", "json", "avro"]


@dataclass(frozen=True)
class Input:
    """A topic as it is filled: values of about 100 bytes, each key in the partition that its murmur2 says."""

    name: str
    keys: int | None
    """How many keys take turns; None: each record has its own."""
    form: Form = "bytes"
    """What values are."""


HOT = Input("hot", keys=1_000)
UNIQUE = Input("unique", keys=None)
JSON = Input("json", keys=1_000, form="json")
AVRO = Input("avro", keys=1_000, form="avro")


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    input: Input
    kind: Kind = "stretch"
    """``stretch``: a topic is handled to its end. ``restore``: state is brought back that was counted before.
    ``restart``: SIGTERM, and a new start on the state that was kept. ``live``: a backlog, and then 1,000 messages/s."""
    check: Check = "handled"
    """What shows that all was done, beside the committed offsets: records that passed the filter, the output topic's
    records by key and partition, or the last values in the changelog."""
    share: float = 1.0
    """Of the records asked for, how many this takes."""
    figures: tuple[str, ...] = ("rate", "cpu_sec_per_million", "peak_mib")
    """What its table shows; the first is what is compared."""
    on_request: bool = False
    """Too long to be run unless it is named."""

    def records(self, asked: int) -> int:
        return max(1, round(asked * self.share))


_LIVE = ("p50_ms", "p99_ms", "peak_mib")

WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("noop-bulk", "no-op, in bulk", HOT),
        Workload("noop", "no-op, record by record", HOT),
        Workload("json", "JSON decoded and filtered", JSON, check="kept"),
        Workload("avro", "Avro decoded and filtered", AVRO, check="kept"),
        Workload("map", "map to a topic, 1,000 keys", HOT, check="output"),
        Workload("map-unique", "map to a topic, unique keys", UNIQUE, check="output"),
        Workload("count-hot", "count per key, 1,000 keys", HOT, check="counts"),
        Workload("count-unique", "count per key, unique keys", UNIQUE, check="counts"),
        Workload("count-hot-bulk", "count per key in bulk, 1,000 keys", HOT, check="counts"),
        Workload("count-unique-bulk", "count per key in bulk, unique keys", UNIQUE, check="counts"),
        Workload("map-exactly-once", "map to a topic, exactly once", HOT, check="output"),
        Workload("count-exactly-once", "count per key, 1,000 keys, exactly once", HOT, check="counts"),
        Workload("restore", "restore of a table", UNIQUE, "restore", share=1 / 3),
        Workload(
            "restart",
            "from SIGTERM to the next first record",
            UNIQUE,
            "restart",
            "counts",
            1 / 3,
            ("seconds", "peak_mib"),
        ),
        Workload("latency", "latency at 1,000 messages/s", HOT, "live", share=1 / 3_000, figures=_LIVE),
        Workload("catch-up", "catch-up, then live", HOT, "live", share=1 / 3, figures=("rate", *_LIVE)),
        Workload(
            "memory",
            "count per key, 10 million keys",
            UNIQUE,
            check="counts",
            share=10 / 3,
            figures=("rate", "cpu_sec_per_million", "peak_mib", "growth"),
            on_request=True,
        ),
    )
}


@dataclass(frozen=True)
class Goal:
    """What a figure of ours should be, beside the best of some others' in the same run, or by itself."""

    workload: str
    figure: str
    against: tuple[str, ...]
    at_least: float | None = None
    """Ours over theirs."""
    at_most: float | None = None
    more_at_most: float | None = None
    """Ours less theirs."""
    limit: float | None = None
    """Ours, and nobody's beside it."""
    their_workload: str | None = None
    """Theirs comes from this one; ours against ourselves."""


STREAMS = ("streams", "streams-uncached")

GOALS = (
    Goal("noop-bulk", "rate", ("getmany",), at_least=0.95),
    Goal("noop", "rate", ("getmany",), at_least=0.8),
    Goal("noop", "rate", ("quix",), at_least=3),
    Goal("noop", "rate", ("faust",), at_least=20),
    Goal("noop", "rate", ("faststream",), at_least=20),
    Goal("map", "rate", ("getmany-send",), at_least=4),
    Goal("map", "rate", ("quix",), at_least=5),
    Goal("map", "rate", ("streams",), at_least=1.2),
    Goal("count-hot", "rate", ("quix",), at_least=6),
    Goal("count-hot", "rate", ("streams",), at_least=1.1),
    Goal("count-unique", "rate", ("quix",), at_least=6),
    Goal("count-unique", "rate", STREAMS, at_least=1.5),
    Goal("map", "cpu_sec_per_million", ("streams",), at_most=0.6),
    Goal("count-hot", "cpu_sec_per_million", ("streams",), at_most=0.6),
    Goal("count-unique", "cpu_sec_per_million", STREAMS, at_most=0.6),
    Goal("restore", "rate", ("quix",), at_least=5),
    Goal("restore", "rate", ("streams",), at_least=0.9),
    Goal("restart", "seconds", ("streams",), at_most=0.2),
    Goal("latency", "p50_ms", ("getone",), more_at_most=0.5),
    Goal("latency", "p99_ms", ("getone",), more_at_most=2),
    Goal("memory", "peak_mib", (), limit=round(bound_mib(PARTITIONS))),
    Goal("memory", "growth", (), limit=1.1),
    Goal("map-exactly-once", "rate", ("paperboy",), at_least=0.65, their_workload="map"),
    Goal("count-exactly-once", "rate", ("paperboy",), at_least=0.65, their_workload="count-hot"),
)
