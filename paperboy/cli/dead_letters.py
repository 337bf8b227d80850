"""Dead letters, as they stand in their topics: ours, and those of Kafka Streams."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from paperboy.brokers.protocol import Broker, Headers, Record, TopicPartition
from paperboy.cli.extent import Extent, records_in
from paperboy.cli.loading import Definition
from paperboy.handlers.failed_record import FailedRecord, original_headers, read_failed

_STREAMS = "__streams.errors."
"""What the names begin with of the headers that Kafka Streams adds (KIP-1034)."""


class Origin(NamedTuple):
    """Whose message a dead letter is."""

    group: str
    """Empty where the letter does not say it: Kafka Streams do not."""
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was given up."""

    at: TopicPartition
    """Where the letter stands, at `offset`; not where its message came from."""
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    """The message's own."""
    timestamp_ms: int
    """The message's own."""
    failed: FailedRecord | None
    """Why, when and where; None where no header says it."""

    @property
    def failed_ms(self) -> int:
        """When it failed last; where nobody says that, the time of its message."""
        return self.timestamp_ms if self.failed is None else self.failed.last_ms

    @property
    def error_class(self) -> str:
        return "" if self.failed is None else self.failed.error_class

    @property
    def origin(self) -> Origin | None:
        failed = self.failed
        return None if failed is None else Origin(failed.group, failed.topic, failed.partition)


def dead_letter_topics(definition: Definition) -> list[str]:
    """Where an engine puts dead letters."""
    return sorted(
        {
            dispatch.policy.dead_letter.topic_for(source)
            for source, dispatch in definition.dispatches.items()
            if dispatch.retries_of is None and dispatch.policy.dead_letter is not None
        }
    )


def letter_of(record: Record) -> Letter:
    """The letter that a record of a dead letter topic is."""
    failed, headers = read_failed(record), original_headers(record)
    if failed is None:
        failed = _failed_in_streams(record)
        headers = [header for header in record.headers if not header[0].startswith(_STREAMS)]
    return Letter(
        TopicPartition(record.topic, record.partition),
        record.offset,
        record.key,
        record.value,
        headers,
        record.timestamp if failed is None else failed.timestamp_ms,
        failed,
    )


async def letters_in(
    broker: Broker, extent: Extent, passed: Callable[[int], object] = lambda offsets: None
) -> AsyncGenerator[Letter, None]:
    """Those of a part of a dead letter topic; arguments and errors as for `records_in`."""
    async with aclosing(records_in(broker, extent, passed)) as chunks:
        async for records in chunks:
            for record in records:
                yield letter_of(record)


def _failed_in_streams(record: Record) -> FailedRecord | None:
    """What the headers of Kafka Streams say. They name no group, no handler, no attempts, and no time but the
    message's own."""
    found: Mapping[str, str] = {
        name.removeprefix(_STREAMS): (data or b"").decode(errors="replace")
        for name, data in record.headers
        if name.startswith(_STREAMS)
    }
    try:
        return FailedRecord(
            topic=found["topic"],
            partition=int(found["partition"]),
            offset=int(found["offset"]),
            timestamp_ms=record.timestamp,
            group="",
            handler="",
            error_class=found.get("exception", "").split(":", 1)[0],
            error=found.get("message", ""),
            stack=found.get("stacktrace", ""),
            attempts=0,
            first_ms=record.timestamp,
            last_ms=record.timestamp,
        )
    except (KeyError, ValueError):
        return None
