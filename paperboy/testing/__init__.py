"""Tests of handlers and engines: the real engine, on a broker in memory, in a time that costs nothing."""

from paperboy.durations import Duration
from paperboy.testing.bench import NotSettled
from paperboy.testing.engine_test import EngineTest
from paperboy.testing.table_view import TableView
from paperboy.testing.virtual_time import VirtualLoop

__all__ = ["Duration", "EngineTest", "NotSettled", "TableView", "VirtualLoop"]
