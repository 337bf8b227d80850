"""Gets the peers: each into an environment of its own under build/peers, none of them a dependency of ours."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.kafka_server.distribution import KafkaUnavailable, find_java

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = ROOT / "build" / "peers"


class PeerUnavailable(Exception):
    """A peer could not be got; the message says why, for the table."""


class Peer(Protocol):
    @property
    def name(self) -> str: ...

    def prepare(self) -> None:
        """Get it, where it is not here yet. Raises PeerUnavailable."""
        ...

    def command(self) -> list[str]:
        """What runs its job; the job's arguments follow."""
        ...

    def version(self) -> str:
        """What it is, for the results."""
        ...


@dataclass(frozen=True)
class OurPython:
    """A job that runs in our own environment: ours, and the bare client we are built on."""

    name: str
    what: str
    job: str

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        return [sys.executable, str(JOBS / self.job)]

    def version(self) -> str:
        return self.what


@dataclass(frozen=True)
class OurWheel:
    """The same, but for the modules that the wheel of a platform has compiled."""

    name: str
    what: str
    job: str

    def prepare(self) -> None:
        _run(["make", "--no-print-directory", "-C", str(ROOT), "compiled"], self.name)

    def command(self) -> list[str]:
        return ["env", f"PYTHONPATH={ROOT / 'build' / 'compiled'}", sys.executable, str(JOBS / self.job)]

    def version(self) -> str:
        return self.what


@dataclass(frozen=True)
class PythonPeer:
    """A job that runs in a venv made of ``peers/{name}.txt``."""

    name: str

    def prepare(self) -> None:
        wanted, directory = self._requirements.read_text(), ENVIRONMENTS / self.name
        made_of = directory / "made-of.txt"
        if made_of.is_file() and made_of.read_text() == wanted:
            return
        _say(f"Making an environment for {self.name}")
        shutil.rmtree(directory, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(directory)], self.name)
        install = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", str(self._requirements)]
        _run([str(self._python), *install], self.name)
        made_of.write_text(wanted)

    def command(self) -> list[str]:
        return [str(self._python), str(JOBS / f"{self.name}_job.py")]

    def version(self) -> str:
        return self._requirements.read_text().split()[0].replace("==", " ")

    @property
    def _requirements(self) -> Path:
        return JOBS / f"{self.name}.txt"

    @property
    def _python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"


@dataclass(frozen=True)
class MavenPeer:
    """Kafka Streams, and our job for it, by Maven."""

    name: str

    def prepare(self) -> None:
        made_of, wanted = self._directory / "made-of.txt", self._sources()
        if made_of.is_file() and made_of.read_text() == wanted:
            return
        maven = shutil.which("mvn")
        if maven is None:
            raise PeerUnavailable("needs Maven and a JDK, and there is no mvn in PATH")
        _say("Fetching Kafka Streams, and compiling its job")
        shutil.rmtree(self._directory, ignore_errors=True)
        goals = ["compile", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        directories = [f"-Dpeer.directory={self._directory}", f"-DoutputDirectory={self._directory / 'libs'}"]
        _run([maven, "--batch-mode", "--quiet", "-f", str(self._project / "pom.xml"), *directories, *goals], self.name)
        made_of.write_text(wanted)

    def command(self) -> list[str]:
        try:
            java = str(find_java())
        except KafkaUnavailable as error:
            raise PeerUnavailable(str(error)) from error
        path = os.pathsep.join([str(self._directory / "classes"), str(self._directory / "libs" / "*")])
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [java, "-Xmx1g", quiet, "-cp", path, "StreamsJob"]

    def version(self) -> str:
        (jar,) = (self._directory / "libs").glob("kafka-streams-*.jar")
        return jar.stem.replace("kafka-streams-", "Kafka Streams ")

    @property
    def _project(self) -> Path:
        return JOBS / "streams"

    @property
    def _directory(self) -> Path:
        return ENVIRONMENTS / self.name

    def _sources(self) -> str:
        java = self._project / "src" / "main" / "java" / "StreamsJob.java"
        return (self._project / "pom.xml").read_text() + java.read_text()


def _run(command: list[str], peer: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise PeerUnavailable(f"could not be installed: {error}") from error
    if done.returncode != 0:
        _say(done.stdout)
        last = done.stdout.strip().splitlines()[-1:] or ["no word of why"]
        raise PeerUnavailable(f"could not be installed here: {last[0][:200]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
