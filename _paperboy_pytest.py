"""paperboy's plugin for pytest: the fixture `engine_test`, and tests that need nothing else to be ``async def``.

It stands beside the package, not in it, so that pytest does not import the package for those who do not use it.
"""

import asyncio
import inspect
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from paperboy.testing import EngineTest

_VARIABLE = "PAPERBOY_TEST_BOOTSTRAP_SERVERS"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("paperboy").addoption(
        "--paperboy-bootstrap",
        metavar="HOST:PORT",
        help=f"run every EngineTest on this Kafka, not in memory (also: environment variable {_VARIABLE})",
    )


def pytest_configure(config: pytest.Config) -> None:
    address = config.getoption("--paperboy-bootstrap")
    if address:
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = address
        config.add_cleanup(lambda: _put_back(before))


@pytest.fixture
def engine_test() -> "type[EngineTest]":
    """`paperboy.testing.EngineTest`: ``async with engine_test(engine) as t: …``

    An ``async def`` test that asks for it runs by itself; where another plugin runs such tests, that one does.
    """
    from paperboy.testing import EngineTest

    return EngineTest


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test with the fixture, if no other plugin has."""
    test = pyfuncitem.obj
    if "engine_test" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(test):
        return None
    asyncio.run(test(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))
    return True


def _put_back(before: str | None) -> None:
    if before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = before
