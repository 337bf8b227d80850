"""A store's own record: whose bytes it holds, and how far it has come. Its bytes are described in docs/formats.md."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from msgpack import Packer, unpackb

from paperboy.tables.stores.errors import OfNoUse
from paperboy.tables.stores.protocol import StoreIdentity

_FORMAT: Final = 1

_pack: Final[Callable[[object], bytes]] = Packer().pack


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What stands in a store under the empty key."""

    identity: StoreIdentity
    changelog_offset: int
    in_step_ms: int

    def to_bytes(self) -> bytes:
        of = self.identity
        fields = {
            "table": of.table,
            "partition": of.partition,
            "changelog": of.changelog,
            "changelog_id": of.changelog_id,
            "definition": of.definition,
            "changelog_offset": self.changelog_offset,
            "in_step_ms": self.in_step_ms,
        }
        return bytes([_FORMAT]) + _pack(fields)

    @classmethod
    def from_bytes(cls, data: bytes) -> "StoreRecord":
        """Raises OfNoUse."""
        if data[:1] != bytes([_FORMAT]):
            raise OfNoUse(f"of a format that this version does not know ({data[:1].hex() or 'none'})")
        try:
            fields: dict[str, Any] = unpackb(data[1:])
            offset, in_step_ms = fields.pop("changelog_offset"), fields.pop("in_step_ms")
            return cls(StoreIdentity(**fields), offset, in_step_ms)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OfNoUse("damaged: its own record cannot be read") from error


def mismatch(found: StoreIdentity, wanted: StoreIdentity) -> str | None:
    """Why a store with one identity is of no use to another, as a sentence fragment; None where it is."""
    if (found.table, found.partition) != (wanted.table, wanted.partition):
        return f"of another table partition, {found.table!r} {found.partition}"
    if found.changelog != wanted.changelog:
        return f"of another changelog topic, {found.changelog!r}"
    if found.changelog_id and wanted.changelog_id and found.changelog_id != wanted.changelog_id:
        return f"of an earlier changelog topic of this name: {wanted.changelog!r} was made anew"
    if found.definition != wanted.definition:
        return f"of another table definition, {found.definition!r}"
    return None


def with_known_id(wanted: StoreIdentity, found: StoreIdentity) -> StoreIdentity:
    """The identity to go on with: a changelog id once known is not forgotten when the broker does not say one."""
    return wanted if wanted.changelog_id else replace(wanted, changelog_id=found.changelog_id)
