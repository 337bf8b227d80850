"""What a user can set, what is set if nothing is, and what is refused with a sentence."""

from dataclasses import fields
from typing import Any

import pytest

from paperboy.engine.options import Options
from paperboy.errors import ConfigurationError
from paperboy.tables.stores.options import RocksDBOptions

NEEDED = {"bootstrap_servers": "localhost:9092", "group_id": "app"}


def refused(**given: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Options.of({**NEEDED, **given})
    message = str(caught.value)
    assert message.endswith((".", "?"))
    return message


def test_somebody_who_sets_nothing_loses_nothing() -> None:
    options = Options.of(NEEDED)
    assert {field.name: getattr(options, field.name) for field in fields(Options)} == {
        "bootstrap_servers": "localhost:9092",
        "group_id": "app",
        "fail_on_exception": True,
        "auto_offset_reset": "earliest",
        "offset_out_of_range": "stop",
        "enable_auto_commit": False,
        "with_bulk_mode": True,
        "bulk_mode_threshold": 10_000,
        "bulk_mode_max_records": 10_000,
        "bulk_mode_timeout_ms": 1_000,
        "steps": None,
        "stop_at_end": False,
        "on_mode_change": None,
        "create_topics": "auto",
        "retry": None,
        "dead_letter": None,
        "circuit_breaker": None,
        "commit_interval_sec": 5.0,
        "processing_guarantee": "at_least_once",
        "transaction_interval_sec": 0.1,
        "transaction_timeout_sec": 60.0,
        "drain_timeout_sec": 30.0,
        "handler_timeout_sec": None,
        "blocked_loop_sec": 1.0,
        "stalled_sec": 60.0,
        "connect_timeout_sec": 30.0,
        "session_timeout_sec": 10.0,
        "heartbeat_interval_sec": 3.0,
        "group_instance_id": None,
        "checkpoint_attempts": 5,
        "max_buffer_bytes": 128 * 1024 * 1024,
        "max_overlay_bytes": 32 * 1024 * 1024,
        "max_overlay_keys": 20_000,
        "max_unacked_bytes": 16 * 1024 * 1024,
        "state_dir": ".paperboy",
        "rocksdb": RocksDBOptions(),
        "on_restore": None,
        "client_options": None,
    }


def test_what_is_set_is_what_is_got() -> None:
    options = Options.of({**NEEDED, "commit_interval_sec": 0.1, "auto_offset_reset": "latest", "steps": [["a"]]})
    assert (options.commit_interval_sec, options.auto_offset_reset, options.steps) == (0.1, "latest", [["a"]])


@pytest.mark.parametrize("name", ["bootstrap_servers", "group_id"])
@pytest.mark.parametrize("value", [None, "", 7, ["localhost:9092"]])
def test_an_engine_needs_a_broker_and_a_group(name: str, value: object) -> None:
    assert refused(**{name: value}) == f"Engine needs {name}=…, a string that is not empty."


@pytest.mark.parametrize("name", ["bootstrap_servers", "group_id"])
def test_an_engine_without_a_broker_or_a_group_is_refused(name: str) -> None:
    given = {other: value for other, value in NEEDED.items() if other != name}
    with pytest.raises(ConfigurationError, match=f"needs {name}="):
        Options.of(given)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("bulk_mode_treshold", "bulk_mode_threshold"),
        ("group", "group_id"),
        ("bootstrap_server", "bootstrap_servers"),
        ("fail_on_exceptions", "fail_on_exception"),
    ],
)
def test_an_unknown_option_is_refused_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert refused(**{name: 1}) == f"Engine has no option {name!r}: did you mean {meant!r}?"


def test_an_option_of_the_clients_is_pointed_to_client_options() -> None:
    message = refused(security_protocol="SSL")
    assert message.startswith("Engine has no option 'security_protocol'")
    assert "client_options={…}" in message


def test_offsets_are_committed_by_checkpoints_and_by_nothing_else() -> None:
    assert Options.of({**NEEDED, "enable_auto_commit": False}).enable_auto_commit is False
    message = refused(enable_auto_commit=True)
    assert "enable_auto_commit=True" in message
    assert "commit_interval_sec" in message


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("auto_offset_reset", "none", "'earliest', 'latest'"),
        ("auto_offset_reset", None, "'earliest', 'latest'"),
        ("offset_out_of_range", "earliest", "'stop', 'continue'"),
        ("create_topics", True, "'auto', 'never'"),
    ],
)
def test_a_choice_is_one_of_those_there_are(name: str, value: object, allowed: str) -> None:
    assert refused(**{name: value}) == f"{name}={value!r} is not one of {allowed}."


COUNTS = [
    "bulk_mode_threshold", "bulk_mode_max_records", "checkpoint_attempts", "max_buffer_bytes", "max_overlay_bytes",
    "max_overlay_keys", "max_unacked_bytes",
]  # fmt: skip
DURATIONS = [
    "bulk_mode_timeout_ms", "commit_interval_sec", "drain_timeout_sec", "connect_timeout_sec", "session_timeout_sec",
    "heartbeat_interval_sec", "blocked_loop_sec", "stalled_sec", "transaction_interval_sec", "transaction_timeout_sec",
]  # fmt: skip


def test_every_number_is_a_count_or_a_duration() -> None:
    options = Options.of(NEEDED)
    numbers = [field.name for field in fields(Options) if type(getattr(options, field.name)) in (int, float)]
    assert sorted(numbers) == sorted(COUNTS + DURATIONS)


@pytest.mark.parametrize("name", COUNTS + DURATIONS)
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, None, "5", True, [1], 1j])
def test_a_number_is_above_zero(name: str, value: object) -> None:
    message = refused(**{name: value})
    assert message.startswith(f"{name}={value!r} must be a")
    assert message.endswith("number above 0.")


@pytest.mark.parametrize("name", COUNTS + DURATIONS)
def test_a_number_is_not_nan(name: str) -> None:
    assert refused(**{name: float("nan")}).startswith(f"{name}=nan must be a")


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0.5, 10.0, float("inf")])
def test_a_count_is_a_whole_number(name: str, value: float) -> None:
    assert refused(**{name: value}).startswith(f"{name}={value!r} must be a whole number")


@pytest.mark.parametrize("name", ["fail_on_exception", "with_bulk_mode", "stop_at_end"])
@pytest.mark.parametrize("value", [None, "no", 0, []])
def test_a_switch_is_true_or_false(name: str, value: object) -> None:
    assert refused(**{name: value}) == f"{name}={value!r} must be True or False."


def test_a_heartbeat_comes_before_the_session_ends() -> None:
    assert refused(session_timeout_sec=3, heartbeat_interval_sec=3.0) == (
        "heartbeat_interval_sec=3 must be less than session_timeout_sec=3."
    )
    assert Options.of({**NEEDED, "session_timeout_sec": 3.1, "heartbeat_interval_sec": 3}).session_timeout_sec == 3.1


def test_options_do_not_change_while_the_engine_runs() -> None:
    with pytest.raises(AttributeError):
        Options.of(NEEDED).group_id = "other"  # type: ignore[misc]
