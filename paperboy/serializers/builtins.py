"""Serializers for what other programs read and write as well."""

import json
import marshal
import re
from collections.abc import Callable
from typing import Any, Final

from paperboy.errors import DeserializationError, SerializationError
from paperboy.serializers.equality import same
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.models import json_coding, type_name


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

    With a type, objects of that type, which are checked when they are read: with what JSON has no word for (dates,
    UUID, Decimal, bytes, enums) as text.

    What JSON would bring back as something else is refused: tuples, numbers as keys of a dict, subclasses, NaN.

    Args:
        kind: a dataclass, msgspec.Struct or pydantic model, or whatever type hints can say of them: ``list[Order]``.
        sort_keys: write the keys of dicts in order. For dicts as keys of a table, so that equal ones are one key;
            otherwise a dict keeps the order it has.

    Raises:
        ConfigurationError: `kind` is no type that messages can have.

    Example:
        >>> Json().serialize({"clicks": 7})
        b'{"clicks":7}'
        >>> Json(Order).deserialize(b'{"id":"o-1","amount":3}')
        Order(id='o-1', amount=3)
    """

    lossless = True

    def __init__(self, kind: Any = Any, /, *, sort_keys: bool = False) -> None:
        self.kind = kind
        self.sort_keys = sort_keys
        self._encode, self._decode = json_coding(kind, sort_keys=sort_keys)
        if kind is Any:
            self._encode = _with_floats_of_python(self._encode, sort_keys)

    def typed(self, kind: Any) -> "Json":
        """The same for a type."""
        return Json(kind, sort_keys=self.sort_keys)

    def serialize(self, value: Any, /) -> bytes:
        """Raises SerializationError for what would not come back equal, and of the same types."""
        try:
            data = self._encode(value)
            returned = self._decode(data)
            comes_back = (self.kind is Any and _alike(value, returned)) or same(value, returned)
        except Exception as cause:
            raise SerializationError(f"{excerpt(value)} cannot be written as {self._what}: {cause}.") from cause
        if not comes_back:
            remedy = "make it of None, bool, int, float, str, list, and dict with str keys"
            if self.kind is not Any:
                remedy = f"make it as {type_name(self.kind)} says"
            raise SerializationError(f"{excerpt(value)} would come back from JSON as {excerpt(returned)}: {remedy}.")
        return data

    def deserialize(self, data: bytes, /) -> Any:
        """Raises DeserializationError for what is not JSON, or not of the type."""
        try:
            return self._decode(data)
        except Exception as cause:
            raise DeserializationError(f"{excerpt(data)} is not {self._what}: {cause}.") from cause

    @property
    def _what(self) -> str:
        return "JSON" if self.kind is Any else f"{type_name(self.kind)} in JSON"


def _alike(value: Any, returned: Any) -> bool:
    """Whether they are the same, as far as C can tell: a quarter of what `same` takes. In JSON nothing comes back as
    bytes, and but for these marshal writes different bytes for different types (subclasses it refuses)."""
    try:
        return marshal.dumps(value, _WITHOUT_REFERENCES) == marshal.dumps(returned, _WITHOUT_REFERENCES)
    except ValueError:
        return False


_WITHOUT_REFERENCES: Final = 0
"""The version of marshal's format in which one object that stands in two places is written twice."""


_SMALL: Final = b"0.0000"
_EXPONENT: Final = re.compile(rb"e[-\d]")
"""What may be a float that msgspec writes in another way than Python: 0.00001 (for 1e-05), 1e16 (for 1e+16)."""


def _with_floats_of_python(encode: Callable[[Any], bytes], sort_keys: bool) -> Callable[[Any], bytes]:
    """msgspec, with the bytes that Python's json makes: keys of tables were written by it, and are found by them."""
    by_python = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys).encode

    def encode_as_python(value: Any) -> bytes:
        data = encode(value)
        if _SMALL not in data and _EXPONENT.search(data) is None:
            return data
        return by_python(value).encode()

    return encode_as_python
