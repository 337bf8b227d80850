"""`KafkaCluster`: several Kafka nodes on loopback that replicate each other."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tests.kafka_server.server import KafkaServer, new_cluster_id
from tests.server_process import HOST, begun_on_free_ports, free_port

NODES = 3
_REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # A node that was killed is missed soon.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
}


class KafkaCluster:
    """Three nodes, each broker and controller; every topic stands on all of them, and two make a write durable.

    One may be away at any time: `KafkaServer.kill` it, and `KafkaServer.start` it again.
    """

    def __init__(self, properties: Mapping[str, str] | None = None, *, heap: str = "512m") -> None:
        self._properties = dict(properties or {})
        self._heap = heap
        self.nodes: list[KafkaServer] = []
        """By their ids, from 1 on."""

    @property
    def bootstrap(self) -> str:
        """Where clients connect: ``host:port``, with commas."""
        return ",".join(node.bootstrap for node in self.nodes)

    def start(self) -> None:
        """Start all nodes, and return when each answers."""
        begun_on_free_ports(self._begin, self.close)

    def close(self) -> None:
        """End all nodes, and remove everything they have written."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        self.nodes = self._new_nodes()
        with ThreadPoolExecutor(NODES) as threads:  # none starts without the others
            list(threads.map(KafkaServer.start, self.nodes))

    def _new_nodes(self) -> list[KafkaServer]:
        taken: set[int] = set()
        ports: list[dict[str, int]] = []
        for _ in range(NODES):
            ports.append({})
            for name in ("PLAINTEXT", "CONTROLLER"):
                ports[-1][name] = free_port(taken)
                taken.add(ports[-1][name])
        voters = ",".join(f"{number}@{HOST}:{each['CONTROLLER']}" for number, each in enumerate(ports, 1))
        cluster_id = new_cluster_id()
        return [
            KafkaServer(
                {
                    **_REPLICATED,
                    "node.id": str(number),
                    "controller.quorum.voters": voters,
                    **self._properties,
                },
                ports=each,
                cluster_id=cluster_id,
                heap=self._heap,
            )
            for number, each in enumerate(ports, 1)
        ]
