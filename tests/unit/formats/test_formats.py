"""Keys and values are written in the bytes that are on people's disks, and those of every older version are read.

``v1.json`` holds objects, each as a Python expression, with the bytes that format 1 makes of them. What stands there
stays: a new format gets a file of its own, and only the newest is also written.
"""

import json
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from struct import unpack
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from paperboy.serializers.values import decode_value, encode_value
from paperboy.tables.keys import decode_key, encode_key
from tests.unit.formats.anatomy import anatomy


def double(bits: int) -> float:
    return float(unpack(">d", bits.to_bytes(8, "big"))[0])


TYPES = (date, datetime, time, timedelta, timezone, Decimal, UUID, ZoneInfo)
NAMES = {"UTC": UTC, "double": double, **{kind.__name__: kind for kind in TYPES}}

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"

VECTORS: dict[str, list[dict[str, str]]] = json.loads(Path(__file__).with_name("v1.json").read_text("utf-8"))


def vectors(kind: str) -> list[Any]:
    return [pytest.param(vector["object"], vector["hex"], id=vector["object"]) for vector in VECTORS[kind]]


def built(expression: str) -> Any:
    return eval(expression, dict(NAMES))


@pytest.mark.parametrize(("expression", "written"), vectors("keys"))
def test_keys_of_format_1(expression: str, written: str) -> None:
    key = built(expression)
    assert anatomy(decode_key(bytes.fromhex(written))) == anatomy(key)
    assert encode_key(key).hex() == written


@pytest.mark.parametrize(("expression", "written"), vectors("values"))
def test_values_of_format_1(expression: str, written: str) -> None:
    value = built(expression)
    assert anatomy(decode_value(bytes.fromhex(written))) == anatomy(value)
    assert encode_value(value).hex() == written


def test_the_vectors_hold_every_type_and_none_twice() -> None:
    for kind, types in (("keys", 10), ("values", 17)):
        expressions = [vector["object"] for vector in VECTORS[kind]]
        assert len(set(expressions)) == len(expressions)
        assert len({type(built(expression)) for expression in expressions}) == types


def test_the_examples_on_the_page_are_true() -> None:
    keys, values = PAGE.read_text("utf-8").split("## Values, format 1")
    for section, encode in ((keys, encode_key), (values, encode_value)):
        examples = re.findall(r"^\| `(.+?)` \| `(01 [0-9a-f ]+)` \|$", section, re.MULTILINE)
        assert len(examples) == 13
        for expression, written in examples:
            assert encode(built(expression)).hex(" ") == written
