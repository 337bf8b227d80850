"""paperboy: stateful stream processing for Kafka, in classes you can read."""

from importlib.metadata import PackageNotFoundError, version

from paperboy.brokers.protocol import ConsumerRecord
from paperboy.engine import Engine, Mode, Status, TaskStatus
from paperboy.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnreachable,
    CheckpointError,
    ConfigurationError,
    DeserializationError,
    NotOwner,
    OffsetOutOfRange,
    PaperboyError,
    RecordTooLarge,
    SerializationError,
    TableError,
    TopicNotFound,
)
from paperboy.handlers import BulkHandler, Context, Handler
from paperboy.tables import Table

__all__ = [
    "AuthenticationFailed",
    "BrokerError",
    "BrokerUnreachable",
    "BulkHandler",
    "CheckpointError",
    "ConfigurationError",
    "ConsumerRecord",
    "Context",
    "DeserializationError",
    "Engine",
    "Handler",
    "Mode",
    "NotOwner",
    "OffsetOutOfRange",
    "PaperboyError",
    "RecordTooLarge",
    "SerializationError",
    "Status",
    "Table",
    "TableError",
    "TaskStatus",
    "TopicNotFound",
]

try:
    __version__ = version("paperboy-streams")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0"
