"""Engines whose messages fail: on a broker in memory, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from paperboy import Engine, Exponential, Handler
from paperboy.brokers.memory import MemoryCluster
from paperboy.brokers.protocol import Record, TopicPartition, TopicSpec
from paperboy.testing import EngineTest

Hook = Callable[..., Awaitable[Any]]

AT_ONCE = Exponential("1ms", factor=1, jitter=0)
EVERY_SECOND = Exponential("1s", factor=1, jitter=0)


def engine_of(*handlers: Any, **options: Any) -> Engine:
    return Engine(*handlers, **{"bootstrap_servers": "kafka.example:9092", "group_id": "g", **options})


def handler(on_message: Hook | None = None, base: type[Handler] = Handler, /, **body: Any) -> type[Handler]:
    """A handler of topic "in" with these hooks, given as plain async functions of what their names say."""
    hooks = {name: staticmethod(given) if asyncio.iscoroutinefunction(given) else given for name, given in body.items()}
    if on_message is not None:
        hooks["on_message"] = staticmethod(on_message)
    return type("Failing", (base,), {"topic": "in", **hooks})


def tried(seen: list[Any], fails: Callable[[Any], bool] = lambda msg: msg.value == b"bad") -> Hook:
    """An on_message that notes offset and attempt, and raises where it is told to."""

    async def on_message(msg: Any, ctx: Any) -> None:
        seen.append((msg.offset, ctx.attempt))
        if fails(msg):
            raise ValueError(f"offset {msg.offset}")

    return on_message


def cluster_of(t: EngineTest) -> MemoryCluster:
    cluster: MemoryCluster = t._open.backdoor._cluster  # type: ignore[attr-defined]
    return cluster


def make_anew(t: EngineTest, topic: str, partitions: int = 1, **config: str) -> None:
    cluster = cluster_of(t)
    cluster.delete_topics([topic])
    settings = {setting.replace("_", "."): value for setting, value in config.items()}
    cluster.create_topics([TopicSpec(topic, partitions, None, settings)])


def committed(t: EngineTest, topic: str = "in", partition: int = 0) -> int | None:
    where = TopicPartition(topic, partition)
    return cluster_of(t).committed("g", [where])[where]


def headers(record: Record) -> dict[str, str]:
    """Ours, without their prefix."""
    return {
        name.removeprefix("paperboy."): data.decode() for name, data in record.headers if name.startswith("paperboy.")
    }
