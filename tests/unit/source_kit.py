"""An input partition, and records for it."""

from collections.abc import Sequence

from paperboy.brokers.protocol import ConsumerRecord, Record, TopicPartition
from paperboy.engine.source import Source
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.handler import Handler


class Views(Handler):
    topic = "views"


DISPATCH = Dispatch(Views, fail_on_exception=True)


def record(offset: int, timestamp: int = 0, key_size: int = -1, value_size: int = 10) -> Record:
    return ConsumerRecord("views", 0, offset, timestamp, 0, None, b"", None, key_size, value_size, ())


def records(*offsets: int, timestamp: int = 0) -> list[Record]:
    return [record(offset, timestamp) for offset in offsets]


def offsets(chunk: Sequence[Record]) -> list[int]:
    return [each.offset for each in chunk]


def source_at(offset: int, *chunks: list[Record]) -> Source:
    source = Source(TopicPartition("views", 0), DISPATCH)
    source.start_at(offset)
    for chunk in chunks:
        source.put(chunk)
    return source
