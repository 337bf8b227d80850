"""Stores: the bytes underneath a table."""

from paperboy.tables.stores.protocol import Store

__all__ = ["Store"]
