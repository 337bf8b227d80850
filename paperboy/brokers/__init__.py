"""Brokers: the narrow door to a log, and the two that stand behind it."""

from collections.abc import Mapping

from paperboy.brokers.protocol import Broker
from paperboy.errors import ConfigurationError

__all__ = ["Broker", "open_broker"]


def open_broker(
    bootstrap_servers: str,
    *,
    client_options: Mapping[str, object] | None = None,
    connect_timeout_sec: float = 30.0,
) -> Broker:
    """The broker behind an address, not connected yet.

    Args:
        bootstrap_servers: ``host:port`` of a Kafka; ``memory://`` for a broker of its own, ``memory://name`` for one of
            this process that is shared by name.
        client_options: for aiokafka's clients; the memory broker takes none.
        connect_timeout_sec: how long starting it may take.

    Raises:
        ConfigurationError: the address or a client option makes no sense.
    """
    if bootstrap_servers.startswith("memory:"):
        from paperboy.brokers.memory import open_memory_broker

        if client_options:
            raise ConfigurationError(f"client_options are for Kafka's clients, and {bootstrap_servers} has none.")
        return open_memory_broker(bootstrap_servers)
    from paperboy.brokers.kafka import KafkaBroker

    return KafkaBroker(bootstrap_servers, client_options=client_options, connect_timeout_sec=connect_timeout_sec)
