"""Protobuf schemas as a registry gives them: a file's descriptor in base64, or the text of a .proto file."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from paperboy.serializers.extras import extra

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

Path = tuple[int, ...]
"""Which message of a file: the index of each message that it stands in, and its own."""

_NOISE: Final = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)
_TOKEN: Final = re.compile(r"package\s+([\w.]+)\s*;|(?:message|group)\s+(\w+)|([{}])|([;=])")


def message_names(text: str) -> dict[Path, str]:
    """The full names of a file's messages.

    Example:
        >>> message_names("package shop; message Order { message Line {} } message Payment {}")
        {(0,): 'shop.Order', (0, 0): 'shop.Order.Line', (1,): 'shop.Payment'}
    """
    file = descriptor_of(text)
    if file is None:
        return dict(_in_text(text))
    return {
        path: name
        for index, message in enumerate(file.message_type)
        for path, name in _in_descriptor(message, (index,), file.package)
    }


def descriptor_of(text: str) -> "FileDescriptorProto | None":
    """A file's descriptor; None where it is the text of a file."""
    library = extra("google.protobuf.descriptor_pb2", "protobuf", for_="A Protobuf schema")
    decode_error = extra("google.protobuf.message", "protobuf", for_="A Protobuf schema").DecodeError
    try:
        found: FileDescriptorProto = library.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, decode_error):
        return None
    return found


def _in_descriptor(message: "DescriptorProto", path: Path, scope: str) -> Iterator[tuple[Path, str]]:
    name = f"{scope}.{message.name}" if scope else message.name
    yield path, name
    for index, inner in enumerate(message.nested_type):
        yield from _in_descriptor(inner, (*path, index), name)


def _in_text(text: str) -> Iterator[tuple[Path, str]]:
    """By looking for what opens and closes: what stands in strings and comments does not count."""
    package = ""
    braces: list[str | None] = []
    """What each open brace belongs to: a message's name, or None."""
    path: list[int] = []
    counts = [0]
    """How many messages there were so far at each level."""
    opening: str | None = None
    for found in _TOKEN.finditer(_NOISE.sub(" ", text)):
        if found[1]:
            package = found[1]
        elif found[2]:
            opening = found[2]
        elif found[3] == "{":
            braces.append(opening)
            if opening is not None:
                path.append(counts[-1])
                counts[-1] += 1
                counts.append(0)
                names = [name for name in braces if name is not None]
                yield tuple(path), ".".join([package, *names] if package else names)
            opening = None
        elif found[3] == "}":
            if braces and braces.pop() is not None:
                path.pop()
                counts.pop()
            opening = None
        elif found[4] == ";":
            opening = None
