"""How a table's keys and values become bytes, and back: in our own format, or by serializers of the user's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from paperboy.errors import DeserializationError, PaperboyError, SerializationError
from paperboy.serializers.equality import same
from paperboy.serializers.excerpt import excerpt
from paperboy.serializers.models import Typed
from paperboy.serializers.protocol import Serializer
from paperboy.serializers.values import decode_value, encode_value, needs_encoding_now
from paperboy.tables.keys import decode_key, encode_key, encode_prefix

OWN_FORMAT: Final = "format 1"
"""The name of our own format, for keys and for values. See docs/formats.md."""


@dataclass(frozen=True, slots=True)
class Codec:
    """What a table's partitions call. Everything that encodes raises `SerializationError`, and what decodes,
    `DeserializationError`; neither names the table."""

    encode_key: Callable[[Any], bytes]
    decode_key: Callable[[bytes], Any]
    encode_prefix: Callable[[Any], bytes]
    """What the bytes of every key that begins with a prefix begin with."""
    encode_value: Callable[[Any], bytes]
    decode_value: Callable[[bytes], Any]
    needs_encoding_now: Callable[[object], bool]
    """Whether a value must become bytes when it is set; if not, the object may be kept until a checkpoint."""
    own_keys: bool
    """Whether keys are in our own format, and so a key of bytes is ``BYTES_HEAD`` and itself."""


def codec(key_serializer: Serializer | None, value_serializer: Serializer | None) -> Codec:
    """The codec of a table with these serializers; None: our own format."""
    own_keys, own_values = key_serializer is None, value_serializer is None
    return Codec(
        encode_key=encode_key if key_serializer is None else _encoder(key_serializer, "key"),
        decode_key=decode_key if key_serializer is None else _decoder(key_serializer, "key"),
        encode_prefix=encode_prefix if own_keys else _bytes_prefix,
        encode_value=encode_value if value_serializer is None else _encoder(value_serializer, "value"),
        decode_value=decode_value if value_serializer is None else _decoder(value_serializer, "value"),
        needs_encoding_now=needs_encoding_now if own_values else _always,
        own_keys=own_keys,
    )


def name_of(serializer: Serializer | None) -> str:
    """What a serializer is called in a table's definition."""
    if serializer is None:
        return OWN_FORMAT
    if isinstance(serializer, Typed):  # the bytes are the inner one's
        return name_of(serializer.serializer)
    kind = type(serializer)
    return f"{kind.__module__}.{kind.__qualname__}"


def _encoder(serializer: Serializer, part: Literal["key", "value"]) -> Callable[[Any], bytes]:
    serialize, name = serializer.serialize, name_of(serializer)
    lossless = getattr(serializer, "lossless", False)

    def encode(thing: Any) -> bytes:
        try:
            data = serialize(thing)
        except PaperboyError as error:
            raise SerializationError(f"the {part}_serializer refuses it: {error}") from error
        except Exception as error:
            raise SerializationError(f"the {part}_serializer {name} failed with {error!r}.") from error
        if type(data) is not bytes:
            raise SerializationError(
                f"the {part}_serializer {name} made {type(data).__name__} of it: it has to return bytes."
            )
        if not data and part == "key":
            raise SerializationError(
                f"the key_serializer {name} made no bytes of it, and nothing can be stored under an empty key."
            )
        if not lossless:
            _check_round_trip(thing, data)
        return data

    def _check_round_trip(thing: Any, data: bytes) -> None:
        try:
            returned = serializer.deserialize(data)
            is_same = same(thing, returned)
        except Exception as error:
            raise SerializationError(
                f"the {part}_serializer {name} could not bring it back, or compare it ({error!r}): if it does bring"
                " back what it is given, let it say lossless = True."
            ) from error
        if not is_same:
            raise SerializationError(
                f"the {part}_serializer {name} would bring it back as the {type(returned).__name__}"
                f" {excerpt(returned)}, which is not the same as the {type(thing).__name__} {excerpt(thing)}."
            )

    return encode


def _decoder(serializer: Serializer, part: Literal["key", "value"]) -> Callable[[bytes], Any]:
    deserialize, name = serializer.deserialize, name_of(serializer)

    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except PaperboyError as error:
            raise DeserializationError(f"the {part}_serializer cannot read it: {error}") from error
        except Exception as error:
            raise DeserializationError(
                f"the {part}_serializer {name} cannot read the {len(data)} bytes {excerpt(data)}: {error!r}."
            ) from error

    return decode


def _bytes_prefix(prefix: object) -> bytes:
    if type(prefix) is not bytes:
        raise SerializationError(
            "a prefix is bytes where a table has a key_serializer: what the serialized keys begin with, and not the"
            f" {type(prefix).__name__} {excerpt(prefix)}."
        )
    return prefix


def _always(value: object) -> bool:
    return True
