"""Logging in at a Kafka that wants to know who one is."""

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from paperboy import AuthenticationFailed, ConfigurationError, Engine, Handler
from paperboy.brokers import open_broker
from paperboy.brokers.protocol import TopicSpec
from tests.kafka_server import KafkaServer
from tests.kafka_server.server import PLAIN_USER, SCRAM_USER


class Views(Handler):
    topic = "views"


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer(sasl=True) as server:
        yield server


def options(mechanism: str, name: str, password: str) -> dict[str, object]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": name,
        "sasl_plain_password": password,
    }


@pytest.mark.parametrize(("mechanism", "user"), [("PLAIN", PLAIN_USER), ("SCRAM-SHA-256", SCRAM_USER)])
async def test_an_engine_logs_in_with_its_client_options(
    server: KafkaServer, mechanism: str, user: tuple[str, str]
) -> None:
    broker = open_broker(server.bootstrap)
    await broker.start()
    await broker.create_topics([TopicSpec("views", 1)])
    await broker.stop()
    engine = Engine(
        Views, bootstrap_servers=server.sasl_bootstrap, group_id=mechanism, client_options=options(mechanism, *user)
    )
    async with engine:
        assert await engine.send("views", b"home")
        await engine.caught_up()


async def test_wrong_credentials_are_said_at_once(server: KafkaServer) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    engine = Engine(
        Views,
        bootstrap_servers=server.sasl_bootstrap,
        group_id="wrong",
        client_options=options("PLAIN", PLAIN_USER[0], "wrong"),
    )
    with pytest.raises(
        AuthenticationFailed, match=r"Logging in at .* was refused by the broker.*check the credentials"
    ):
        await engine.start()
    assert loop.time() - begun < 5


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sasl_mechanizm", "'sasl_mechanizm', which no client of aiokafka knows"),
        ("isolation_level", "cannot set 'isolation_level': records are always read committed"),
    ],
)
async def test_a_client_option_that_cannot_be_is_refused(name: str, sentence: str) -> None:
    engine = Engine(Views, bootstrap_servers="127.0.0.1:1", group_id="options", client_options={name: "x"})
    with pytest.raises(ConfigurationError, match=sentence):
        await engine.start()


def test_a_transactional_id_that_is_not_ours_refuses_the_start() -> None:
    """What a producer of that id would only hear when it starts, which fences whoever has it."""
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
    }
    with KafkaServer(authorizer, sasl=True) as server:
        guard = AclBinding(
            ResourceType.TRANSACTIONAL_ID,
            "guarded:",
            ResourcePatternType.PREFIXED,
            "User:somebody-else",
            "*",
            AclOperation.WRITE,
            AclPermissionType.ALLOW,
        )
        admin = AdminClient({"bootstrap.servers": server.bootstrap})  # whose answers end with it
        for created in admin.create_acls([guard]).values():
            created.result(30)
        asyncio.run(_starts_in_group(server, "free"))
        with pytest.raises(AuthenticationFailed, match="allow Write and Describe on transactional ids"):
            asyncio.run(_starts_in_group(server, "guarded"))


async def _starts_in_group(server: KafkaServer, group_id: str) -> None:
    broker = open_broker(server.bootstrap)
    await broker.start()
    await broker.create_topics([TopicSpec("views", 1)])
    await broker.stop()
    engine = Engine(
        Views,
        bootstrap_servers=server.sasl_bootstrap,
        group_id=group_id,
        client_options=options("PLAIN", *PLAIN_USER),
        processing_guarantee="exactly_once",
    )
    async with engine:
        await engine.send("views", b"home")
        await engine.caught_up()
