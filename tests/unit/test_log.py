"""What we log, as an application with plain logging sees it; and that it is the application that decides where."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from paperboy.log import get_logger

NAME = "paperboy.test-log"


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    logger = logging.getLogger(NAME)
    yield
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_plain_logging_sees_the_event_and_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, NAME):
        get_logger(NAME).info("checkpoint", task="clicks[0]", records=8123)
    [record] = caplog.records
    assert (record.name, record.levelname) == (NAME, "INFO")
    assert record.getMessage() == "checkpoint task=clicks[0] records=8123"


def test_a_formatter_finds_the_fields_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, NAME):
        get_logger(NAME).info("checkpoint", positions={"views[0]": 7}, records=8123)
    [record] = caplog.records
    fields = record.__dict__["paperboy"]
    assert fields == {"event": "checkpoint", "positions": {"views[0]": 7}, "records": 8123}
    assert json.loads(json.dumps(fields)) == fields


@pytest.mark.parametrize("text", ["100%", "%s", "%(name)s", "%d of %d", "{}", "{0}"])
def test_a_percent_sign_in_an_event_or_a_value_is_harmless(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, NAME):
        get_logger(NAME).info(text, reason=text)
    assert caplog.records[0].getMessage() == f"{text} reason={text}"
    assert caplog.text.count(f"{text} reason={text}") == 1


@pytest.mark.parametrize("name", ["name", "msg", "args", "levelname", "message", "exc_text", "module", "task"])
def test_a_field_may_be_called_as_what_logging_uses_itself(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, NAME):
        get_logger(NAME).info("begins", **{name: "here"})
    assert caplog.records[0].getMessage() == f"begins {name}=here"
    assert caplog.records[0].__dict__["paperboy"][name] == "here"


def test_an_error_comes_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        get_logger(NAME).error("passed over", error=repr(error), exc_info=error)
    [record] = caplog.records
    assert record.getMessage() == "passed over error=ValueError('boom')"
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError
    assert "Traceback" in caplog.text
    assert "exc_info" not in record.__dict__["paperboy"]


def test_an_error_that_is_being_handled_comes_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        get_logger(NAME).exception("failed")
    assert caplog.records[0].exc_info is not None
    assert "ValueError: boom" in caplog.text


def test_levels_are_those_of_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger(NAME)
    with caplog.at_level(logging.WARNING, NAME):
        for level in ("debug", "info", "warning", "error"):
            getattr(log, level)(level)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "warning"),
        ("ERROR", "error"),
    ]


def test_what_is_below_the_level_is_not_even_rendered() -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("rendered")

    logging.getLogger(NAME).setLevel(logging.INFO)
    get_logger(NAME).debug("checkpoint", positions=Costly())


def test_a_logger_writes_where_the_application_says() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s|%(name)s|%(message)s"))
    logging.getLogger(NAME).addHandler(handler)
    get_logger(NAME).warning("task lost", task="a[0]")
    assert stream.getvalue() == f"WARNING|{NAME}|task lost task=a[0]\n"


def test_what_the_application_does_with_structlog_is_its_own_affair(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    early = get_logger(NAME)
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    with caplog.at_level(logging.INFO, NAME):
        early.info("one", number=1)
        get_logger(NAME).info("two", number=2)
    assert [record.getMessage() for record in caplog.records] == ["one number=1", "two number=2"]
    assert capsys.readouterr().out == ""


NOTHING_CONFIGURED = """
import logging
from paperboy.log import get_logger
log = get_logger("paperboy.engine")
log.debug("debug", a=1)
log.info("info", a=1)
log.warning("warning", a=1)
assert not logging.root.handlers
for name in ("paperboy", "paperboy.engine"):
    assert not logging.getLogger(name).handlers, name
    assert logging.getLogger(name).level == logging.NOTSET, name
"""


def test_where_nothing_is_configured_nothing_is_printed_but_warnings_to_stderr() -> None:
    result = subprocess.run(
        [sys.executable, "-c", NOTHING_CONFIGURED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "warning a=1\n")
