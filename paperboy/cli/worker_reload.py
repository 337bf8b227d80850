"""Noticing that a Python file has changed, by looking at when each was modified."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from paperboy.clock import in_thread

_LOOK_SEC = 0.5
_SHOWN = 3

Times = Mapping[str, int]
"""When each file was modified, in nanoseconds, by its path."""


async def until_changed(directory: Path, before: Times) -> tuple[list[str], Times]:
    """Returns when a Python file below `directory` was changed, added or removed since `before`: which ones, and how
    they are now."""
    while True:
        now = await in_thread(partial(modified, directory))
        if changed := sorted(dict(before.items() ^ now.items())):
            return changed[:_SHOWN], now
        await asyncio.sleep(_LOOK_SEC)


def modified(directory: Path) -> Times:
    """Of every Python file below `directory`, but for hidden directories and those that others' packages are in."""
    return dict(_modified(str(directory), ""))


def _modified(directory: str, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:  # it went as we looked
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not _is_others(entry):
                yield from _modified(entry.path, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            try:
                yield prefix + entry.name, entry.stat().st_mtime_ns
            except OSError:
                continue


def _is_others(directory: "os.DirEntry[str]") -> bool:
    named_so = directory.name.startswith(".") or directory.name in {"__pycache__", "node_modules", "site-packages"}
    return named_so or os.path.exists(os.path.join(directory.path, "pyvenv.cfg"))
