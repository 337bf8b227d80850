"""Dead letters: read from their headers, chosen by what somebody means, shown as a person reads them, noted."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.protocol import ConsumerRecord, Headers, Record, TopicPartition
from paperboy.cli.dead_letters import Letter, Origin, letter_of
from paperboy.cli.errors import LedgerError
from paperboy.cli.letter_filter import LetterFilter, Offsets, keys_called, offsets_of
from paperboy.cli.letter_shown import bytes_shown, letter_shown, plain
from paperboy.cli.moments import milliseconds, moment, shown
from paperboy.cli.replay_ledger import Chunk, chunk_of, spans
from paperboy.handlers.failed_record import FailedRecord, original_headers, read_failed

FAILED = FailedRecord(
    topic="orders",
    partition=3,
    offset=1234,
    timestamp_ms=1_700_000_000_000,
    group="billing",
    handler="Charge",
    error_class="shop.Refused",
    error="no account\x1b[31m",
    stack="Traceback\n  in charge\n",
    attempts=5,
    first_ms=1_700_000_001_000,
    last_ms=1_700_000_002_500,
)


def record(headers: Headers, *, key: bytes | None = b"anna", value: bytes | None = b"7") -> Record:
    return ConsumerRecord("orders-dlt", 3, 17, 1_700_000_000_000, 0, key, value, None, 4, 1, headers)


def letter(**changed: Any) -> Letter:
    return letter_of(record(replace(FAILED, **changed).headers([("trace", b"7")])))


def streams(**said: bytes | None) -> Headers:
    return [(f"__streams.errors.{name}", data) for name, data in said.items()]


def test_a_letter_is_its_message_and_why_it_failed() -> None:
    read = letter()
    assert (read.at, read.offset) == (TopicPartition("orders-dlt", 3), 17)
    assert (read.key, read.value, read.headers, read.failed) == (b"anna", b"7", [("trace", b"7")], FAILED)
    assert (read.timestamp_ms, read.failed_ms) == (1_700_000_000_000, 1_700_000_002_500)
    assert read.origin == Origin("billing", "orders", 3)


def test_a_letter_of_kafka_streams_is_read_as_well() -> None:
    headers = streams(
        exception=b"org.shop.Refused: no account",
        message=b"no account",
        stacktrace=b"org.shop.Refused\n\tat Charge",
        topic=b"orders",
        partition=b"3",
        offset=b"1234",
    )
    read = letter_of(record([("trace", b"7"), *headers]))
    assert read.headers == [("trace", b"7")]
    assert read.failed is not None
    assert (read.failed.topic, read.failed.partition, read.failed.offset) == ("orders", 3, 1234)
    assert (read.failed.error_class, read.failed.error) == ("org.shop.Refused", "no account")
    assert read.failed.stack == "org.shop.Refused\n\tat Charge"
    assert read.origin == Origin("", "orders", 3)
    assert read.failed_ms == 1_700_000_000_000


def test_a_letter_of_kafka_streams_without_a_message_is_read_as_well() -> None:
    headers = streams(exception=b"org.shop.Refused", message=None, topic=b"orders", partition=b"3", offset=b"1")
    failed = letter_of(record(headers)).failed
    assert failed is not None
    assert (failed.error_class, failed.error, failed.stack) == ("org.shop.Refused", "", "")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("trace", b"7")],
        streams(exception=b"E"),
        streams(topic=b"orders", partition=b"three", offset=b"1"),
        [("paperboy.failed", b"1"), ("paperboy.topic", b"orders")],
    ],
    ids=["none", "others", "half", "no-number", "ours-in-part"],
)
def test_of_a_record_that_says_nothing_nothing_is_known(headers: Headers) -> None:
    read = letter_of(record(headers))
    assert (read.failed, read.origin, read.error_class) == (None, None, "")
    assert read.failed_ms == 1_700_000_000_000


def test_what_goes_out_again_begins_anew_and_leaves_the_message_as_it_was() -> None:
    again = record(FAILED.anew().headers([("trace", b"7")]))
    failed = read_failed(again)
    assert failed is not None
    assert (failed.attempts, failed.first_ms, failed.due_ms) == (0, FAILED.first_ms, None)
    assert original_headers(again) == [("trace", b"7")]


@pytest.mark.parametrize(
    ("meant", "is_meant"),
    [
        (LetterFilter(), True),
        (LetterFilter(error="Refused"), True),
        (LetterFilter(error="SHOP.ref"), True),
        (LetterFilter(error="LookupError"), False),
        (LetterFilter(since_ms=1_700_000_002_500), True),
        (LetterFilter(since_ms=1_700_000_002_501), False),
        (LetterFilter(until_ms=1_700_000_002_500), False),
        (LetterFilter(until_ms=1_700_000_002_501), True),
        (LetterFilter(keys=frozenset([b"bert", b"anna"])), True),
        (LetterFilter(keys=frozenset([b"bert"])), False),
        (LetterFilter(offsets=(Offsets(3),)), True),
        (LetterFilter(offsets=(Offsets(2), Offsets(3, 17, 17))), True),
        (LetterFilter(offsets=(Offsets(3, 18), Offsets(3, 0, 16))), False),
        (LetterFilter(error="Refused", keys=frozenset([b"bert"])), False),
    ],
)
def test_a_letter_is_meant_if_it_is_all_that_was_asked_for(meant: LetterFilter, is_meant: bool) -> None:
    assert meant.means(letter()) is is_meant


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("3", Offsets(3)),
        ("3:17", Offsets(3, 17, 17)),
        ("3:17-20", Offsets(3, 17, 20)),
        ("3:17-", Offsets(3, 17)),
        ("3:-20", Offsets(3, 0, 20)),
        ("0:0", Offsets(0, 0, 0)),
    ],
)
def test_offsets_are_read_as_a_person_writes_them(text: str, offsets: Offsets) -> None:
    assert offsets_of(text) == offsets


@pytest.mark.parametrize("text", ["", ":", "3:", "a", "3:a", "3:20-17", "-3", "3:1-2-3", "3 : 17", "٣"])
def test_what_are_no_offsets_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the command says what it was
        offsets_of(text)


def test_a_key_is_a_text_or_bytes_as_python_writes_them() -> None:
    assert keys_called("anna") == {b"anna"}
    assert keys_called(r"b'a\x00'") == {rb"b'a\x00'", b"a\x00"}
    assert keys_called("7") == {b"7"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "null"),
        (b"", '""'),
        (b"anna", '"anna"'),
        (b'{"amount": 7.5,"to":"bj\xc3\xb6rn"}', '{"amount": 7.5,"to":"björn"}'),
        (b'{"amount": 1.10}', '{"amount": 1.10}'),
        (b'{\n"a": 1}', r'"{\n\"a\": 1}"'),
        (b"7", "7"),
        (b"two\nlines", r'"two\nlines"'),
        (b"\x00\xff", "00 ff"),
        ("\x9b31m".encode(), "c2 9b 33 31 6d"),
        (bytes(66), " ".join(["00"] * 64) + " … and 2 bytes more"),
        (b"a" * 2001, '"' + "a" * 1999 + "… and 3 characters more"),
        (b"[" * 100_000, '"' + "[" * 1999 + "… and 98002 characters more"),
    ],
    ids=[
        "null",
        "empty",
        "text",
        "json",
        "decimal",
        "json-lines",
        "number",
        "lines",
        "bytes",
        "control",
        "long-bytes",
        "long-text",
        "deep",
    ],
)
def test_bytes_are_shown_as_json_or_text_and_else_in_hexadecimal(data: bytes | None, text: str) -> None:
    assert bytes_shown(data) == text


@given(st.binary(max_size=200))
def test_whatever_stands_in_a_letter_gives_a_terminal_no_orders(data: bytes) -> None:
    assert bytes_shown(data).isprintable()
    assert plain(data.decode("latin-1")).isprintable()


def test_a_letter_is_shown_as_a_person_reads_it() -> None:
    assert list(letter_shown(letter(), replayed=True, stack=True)) == [
        "orders-dlt[3] offset 17",
        "  message   orders[3] offset 1234, of 2023-11-14T22:13:20.000Z",
        "  failed    in Charge of group billing",
        "  attempts  5 times, from 2023-11-14T22:13:21.000Z to 2023-11-14T22:13:22.500Z",
        r"  error     shop.Refused: no account\x1b[31m",
        "  replayed  yes",
        '  key       "anna"',
        "  value     7",
        "  header    trace: 7",
        "  stack",
        "    Traceback",
        "      in charge",
    ]


def test_a_letter_of_which_nothing_is_known_is_shown_without_it() -> None:
    assert list(letter_shown(letter_of(record([])), replayed=False, stack=True)) == [
        "orders-dlt[3] offset 17",
        "  failed    no header says where or why",
        "  replayed  no",
        '  key       "anna"',
        "  value     7",
    ]


def test_a_moment_is_read_and_shown_in_utc() -> None:
    assert moment("2026-11-21T08:30:00") == datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    assert moment("2026-11-21T08:30:00+01:00") == datetime(2026, 11, 21, 7, 30, tzinfo=UTC)
    assert milliseconds(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)) == 1
    assert shown(1_700_000_002_500) == "2023-11-14T22:13:22.500Z"
    assert shown(-1) == "1969-12-31T23:59:59.999Z"
    assert shown(2**62) == f"{2**62} ms"


@given(st.sets(st.integers(0, 60)))
def test_spans_hold_the_offsets_they_were_made_of_in_as_few_as_it_takes(offsets: set[int]) -> None:
    found = spans(sorted(offsets))
    assert [offset for first, until in found for offset in range(first, until)] == sorted(offsets)
    assert all(until < following for (_, until), (following, _) in itertools.pairwise(found))


@given(st.sets(st.integers(0, 60)))
def test_a_chunk_comes_back_from_its_entry(offsets: set[int]) -> None:
    chunk = Chunk("chunk", "topic-id", 3, sorted(offsets))
    assert chunk_of(*chunk.entry, "ledger") == chunk


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1}', b"\xff", b'{"format":1,"letters":[[1]]}']
)
def test_what_no_replay_has_written_is_not_guessed_at(value: bytes) -> None:
    with pytest.raises(LedgerError, match="'billing-orders-dlt-replayed'"):
        chunk_of(b"run/1", value, "billing-orders-dlt-replayed")
