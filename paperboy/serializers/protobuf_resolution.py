"""Whether messages written by one Protobuf schema mean the same in another."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from paperboy.serializers.protobuf_schema import descriptor_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

# What is in one group is written in the same way.
_GROUPS: Final = (
    ("double",), ("float",), ("int64", "uint64", "int32", "bool", "uint32", "enum"), ("fixed64", "sfixed64"),
    ("fixed32", "sfixed32"), ("string", "bytes"), ("group",), ("message",), ("sint32", "sint64"),
)  # fmt: skip
_NAMES: Final = (
    "", "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "message",
    "bytes", "uint32", "enum", "sfixed32", "sfixed64", "sint32", "sint64",
)  # fmt: skip
"""By the numbers that descriptor.proto gives the types."""
_GROUP_OF: Final = MappingProxyType({name: group for group in _GROUPS for name in group})


def unresolvable(reader: str, writer: str) -> str | None:
    """Why messages of a writer's schema cannot be read with a reader's; None where they can, as far as can be told.

    A field is what its number says: one of another type is read as something else. Texts of .proto files are not
    looked into, only descriptors.
    """
    reads, wrote = descriptor_of(reader), descriptor_of(writer)
    if reads is None or wrote is None:
        return None
    known = dict(_messages(reads))
    for name, message in _messages(wrote):
        if name not in known:
            return f"message {name} is gone"
        fields = {field.number: field for field in known[name].field}
        for field in message.field:
            other = fields.get(field.number)
            if other is not None and _kind(other) != _kind(field):
                return f"field {field.number} of {name} was {_called(field)}, and would be read as {_called(other)}"
    return None


def _messages(file: "FileDescriptorProto") -> "Iterator[tuple[str, DescriptorProto]]":
    for message in file.message_type:
        yield from _with_inner(message, file.package)


def _with_inner(message: "DescriptorProto", scope: str) -> "Iterator[tuple[str, DescriptorProto]]":
    name = f"{scope}.{message.name}" if scope else message.name
    yield name, message
    for inner in message.nested_type:
        yield from _with_inner(inner, name)


def _kind(field: "FieldDescriptorProto") -> tuple[tuple[str, ...], str]:
    group = _GROUP_OF[_NAMES[field.type]]
    return group, field.type_name if group in (("message",), ("group",)) else ""


def _called(field: "FieldDescriptorProto") -> str:
    return field.type_name.lstrip(".") or _NAMES[field.type]
