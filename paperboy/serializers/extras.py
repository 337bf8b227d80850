"""Libraries that come with an extra of the package, and are imported by whoever uses them first."""

import importlib
from types import ModuleType

from paperboy.errors import ConfigurationError


def extra(module: str, name: str, *, for_: str) -> ModuleType:
    """A module of the extra called `name`.

    Raises:
        ConfigurationError: it is not installed; the sentence says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"{for_} needs the module {missing.name}, which is not installed: pip install 'paperboy-streams[{name}]'."
        ) from missing
