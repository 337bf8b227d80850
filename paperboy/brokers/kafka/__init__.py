"""Apache Kafka, through aiokafka."""

from paperboy.brokers.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
