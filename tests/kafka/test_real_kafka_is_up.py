"""The real Kafka that other tests lean on takes and gives records; one of our own can be killed and frozen."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.kafka_server import KafkaServer
from tests.kafka_server.server import PLAIN_USER, SCRAM_USER
from tests.server_process import ServerError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def own_server() -> Iterator[KafkaServer]:
    with KafkaServer(sasl=True) as server:
        yield server


async def test_a_record_goes_in_and_comes_out(kafka_bootstrap: str) -> None:
    topic = await create_topic(kafka_bootstrap)
    await send(kafka_bootstrap, topic, b"value")
    assert await first_value(kafka_bootstrap, topic) == b"value"


async def test_data_and_ports_outlive_a_kill_and_a_stop(own_server: KafkaServer) -> None:
    at = own_server.bootstrap
    topic = await create_topic(at)
    await send(at, topic, b"before")
    own_server.kill()
    own_server.start()
    assert own_server.bootstrap == at
    assert await first_value(at, topic) == b"before"
    own_server.stop()
    own_server.start()
    assert await first_value(at, topic) == b"before"


async def test_a_paused_server_answers_nobody_until_it_is_resumed(own_server: KafkaServer) -> None:
    topic = await create_topic(own_server.bootstrap)
    own_server.pause()
    try:
        with pytest.raises(KafkaError):
            await send(own_server.bootstrap, topic, b"nobody hears", request_timeout_ms=500)
    finally:
        own_server.resume()
    await send(own_server.bootstrap, topic, b"heard")
    assert await first_value(own_server.bootstrap, topic) is not None


@pytest.mark.parametrize(("mechanism", "user"), [("PLAIN", PLAIN_USER), ("SCRAM-SHA-256", SCRAM_USER)])
async def test_the_locked_door_opens_to_its_users_only(
    own_server: KafkaServer, mechanism: str, user: tuple[str, str]
) -> None:
    topic = await create_topic(own_server.bootstrap)
    name, password = user
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "sasl_plain_username": name}
    await send(own_server.sasl_bootstrap, topic, b"let in", **login, sasl_plain_password=password)
    assert await first_value(own_server.bootstrap, topic) == b"let in"
    with pytest.raises(KafkaError):
        await send(own_server.sasl_bootstrap, topic, b"kept out", **login, sasl_plain_password="wrong")


def test_a_taken_port_is_told_with_the_log(own_server: KafkaServer) -> None:
    port = int(own_server.bootstrap.split(":")[1])
    second = KafkaServer(port=port)
    with pytest.raises(ServerError, match="Address already in use"):
        second.start()
    with pytest.raises(ServerError, match="not started"):
        _ = second.directory


def test_settings_of_a_test_go_over_our_own_and_are_obeyed() -> None:
    server = KafkaServer({"no.such.thing": "1", "broker.session.timeout.ms": "not a number"})
    with pytest.raises(ServerError, match=r"broker\.session\.timeout\.ms"):
        server.start()


LEAVE_WITHOUT_A_WORD = """
import os, signal, sys
from tests.kafka_server import KafkaServer
server = KafkaServer()
server.start()
print(server.pid, server.directory, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_dies_with_the_process_that_started_it() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LEAVE_WITHOUT_A_WORD], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    pid, directory = result.stdout.split()
    deadline = time.monotonic() + 20
    while (is_running(int(pid)) or Path(directory).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(int(pid))
    assert not Path(directory).exists()


def is_running(pid: int) -> bool:
    """Whether a process of this id is there and is not merely waiting to be collected by whoever inherited it."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


async def create_topic(bootstrap: str) -> str:
    topic = f"is-up-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    return topic


async def send(bootstrap: str, topic: str, value: bytes, **options: Any) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **options)
    try:
        await producer.start()
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def first_value(bootstrap: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        record = await consumer.getone()
    finally:
        await consumer.stop()
    value: bytes | None = record.value
    return value
