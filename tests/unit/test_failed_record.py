"""The headers of a message that failed: written, read again, and not believed where they make no sense."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.protocol import ConsumerRecord, Headers, Record
from paperboy.handlers.failed_record import (
    MOST_MESSAGE,
    MOST_STACK,
    FailedRecord,
    class_of,
    message_of,
    original_of,
    read_failed,
    stack_of,
)

FAILED = FailedRecord(
    topic="in", partition=2, offset=7, timestamp_ms=1_000, group="g", handler="Orders", error_class="ValueError",
    error="no", stack="Traceback …", attempts=3, first_ms=2_000, last_ms=3_000,
)  # fmt: skip

WHOLE = [
    ("paperboy.failed", b"1"),
    ("paperboy.topic", b"in"),
    ("paperboy.partition", b"2"),
    ("paperboy.offset", b"7"),
    ("paperboy.timestamp", b"1000"),
    ("paperboy.group", b"g"),
    ("paperboy.handler", b"Orders"),
    ("paperboy.error.class", b"ValueError"),
    ("paperboy.error.message", b"no"),
    ("paperboy.error.stack", "Traceback …".encode()),
    ("paperboy.attempts", b"3"),
    ("paperboy.first.failure", b"2000"),
    ("paperboy.last.failure", b"3000"),
]


def record(headers: Headers, partition: int = 2) -> Record:
    return ConsumerRecord("g-in-retry-1m", partition, 40, 9_000, 0, b"k", b"v", None, 1, 1, headers)


def test_the_names_are_these_for_ever() -> None:
    assert FAILED.headers([("own", b"1"), ("own", b"2")]) == [("own", b"1"), ("own", b"2"), *WHOLE]


texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(0, 2**63 - 1)


@given(
    failed=st.builds(
        FailedRecord, topic=texts, partition=st.integers(0, 2**31 - 1), offset=numbers,
        timestamp_ms=st.integers(-1, 2**63 - 1), group=texts, handler=texts, error_class=texts, error=texts,
        stack=texts, attempts=st.integers(1, 2**31), first_ms=numbers, last_ms=numbers, due_ms=st.none() | numbers,
    ),
    own=st.lists(st.tuples(texts, st.binary())),
)  # fmt: skip
def test_what_is_written_is_read_and_the_messages_own_headers_are_as_they_were(
    failed: FailedRecord, own: list[tuple[str, bytes]]
) -> None:
    written = record(failed.headers(own))
    assert read_failed(written) == failed
    original = original_of(written, failed.topic)
    assert list(original.headers) == own
    assert (original.topic, original.offset, original.timestamp) == (failed.topic, failed.offset, failed.timestamp_ms)
    assert (original.key, original.value) == (b"k", b"v")


@given(own=st.lists(st.tuples(st.sampled_from([name for name, _ in WHOLE]) | texts, st.binary())))
def test_a_message_that_had_such_headers_before_it_failed_keeps_them(own: list[tuple[str, bytes]]) -> None:
    written = record(FAILED.headers(own))
    assert read_failed(written) == FAILED
    assert list(original_of(written, "in").headers) == own


def test_a_dead_letter_that_fails_again_has_both_and_the_last_one_counts() -> None:
    again = FailedRecord(**{**{name: getattr(FAILED, name) for name in FAILED.__slots__}, "topic": "in-dlt"})
    headers = again.headers(FAILED.headers([("own", b"1")]))
    assert sum(name == "paperboy.failed" for name, _ in headers) == 2
    assert read_failed(record(headers)) == again
    assert list(original_of(record(headers), "in-dlt").headers) == FAILED.headers([("own", b"1")])


def test_a_record_that_somebody_wrote_by_hand_is_a_message_of_that_topic() -> None:
    by_hand = record([("own", b"1")])
    assert read_failed(by_hand) is None
    original = original_of(by_hand, "in")
    assert (original.topic, original.partition, original.offset, original.timestamp) == ("in", 2, 40, 9_000)
    assert list(original.headers) == [("own", b"1")]


@pytest.mark.parametrize("missing", range(1, len(WHOLE)))
def test_headers_that_are_not_whole_are_as_if_they_were_not_there(missing: int) -> None:
    written = record([header for number, header in enumerate(WHOLE) if number != missing])
    assert read_failed(written) is None
    assert original_of(written, "in").headers == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("partition", b"two"), ("partition", b"-1"), ("partition", b""), ("partition", None), ("offset", b"-7"),
        ("offset", b"9" * 5_000), ("offset", b"9" * 400), ("attempts", b"-3"),
        ("attempts", b"1e3"), ("due", b"9" * 400), ("due", b"soon"), ("due", b"\xff"), ("topic", None),
        ("first.failure", b"9223372036854775808"), ("error.stack", None),
    ],
)  # fmt: skip
def test_headers_that_make_no_sense_are_not_believed(name: str, data: Any) -> None:
    written = record([header for header in WHOLE if header[0] != f"paperboy.{name}"] + [(f"paperboy.{name}", data)])
    assert read_failed(written) is None
    original = original_of(written, "in")
    assert (original.topic, original.partition, original.offset) == ("in", 2, 40)


@given(headers=st.lists(st.tuples(st.sampled_from([name for name, _ in WHOLE] + ["paperboy.due"]) | texts,
                                  st.none() | st.binary())))  # fmt: skip
def test_no_headers_whatsoever_raise(headers: list[Any]) -> None:
    read_failed(record(headers))
    original_of(record(headers), "in")


def test_a_record_that_says_it_is_of_another_topic_or_partition_is_not_believed() -> None:
    written = record(FAILED.headers([("own", b"1")]), partition=0)
    assert original_of(written, "in").partition == 0, "where its task is"
    elsewhere = original_of(written, "other")
    assert (elsewhere.topic, elsewhere.offset, elsewhere.timestamp) == ("other", 40, 9_000)


def test_without_its_stack_it_is_small() -> None:
    large = FailedRecord(
        **{
            **{name: getattr(FAILED, name) for name in FAILED.__slots__},
            "stack": "s" * MOST_STACK,
            "error": "é" * MOST_MESSAGE,
        }
    )
    small = sum(len(name) + len(data or b"") for name, data in large.without_stack().headers([]))
    assert small < 800
    assert read_failed(record(large.without_stack().headers([]))) is not None


# What is said of an error.


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it cannot be said")

    __repr__ = __str__


class Inner:
    class Nested(Exception):
        pass


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (ValueError("no"), "ValueError", "no"),
        (ValueError(), "ValueError", "ValueError"),
        (KeyError("k"), "KeyError", "'k'"),
        (Inner.Nested("n"), f"{__name__}.Inner.Nested", "n"),
        (ValueError("x" * 5_000), "ValueError", "x" * MOST_MESSAGE),
        (ValueError("\ud800 and \0"), "ValueError", "\ud800 and \0"),
        (Unspeakable(), f"{__name__}.Unspeakable", "Unspeakable"),
    ],
)
def test_an_error_is_named_and_cited(error: Exception, name: str, message: str) -> None:
    assert (class_of(error), message_of(error)) == (name, message)
    FailedRecord(**{**{each: getattr(FAILED, each) for each in FAILED.__slots__}, "error": message_of(error)}).headers(
        []
    )


def test_of_a_long_stack_the_end_is_kept() -> None:
    def deeper(depth: int) -> None:
        if depth:
            (deeper if depth % 2 else lambda d: deeper(d))(depth - 1)
        else:
            raise ValueError("at the bottom")

    with pytest.raises(ValueError, match="at the bottom") as raised:
        deeper(200)
    stack = stack_of(raised.value)
    assert len(stack) <= MOST_STACK
    assert stack.endswith("ValueError: at the bottom\n")
