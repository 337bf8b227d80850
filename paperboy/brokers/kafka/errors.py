"""aiokafka's errors in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors as kafka_errors

from paperboy.errors import (
    AuthenticationFailed,
    BrokerError,
    NotOwner,
    ProducerFenced,
    RecordTooLarge,
    TopicNotFound,
)

_REFUSED = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.AuthenticationMethodNotSupported,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
)

_MOVED_ON = (
    kafka_errors.CommitFailedError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.IllegalStateError,
)

_FENCED = (
    kafka_errors.ProducerFenced,
    kafka_errors.InvalidProducerEpoch,
    kafka_errors.InvalidProducerIdMapping,
    kafka_errors.InvalidTxnState,
)


def translated(error: BaseException, doing: str) -> BrokerError:
    """Our error for one of aiokafka's; `doing` completes "… failed", as in ``"Commit of group 'g'"``."""
    reason = str(error) or type(error).__name__
    if isinstance(error, _REFUSED):
        return AuthenticationFailed(f"{doing} was refused by the broker: {reason}; check the credentials and ACLs.")
    if isinstance(error, kafka_errors.TransactionalIdAuthorizationFailed):
        return AuthenticationFailed(
            f"{doing} was refused by the broker: allow Write and Describe on transactional ids that begin with the"
            " group's name, and a colon."
        )
    if isinstance(error, _MOVED_ON):
        return NotOwner(f"{doing} was refused because the group has moved on: {reason}")
    if isinstance(error, _FENCED):
        return ProducerFenced(
            f"{doing} failed: another producer has begun under this id, or the transaction was open for longer than"
            f" transaction_timeout_sec: raise that where messages take as long ({reason})."
        )
    if isinstance(error, kafka_errors.InvalidTransactionTimeout):
        return BrokerError(
            f"{doing} failed: the broker allows no transaction_timeout_sec as long as that; lower it, or raise the"
            " broker's transaction.max.timeout.ms."
        )
    if isinstance(error, kafka_errors.MessageSizeTooLargeError | kafka_errors.RecordListTooLargeError):
        return RecordTooLarge(f"{doing} failed: {reason}; raise the topic's max.message.bytes or send less.")
    if isinstance(error, kafka_errors.InconsistentGroupProtocolError):
        return BrokerError(
            f"{doing} failed: the group has members of another kind; give this engine a group_id of its own."
        )
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return TopicNotFound(f"{doing} failed: the topic or partition does not exist ({reason}).")
    return BrokerError(f"{doing} failed: {reason}")


@contextmanager
def translating(doing: str) -> Iterator[None]:
    """Raise what aiokafka raises inside as our own error, chained."""
    try:
        yield
    except (kafka_errors.KafkaError, kafka_errors.ConsumerStoppedError, OSError, TimeoutError) as error:
        raise translated(error, doing) from error
