"""Which serializer objects of a type have."""

from typing import Any

from paperboy.serializers.builtins import Bytes, Json, String
from paperboy.serializers.models import Typed
from paperboy.serializers.protocol import Serializer


def serializer_of(kind: Any, serializer: Serializer | None = None) -> Serializer:
    """The serializer of objects of `kind`: JSON (str and bytes as they are), or `serializer`, made to give that type.

    One that knows types itself has a method ``typed(kind)``, which returns the serializer to use; of any other the
    plain objects are converted.

    Raises:
        ConfigurationError: `kind` is no type that messages can have.

    Example:
        >>> serializer_of(Order).serialize(Order("o-1", 3))
        b'{"id":"o-1","amount":3}'
    """
    if serializer is None:
        if kind is str or kind is bytes:
            return String() if kind is str else Bytes()
        return Json(kind)
    typed: Any = getattr(serializer, "typed", None)
    if typed is None:
        return Typed(serializer, kind)
    found: Serializer = typed(kind)
    return found
