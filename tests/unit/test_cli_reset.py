"""The command ``paperboy reset``: what it prints, and how it ends."""

import asyncio
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paperboy.brokers.memory import MemoryBroker, MemoryCluster, memory_cluster
from paperboy.brokers.protocol import TopicPartition, TopicSpec
from paperboy.cli.main import main
from paperboy.clock import random_id
from paperboy.errors import BrokerError

APP = """
from paperboy import Engine, Handler, Table

class Views(Handler):
    topic = "views"

counts = Table("counts")
engine = Engine(Views, bootstrap_servers="memory://{cluster}", group_id="readers")
engine.register_table(counts)
"""
INPUT = TopicPartition("views", 0)
CHANGELOG = "readers-counts-changelog"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryCluster]:
    """A cluster whose topic "views" holds three records, of which the group "readers" has handled two; its engine is
    "app:engine" in the current directory."""
    name = random_id()
    cluster = memory_cluster(name)
    (tmp_path / "app.py").write_text(APP.format(cluster=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "app", raising=False)
    cluster.create_topics([TopicSpec("views", 1), TopicSpec(CHANGELOG, 1, config={"cleanup.policy": "compact"})])

    async def fill() -> None:
        producer = MemoryBroker(cluster).producer()
        await producer.start()
        for partition in (INPUT, TopicPartition(CHANGELOG, 0)):
            await asyncio.gather(*await producer.send(partition, [(b"\x01\x10", b"\x01\x01", (), 1000)] * 3))
        await producer.stop()

    asyncio.run(fill())
    cluster.reset_committed("readers", {INPUT: 2})
    yield cluster
    sys.modules.pop("app", None)


def state(cluster: MemoryCluster) -> tuple[int | None, int]:
    """The group's offset, and how many records the changelog holds."""
    return cluster.committed("readers", [INPUT])[INPUT], cluster.log(TopicPartition(CHANGELOG, 0)).end_offset


def test_without_yes_it_says_what_it_would_do_and_changes_nothing(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reset", "app:engine"]) == 0
    assert capsys.readouterr() == (
        f"""\
Group 'readers' on {cluster} would be reset.
Input offsets of the group:
  views[0]: 2 -> 0
Changelogs, deleted and made anew:
  readers-counts-changelog: 1 partition, cleanup.policy=compact
Nothing was changed: --yes does it, when all workers of the group are stopped.
""",
        "",
    )
    assert state(cluster) == (2, 3)


def test_with_yes_it_does_it(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reset", "app:engine", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Group 'readers' on {cluster} is reset now.\n")
    assert out.endswith("\nGroup 'readers' has been reset.\n")
    assert err == ""
    assert state(cluster) == (0, 0)


@pytest.mark.parametrize(
    ("to", "offset"),
    [
        ("earliest", 0),
        ("latest", 3),
        ("1970-01-01T00:00:01Z", 0),
        ("1970-01-01T00:00:01", 0),
        ("1970-01-01T00:00:01.001", 3),
        ("1970-01-01T01:00:01.001+01:00", 3),
        ("1969-12-31", 0),
        ("2999-01-01", 3),
    ],
)
def test_the_input_begins_where_it_is_told_to(cluster: MemoryCluster, to: str, offset: int) -> None:
    assert main(["reset", "app:engine", "--to", to, "--yes"]) == 0
    assert state(cluster) == (offset, 0)


def test_a_start_that_is_none_is_misuse(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reset", "app:engine", "--to", "yesterday"])
    assert caught.value.code == 2
    assert "'yesterday' is neither earliest nor latest nor a time such as" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["reset"], ["destroy"], ["reset", "app:engine", "--no"]])
def test_a_command_that_does_not_exist_is_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: paperboy")


def test_an_engine_that_does_not_exist_is_misuse_of_one_sentence(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reset", "app:motor"]) == 2
    assert capsys.readouterr() == (
        "",
        "paperboy: Module 'app' has no 'motor': name what you have called your Engine(…).\n",
    )


def test_what_the_broker_refuses_is_one_sentence(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.fail_next("commit", BrokerError("Group 'readers' has members: stop its workers first."))
    assert main(["reset", "app:engine", "--yes"]) == 1
    assert capsys.readouterr().err == "paperboy: Group 'readers' has members: stop its workers first.\n"
    assert state(cluster) == (2, 3)


def test_a_reset_that_breaks_off_says_how_to_end_it(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.fail_next("delete", BrokerError("The broker is away."))
    assert main(["reset", "app:engine", "--yes"]) == 1
    assert capsys.readouterr().err == (
        "paperboy: run the same reset again to end it; no worker goes on before that.\npaperboy: The broker is away.\n"
    )
    assert main(["reset", "app:engine", "--yes"]) == 0
    assert state(cluster) == (0, 0)


def test_an_interrupted_reset_says_how_to_end_it(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MemoryBroker.create_topics

    async def interrupted(*arguments: object) -> None:
        monkeypatch.setattr(MemoryBroker, "create_topics", create)
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryBroker, "create_topics", interrupted)
    assert main(["reset", "app:engine", "--yes"]) == 130
    assert capsys.readouterr().err == (
        "paperboy: run the same reset again to end it; no worker goes on before that.\npaperboy: interrupted.\n"
    )
    assert main(["reset", "app:engine", "--yes"]) == 0
    assert state(cluster) == (0, 0)


class Terminal:
    """Standard error, as if somebody sat before it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.shown = ""

    def write(self, text: str) -> int:
        self.shown += text
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_not_among_the_results(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["reset", "app:engine", "--yes"]) == 0
    assert "resetting" in terminal.shown
    assert "resetting" not in capsys.readouterr().out


def test_the_console_script_leads_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert pkgutil.resolve_name(project["scripts"]["paperboy"]) is main
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"paperboy {project['version']}\n"


def test_it_can_be_run_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("engine = None")
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    ended = run(
        [sys.executable, "-m", "paperboy.cli", "reset", "app:engine"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "paperboy: app:engine is no Engine, but NoneType: name what you have called your Engine(…).\n"
    )
