"""What the workers of a group have left on the disks of this machine."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from paperboy.engine.home import Home, directory_name, take_home
from paperboy.errors import StoreError


def homes_of(state_dir: Path, group_id: str) -> list[Path]:
    """Where workers of the group have kept stores under `state_dir`, whether one holds it now or not."""
    group = state_dir / directory_name(group_id)
    if not group.is_dir():
        return []
    return sorted((home for home in group.iterdir() if home.name.isdecimal()), key=_number)


def stores_in(home: Path, tables: Collection[str]) -> list[Path]:
    """The directories of these tables' stores, one for each partition."""
    directories = [home / directory_name(table) for table in tables]
    return [
        store
        for directory in directories
        if directory.is_dir()
        for store in sorted(directory.iterdir(), key=lambda store: (len(store.name), store.name))
        if store.is_dir()
    ]


@contextmanager
def held_homes(state_dir: Path, group_id: str) -> Iterator[None]:
    """Hold the homes of the group under `state_dir`, so that no worker of this machine uses them meanwhile.

    Raises:
        StoreError: a worker that runs holds one of them.
    """
    wanted = homes_of(state_dir, group_id)
    taken: list[Home] = []
    try:
        while wanted and (not taken or _number(taken[-1].path) < _number(wanted[-1])):
            taken.append(take_home(state_dir, group_id))  # the first one that is free
        not_free = [home for home in wanted if home not in {home.path for home in taken}]
        if not_free:
            raise StoreError(f"The state directory {str(not_free[0])!r} is in use by a running worker: stop it first.")
        yield
    finally:
        for home in taken:
            home.release()


def _number(home: Path) -> int:
    return int(home.name)


def remove_store(store: Path) -> None:
    """Remove a store's directory, and whatever is in it. Blocks.

    Raises:
        StoreError: the disk does not let us.
    """
    try:
        shutil.rmtree(store)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"The store in {str(store)!r} cannot be removed: {error.strerror}; remove it by hand, and reset again."
        ) from error
