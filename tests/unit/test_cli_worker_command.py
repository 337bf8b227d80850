"""``paperboy worker``: its arguments, the engine of one worker, and what it tells its supervisor."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from paperboy.cli.errors import Misuse
from paperboy.cli.loading import definition_of
from paperboy.cli.main import main
from paperboy.cli.worker_process import numbered
from paperboy.cli.worker_reload import modified, until_changed
from paperboy.cli.worker_report import Report, report_in
from paperboy.cli.worker_run import memory_mb_of
from paperboy.engine import Engine
from paperboy.handlers.handler import Handler

KAFKA = "localhost:9092"


class Views(Handler):
    topic = "views"


def engine(bootstrap_servers: str = KAFKA, group_instance_id: str | None = None) -> Engine:
    return Engine(Views, bootstrap_servers=bootstrap_servers, group_id="views", group_instance_id=group_instance_id)


def instance_id(engine: Engine) -> str | None:
    return definition_of(engine).options.group_instance_id


def test_workers_of_an_engine_with_a_name_each_get_one_of_their_own() -> None:
    names = [instance_id(numbered(engine(group_instance_id="views"), number, 3)) for number in (1, 2, 3)]
    assert names == ["views-1", "views-2", "views-3"]


def test_a_worker_that_is_alone_keeps_the_name_and_one_without_gets_none() -> None:
    assert instance_id(numbered(engine(group_instance_id="views"), 1, 1)) == "views"
    assert instance_id(numbered(engine(), 2, 3)) is None


def test_a_broker_inside_one_process_is_not_for_several() -> None:
    with pytest.raises(Misuse, match=r"memory://views is a broker inside one process, which 2 workers cannot share"):
        numbered(engine("memory://views"), 1, 2)
    assert numbered(engine("memory://views"), 1, 1) is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: MODULE:ENGINE"),
        (["app:engine", "--workers", "0"], "'0' is no whole number above 0."),
        (["app:engine", "--workers", "two"], "'two' is no whole number above 0."),
        (["app:engine", "--max-age", "12"], "'12' is no time such as 90s, 30m, 12h or 7d."),
        (["app:engine", "--max-age", "0h"], "'0h' is no time"),
        (["app:engine", "--max-memory-mb", "-5"], "'-5' is no number above 0."),
        (["app:engine", "--log", "xml"], "invalid choice: 'xml'"),
        (["app:engine", "--log-level", "loud"], "invalid choice: 'loud'"),
    ],
)
def test_an_argument_that_is_wrong_is_said_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["worker", *arguments])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_report_comes_back_as_it_was_told() -> None:
    for report in (Report(ready=False), Report(drain_timeout_sec=30.0), Report(failure="a\nb", traceback="c")):
        assert report.line().count(b"\n") == 1
        assert report_in(report.line()) == report


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_the_memory_of_a_process_is_measured_and_one_that_is_gone_has_none() -> None:
    before = memory_mb_of(os.getpid())
    kept = b"x" * 50_000_000
    after = memory_mb_of(os.getpid())
    assert before is not None
    assert after is not None
    assert 40 < after - before < 60
    assert len(kept) == 50_000_000
    assert memory_mb_of(2**22 + 1) is None  # above the largest there is


def test_only_python_files_of_ones_own_are_looked_at(tmp_path: Path) -> None:
    for name in ("app.py", "shop/app.py", ".hidden/x.py", "env/lib/x.py", "__pycache__/x.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert sorted(modified(tmp_path)) == ["app.py", "shop/app.py"]


@pytest.mark.parametrize(
    "change",
    [
        lambda here: os.utime(here / "app.py", ns=(1, 1)),
        lambda here: (here / "app.py").unlink(),
        lambda here: (here / "other.py").touch(),
    ],
    ids=["changed", "removed", "added"],
)
async def test_a_change_is_noticed_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "app.py").touch()
    before = modified(tmp_path)
    change(tmp_path)
    changed, now = await until_changed(tmp_path, before)
    assert len(changed) == 1
    again = asyncio.ensure_future(until_changed(tmp_path, now))
    await asyncio.wait([again], timeout=0.1)
    assert not again.done()
    again.cancel()
