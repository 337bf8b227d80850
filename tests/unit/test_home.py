"""The directory that one worker alone keeps its stores in: held until it is released, or its process ends."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.engine.home import Home, directory_name, take_home
from paperboy.errors import ConfigurationError, StoreError

ROOT = Path(__file__).parents[2]
TAKE_AND_STAY = """
import sys
from pathlib import Path
from paperboy.engine.home import take_home
home = take_home(Path(sys.argv[1]), sys.argv[2])
print(home.path.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def homes(state_dir: Path, group_id: str, count: int) -> Iterator[list[Home]]:
    """So many workers' homes at once."""
    held: list[Home] = []
    try:
        held.extend(take_home(state_dir, group_id) for _ in range(count))
        yield held
    finally:
        for home in held:
            home.release()


class OtherProcess:
    """A worker in a process of its own."""

    def __init__(self, state_dir: Path, group_id: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TAKE_AND_STAY, str(state_dir), group_id],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def number(self) -> str:
        """The number of its home, once it has it."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """Let it be gone, without a last word."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def other_processes(state_dir: Path, group_id: str, count: int) -> Iterator[list[OtherProcess]]:
    others = [OtherProcess(state_dir, group_id) for _ in range(count)]
    try:
        yield others
    finally:
        for other in others:
            other.kill()


# Nobody shares.


def test_workers_of_one_process_have_homes_of_their_own(tmp_path: Path) -> None:
    with homes(tmp_path, "group", 3) as held:
        assert [home.path for home in held] == [tmp_path / "group" / number for number in "123"]


def test_workers_that_come_at_the_same_moment_have_homes_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        held = [taking.result() for taking in [threads.submit(take_home, tmp_path, "group") for _ in range(16)]]
    assert sorted(int(home.path.name) for home in held) == list(range(1, 17))
    for home in held:
        home.release()


def test_workers_of_several_processes_have_homes_of_their_own(tmp_path: Path) -> None:
    with homes(tmp_path, "group", 1), other_processes(tmp_path, "group", 3) as others:
        assert sorted(other.number() for other in others) == ["2", "3", "4"]


def test_groups_have_homes_of_their_own(tmp_path: Path) -> None:
    with homes(tmp_path, "one", 1) as [one], homes(tmp_path, "two", 1) as [two]:
        assert (one.path, two.path) == (tmp_path / "one" / "1", tmp_path / "two" / "1")


# What one has left, the next one finds.


def test_a_home_that_was_released_is_the_next_workers(tmp_path: Path) -> None:
    with homes(tmp_path, "group", 3) as held:
        left = held.pop(1)
        left.release()
        found = take_home(tmp_path, "group")
        held.append(found)
        assert found.path == left.path == tmp_path / "group" / "2"


def test_what_was_kept_in_a_home_is_found_again(tmp_path: Path) -> None:
    with homes(tmp_path, "group", 1) as [home]:
        store = home.store_path("clicks", 3)
        store.mkdir(parents=True)
        (store / "data").write_text("kept")
    with homes(tmp_path, "group", 1) as [home]:
        assert (home.store_path("clicks", 3) / "data").read_text() == "kept"


def test_a_worker_that_is_killed_leaves_its_home_to_the_next(tmp_path: Path) -> None:
    with other_processes(tmp_path, "group", 1) as [other]:
        assert other.number() == "1"
        with homes(tmp_path, "group", 1) as [home]:
            assert home.path.name == "2", "it lives"
        other.kill()
        with homes(tmp_path, "group", 1) as [home]:
            assert home.path.name == "1"


def test_a_process_that_a_worker_has_started_does_not_keep_its_home(tmp_path: Path) -> None:
    home = take_home(tmp_path, "group")
    stay = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"]
    with subprocess.Popen(stay, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        home.release()
        with homes(tmp_path, "group", 1) as [again]:
            assert again.path == home.path
        child.communicate()


# Names.


def test_a_store_is_where_its_table_and_partition_say(tmp_path: Path) -> None:
    with homes(tmp_path, "group", 1) as [home]:
        assert home.store_path("clicks", 3) == tmp_path / "group" / "1" / "clicks" / "3"


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("page-views_2.x~", "page-views_2.x~"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "%2E%2E%2E"),
        (".hidden", ".hidden"),
        ("a/b", "a%2Fb"),
        ("../a", "..%2Fa"),
        ("/", "%2F"),
        ("a b", "a%20b"),
        ("100%", "100%25"),
        ("%2E", "%252E"),
        ("a\0b", "a%00b"),
        ("café", "caf%C3%A9"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_a_name_becomes_one_directory_whatever_is_in_it(name: str, directory: str) -> None:
    assert directory_name(name) == directory


@given(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=2, unique=True))
def test_no_two_names_become_one_directory_and_none_leads_elsewhere(names: list[str]) -> None:
    first, second = map(directory_name, names)
    assert first != second
    base = Path("state")
    assert (base / first).parent == base
    assert os.path.normpath(base / first) == str(base / first)


@pytest.mark.parametrize("name", ["..", "a/b", ".", "lock", "1", "café", "日本", "x" * 255, "\N{PILE OF POO}" * 21])
def test_groups_and_tables_of_awkward_names_have_homes_and_stores(tmp_path: Path, name: str) -> None:
    state_dir = tmp_path / "state"
    with homes(state_dir, name, 2) as held:
        assert [home.path.name for home in held] == ["1", "2"]
        for home in held:
            home.store_path(name, 0).mkdir(parents=True)
            assert home.store_path(name, 0).resolve().is_relative_to(home.path.resolve())
        assert held[0].path.parent.parent == state_dir
    assert list(tmp_path.iterdir()) == [state_dir]


@pytest.mark.parametrize("name", ["x" * 256, "日" * 29])
def test_a_name_that_is_too_long_for_a_directory_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        take_home(tmp_path, name)
    assert str(caught.value) == f"{name!r} is too long to name a directory under state_dir: take a shorter name."


# Directories that are of no use.


def test_a_state_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError) as caught:
        take_home(tmp_path / "state", "group")
    assert str(caught.value) == (
        f"The state directory {str(tmp_path / 'state' / 'group' / '1')!r} cannot be used: Not a directory;"
        " let state_dir name a directory that this worker may write to."
    )
    assert isinstance(caught.value.__cause__, NotADirectoryError)


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_state_directory_that_may_not_be_written_to_is_said(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(
        StoreError, match=r"^The state directory '.*1' cannot be used: Permission denied; let state_dir"
    ):
        take_home(tmp_path, "group")


def test_a_disk_without_locks_is_said_and_not_taken_for_one_that_others_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StoreError, match=r"cannot be locked: No locks available; let state_dir .* on a disk of this"):
        take_home(tmp_path, "group")
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before, "no file is left open"
