"""The modules that wheels have compiled do what they do as Python: what tests them as Python passes on them too.

Here a part of them; ``make test-compiled`` runs all.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

SUITE = [
    "tests/contract/engine/test_tables.py",
    "tests/properties/test_exactly_once_faults.py",
    "tests/properties/test_table_partition.py",
    "tests/unit/test_checkpoints.py",
    "tests/unit/test_engine_failures.py",
    "tests/unit/test_failed_messages.py",
    "tests/unit/test_lanes.py",
    "tests/unit/test_outbox.py",
    "tests/unit/test_partitioner.py",
    "tests/unit/test_table_partition.py",
    "tests/unit/test_table_scans.py",
    "tests/unit/test_value_codec.py",
]


def run(compiled: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=compiled,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-5_000:]
    return done.stdout


def test_each_module_that_pyproject_names_is_compiled(compiled: Path) -> None:
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    modules = [path.strip("/").removesuffix(".py").replace("/", ".") for path in hook["mypyc"]["include"]]
    show = "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"
    files = run(compiled, "-c", show, *modules).split()
    assert len(files) == len(modules)
    assert all(Path(file).is_relative_to(compiled) and file.endswith((".so", ".pyd")) for file in files)


def test_the_tests_of_what_is_compiled_pass_on_it(compiled: Path) -> None:
    run(compiled, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not kafka", *SUITE)


def test_the_simulation_breaks_no_promise_on_it(compiled: Path) -> None:
    assert "every promise holds" in run(compiled, "-m", "tests.simulation", "seeds", "--seeds", "100")
