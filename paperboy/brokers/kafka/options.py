"""Which of the user's client options go to which of aiokafka's clients."""

import inspect
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from paperboy.errors import ConfigurationError

OURS = {
    "bootstrap_servers": "it is the engine's own option",
    "group_id": "it is the engine's own option",
    "group_instance_id": "it is the engine's own option",
    "auto_offset_reset": "it is the engine's own option",
    "enable_auto_commit": "offsets are committed by checkpoints",
    "auto_commit_interval_ms": "offsets are committed by checkpoints",
    "isolation_level": "records are always read committed",
    "acks": "it is always 'all'",
    "enable_idempotence": "it is always on",
    "transactional_id": "transactions are the engine's own",
    "key_serializer": "handlers and tables have their own",
    "value_serializer": "handlers and tables have their own",
    "key_deserializer": "handlers and tables have their own",
    "value_deserializer": "handlers and tables have their own",
    "partition_assignment_strategy": "a table needs the engine's own assignor",
    "max_poll_interval_ms": "the engine judges progress itself",
    "session_timeout_ms": "it is the engine's own option session_timeout_sec",
    "heartbeat_interval_ms": "it is the engine's own option heartbeat_interval_sec",
    "rebalance_timeout_ms": "it follows from the engine's option drain_timeout_sec",
    "max_poll_records": "chunks are sized by bytes",
    "loop": "clients run in the engine's own loop",
}
"""Client options that are not the user's to set, and why."""


class ClientOptions:
    """The user's ``client_options``, split among the kinds of client that know them.

    Raises:
        ConfigurationError: an option is the engine's own, or no client of aiokafka knows it.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        kinds = {kind: _accepted(kind) for kind in (AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient)}
        for name in options:
            if name in OURS:
                raise ConfigurationError(f"client_options cannot set {name!r}: {OURS[name]}.")
            if not any(name in accepted for accepted in kinds.values()):
                raise ConfigurationError(f"client_options has {name!r}, which no client of aiokafka knows.")
        self.consumer = {name: value for name, value in options.items() if name in kinds[AIOKafkaConsumer]}
        self.producer = {name: value for name, value in options.items() if name in kinds[AIOKafkaProducer]}
        self.admin = {name: value for name, value in options.items() if name in kinds[AIOKafkaAdminClient]}

    @property
    def request_timeout_sec(self) -> float:
        """How long the clients wait for the answer to a request, before they give up its connection."""
        default = inspect.signature(AIOKafkaAdminClient.__init__).parameters["request_timeout_ms"].default
        timeout_ms: Any = self.admin.get("request_timeout_ms", default)
        return float(timeout_ms) / 1000


def _accepted(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.__init__).parameters) - {"self", "loop", "topics"}  # type: ignore[misc]
