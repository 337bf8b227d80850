"""Who is measured: for each workload the word that its job knows it by, or why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from benchmarks.environments import MavenPeer, OurPython, OurWheel, Peer, PythonPeer


@dataclass(frozen=True)
class Contender:
    name: str
    title: str
    peer: Peer
    does: Mapping[str, str]
    """From the workload's name to the job's word for it."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """From the workload's name to why not, as it stands in the table. A workload in neither is not its business."""
    most_records: int | None = None
    """A slow one gets a shorter topic of the same kind."""
    changelog: str | None = None
    """The name of its table's changelog topic, with {group} and {topic}."""


_PAPERBOY = f"paperboy {version('paperboy-streams')}"
_OURS = OurWheel("paperboy", f"{_PAPERBOY}, compiled", "paperboy_job.py")
_AS_PYTHON = OurPython("paperboy-as-python", f"{_PAPERBOY}, not compiled", "paperboy_job.py")
_AIOKAFKA = OurPython("aiokafka", f"aiokafka {version('aiokafka')}", "aiokafka_job.py")
_QUIX, _FAUST, _FASTSTREAM, _STREAMS = (
    PythonPeer("quix"),
    PythonPeer("faust"),
    PythonPeer("faststream"),
    MavenPeer("streams"),
)

_COUNTS = {"count-hot": "count", "count-unique": "count", "memory": "count", "restore": "restore", "restart": "restart"}
_LIVE = {"latency": "live", "catch-up": "live"}
_DECODED = {"json": "json", "avro": "avro"}
_MAPS = {"map": "map", "map-unique": "map"}
_ONCE = {"map-exactly-once": "map/exactly-once", "count-exactly-once": "count/exactly-once"}

_EVERYTHING = {
    "noop": "noop",
    "noop-bulk": "noop-bulk",
    **_DECODED,
    **_MAPS,
    **_COUNTS,
    "count-hot-bulk": "count-bulk",
    "count-unique-bulk": "count-bulk",
    **_ONCE,
    **_LIVE,
}

_NO_BULK = "hands records over one by one"
_NO_MULTI_GET = "has no reads and writes of many keys"
_NO_STATE = "has no tables"
_NO_TABLES = dict.fromkeys(
    (
        *("count-hot", "count-unique", "count-hot-bulk", "count-unique-bulk", "count-exactly-once"),
        *("memory", "restore", "restart"),
    ),
    _NO_STATE,
)

OURS = "paperboy"
AS_PYTHON = "paperboy-as-python"
CONTENDERS: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            OURS,
            "paperboy",
            _OURS,
            _EVERYTHING,
            changelog="{group}-counts-changelog",
        ),
        Contender(
            AS_PYTHON,
            "paperboy, not compiled",
            _AS_PYTHON,
            _EVERYTHING,
            changelog="{group}-counts-changelog",
        ),
        Contender("getmany", "aiokafka getmany", _AIOKAFKA, {"noop": "noop", "noop-bulk": "noop", **_DECODED}),
        Contender("getmany-send", "aiokafka getmany, send", _AIOKAFKA, dict.fromkeys(_MAPS, "map-send")),
        Contender(
            "getmany-send-batch", "aiokafka getmany, send_batch", _AIOKAFKA, dict.fromkeys(_MAPS, "map-send-batch")
        ),
        Contender("getone", "aiokafka getone", _AIOKAFKA, dict.fromkeys(_LIVE, "live-getone")),
        Contender("getmany-live", "aiokafka getmany", _AIOKAFKA, {"catch-up": "live-getmany"}),
        Contender(
            "quix",
            "Quix Streams",
            _QUIX,
            {"noop": "noop", **_DECODED, **_MAPS, **_COUNTS, **_ONCE, **_LIVE},
            {"noop-bulk": _NO_BULK, "count-hot-bulk": _NO_MULTI_GET, "count-unique-bulk": _NO_MULTI_GET},
            most_records=1_000_000,
            changelog="changelog__{group}--{topic}--default",
        ),
        Contender(
            "faust",
            "faust-streaming",
            _FAUST,
            {"noop": "noop", "noop-bulk": "noop-bulk", **_DECODED, **_MAPS, **_COUNTS, **_LIVE},
            {"count-hot-bulk": _NO_MULTI_GET, "count-unique-bulk": _NO_MULTI_GET},
            most_records=100_000,
            changelog="{group}-counts-changelog",
        ),
        Contender(
            "faststream",
            "FastStream",
            _FASTSTREAM,
            {"noop": "noop", "noop-bulk": "noop-bulk", **_DECODED, **_MAPS, **_LIVE},
            _NO_TABLES,
            most_records=50_000,
        ),
        Contender(
            "streams",
            "Kafka Streams",
            _STREAMS,
            {"noop": "noop", **_DECODED, **_MAPS, **_COUNTS, **_ONCE, **_LIVE},
            {"noop-bulk": _NO_BULK, "count-hot-bulk": _NO_MULTI_GET, "count-unique-bulk": _NO_MULTI_GET},
            changelog="{group}-counts-changelog",
        ),
        Contender(
            "streams-uncached",
            "Kafka Streams, cache off",
            _STREAMS,
            {"count-hot": "count/uncached", "count-unique": "count/uncached"},
            changelog="{group}-counts-changelog",
        ),
    )
}
