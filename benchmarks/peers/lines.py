"""What every job is given and says, in any peer's environment: nothing here needs more than Python."""

import json
import os
import sys
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, NamedTuple

END = b"end"
"""The last record of a live topic."""

LEAST_AMOUNT = 50
"""The filter of the JSON and Avro workloads lets amounts from here on pass."""

AVRO_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "user", "type": "string"},
        {"name": "amount", "type": "int"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "note", "type": "string"},
    ],
}
AVRO_HEAD: Final = b"\x00\x00\x00\x00\x01"
"""Before each Avro record, as Confluent's serializers write it: a zero, and the schema's id."""

REGISTRY: Final = os.environ.get("SCHEMA_REGISTRY_URL", "")
"""Of the Avro workload: where the schema is to be had by its id."""


class Job(NamedTuple):
    """A job's arguments: ``python …_job.py WORKLOAD BOOTSTRAP TOPIC OUT GROUP STATE_DIR RECORDS``."""

    workload: str
    bootstrap: str
    topic: str
    out: str
    """The output topic; it exists where the workload has one."""
    group: str
    """Of the consumer, or the application's id."""
    state_dir: str
    records: int
    """How many there are to handle (of a live topic: before it is live); for a restore, how many entries."""


def job_of_arguments() -> Job:
    workload, bootstrap, topic, out, group, state_dir, records = sys.argv[1:]
    return Job(workload, bootstrap, topic, out, group, state_dir, int(records))


def tell(**facts: Any) -> None:
    """One line of JSON for the harness. The last one is the result, those before are events."""
    print(json.dumps(facts), flush=True)


def avro_reader() -> Callable[[bytes], Any]:
    """For those who bring none: fastavro, with a schema that is known, and the head passed over."""
    from fastavro import parse_schema, schemaless_reader  # here: the other workloads are not to pay for it

    schema = parse_schema(AVRO_SCHEMA)

    def read(data: bytes) -> Any:
        stream = BytesIO(data)
        stream.seek(len(AVRO_HEAD))
        return schemaless_reader(stream, schema, None)

    return read


class Stretch:
    """Counts records, and knows when all were handled."""

    def __init__(self, records: int) -> None:
        self.wanted = records
        self.seen = 0
        self.kept = 0
        self.begun = 0.0

    def begin(self) -> None:
        """The first record is here."""
        self.begun = time.perf_counter()

    def handled(self) -> bool:
        """Note one record; True with the last."""
        if not self.seen:
            self.begin()
        self.seen += 1
        return self.seen == self.wanted

    def tell(self) -> None:
        """The result: from the first record until now, when the job has stopped and everything is durable."""
        tell(records=self.seen, kept=self.kept, seconds=time.perf_counter() - self.begun)


class Live:
    """Notes a topic that first holds a backlog, and then gets records as time goes on, whose values begin with it."""

    def __init__(self, backlog: int) -> None:
        self._backlog = backlog
        self._seen = 0
        self._begun = 0.0
        self._waits_ms: list[float] = []

    def handled(self, value: bytes) -> bool:
        """Note one record; True with the last."""
        if self._seen >= self._backlog:
            if value == END:
                return True
            self._waits_ms.append((time.time_ns() - int(value[:20])) / 1e6)
            return False
        if not self._seen:
            self._begun = time.perf_counter()
        self._seen += 1
        if self._seen == self._backlog:
            tell(event="caught up", seconds=time.perf_counter() - self._begun)
        return False

    def tell(self) -> None:
        waits = sorted(self._waits_ms)
        p50, p99 = (waits[int(len(waits) * share)] if waits else None for share in (0.5, 0.99))
        tell(records=self._seen, live=len(waits), p50_ms=p50, p99_ms=p99)


class Returning:
    """For a job that is stopped by SIGTERM and started again: tells of its first record, and when all are handled."""

    def __init__(self, records: int) -> None:
        self._wanted = records
        self._seen = 0

    def handled(self) -> None:
        self._seen += 1
        if self._seen == 1:
            tell(event="first")
        if self._seen == self._wanted:
            tell(event="handled")
