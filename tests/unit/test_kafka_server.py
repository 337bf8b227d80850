"""The server of the tests, without starting one: what it would run, and what it says where it can't."""

import socket
from pathlib import Path

import pytest

from tests.kafka_server import KafkaServer, KafkaUnavailable, distribution
from tests.server_process import HOST, ServerError, free_port


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_392"', 8),
        ("command not found", None),
    ],
)
def test_a_java_tells_its_version(text: str, version: int | None) -> None:
    assert distribution.parse_java_version(text) == version


def test_a_java_that_cannot_run_has_no_version(tmp_path: Path) -> None:
    assert distribution.java_version(tmp_path / "java") is None


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Java, no Maven, no cached jars."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(distribution, "_java_from_wheel", lambda: None)
    return tmp_path


@pytest.mark.usefixtures("nothing_installed")
def test_without_java_one_line_says_what_to_install() -> None:
    with pytest.raises(KafkaUnavailable) as caught:
        distribution.find_java()
    assert "install Java 17 or newer" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("nothing_installed")
def test_without_maven_one_line_says_what_to_install() -> None:
    with pytest.raises(KafkaUnavailable) as caught:
        distribution.find_jars()
    assert "apt install maven" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_old_java_in_path_is_no_java(nothing_installed: Path) -> None:
    _fake(nothing_installed / "java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(KafkaUnavailable):
        distribution.find_java()
    _fake(nothing_installed / "java", "echo 'openjdk version \"21.0.2\"' >&2")
    assert distribution.find_java() == nothing_installed / "java"


def test_a_download_that_breaks_off_leaves_no_half_of_it(nothing_installed: Path) -> None:
    _fake(nothing_installed / "java", "echo 'openjdk version \"21.0.2\"' >&2")
    _fake(nothing_installed / "mvn", "echo no network; exit 1")
    with pytest.raises(KafkaUnavailable, match="could not fetch"):
        distribution.find_jars()
    cache = distribution.cache_directory()
    assert [path.name for path in cache.iterdir()] == ["download.lock"]


def test_jars_are_fetched_once(nothing_installed: Path) -> None:
    calls = nothing_installed / "calls"
    copy = 'for a in "$@"; do case "$a" in -DoutputDirectory=*) /bin/mkdir -p "${a#*=}";; esac; done'
    _fake(nothing_installed / "java", "echo 'openjdk version \"21.0.2\"' >&2")
    _fake(nothing_installed / "mvn", f"echo called >> {calls}; {copy}")
    first, second = distribution.find_jars(), distribution.find_jars()
    assert first == second == distribution.cache_directory() / f"kafka-{distribution.KAFKA_VERSION}"
    assert calls.read_text() == "called\n"


def test_the_pom_names_the_version_that_the_cache_is_named_after() -> None:
    pom = (Path(distribution.__file__).parent / "pom.xml").read_text()
    assert f"<version>{distribution.KAFKA_VERSION}</version>" in pom


def test_a_free_port_is_not_one_that_somebody_listens_on() -> None:
    port = free_port(set())
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        somebody.bind((HOST, port))
        somebody.listen()
        assert free_port(set()) != port


def test_a_server_that_was_not_started_says_so() -> None:
    server = KafkaServer()
    with pytest.raises(ServerError, match="not started"):
        _ = server.log_path
    with pytest.raises(ServerError, match="not running"):
        server.pause()
    server.close()


def _fake(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
