"""Finding the user's engine by its name."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paperboy.cli.errors import Misuse
from paperboy.cli.loading import load_engine
from paperboy.engine import Engine

APP = """
from paperboy import Engine, Handler

class Views(Handler):
    topic = "views"

class Shop:
    workers = Engine(Views, bootstrap_servers="memory://", group_id="shop")

engine = Engine(Views, bootstrap_servers="memory://", group_id="views")
"""

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the current directory, which is one of the test's own."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, text: str = APP) -> None:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


async def test_an_engine_is_found_by_its_name_in_the_current_directory(write: Write) -> None:
    write("app_of_loading.py")
    engine = await load_engine("app_of_loading:engine")
    assert isinstance(engine, Engine)
    assert engine is await load_engine("app_of_loading:engine")


async def test_a_module_in_a_package_and_an_attribute_of_an_attribute_are_found(write: Write) -> None:
    write("shop_of_loading/__init__.py", "")
    write("shop_of_loading/app.py")
    assert isinstance(await load_engine("shop_of_loading.app:Shop.workers"), Engine)


@pytest.mark.parametrize("name", ["", "app", "app:", ":engine"])
async def test_what_names_no_attribute_of_a_module_is_refused(name: str) -> None:
    with pytest.raises(Misuse, match=r"names no engine: write module:attribute"):
        await load_engine(name)


@pytest.mark.parametrize("name", ["no_such_module", "no_such_module.app", "shop_of_loading.no_such_module"])
async def test_a_module_that_is_not_there_is_named(write: Write, name: str) -> None:
    write("shop_of_loading/__init__.py", "")
    with pytest.raises(Misuse, match=f"There is no module '{name}' in .*here or on sys.path"):
        await load_engine(f"{name}:engine")


@pytest.mark.parametrize("attribute", ["motor", "Shop.motor"])
async def test_an_attribute_that_is_not_there_is_named(write: Write, attribute: str) -> None:
    write("app_of_loading.py")
    with pytest.raises(Misuse, match=f"Module 'app_of_loading' has no '{attribute}'"):
        await load_engine(f"app_of_loading:{attribute}")


async def test_what_is_not_an_engine_is_named(write: Write) -> None:
    write("app_of_loading.py")
    with pytest.raises(Misuse, match="app_of_loading:Views is no Engine, but type"):
        await load_engine("app_of_loading:Views")


async def test_what_a_module_cannot_import_or_raises_is_its_own_affair(write: Write) -> None:
    write("app_of_loading.py", "import no_such_library")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        await load_engine("app_of_loading:engine")
    write("raising_of_loading.py", "raise RuntimeError('no password')")
    with pytest.raises(RuntimeError, match="no password"):
        await load_engine("raising_of_loading:engine")


async def test_a_module_does_not_run_its_engine_while_it_is_looked_at(
    write: Write, recwarn: pytest.WarningsRecorder
) -> None:
    write("app_of_loading.py", APP + "import asyncio\nasyncio.run(engine.start())\n")
    with pytest.raises(Misuse, match=r"runs something as it is imported: put its asyncio\.run"):
        await load_engine("app_of_loading:engine")
    assert [str(warning.message) for warning in recwarn] == []  # of a coroutine that was never awaited
