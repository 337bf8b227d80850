"""Every error that paperboy itself raises.

An error's message is one sentence that a person can act on: it names the topic, partition, offset
or setting it is about, and the remedy. The cause, where there is one, is chained.
"""

from typing import TypeVar

_Chained = TypeVar("_Chained", bound="PaperboyError")


def chained(error: _Chained, cause: BaseException | None) -> _Chained:
    """``raise error from cause``, for modules that are compiled: mypyc forgets the cause."""
    error.__cause__ = cause
    return error


class PaperboyError(Exception):
    """The root of every error that is ours. What a handler raises leaves the engine as it is."""


class ConfigurationError(PaperboyError):
    """Something was set up wrongly, found before or at the start: nothing was consumed."""


class BrokerError(PaperboyError):
    """The broker refused or failed an operation."""


class BrokerUnreachable(BrokerError):
    """No broker answered within the stated time."""


class AuthenticationFailed(BrokerError):
    """The broker answered, and refused who we say we are or what we may do."""


class NotOwner(BrokerError):
    """The group has moved on: these partitions may belong to another worker by now."""


class ProducerFenced(BrokerError):
    """A transaction is over: another worker has taken the task over, or it was open for longer than
    ``transaction_timeout_sec``. Nothing of it was committed."""


class OffsetOutOfRange(BrokerError):
    """A position lies outside what the log still holds, or does not hold yet."""

    def __init__(self, message: str, topic: str, partition: int, offset: int) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset


class RecordTooLarge(BrokerError):
    """A record is larger than its topic takes."""


class TopicNotFound(BrokerError):
    """A topic that was named does not exist."""


class SerializationError(PaperboyError):
    """An object could not become bytes, or would not come back equal."""


class DeserializationError(PaperboyError):
    """Bytes could not become an object."""


class RegistryError(PaperboyError):
    """The schema registry refused or failed an operation."""


class RegistryUnreachable(RegistryError):
    """No schema registry answered within the stated time. It is not the message's fault: the engine stops."""


class IncompatibleSchema(RegistryError):
    """The registry, or a table's own history, does not allow this schema beside the earlier ones."""


class HandlerTimeout(PaperboyError):
    """A message (or bulk) was longer in its hooks than ``handler_timeout_sec``, and was cancelled."""

    def __init__(self, message: str, topic: str, partition: int, offset: int) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset


class BulkError(PaperboyError):
    """For ``on_bulk`` to raise: which message of the list it was that cannot be handled.

        raise BulkError(index, error) from error

    Args:
        index: of the culprit, in the list that the hook was given.
        cause: why it cannot be handled.
    """

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(f"Message {index} of a bulk failed: {cause!r}")
        self.index = index
        self.cause = cause


class Rejected(PaperboyError):
    """What a handler said of its message with ``ctx.skip``, ``ctx.dead_letter`` or ``ctx.retry_later``."""


class TableError(PaperboyError):
    """A table was used where or how it cannot be."""


class StoreError(PaperboyError):
    """A store's disk or database did not do as it was told."""


class CheckpointError(PaperboyError):
    """Finished work could not be made durable, and trying again did not help."""
