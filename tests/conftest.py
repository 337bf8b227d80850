"""What every test has: `async def` tests, the real Kafka, and the mark of those that need it."""

import asyncio
import gc
import inspect
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from paperboy.testing.virtual_time import VirtualLoop
from tests.kafka_server import KafkaServer, KafkaUnavailable
from tests.registry_server import RegistryServer
from tests.server_process import ServerError

TIME_LIMIT_SEC = 60.0
"""How long an `async def` test may take that has no `time_limit` mark."""

ROOT = Path(__file__).parents[1]
_KAFKA_TESTS = {Path(__file__).parent / name for name in ("kafka", "chaos")}
_SERVERS = {"kafka_bootstrap", "registry_url"}
"""The fixtures that bring a real Kafka, or the real schema registry that is fetched as it is."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test in an event loop of its own, within its time limit."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    mark = pyfuncitem.get_closest_marker("time_limit")
    limit_sec = float(mark.args[0]) if mark else TIME_LIMIT_SEC
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    loop_factory = VirtualLoop if pyfuncitem.get_closest_marker("virtual_time") else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_run(lambda: test(**arguments), limit_sec))
    return True


async def _run(test: Callable[[], Awaitable[None]], limit_sec: float) -> None:
    limit = asyncio.timeout(limit_sec)
    try:
        async with limit:
            await test()
    except TimeoutError:
        if limit.expired():
            pytest.fail(f"The test took more than its time limit of {limit_sec:g} s.")
        raise
    await _no_task_is_left()


async def _no_task_is_left() -> None:
    """A test ends what it starts: a task that is left over is a leak of the code under test, or of the test."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=0.2)
    if left:
        names = "\n".join(sorted(f"  {task.get_name()}: {task.get_coro()}" for task in left))
        pytest.fail(f"The test left tasks behind:\n{names}", pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real Kafka, or the compiled modules: what is left needs Python alone."""
    for item in items:
        if isinstance(item, pytest.Function) and needs_kafka(item):
            item.add_marker(pytest.mark.kafka)
        if isinstance(item, pytest.Function) and "compiled" in item.fixturenames:
            item.add_marker(pytest.mark.compiled)


def pytest_collection() -> None:
    """Nothing of what is collected is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Thousands of tests that were collected stay to the end: nobody looks through them for garbage in each of them."""
    gc.freeze()
    gc.enable()


def needs_kafka(item: pytest.Function) -> bool:
    """By its directory, by its fixtures, or by being the "kafka" (or "apicurio") case of a parametrised test."""
    if not _KAFKA_TESTS.isdisjoint(item.path.parents) or not _SERVERS.isdisjoint(item.fixturenames):
        return True
    callspec = getattr(item, "callspec", None)
    return callspec is not None and any(
        case in callspec.id.split("-") or case in callspec.params.values() for case in ("kafka", "apicurio")
    )


@pytest.fixture(scope="session")
def compiled() -> Path:
    """A copy of the checkout that runs on the compiled modules, as ``make compiled`` makes it; needs a C compiler."""
    made = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), f"VENV={sys.prefix}", "compiled"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.fail(f"make compiled failed; it needs a C compiler and Python's headers:\n{made.stdout}", pytrace=False)
    return ROOT / "build" / "compiled"


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """``host:port`` of the real Kafka: PAPERBOY_TEST_BOOTSTRAP where set, else one that this session starts.

    Where none can be had the test fails with the line that says what to install: it is never skipped.
    """
    given = os.environ.get("PAPERBOY_TEST_BOOTSTRAP")
    if given:
        yield given
        return
    server = KafkaServer()
    remedy = ""
    try:
        server.start()
    except (KafkaUnavailable, ServerError) as error:
        remedy = str(error)
    if remedy:
        pytest.fail(remedy, pytrace=False)
    try:
        yield server.bootstrap
    finally:
        server.close()


@pytest.fixture(scope="session")
def registry_url() -> Iterator[str]:
    """Where a real schema registry speaks Confluent's API: PAPERBOY_TEST_REGISTRY where set, else one that this session
    starts. Where none can be had the test fails with the line that says what to install: it is never skipped.
    """
    given = os.environ.get("PAPERBOY_TEST_REGISTRY")
    if given:
        yield given
        return
    server = RegistryServer()
    remedy = ""
    try:
        server.start()
    except (KafkaUnavailable, ServerError) as error:
        remedy = str(error)
    if remedy:
        pytest.fail(remedy, pytrace=False)
    try:
        yield server.url
    finally:
        server.close()
