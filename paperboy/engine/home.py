"""The directory that one worker alone keeps its stores in."""

import fcntl
import os
import re
from itertools import count
from pathlib import Path
from urllib.parse import quote

from paperboy.errors import ConfigurationError, StoreError

_MAX_NAME_BYTES = 255
_LOCK = "@lock"
"""Which is the directory of no table (see `directory_name`)."""
_PARTITION = re.compile(r"0|[1-9][0-9]{0,9}")


class Home:
    """``{state_dir}/{group_id}/{number}``, held by this process until `release` or its end, however it ends.

    Several workers of a group may have one `state_dir`: each takes the first number that is free, and so finds, after a
    restart, what one of them left. No two ever write into one home, in one process or in several.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def store_path(self, table: str, partition: int) -> Path:
        """Where the store of this table partition is: by names that adding a topic or a table does not change."""
        return self.path / directory_name(table) / str(partition)

    def stores_of(self, table: str) -> dict[int, Path]:
        """Where this table has stores, by partition. Blocks a moment.

        Raises:
            StoreError: the directory cannot be read.
        """
        directory = self.path / directory_name(table)
        try:
            return {int(name): directory / name for name in os.listdir(directory) if _PARTITION.fullmatch(name)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(
                f"The directory {str(directory)!r} cannot be read: {error.strerror}; let this worker's user read it."
            ) from error

    def release(self) -> None:
        """Let another worker have it."""
        os.close(self._lock)


def take_home(state_dir: Path, group_id: str) -> Home:
    """The first home of the group in `state_dir` that nobody holds. Blocks a moment.

    Raises:
        StoreError: the directory cannot be made or written to.
        ConfigurationError: `group_id` cannot name a directory.
    """
    group = state_dir / directory_name(group_id)
    for number in count(1):
        home = group / str(number)
        try:
            home.mkdir(parents=True, exist_ok=True)
            lock = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"The state directory {str(home)!r} cannot be used: {error.strerror}; let state_dir name a directory"
                " that this worker may write to."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError as error:
            os.close(lock)
            raise StoreError(
                f"The state directory {str(home)!r} cannot be locked: {error.strerror}; let state_dir name a directory"
                " on a disk of this machine."
            ) from error
        return Home(home, lock)
    raise AssertionError("there is always another number")


def directory_name(name: str) -> str:
    """A name as one directory's: letters, digits, '.', '_', '-' and '~' stand for themselves.

    Raises:
        ConfigurationError: it is too long.
    """
    quoted = quote(name, safe="", errors="surrogatepass")
    if not quoted.strip("."):
        quoted = quoted.replace(".", "%2E")
    if len(quoted.encode()) > _MAX_NAME_BYTES:
        raise ConfigurationError(f"{name!r} is too long to name a directory under state_dir: take a shorter name.")
    return quoted
