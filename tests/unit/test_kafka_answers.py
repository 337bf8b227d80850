"""What a Kafka says, and when it says nothing: a coordinator that loads, a node that has just died."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as kafka_errors

from paperboy.brokers.kafka import KafkaBroker
from paperboy.brokers.protocol import TopicPartition
from paperboy.errors import BrokerError

FIRST, SECOND = TopicPartition("in", 0), TopicPartition("in", 1)


class Coordinator:
    """Gives these answers, one after another."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self._client = self

    async def find_coordinator(self, group_id: str) -> int:
        return 1

    async def send(self, node: int, request: Any) -> Any:
        return self.answers.pop(0)


def answer(*partitions: tuple[int, int, str, int], error: type[kafka_errors.KafkaError] | None = None) -> Any:
    topics = [("in", list(partitions))] if partitions else []
    return SimpleNamespace(topics=topics, error_code=0 if error is None else error.errno)


def broker(*answers: Any) -> tuple[KafkaBroker, Coordinator]:
    coordinator = Coordinator(*answers)
    broker = KafkaBroker("127.0.0.1:1")
    broker._admin = coordinator
    return broker, coordinator


@pytest.mark.parametrize("error", [kafka_errors.GroupLoadInProgressError, kafka_errors.NotCoordinatorForGroupError])
async def test_a_coordinator_that_cannot_tell_is_asked_again(error: type[kafka_errors.KafkaError]) -> None:
    """It names no partition then, and none must be taken for one without a committed offset: all would begin anew."""
    asked, coordinator = broker(answer(error=error), answer((0, 41, "", error.errno)), answer((0, 42, "", 0)))
    assert await asked.committed("group", [FIRST]) == {FIRST: 42}
    assert coordinator.answers == []


async def test_a_partition_that_was_never_committed_has_no_offset() -> None:
    asked, _ = broker(answer((0, -1, "", 0), (1, 0, "", 0)))
    assert await asked.committed("group", [FIRST, SECOND]) == {FIRST: None, SECOND: 0}


async def test_a_partition_that_is_not_spoken_of_is_no_answer() -> None:
    asked, _ = broker(answer((0, 42, "", 0)))
    with pytest.raises(BrokerError, match=r"nothing about the committed offsets of in\[1\]"):
        await asked.committed("group", [FIRST, SECOND])


async def test_a_refusal_is_told() -> None:
    asked, _ = broker(answer(error=kafka_errors.GroupAuthorizationFailedError))
    with pytest.raises(BrokerError, match="refused"):
        await asked.committed("group", [FIRST])


class Nodes:
    """A cluster whose first node has just died."""

    async def describe_cluster(self) -> Any:
        return {"brokers": [{"node_id": 1}, {"node_id": 2}]}

    async def describe_configs(self, resources: Any) -> Any:
        if resources[0].name == "1":
            raise kafka_errors.NodeNotReadyError("node 1")
        entries = [("transaction.max.timeout.ms", "900000"), ("default.replication.factor", "3")]
        return [SimpleNamespace(resources=[(0, None, 4, resources[0].name, entries)])]


async def test_a_setting_is_asked_of_a_node_that_lives() -> None:
    """A worker that starts while a broker is away would not come up."""
    asked = KafkaBroker("127.0.0.1:1")
    asked._admin = Nodes()
    with pytest.raises(BrokerError, match=r"transaction\.max\.timeout\.ms=900000"):
        await asked.check_transactions([], 901)
    await asked.check_transactions([], 900)
