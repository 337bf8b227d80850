"""What type checkers know of handlers whose values have types."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

USED_RIGHT = """
from dataclasses import dataclass
from typing import Any

from paperboy import BulkHandler, ConsumerRecord, Context, Engine, Handler, Message


@dataclass
class Order:
    id: str


class Orders(Handler[Order]):
    topic = "orders"

    @classmethod
    async def on_message(cls, msg: Message[Order], ctx: Context) -> None:
        reveal_type(msg.value)
        reveal_type(msg.offset)

    @classmethod
    async def on_tombstone(cls, msg: Message[None], ctx: Context) -> None:
        print(msg.key)


class Plain(Handler):
    topic = ["plain"]

    @classmethod
    async def did_receive_message(cls, msg: ConsumerRecord[Any, Any], ctx: Context) -> ConsumerRecord[Any, Any]:
        return msg

    @classmethod
    async def on_message(cls, msg: Message, ctx: Context) -> None:
        print(msg.value["anything"])

    @classmethod
    async def on_error(cls, e: Exception, msg: ConsumerRecord[Any, Any], ctx: Context) -> Exception | None:
        return e


class Bulks(BulkHandler[Order]):
    topic = "bulks"

    @classmethod
    async def on_bulk(cls, msgs: list[Message[Order | None]], ctx: Context) -> None:
        for msg in msgs:
            if msg.value is not None:
                print(msg.value.id)


class OldBulks(BulkHandler):
    topic = "old"

    @classmethod
    async def on_bulk(cls, msgs: list[ConsumerRecord[Any, Any]], ctx: Context) -> None:
        print(len(msgs))

    @classmethod
    async def on_finished_handling(
        cls, msgs: ConsumerRecord[Any, Any] | list[ConsumerRecord[Any, Any]], ctx: Context
    ) -> None:
        print(msgs)


engine = Engine(Orders, Plain, Bulks(), OldBulks, bootstrap_servers="memory://", group_id="g")
"""

USED_WRONG = USED_RIGHT.replace("print(msg.value.id)", "print(msg.value.amount)").replace(
    "async def on_message(cls, msg: Message[Order]", "async def on_message(cls, msg: Message[int]"
)


def checked(*command: str, module: Path) -> tuple[int, str]:
    """A type checker's exit code, and what it has said."""
    result = subprocess.run(
        [sys.executable, "-m", *command, str(module)],
        capture_output=True,
        text=True,
        cwd=module.parent,
        timeout=300,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(params=["mypy", "basedpyright"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    if request.param == "mypy":
        (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = True\ncache_dir = {ROOT / '.mypy_cache' / 'snippets'}\n")
        return ["mypy", "--config-file", str(tmp_path / "mypy.ini")]
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard", "reportMissingTypeStubs": false}')
    return ["basedpyright", "--level", "error", "--pythonpath", sys.executable]


def test_type_checkers_know_the_type_of_a_value_and_plain_handlers_go_on_working(
    command: list[str], tmp_path: Path
) -> None:
    module = tmp_path / "right.py"
    module.write_text(USED_RIGHT)
    code, said = checked(*command, module=module)
    assert code == 0, said
    if command[0] == "mypy":
        assert 'Revealed type is "right.Order"' in said
        assert re.search(r'Revealed type is "(builtins\.)?int"', said)


def test_type_checkers_see_what_is_wrong(command: list[str], tmp_path: Path) -> None:
    module = tmp_path / "wrong.py"
    module.write_text(USED_WRONG)
    code, said = checked(*command, module=module)
    assert code == 1, said
    assert "amount" in said
    # To mypy, which finds no types in aiokafka, a Message may be one of anything.
    assert "on_message" in said or command[0] == "mypy"
