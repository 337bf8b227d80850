"""README.md does what it says: its Python blocks run as printed, and the commands in its shell blocks exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.programs import readme
from tests.programs.readme import (
    PYTHON_BLOCKS,
    README,
    README_BLOCKS,
    ROOT,
    SHELL_BLOCKS,
    Block,
    blocks,
    run,
    topics,
    with_own_names,
)


def test_the_readme_is_there_and_shows_python() -> None:
    assert README.exists()
    assert PYTHON_BLOCKS


@pytest.mark.parametrize("block", [block for block in PYTHON_BLOCKS if not block.needs_kafka], ids=str)
def test_a_block_does_what_the_readme_says(block: Block, tmp_path: Path) -> None:
    run(block, block.code, tmp_path)


def test_a_block_that_is_not_run_says_why_and_is_python() -> None:
    for block in README_BLOCKS:
        if block.language == "python":
            compile(block.code, f"README.md, line {block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert all(block.said("not run")), f"README.md, line {block.line}: no reason given"


def test_commands_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for block in SHELL_BLOCKS:
        assert make_targets(block.code) <= targets, f"README.md, line {block.line}"
        missing = [script for script in scripts(block.code) if not (ROOT / script).exists()]
        assert not missing, f"README.md, line {block.line}"


def make_targets(shell: str) -> set[str]:
    """What a piece of shell asks make for."""
    commands = re.findall(r"(?:^|[;&|]|\$ )\s*make\b([^#;&|\n]*)", shell, re.M)
    return {word for command in commands for word in command.split() if "=" not in word and not word.startswith("-")}


def scripts(shell: str) -> list[str]:
    """The Python files that a piece of shell runs."""
    return re.findall(r"python3? ([\w./-]+\.py)", shell)


FOREVER = """
import asyncio, logging, signal
class Engine:
    async def start(self):
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        logging.getLogger("paperboy.engine").info("started")
        print("home 1")
        await stop.wait()
        raise SystemExit(code)
code = 0
engine = Engine()
asyncio.run(engine.start())
"""


@pytest.mark.parametrize("notes", [[], [("prints", "home 1")]], ids=["logs", "prints"])
def test_a_block_that_runs_on_is_stopped_when_it_has_done_its_work(
    notes: list[tuple[str, str]], tmp_path: Path
) -> None:
    run(Block(1, "python", FOREVER, notes), FOREVER, tmp_path)


@pytest.mark.parametrize(
    ("code", "notes", "complaint"),
    [
        ("raise SystemExit(3)", [], "exit code 3"),
        ("print('a')", [("prints", "b")], "does not print 'b'"),
        ("import time; time.sleep(60)", [], "not done after"),
        (FOREVER, [("prints", "home 2")], "not done after"),
        (FOREVER.replace("code = 0", "code = 1"), [], "exit code 1"),
    ],
)
def test_a_block_that_does_otherwise_fails(
    code: str, notes: list[tuple[str, str]], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readme, "BLOCK_TIMEOUT_SEC", 2.0)
    with pytest.raises(AssertionError, match=complaint):
        run(Block(1, "python", code, notes), code, tmp_path)


def test_blocks_are_found_with_what_their_comments_say() -> None:
    text = """\
Text.

<!-- topics: views users:4 -->
<!-- send: views home hello you -->
```python
engine = Engine(A, group_id="g", bootstrap_servers="localhost:9092")  # "views", 'views', "views-by-day"
asyncio.run(engine.start())
```
```bash
make demo BOOTSTRAP=host:port  # make no-sense
$ make test-fast; python examples/page_views.py
```

<!-- not run: it is a sketch -->

```python
x
```
<!-- after: previous -->
```python
y
```
"""
    first, shell, sketch, last = blocks(text)
    assert (first.line, first.runs, first.runs_on, first.needs_kafka) == (5, True, True, True)
    assert topics(first) == [("views", 1), ("users", 4)]
    assert first.said("send") == ["views home hello you"]
    own = with_own_names(first, "1")
    assert 'group_id="g-1"' in own
    assert '"views-1", \'views-1\', "views-by-day"' in own
    assert make_targets(shell.code) == {"demo", "test-fast"}
    assert scripts(shell.code) == ["examples/page_views.py"]
    assert (sketch.runs, sketch.said("not run")) == (False, ["it is a sketch"])
    assert (last.code, last.runs) == ("x\ny\n", True)
