"""What is sent, made into bytes by the serializer that the sender gives."""

from collections.abc import Callable
from typing import Any, TypeAlias

from paperboy.errors import PaperboyError, SerializationError
from paperboy.serializers.framed import Framed
from paperboy.serializers.models import Typed
from paperboy.serializers.protocol import SchemaNotFetched, Serializer
from paperboy.serializers.schema import Part

Serialize: TypeAlias = Callable[[Any], bytes] | Serializer
"""A serializer, or only its half that writes: a callable from object to bytes."""


def to_bytes(serializer: Serialize, data: Any, *, part: Part, topic: str) -> bytes | SchemaNotFetched | None:
    """`data` through `serializer`; None (a tombstone, a missing key) stays None.

    Returns:
        The bytes; or, where a schema has to be fetched for them, what is to be awaited (its `finish`).

    Raises:
        SerializationError: the serializer failed, or made no bytes.
    """
    if data is None:
        return None
    try:
        if isinstance(serializer, Typed):
            data, serializer = serializer.to_plain(data), serializer.serializer
        if isinstance(serializer, Framed):
            encoded = serializer.for_topic(topic, part).serialize(data)
        else:
            write: Any = serializer
            encoded = getattr(write, "serialize", write)(data)
    except SchemaNotFetched as missing:
        return missing
    except Exception as error:
        said = str(error) if isinstance(error, PaperboyError) else repr(error)
        raise SerializationError(f"The {part} sent to topic {topic!r} could not be serialized: {said}") from error
    if type(encoded) is not bytes:
        raise SerializationError(
            f"The serializer of the {part} sent to topic {topic!r} made {type(encoded).__name__} of it, not bytes."
        )
    return encoded
