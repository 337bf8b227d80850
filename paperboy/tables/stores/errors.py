"""What every kind of store says where it is used as it cannot be, and why one is wiped."""

from paperboy.errors import StoreError, TableError


class OfNoUse(Exception):
    """What is in a store's directory cannot serve. The message is a sentence fragment: the store is, or was, …"""


def empty_key(table: str) -> TableError:
    """For a key that no store takes."""
    return TableError(
        f"Table {table!r}: an empty key cannot be stored, because a store keeps its own record under it;"
        " give each entry a key of at least one byte."
    )


def scan_ended(table: str) -> TableError:
    """For a scan that is read after it was closed, by itself or with its store."""
    return TableError(
        f"Table {table!r}: this scan was closed, or its store was;"
        " read a scan to its end before that, or begin a new one."
    )


class EmptyStore(StoreError):
    """Nothing was flushed to a store yet."""
