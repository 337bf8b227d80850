"""The engine: it owns the lifecycle and wires the parts."""

from paperboy.engine.engine import Engine
from paperboy.engine.modes import Mode
from paperboy.engine.status import Status, TaskStatus

__all__ = ["Engine", "Mode", "Status", "TaskStatus"]
