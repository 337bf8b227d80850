"""docs/testing.md does what it says: each of its Python blocks is a file of tests that passes as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"
FENCE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)
BLOCKS = {
    f"line {PAGE.read_text().count(chr(10), 0, found.start('code'))}": found["code"]
    for found in FENCE.finditer(PAGE.read_text())
}


def run_tests(*arguments: str, directory: Path) -> str:
    """What pytest says, with our plugin and no other; warnings are errors."""
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


def assert_passes(said: str, tests: int) -> None:
    assert re.search(rf"^{tests} passed in", said, re.M), said


@pytest.mark.parametrize("place", BLOCKS)
def test_an_example_of_the_page_passes_as_it_stands(place: str, tmp_path: Path) -> None:
    code = BLOCKS[place]
    (tmp_path / "test_example.py").write_text(code)
    tests = len(re.findall(r"^ *(?:async )?def test_", code, re.M))
    assert tests
    assert_passes(run_tests("test_example.py", directory=tmp_path), tests)


def test_an_example_that_does_otherwise_fails(tmp_path: Path) -> None:
    code = next(iter(BLOCKS.values()))
    assert "110" in code
    (tmp_path / "test_example.py").write_text(code.replace("110", "111"))
    with pytest.raises(AssertionError, match="1 failed"):
        assert_passes(run_tests("test_example.py", directory=tmp_path), 1)


def test_the_tests_of_the_examples_pass() -> None:
    assert_passes(run_tests("-p", "no:cacheprovider", "examples", directory=ROOT), 9)
