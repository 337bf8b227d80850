"""What is sent, made into bytes by the callable that the sender gives."""

from collections.abc import Callable
from typing import Any

from paperboy.errors import SerializationError

Serialize = Callable[[Any], bytes]


def to_bytes(serializer: Serialize, data: Any, *, part: str, topic: str) -> bytes | None:
    """`data` through `serializer`; None (a tombstone, a missing key) stays None.

    Args:
        part: ``"key"`` or ``"value"``, for messages.

    Raises:
        SerializationError: the serializer failed, or made no bytes.
    """
    if data is None:
        return None
    try:
        encoded = serializer(data)
    except Exception as error:
        raise SerializationError(f"The {part} sent to topic {topic!r} could not be serialized: {error!r}") from error
    if type(encoded) is not bytes:
        raise SerializationError(
            f"The serializer of the {part} sent to topic {topic!r} made {type(encoded).__name__} of it, not bytes."
        )
    return encoded
