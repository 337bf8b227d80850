"""Where the real schema registry comes from: Maven fetches it into the same cache as Kafka."""

import tarfile
import tempfile
from pathlib import Path

from tests.kafka_server.distribution import cache_directory, locked, prepare_java, run_maven, say

APICURIO_VERSION = "2.6.13.Final"
"""The last one that runs on Java 17."""

_ARTIFACT = f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"


def prepare() -> None:
    """Get whatever a registry needs that is not here yet."""
    prepare_java()
    find_jar()


def find_jar() -> Path:
    """The jar to run. Downloaded once for each user; several processes may ask at the same time."""
    home = cache_directory() / f"apicurio-{APICURIO_VERSION}"
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with locked(home.parent / "download.lock"):
            if not home.is_dir():
                _download(home)
    (jar,) = home.glob("*-runner.jar")
    return jar


def _download(home: Path) -> None:
    say(f"Fetching Apicurio Registry {APICURIO_VERSION} into {home}")
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        run_maven(
            f"Apicurio Registry {APICURIO_VERSION}",
            ["dependency:copy", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={scratch}"],
        )
        (archive,) = Path(scratch).glob("*.tar.gz")
        target = Path(scratch) / "unpacked"
        with tarfile.open(archive) as packed:
            packed.extractall(target, filter="data")
        target.rename(home)
