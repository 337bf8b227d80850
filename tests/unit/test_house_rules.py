"""The rules of the house that no linter knows: where time, chance and threads may stand, and what an import may do."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "paperboy"
CLOCK = PACKAGE / "clock.py"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Modules that read a clock, draw at random or start threads and processes.
FORBIDDEN_MODULES = {
    "_thread", "concurrent", "multiprocessing", "queue", "random", "sched", "secrets", "threading", "time",
}  # fmt: skip

# What is forbidden of modules that also hold harmless types.
FORBIDDEN_NAMES = {
    "asyncio": {"to_thread"},
    "datetime": {"now", "today", "utcnow"},
    "date": {"today"},
    "os": {"getrandom", "times", "urandom"},
    "uuid": {"getnode", "uuid1", "uuid4", "uuid6", "uuid7"},
}

# Call of these, and what comes out is a set of tasks: its order is that of addresses in memory.
SETS_OF_TASKS = {"all_tasks", "wait"}

# A path of somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:work|root|home|Users)/\w")
HOST = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host")
SEARCHED = {"", ".cfg", ".in", ".md", ".py", ".pyi", ".sh", ".toml", ".txt", ".xml", ".yaml", ".yml"}
NOT_OURS = {"build", "dist", "node_modules"}


def whims(source: str) -> list[str]:
    """What in this source would make two runs of one input differ, as ``line: what``."""
    nodes = list(ast.walk(ast.parse(source)))
    found = [
        *_forbidden_imports(nodes),
        *_forbidden_attributes(nodes),
        *_default_executors(nodes),
        *_loops_over_sets(nodes),
    ]
    return [f"{line}: {what}" for line, what in sorted(found)]


def _forbidden_imports(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in FORBIDDEN_MODULES:
                    yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                top = node.module.split(".")[0]
                if top in FORBIDDEN_MODULES or alias.name in FORBIDDEN_NAMES.get(node.module, ()):
                    yield node.lineno, f"from {node.module} import {alias.name}"


def _forbidden_attributes(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    real_names = _real_names(nodes)
    for node in nodes:
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if node.attr in FORBIDDEN_NAMES.get(real_names.get(name, name), ()):
                yield node.lineno, f"{name}.{node.attr}"


def _real_names(nodes: Sequence[ast.AST]) -> dict[str, str]:
    """The names that imports gave to modules and types: ``import uuid as u`` makes ``{"u": "uuid"}``."""
    imports = (node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return {alias.asname or alias.name: alias.name for node in imports for alias in node.names}


def _default_executors(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """The loop's own threads, in place of the one executor that is handed in."""
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        if _called(call) == "run_in_executor" and call.args:
            executor = call.args[0]
            if isinstance(executor, ast.Constant) and executor.value is None:
                yield call.lineno, "run_in_executor(None, …)"


