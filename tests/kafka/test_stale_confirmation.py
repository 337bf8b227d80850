"""What the group has said before a worker froze is worth nothing when it wakes."""

import time
from typing import Any

import pytest
from aiokafka.protocol.group import HeartbeatRequest

from paperboy.brokers.protocol import MembershipOptions
from paperboy.clock import random_id
from paperboy.errors import NotOwner
from tests.contract.conftest import member
from tests.contract.engine.kit import Kit


async def test_a_worker_that_freezes_with_the_groups_answer_in_hand_asks_again(kafka_bootstrap: str) -> None:
    """The answer has come, and the process stands still for longer than its session before it reads it."""
    kit = Kit(kafka_bootstrap, random_id()[:12])
    topic = await kit.topic("asked")
    options = MembershipOptions(session_timeout_sec=1.5, heartbeat_interval_sec=0.5)
    async with kit.broker() as broker, member(broker, kit.group, topic, options=options) as frozen:
        await frozen.until_assigned(1)
        coordinator: Any = frozen.consumer._consumer._coordinator  # type: ignore[attr-defined]
        send = coordinator._send_req

        async def send_and_freeze(request: Any) -> Any:
            answer = await send(request)
            if isinstance(request, HeartbeatRequest):
                coordinator._send_req = send
                time.sleep(3)  # nothing of this process runs
            return answer

        coordinator._send_req = send_and_freeze
        with pytest.raises(NotOwner):
            await frozen.consumer.confirm(frozen.generation)
