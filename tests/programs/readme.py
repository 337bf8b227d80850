"""Fenced blocks of README.md, and programs made of them.

Each ```` ```python ```` block is a program of its own. It has to end by itself with exit code 0; one that calls
``engine.start()`` may instead run on until it has done what is expected of it, is then sent SIGTERM, and has to exit 0.
Comments of their own, in the lines before a block, say what it needs and what it has to do::

    <!-- topics: page-views users:4 -->     create these first, with as many partitions (1 where not said)
    <!-- send: page-views home hello -->    and send a record: topic, key, value (no value: a tombstone)
    <!-- prints: home 1 -->                 standard output has to show this (a block may have several)
    <!-- after: previous -->                run the block before this one first, as one program with it
    <!-- not run: why -->                   compiled only

A block that names ``localhost:9092`` runs against the real Kafka, whose address takes that one's place.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PRINTED_ADDRESS = "localhost:9092"
BLOCK_TIMEOUT_SEC = 40.0

# A program that logs as an application would, so that its start can be seen.
RUNNER = """\
import logging, runpy, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
runpy.run_path(sys.argv[1], run_name="__main__")
"""
STARTED = re.compile(rb"^paperboy[\w.]*: ", re.MULTILINE)

FENCE = re.compile(
    r"(?P<notes>(?:^<!--[^\n]*-->[ \t]*\n\s*)*)^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```[ \t]*$", re.M | re.S
)
NOTE = re.compile(r"<!-- (?P<name>topics|send|prints|after|not run): ?(?P<text>.*?) ?-->")


@dataclass(frozen=True)
class Block:
    """A fenced block of the README, and what the comments before it say."""

    line: int
    language: str
    code: str
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"line {self.line}"

    def said(self, name: str) -> list[str]:
        return [text for note, text in self.notes if note == name]

    @property
    def runs(self) -> bool:
        return not self.said("not run")

    @property
    def needs_kafka(self) -> bool:
        return PRINTED_ADDRESS in self.code

    @property
    def runs_on(self) -> bool:
        """Whether it goes on until it is told to stop."""
        return ".start())" in self.code and "stop_at_end=True" not in self.code


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a text, in order."""
    before = ""
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        notes = [(note["name"], note["text"]) for note in NOTE.finditer(found["notes"])]
        code = found["code"]
        if found["language"] == "python":
            if ("after", "previous") in notes:
                code = before + code
            before = code
        yield Block(line, found["language"], code, notes)


README_BLOCKS = list(blocks(README.read_text())) if README.exists() else []
PYTHON_BLOCKS = [block for block in README_BLOCKS if block.language == "python" and block.runs]
SHELL_BLOCKS = [block for block in README_BLOCKS if block.language in {"bash", "console", "sh", "shell"}]


def run(block: Block, code: str, directory: Path) -> None:
    """Run a block as a program in a directory of its own, until it has ended or done what is expected of it.

    Raises:
        AssertionError: it failed, took too long, or did not print what it should; with what it said.
    """
    (directory / "block.py").write_text(code)
    out, err = directory / "stdout", directory / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, "block.py"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        ended = _wait(process, block, out, err)
    finally:
        process.kill()
        process.wait()
    told = f"README.md, line {block.line}:\n{out.read_text()}\n{err.read_text()}"
    assert ended, f"not done after {BLOCK_TIMEOUT_SEC:g} s, {told}"
    assert process.returncode == 0, f"exit code {process.returncode}, {told}"
    for text in block.said("prints"):
        assert text in out.read_text(), f"does not print {text!r}, {told}"


def _wait(process: subprocess.Popen[bytes], block: Block, out: Path, err: Path) -> bool:
    """Whether the program ended in time, by itself or by the SIGTERM that it gets when its work is done."""
    deadline = time.monotonic() + BLOCK_TIMEOUT_SEC
    told_to_stop = False
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        if block.runs_on and not told_to_stop and _has_done_its_work(block, out, err):
            time.sleep(0.5)  # what the start logs may come just before it takes over the signals
            process.send_signal(signal.SIGTERM)
            told_to_stop = True
        time.sleep(0.05)
    return True


def _has_done_its_work(block: Block, out: Path, err: Path) -> bool:
    expected = block.said("prints")
    if expected:
        return all(text.encode() in out.read_bytes() for text in expected)
    return STARTED.search(err.read_bytes()) is not None


def with_own_names(block: Block, own: str) -> str:
    """The block's code with topics and groups that no other run on the same Kafka uses."""
    code = block.code
    for topic, _ in topics(block):
        code = re.sub(rf"([\"']){re.escape(topic)}\1", rf"\g<1>{topic}-{own}\g<1>", code)
    return re.sub(r"(group_id=[\"'])([^\"']+)", rf"\g<1>\g<2>-{own}", code)


def topics(block: Block) -> list[tuple[str, int]]:
    """The topics that have to be there: name and partition count."""
    words = " ".join(block.said("topics")).split()
    return [(name, int(count or 1)) for name, _, count in (word.partition(":") for word in words)]


async def provide(block: Block, bootstrap: str, own: str) -> None:
    """Create the topics a block needs, and send the records it is to find there."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    try:
        await admin.start()
        new = [NewTopic(f"{name}-{own}", num_partitions=count, replication_factor=1) for name, count in topics(block)]
        if new:
            await admin.create_topics(new)
        await producer.start()
        for record in block.said("send"):
            topic, key, *value = record.split(" ", 2)
            content = value[0].encode() if value else None
            await producer.send_and_wait(f"{topic}-{own}", content, key=key.encode())
    finally:
        await producer.stop()
        await admin.close()
