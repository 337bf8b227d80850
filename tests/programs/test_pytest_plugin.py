"""The plugin for pytest: its fixture, its option, and that it costs nothing where nobody asks for it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

JOB = """
import asyncio
from paperboy import Engine, Handler, Table
from paperboy.testing import EngineTest

clicks = Table("clicks")

class Clicks(Handler):
    topic = "clicks-in"

    @classmethod
    async def on_message(cls, msg, ctx):
        if msg.value == b"bad":
            raise ValueError("no")
        clicks.update(msg.key, lambda count: count + 1, default=0)

engine = Engine(Clicks, bootstrap_servers="kafka.example:9092", group_id="clicks")
engine.register_table(clicks)
"""

TESTS = {
    "it runs by itself": (
        """
async def test_counts(engine_test, tmp_path):
    async with engine_test(engine) as t:
        await t.send("clicks-in", "x", key="a")
        await t.settle()
        assert t.table("clicks") == {b"a": 1}
    assert engine_test is EngineTest
    assert tmp_path.exists()
""",
        {"passed": 1},
    ),
    "in a class too": (
        """
class TestClicks:
    async def test_counts(self, engine_test):
        async with engine_test(engine) as t:
            assert t.table("clicks") == {}
""",
        {"passed": 1},
    ),
    "it fails where it should": (
        """
async def test_counts(engine_test):
    async with engine_test(engine) as t:
        assert t.table("clicks") == {b"a": 1}

async def test_bad(engine_test):
    async with engine_test(engine) as t:
        await t.send("clicks-in", "bad")
        await t.settle()
""",
        {"failed": 2},
    ),
    "tests of others are left to them": (
        """
async def test_of_another():
    pass
""",
        {"failed": 1},
    ),
    "a plain function may use asyncio.run": (
        """
def test_counts():
    async def main():
        async with EngineTest(engine) as t:
            await t.settle()
    asyncio.run(main())
""",
        {"passed": 1},
    ),
    "unittest has its own way": (
        """
import unittest

class ClicksTest(unittest.IsolatedAsyncioTestCase):
    async def test_counts(self):
        async with EngineTest(engine) as t:
            await t.send("clicks-in", "x", key="a")
            await t.settle()
            self.assertEqual(t.table("clicks"), {b"a": 1})
""",
        {"passed": 1},
    ),
}

REAL_TIME = """
async def test_time_is_real(engine_test):
    async with engine_test(engine) as t:
        assert not t._open.is_virtual
"""


def run_pytest(directory: Path, test: str, *arguments: str) -> str:
    """What pytest says at its end, with this plugin and no other."""
    (directory / "test_job.py").write_text(JOB + test)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "_paperboy_pytest", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stdout + result.stderr


@pytest.mark.parametrize("name", TESTS)
def test_an_engine_is_tested_by_pytest(name: str, tmp_path: Path) -> None:
    test, expected = TESTS[name]
    said = run_pytest(tmp_path, test)
    for outcome, number in expected.items():
        assert f"{number} {outcome} in" in said, said


def test_the_option_takes_every_test_to_another_broker(tmp_path: Path) -> None:
    assert "1 passed in" in run_pytest(tmp_path, REAL_TIME, "--paperboy-bootstrap=memory://")
    assert "1 failed in" in run_pytest(tmp_path, REAL_TIME)


def test_the_plugin_is_found_by_pytest_and_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"paperboy": "_paperboy_pytest"}
    assert "_paperboy_pytest.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert "/_paperboy_pytest.py" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]


def test_the_plugin_does_not_import_the_package_and_the_package_does_not_import_the_plugin() -> None:
    for program in (
        "import _paperboy_pytest, sys; assert not [name for name in sys.modules if name.startswith('paperboy')]",
        "import paperboy, sys; assert not {'paperboy.testing', 'pytest', '_paperboy_pytest'} & set(sys.modules)",
        "import paperboy.testing, sys; assert 'pytest' not in sys.modules",
    ):
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
