"""What the commands ask of a broker beyond what an engine does."""

from collections.abc import Collection, Mapping
from typing import Protocol, cast

from paperboy.brokers import open_broker
from paperboy.brokers.protocol import Broker, TopicPartition, TopicSpec


class Administration(Broker, Protocol):
    """Both brokers have it."""

    async def topic_specs(self, names: Collection[str]) -> dict[str, TopicSpec]:
        """Those of these topics that exist, as they would be created again: with the settings that are their own, and
        without those that are the cluster's."""
        ...

    async def offsets_since(self, partitions: Collection[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        """Of each partition, the offset of the first record of this time (ms since 1970, UTC) or later; its end where
        there is none."""
        ...

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below an offset of each partition, and return when they are gone.

        Raises:
            TopicNotFound: one of them does not exist.
            BrokerError: an offset lies beyond the end, or a topic is compacted and nothing else.
        """
        ...


def open_administration(
    bootstrap_servers: str,
    *,
    client_options: Mapping[str, object] | None = None,
    connect_timeout_sec: float = 30.0,
) -> Administration:
    """The broker behind an address, not connected yet; see `open_broker`."""
    return cast(
        Administration,
        open_broker(bootstrap_servers, client_options=client_options, connect_timeout_sec=connect_timeout_sec),
    )
