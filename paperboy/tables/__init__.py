"""Tables: what handlers read and write, and the stores and changelogs underneath."""

from paperboy.tables.partition import Change
from paperboy.tables.snapshot import Entry, Snapshot
from paperboy.tables.table import Table

__all__ = ["Change", "Entry", "Snapshot", "Table"]