def _loops_over_sets(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """``for … in`` over a set of tasks, called for on the spot or kept in a variable first."""
    if not any(isinstance(node, ast.Call) and _gives_set_of_tasks(node) for node in nodes):
        return
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    seen: set[tuple[int, str]] = set()
    for scope in [nodes, *(list(ast.walk(function)) for function in functions)]:
        names = {
            name.id
            for node in scope
            if isinstance(node, ast.Assign) and _gives_set_of_tasks(node.value)
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }
        for node in scope:
            if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
                over = node.iter
                if _gives_set_of_tasks(over) or (isinstance(over, ast.Name) and over.id in names):
                    seen.add((over.lineno, f"iteration over a set of tasks: {ast.unparse(over)}"))
    yield from seen


def _gives_set_of_tasks(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return _gives_set_of_tasks(value.left)
    inner = value.value if isinstance(value, ast.Await) else value
    return (
        isinstance(inner, ast.Call)
        and isinstance(inner.func, ast.Attribute)
        and isinstance(inner.func.value, ast.Name)
        and inner.func.value.id == "asyncio"
        and inner.func.attr in SETS_OF_TASKS
    )


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def imports_aiokafka(source: str) -> bool:
    """Whether a module imports aiokafka, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "aiokafka" for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aiokafka":
            return True
    return False


def may_import_aiokafka(module: Path) -> bool:
    """The Kafka broker, and the protocol and our own records for its ``ConsumerRecord``."""
    brokers = PACKAGE / "brokers"
    return brokers / "kafka" in module.parents or module in (brokers / "protocol.py", brokers / "record.py")


def our_texts() -> list[Path]:
    """Every file of the checkout that somebody wrote."""
    return [
        path
        for path in _files_under(ROOT)
        if path.suffix in SEARCHED and path.name != "LICENSE" and path.stat().st_size < 1_000_000
    ]


def _files_under(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name not in {".ci", ".github"}
            if not hidden and path.name not in NOT_OURS and not (path / "pyvenv.cfg").exists():
                yield from _files_under(path)
        elif path.is_file():
            yield path


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", [module for module in MODULES if module != CLOCK], ids=_name)
def test_time_chance_and_threads_stand_in_the_clock_only(module: Path) -> None:
    assert whims(module.read_text()) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import time",
        "import time as t",
        "from time import monotonic",
        "def f():\n    import random",
        "from random import choice",
        "import threading",
        "from concurrent.futures import ThreadPoolExecutor",
        "import concurrent.futures",
        "import uuid\nuuid.uuid4()",
        "import uuid as u\nu.uuid1()",
        "from uuid import UUID, uuid4",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now(tz=None)",
        "from datetime import datetime as dt\ndt.utcnow()",
        "from datetime import date\ndate.today()",
        "import os\nos.urandom(8)",
        "import asyncio\nasync def f():\n    await asyncio.to_thread(print)",
        "from asyncio import to_thread",
        "def f(loop):\n    loop.run_in_executor(None, print)",
        "import asyncio\nasync def f(x):\n    done, _ = await asyncio.wait(x)\n    for task in done: print(task)",
        "import asyncio\nnames = [task for task in asyncio.all_tasks()]",
        "import asyncio\nleft = asyncio.all_tasks() - {None}\nfor task in left: print(task)",
    ],
)
def test_the_clock_rule_bites(bad: str) -> None:
    assert len(whims(bad)) == 1


@pytest.mark.parametrize(
    "good",
    [
        "from datetime import datetime, time\nx = datetime.fromtimestamp(0)",
        "from uuid import UUID\nUUID(int=0)",
        "import asyncio\nasync def f():\n    asyncio.get_running_loop().time()",
        "def f(loop, executor):\n    loop.run_in_executor(executor, print)",
        "import asyncio\nasync def f(x):\n    done, _ = await asyncio.wait(x)\n    return len(done)",
        "import asyncio\nasync def f(x):\n    done, _ = await asyncio.wait(x)\n    for task in x: print(task in done)",
        "class Engine:\n    def now(self): ...\ndef f(engine):\n    engine.now()",
    ],
)
def test_the_clock_rule_lets_types_and_the_loop_pass(good: str) -> None:
    assert whims(good) == []


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_aiokafka_is_imported_by_its_broker_only(module: Path) -> None:
    assert may_import_aiokafka(module) or not imports_aiokafka(module.read_text())


@pytest.mark.parametrize(
    "bad", ["import aiokafka", "import aiokafka.structs as s", "def f():\n    from aiokafka.admin import x"]
)
def test_the_aiokafka_rule_bites(bad: str) -> None:
    assert imports_aiokafka(bad)
    assert not imports_aiokafka("import asyncio\nfrom paperboy.brokers import protocol")
    assert not may_import_aiokafka(PACKAGE / "engine" / "engine.py")
    assert not may_import_aiokafka(PACKAGE / "brokers" / "memory" / "broker.py")


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"common", "helper", "helpers", "misc", "util", "utils"}
    assert [_name(path) for path in PACKAGE.rglob("*") if path.stem in drawers] == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert [_name(path) for path in our_texts() if MACHINE_PATH.search(path.read_text())] == []


def test_the_machine_path_rule_bites() -> None:
    for directory in ("work", "root", "home", "Users"):
        assert MACHINE_PATH.search(f'path = "/{directory}/somebody"')
    for harmless in ("the work/home balance", "https://example.org/home/page", "tests/work/x", "a worker", "./home/x"):
        assert not MACHINE_PATH.search(harmless)
    assert Path(__file__) in our_texts()


def test_locked_requirements_name_no_host_and_hash_everything() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        assert not HOST.search(text), _name(path)
        pinned = [line for line in text.splitlines() if re.match(r"\w", line)]
        assert pinned, _name(path)
        assert all("==" in line and line.endswith("\\") for line in pinned), _name(path)


def test_the_host_rule_bites() -> None:
    assert HOST.search("--index-url somewhere")
    assert HOST.search("x @ https://example.org/x.whl")


IMPORT_AND_LOOK = """
import asyncio, logging, signal, sys, threading
before = (
    list(logging.root.handlers), logging.root.level, threading.active_count(), dict(sys.modules["os"].environ),
    signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.excepthook,
    asyncio.get_event_loop_policy() if sys.version_info < (3, 14) else None,
)
import paperboy
import structlog
after = (
    list(logging.root.handlers), logging.root.level, threading.active_count(), dict(sys.modules["os"].environ),
    signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.excepthook,
    asyncio.get_event_loop_policy() if sys.version_info < (3, 14) else None,
)
assert before == after, (before, after)
assert not structlog.is_configured(), "structlog was configured"
ours = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "paperboy"]
for logger in map(logging.getLogger, ours):
    assert logger.level == logging.NOTSET and logger.propagate, logger
    assert all(isinstance(handler, logging.NullHandler) for handler in logger.handlers), logger
"""


def test_importing_paperboy_starts_nothing_and_configures_nothing() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_LOOK], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "bad",
    [
        "import logging; logging.basicConfig()",
        "import structlog; structlog.configure()",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "import logging; logging.getLogger('paperboy.engine').setLevel('INFO')",
        "print('hello')",
    ],
)
def test_the_import_rule_bites(bad: str, tmp_path: Path) -> None:
    (tmp_path / "paperboy.py").write_text(bad)
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_LOOK], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) != (0, "", "")


def test_no_compiled_module_chains_an_error_by_from() -> None:
    """mypyc compiles ``raise … from …`` without the cause: `chained` stands in its place."""
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    for path in hooks["mypyc"]["include"]:
        tree = ast.parse((ROOT / path.strip("/")).read_text())
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.cause is not None]
        assert not lines, f"{path}: {lines}"
