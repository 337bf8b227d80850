"""Handlers: the classes a user writes, and how the engine calls them."""

from paperboy.handlers.context import Context
from paperboy.handlers.handler import BulkHandler, Handler

__all__ = ["BulkHandler", "Context", "Handler"]
