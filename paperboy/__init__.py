"""paperboy: stateful stream processing for Kafka, in classes you can read."""

from importlib.metadata import PackageNotFoundError, version

from paperboy.brokers.protocol import ConsumerRecord
from paperboy.engine import Engine, Mode, Status, TaskStatus
from paperboy.engine.health import Health
from paperboy.engine.restoring import Restoring
from paperboy.engine.status import GlobalTableStatus
from paperboy.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnreachable,
    BulkError,
    CheckpointError,
    ConfigurationError,
    DeserializationError,
    HandlerTimeout,
    IncompatibleSchema,
    NotOwner,
    OffsetOutOfRange,
    PaperboyError,
    ProducerFenced,
    RecordTooLarge,
    RegistryError,
    RegistryUnreachable,
    Rejected,
    SerializationError,
    StoreError,
    TableError,
    TopicNotFound,
)
from paperboy.handlers import BulkHandler, Context, Handler
from paperboy.handlers.error_policy import CircuitBreaker, DeadLetter, Exponential, Retry
from paperboy.handlers.message import Message
from paperboy.tables import Table
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.partition import Change
from paperboy.tables.snapshot import Entry, Snapshot
from paperboy.tables.stores.options import RocksDBOptions
from paperboy.topic import Topic

__all__ = [
    "AuthenticationFailed",
    "BrokerError",
    "BrokerUnreachable",
    "BulkError",
    "BulkHandler",
    "Change",
    "CheckpointError",
    "CircuitBreaker",
    "ConfigurationError",
    "ConsumerRecord",
    "Context",
    "DeadLetter",
    "DeserializationError",
    "Engine",
    "Entry",
    "Exponential",
    "GlobalTable",
    "GlobalTableStatus",
    "Handler",
    "HandlerTimeout",
    "Health",
    "IncompatibleSchema",
    "Message",
    "Mode",
    "NotOwner",
    "OffsetOutOfRange",
    "PaperboyError",
    "ProducerFenced",
    "RecordTooLarge",
    "RegistryError",
    "RegistryUnreachable",
    "Rejected",
    "Restoring",
    "Retry",
    "RocksDBOptions",
    "SerializationError",
    "Snapshot",
    "Status",
    "StoreError",
    "Table",
    "TableError",
    "TaskStatus",
    "Topic",
    "TopicNotFound",
]

try:
    __version__ = version("paperboy-streams")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0"
