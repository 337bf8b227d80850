"""A broker in this process, for development and tests, with the promises of a real one."""

from paperboy.brokers.memory.broker import MemoryBroker, open_memory_broker
from paperboy.brokers.memory.clock import MemoryClock
from paperboy.brokers.memory.cluster import MemoryCluster, memory_cluster
from paperboy.brokers.memory.consumer import MemoryConsumer
from paperboy.brokers.memory.faults import Faults, Operation

__all__ = [
    "Faults",
    "MemoryBroker",
    "MemoryClock",
    "MemoryCluster",
    "MemoryConsumer",
    "Operation",
    "memory_cluster",
    "open_memory_broker",
]
