"""Java's own serializers beside ours: they make the vectors in tests/unit/formats/java.json, and read what we write."""

import json
import os
import struct
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from paperboy.serializers import UUID, Double, Integer, Long, Serializer, String
from tests.kafka_server.distribution import find_jars, find_java

PROGRAM = Path(__file__).parent / "JavaSerializers.java"
VECTORS = Path(__file__).parents[1] / "unit" / "formats" / "java.json"

SERIALIZERS: dict[str, Serializer] = {
    "Integer": Integer(),
    "Long": Long(),
    "Double": Double(),
    "UUID": UUID(),
    "String": String(),
}


def asked_of_java(questions: list[tuple[str, str, str]]) -> list[str]:
    """What the program says to each of these questions: "write" or "read", a serializer's name, and text or hex."""
    result = subprocess.run(
        [find_java(), "-cp", os.path.join(find_jars(), "*"), PROGRAM],
        input="".join("\t".join(question) + "\n" for question in questions),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "compiler" in result.stderr:
        pytest.fail("Java has no compiler here: install a JDK (Debian, Ubuntu: apt install openjdk-17-jdk-headless).")
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def as_text(value: Any) -> str:
    """A value as the program takes it, and says it."""
    if isinstance(value, float):
        return struct.pack(">d", value).hex().lstrip("0") or "0"
    return value.encode().hex() if isinstance(value, str) else str(value)


@pytest.fixture(scope="module")
def vectors() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(VECTORS.read_text())
    return found


def test_the_committed_vectors_are_what_java_writes(vectors: list[dict[str, str]]) -> None:
    answers = asked_of_java([("write", vector["serializer"], vector["text"]) for vector in vectors])
    assert answers == [vector["bytes"] for vector in vectors]


def test_java_reads_what_we_write() -> None:
    values: list[tuple[str, Any]] = [
        *(("Integer", number) for number in (0, 1, -1, 255, 256, 2**31 - 1, -(2**31))),
        *(("Long", number) for number in (0, 1, -1, 2**40, 2**63 - 1, -(2**63))),
        *(("Double", number) for number in (0.0, -0.0, 1.5, -1e300, 5e-324, float("inf"), float("-inf"), float("nan"))),
        *(("UUID", uuid.UUID(int=number)) for number in (0, 1, 2**127, 2**128 - 1)),
        *(("String", text) for text in ("", "anna", "Zoë", "\x00", "😀", "\uffff")),
    ]
    questions = [("read", name, SERIALIZERS[name].serialize(value).hex()) for name, value in values]
    assert asked_of_java(questions) == [as_text(value) for _, value in values]
