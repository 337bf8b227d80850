"""Records of random bytes through each serializer: each is handled or put with the dead letters, and once.

PAPERBOY_FUZZ_RECORDS=50000 sends as many through each; PAPERBOY_FUZZ_SEED repeats the run that printed it.
"""

import logging
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from paperboy import DeadLetter, Handler
from paperboy.serializers import (
    UUID,
    Avro,
    Bytes,
    Double,
    Integer,
    Json,
    JsonSchema,
    Long,
    MessagePack,
    Protobuf,
    SchemaRegistry,
    String,
)
from paperboy.testing import EngineTest
from tests.unit.failing_kit import cluster_of, committed, engine_of

RECORDS = int(os.environ.get("PAPERBOY_FUZZ_RECORDS", "5000"))
SEED = int(os.environ.get("PAPERBOY_FUZZ_SEED", "0")) or random.randrange(1, 1 << 32)
CHUNK = 1_000

ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "to", "type": "string"}],
}
SHAPE = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}

Made = tuple[Any, list[bytes]]
"""A serializer, and bytes that it reads, of which half of the records are made by changing a byte."""


def avro(registry: str | None) -> Made:
    serializer = Avro(registry, ORDER)
    return serializer, [b"\x0e\x08anna", b"\x00\x00\x00\x00\x01\x0e\x08anna"]


def json_schema(registry: str | None) -> Made:
    return JsonSchema(registry, SHAPE), [b'{"id":7}', b'\x00\x00\x00\x00\x01{"id":7}']


def protobuf(registry: str | None) -> Made:
    plain = Duration(seconds=7, nanos=5).SerializeToString()
    return Protobuf(Duration, registry), [plain, b"\x00\x00\x00\x00\x01\x00" + plain]


SERIALIZERS: dict[str, Callable[[], Made]] = {
    "none": lambda: (None, [b"v"]),
    "Bytes": lambda: (Bytes(), [b"v"]),
    "String": lambda: (String(), ["é".encode(), b"anna"]),
    "Json": lambda: (Json(), [b'{"id": [1, null, "x"]}', b"7", b'"\xc3\xa9"']),
    "Avro": lambda: avro(None),
    "Avro, framed": lambda: avro("memory://fuzz-avro"),
    "JsonSchema": lambda: json_schema(None),
    "JsonSchema, framed": lambda: json_schema("memory://fuzz-json-schema"),
    "Protobuf": lambda: protobuf(None),
    "Protobuf, framed": lambda: protobuf("memory://fuzz-protobuf"),
    "MessagePack": lambda: (MessagePack(), [b"\x81\xa2id\x93\x01\xc0\xa1x", b"\x07"]),
    "Json of a type": lambda: (Json(dict[str, int]), [b'{"id":7}']),
    "Long": lambda: (Long(), [b"\x00\x00\x00\x00\x00\x00\x00\x07"]),
    "Integer": lambda: (Integer(), [b"\x00\x00\x00\x07"]),
    "Double": lambda: (Double(), [b"@\x1e\x00\x00\x00\x00\x00\x00"]),
    "UUID": lambda: (UUID(), [b"5b4fdc89-c1f3-47fc-9175-6bf84e062334"]),
    "a function": lambda: (int, [b"7", b" 12 ", b"-3"]),
}


def records(chance: random.Random, good: list[bytes]) -> list[bytes]:
    made = []
    for number in range(RECORDS):
        if number % 2:
            made.append(chance.randbytes(chance.randrange(24)))
        else:
            data = bytearray(chance.choice(good))
            for _ in range(chance.randrange(3)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            made.append(bytes(data))
    return made


@pytest.mark.parametrize("name", SERIALIZERS)
@pytest.mark.time_limit(120)
async def test_each_record_is_handled_or_a_dead_letter_and_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    serializer, good = SERIALIZERS[name]()
    chance = random.Random(f"{SEED} {name}")
    print(f"PAPERBOY_FUZZ_SEED={SEED}")
    if name.endswith("framed"):
        assert await SchemaRegistry(serializer.registry.name).register("in-value", serializer.schema) == 1
    handled: list[int] = []

    async def on_any(msg: Any, ctx: Any) -> None:
        handled.append(msg.offset)

    class Fuzzed(Handler):
        topic = "in"
        value_serializer = serializer
        dead_letter = DeadLetter()
        on_message = on_tombstone = staticmethod(on_any)

    caplog.set_level(logging.CRITICAL + 1, logger="paperboy")
    values = records(chance, good)
    engine = engine_of(Fuzzed, bulk_mode_threshold=10**9)
    async with EngineTest(engine) as t:
        await t.stop()
        log = cluster_of(t).topic("in")
        for start in range(0, RECORDS, CHUNK):
            batch: Any = [(None, value, (), t.time_ms()) for value in values[start : start + CHUNK]]
            log.append(0, (batch, [100] * len(batch)), t.time_ms())
        await t.restart()
        await t.settle()
        dead = t.dead_letters("in")
        offsets = [int(dict(record.headers)["paperboy.offset"]) for record in dead]
        assert sorted([*handled, *offsets]) == list(range(RECORDS)), "all, and each once"
        assert [record.value for record in dead] == [values[offset] for offset in offsets]
        assert committed(t) == RECORDS
        assert engine.status().dead_lettered == len(dead)
        if name not in ("none", "Bytes"):
            assert RECORDS // 5 < len(dead) < RECORDS - RECORDS // 50
        await t.send("in", good[0])
        await t.settle()
        assert engine.status().handled == RECORDS + 1
