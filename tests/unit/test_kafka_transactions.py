"""What is said once in a transaction's epoch, because the next transaction would take it for its own."""

from typing import Any, cast

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.transaction import AddOffsetsToTxnRequest, EndTxnRequest, TxnOffsetCommitRequest

from paperboy.brokers.kafka.transactions import _say_once

END = EndTxnRequest(transactional_id="id", producer_id=1, producer_epoch=0, transaction_result=True)
OFFSETS = TxnOffsetCommitRequest(transactional_id="id", group_id="g", producer_id=1, producer_epoch=0, topics=[])
GROUP = AddOffsetsToTxnRequest(transactional_id="id", producer_id=1, producer_epoch=0, group_id="g")


class Client:
    """Answers nothing, with this error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.send = self._send
        self.sent: list[tuple[int, Any, dict[str, object]]] = []

    async def _send(self, node_id: int, request: Any, **group: object) -> None:
        self.sent.append((node_id, request, group))
        raise self.error


async def raised(error: Exception, request: Any) -> Exception:
    client = Client(error)
    _say_once(cast(AIOKafkaClient, client))
    with pytest.raises(kafka_errors.KafkaError) as caught:
        await client.send(1, request, group="coordination")
    assert client.sent == [(1, request, {"group": "coordination"})]
    error_of_send: Exception = caught.value
    return error_of_send


@pytest.mark.parametrize("request_", [END, OFFSETS])
@pytest.mark.parametrize("error", [kafka_errors.RequestTimedOutError(), kafka_errors.KafkaConnectionError()])
async def test_what_was_sent_and_not_answered_is_not_said_again(request_: Any, error: Exception) -> None:
    found = await raised(error, request_)
    assert isinstance(found, kafka_errors.IncompatibleBrokerVersion), "aiokafka says again what failed otherwise"
    assert found.__cause__ is error


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (END, kafka_errors.NodeNotReadyError()),  # it was not sent
        (OFFSETS, kafka_errors.NodeNotReadyError()),
        (GROUP, kafka_errors.RequestTimedOutError()),  # twice is as good as once
    ],
)
async def test_the_rest_may_be_said_again(request_: Any, error: Exception) -> None:
    assert await raised(error, request_) is error
