"""What an engine's tasks share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from paperboy.brokers.protocol import Broker, Consumer, Producer
from paperboy.engine.options import Options
from paperboy.engine.outbox import Topics
from paperboy.engine.status import Counters


@dataclass(slots=True)
class Wiring:
    """The engine's parts that every task uses."""

    options: Options
    broker: Broker
    consumer: Consumer
    producer: Producer
    topics: Topics
    in_step: Callable[[], bool]
    """Whether the engine is in a step."""
    moved: Callable[[], None]
    """Told when a task has become ready, when it has committed, and when it rests with work to commit."""
    room: Callable[[], None]
    """Told when a task has handled something."""
    counters: Counters = field(default_factory=Counters)
