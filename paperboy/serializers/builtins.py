"""Serializers for what other programs read and write as well."""

import json
from typing import Any

from paperboy.errors import DeserializationError, SerializationError
from paperboy.serializers.equality import same
from paperboy.serializers.excerpt import excerpt


class Bytes:
    """Bytes as they are.

    Example:
        >>> Bytes().serialize(b"anna")
        b'anna'
    """

    lossless = True

    def serialize(self, value: bytes, /) -> bytes:
        """Raises SerializationError for anything but bytes."""
        if type(value) is not bytes:
            raise SerializationError(f"Bytes takes bytes, and not the {type(value).__name__} {excerpt(value)}.")
        return value

    def deserialize(self, data: bytes, /) -> bytes:
        return data


class String:
    """A str in UTF-8. The order of the bytes is that of the code points.

    Example:
        >>> String().serialize("anna")
        b'anna'
    """

    lossless = True

    def serialize(self, value: str, /) -> bytes:
        """Raises SerializationError for anything but a str, and for half a surrogate pair."""
        if type(value) is not str:
            raise SerializationError(f"String takes a str, and not the {type(value).__name__} {excerpt(value)}.")
        try:
            return value.encode()
        except UnicodeEncodeError as cause:
            raise SerializationError(
                f"The str {excerpt(value)} holds half a surrogate pair, which UTF-8 cannot express."
            ) from cause

    def deserialize(self, data: bytes, /) -> str:
        """Raises DeserializationError for what is not UTF-8."""
        try:
            return data.decode()
        except UnicodeDecodeError as cause:
            raise DeserializationError(f"{excerpt(data)} is not UTF-8: something else than String wrote it.") from cause


class Json:
    """JSON in UTF-8, without spaces: None, bool, int, finite float, str, and lists and dicts with str keys of them.

    What JSON would bring back as something else is refused: tuples, numbers as keys of a dict, subclasses, NaN.

    Args:
        sort_keys: write the keys of dicts in order. For dicts as keys of a table, so that equal ones are one key;
            otherwise a dict keeps the order it has.

    Example:
        >>> Json().serialize({"clicks": 7})
        b'{"clicks":7}'
    """

    lossless = True

    def __init__(self, *, sort_keys: bool = False) -> None:
        self._encode = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys
        ).encode

    def serialize(self, value: Any, /) -> bytes:
        """Raises SerializationError for what would not come back equal, and of the same types."""
        try:
            data = self._encode(value).encode()
            returned = json.loads(data)
        except (TypeError, ValueError, RecursionError) as cause:
            raise SerializationError(f"{excerpt(value)} cannot be written as JSON: {cause}.") from cause
        if not same(value, returned):
            raise SerializationError(
                f"{excerpt(value)} would come back from JSON as {excerpt(returned)}:"
                " make it of None, bool, int, float, str, list, and dict with str keys."
            )
        return data

    def deserialize(self, data: bytes, /) -> Any:
        """Raises DeserializationError for what is not JSON."""
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as cause:
            raise DeserializationError(f"{excerpt(data)} is not JSON: something else than Json wrote it.") from cause
