"""A real Apache Kafka for tests: one node on loopback, in a directory of its own, gone when the tests are."""

from tests.kafka_server.cluster import KafkaCluster
from tests.kafka_server.distribution import KafkaUnavailable
from tests.kafka_server.server import KafkaServer

__all__ = ["KafkaCluster", "KafkaServer", "KafkaUnavailable"]
