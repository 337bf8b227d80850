"""What a handler's hooks are given."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

from paperboy.brokers.protocol import ConsumerRecord

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V = TypeVar("V", default=Any)

    class Message(ConsumerRecord[Any, Any], Generic[V]):  # type: ignore[misc]
        """A record from Kafka, its key and value decoded as its handler says (bytes, where it says nothing).

        To type checkers it is a class of its own, which knows the type of the value, as in ``Message[Order]``; when it
        runs it is aiokafka's ``ConsumerRecord``.
        """

        topic: str
        partition: int
        offset: int
        timestamp: int
        """In milliseconds since 1970."""
        key: Any
        value: V  # pyright: ignore[reportIncompatibleVariableOverride]
        headers: Sequence[tuple[str, bytes]]
        """In order, duplicates included."""

else:
    from typing import TypeVar

    V = TypeVar("V")
    Message = ConsumerRecord[Any, V]
