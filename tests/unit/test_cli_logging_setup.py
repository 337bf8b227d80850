"""How a worker logs: whatever speaks, each event is a line, for a machine or for a person."""

import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from paperboy.cli.logging_setup import LogFormat, configure_logging, default_format
from paperboy.log import get_logger

Lines = Callable[[], list[dict[str, Any]]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("aiokafka").level
    yield
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers[:], level, aiokafka = before
    root.setLevel(level)
    logging.getLogger("aiokafka").setLevel(aiokafka)


def logged(
    speak: Callable[[], object], log_format: LogFormat = "json", level: str = "info", worker: int | None = None
) -> str:
    stream = io.StringIO()
    configure_logging(log_format, level, worker, stream)
    speak()
    return stream.getvalue()


def fields(speak: Callable[[], object], **options: Any) -> dict[str, Any]:
    """Of the one line that is logged."""
    (line,) = logged(speak, **options).splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_of_the_librarys_has_its_event_and_fields() -> None:
    line = fields(lambda: get_logger("paperboy.task").info("checkpoint", task="clicks[0]", changed_keys=12), worker=3)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "paperboy.task",
        "event": "checkpoint",
        "task": "clicks[0]",
        "changed_keys": 12,
        "worker": 3,
    }


def test_plain_logging_and_its_extra_become_the_same_kind_of_line() -> None:
    line = fields(lambda: logging.getLogger("shop").warning("%d left", 3, extra={"page": "home"}), worker=1)
    assert (line["event"], line["level"], line["logger"], line["page"]) == ("3 left", "warning", "shop", "home")


def test_structlog_of_the_users_becomes_the_same_kind_of_line() -> None:
    line = fields(lambda: structlog.get_logger("shop").info("sold", page="home"), worker=1)
    assert (line["event"], line["logger"], line["page"], line["worker"]) == ("sold", "shop", "home", 1)


def test_the_supervisors_lines_keep_the_worker_that_they_are_about() -> None:
    assert fields(lambda: get_logger("paperboy.workers").info("worker ready", worker=2))["worker"] == 2


def test_a_traceback_is_a_field_of_its_line() -> None:
    def fail() -> None:
        try:
            raise ValueError("boom")
        except ValueError:
            get_logger("paperboy.task").exception("passed over", task="clicks[0]")

    line = fields(fail)
    assert (line["event"], line["level"]) == ("passed over", "error")
    assert "ValueError: boom" in line["exception"]


def test_what_json_has_no_word_for_is_written_as_a_string() -> None:
    assert fields(lambda: get_logger("paperboy").info("found", key=b"home"))["key"] == "b'home'"


def test_a_warning_of_pythons_is_a_line_too() -> None:
    def warn() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("it is old", UserWarning, stacklevel=1)

    assert "it is old" in fields(warn)["event"]


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 2), ("error", 1)])
def test_the_level_says_what_is_logged(level: str, lines: int) -> None:
    def speak() -> None:
        log = get_logger("paperboy.x")
        log.debug("one")
        log.info("two")
        log.error("three")

    assert len(logged(speak, level=level).splitlines()) == lines


@pytest.mark.parametrize(("level", "heard"), [("info", False), ("debug", True)])
def test_aiokafka_is_heard_from_warnings_up_unless_more_is_asked_for(level: str, heard: bool) -> None:
    assert bool(logged(lambda: logging.getLogger("aiokafka.consumer").info("joined"), level=level)) is heard


def test_a_person_gets_a_line_with_the_same_in_it_and_no_colours_in_a_file() -> None:
    line = logged(lambda: get_logger("paperboy.task").info("checkpoint", task="clicks[0]"), "text", worker=3)
    assert all(part in line for part in ("[info", "checkpoint", "[paperboy.task]", "task=clicks[0]", "worker=3"))
    assert "\x1b" not in line
    assert line.count("\n") == 1


def test_a_terminal_gets_colours() -> None:
    stream = Terminal()
    configure_logging("text", "info", stream=stream)
    get_logger("paperboy.task").info("checkpoint")
    assert "\x1b" in stream.getvalue()


def test_basic_config_of_a_users_module_adds_no_second_line() -> None:
    def speak() -> None:
        logging.basicConfig(level="DEBUG")
        get_logger("paperboy").info("once")

    assert logged(speak).count("once") == 1


def test_what_was_set_up_before_speaks_no_more() -> None:
    before = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(before))
    assert "once" in logged(lambda: get_logger("paperboy").info("once"))
    assert before.getvalue() == ""


def test_the_format_is_text_for_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert default_format() == "text"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert default_format() == "json"
