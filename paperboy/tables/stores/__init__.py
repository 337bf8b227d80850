"""Stores: the bytes underneath a table."""

from paperboy.tables.stores.options import RocksDBOptions
from paperboy.tables.stores.protocol import Scan, Store, StoreIdentity

__all__ = ["RocksDBOptions", "Scan", "Store", "StoreIdentity"]
