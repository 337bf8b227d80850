"""Tables: what handlers read and write, and the stores and changelogs underneath."""

from paperboy.tables.table import Table

__all__ = ["Table"]
