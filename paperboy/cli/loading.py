"""Finding the user's engine by its name, as ``module:attribute``."""

import importlib
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from paperboy.cli.errors import Misuse
from paperboy.engine import Engine
from paperboy.engine.options import Options
from paperboy.handlers.dispatch import Dispatch
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.table import Table


@dataclass(frozen=True, slots=True)
class Definition:
    """What a user has written down of an engine."""

    options: Options
    dispatches: Mapping[str, Dispatch]
    """By input topic."""
    tables: Mapping[str, Table]
    """By name."""
    global_tables: Mapping[str, GlobalTable]
    """By name."""

    def kept_as(self, name: str) -> Table | None:
        """How the entries of the table of this name, global or not, are written."""
        shown = self.global_tables.get(name)
        return self.tables.get(name) if shown is None else shown.kept_as


def definition_of(engine: Engine) -> Definition:
    return Definition(engine._options, engine._dispatches, engine._tables, engine._global_tables)


async def load_engine(name: str) -> Engine:
    """The engine that `name` names, with modules looked for in the current directory first.

    It is a coroutine so that a module cannot run its engine while it is imported: ``asyncio.run`` refuses to, inside
    another event loop.

    Args:
        name: as in ``app:engine`` or ``shop.app:workers.engine``.

    Raises:
        Misuse: there is none by this name; the sentence says what is missing.
        Exception: what the module itself raised, as it was.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise Misuse(f"{name!r} names no engine: write module:attribute, as in app:engine.")
    found: object = _imported(module_name)
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise Misuse(f"Module {module_name!r} has no {path!r}: name what you have called your Engine(…).")
        found = getattr(found, attribute)
    if not isinstance(found, Engine):
        raise Misuse(f"{name} is no Engine, but {type(found).__name__}: name what you have called your Engine(…).")
    return found


def _imported(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    ran = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # What the module itself imports and cannot find is for its own author.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
        except RuntimeError as error:
            ran = "running event loop" in str(error)
            if not ran:
                raise
    if ran:
        raise Misuse(
            f"Module {name!r} runs something as it is imported: put its asyncio.run(…) under"
            " if __name__ == '__main__':, so that it can be looked at without being run."
        )
    raise Misuse(f"There is no module {name!r} in {here} or on sys.path: correct the name, or change the directory.")
