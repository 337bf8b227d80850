"""Registries over HTTP that refuse, fail, hang, or ask who we are: played by a server in this process."""

import asyncio
import base64
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from paperboy.errors import RegistryError, RegistryUnreachable
from paperboy.serializers import Avro, SchemaRegistry
from paperboy.serializers.schema import Schema

HOST = "127.0.0.1"
A_STRING = {"schema": '"string"'}
Answer = tuple[int, Any]
Play = Callable[[str, dict[str, str]], Answer | Awaitable[Answer]]


@asynccontextmanager
async def playing(play: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers each request, of which it is told the first line and the headers; yields its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            headers |= dict(line.split(": ", 1) for line in head[1:] if line)
            await reader.readexactly(int(headers.get("content-length", 0)))
            answer = play(head[0], headers)
            code, body = answer if isinstance(answer, tuple) else await answer
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            writer.write(
                f"HTTP/1.1 {code} X\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'http' if tls is None else 'https'}://{HOST}:{port}"
    finally:
        server.close()
        await server.wait_closed()


async def test_nobody_there_is_one_error_after_the_stated_time() -> None:
    async with playing(lambda line, headers: (200, A_STRING)) as url:
        pass
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(RegistryUnreachable, match=rf"{url} within 0.5 s.*timeout_sec"):
        await SchemaRegistry(url, timeout_sec=0.5).schema(1)
    assert loop.time() - began < 5


async def test_one_that_does_not_answer_is_given_up() -> None:
    never = asyncio.Event()

    async def hang(line: str, headers: dict[str, str]) -> Answer:
        async with asyncio.timeout(30):
            await never.wait()
        return 200, A_STRING

    async with playing(lambda line, headers: hang(line, headers)) as url:
        with pytest.raises(RegistryUnreachable, match="ReadTimeout"):
            await SchemaRegistry(url, timeout_sec=0.3, request_timeout_sec=0.1).schema(1)
        never.set()


async def test_one_that_fails_for_a_while_is_asked_again() -> None:
    answers: list[Answer] = [(503, "starting"), (500, {}), (429, {}), (200, A_STRING)]
    async with playing(lambda line, headers: answers.pop(0)) as url:
        assert await SchemaRegistry(url).schema(1) == Schema('"string"')
    assert not answers


async def test_of_several_addresses_the_one_that_answers_is_asked() -> None:
    async with playing(lambda line, headers: (200, A_STRING)) as dead:
        pass
    asked: list[str] = []

    def answer(line: str, headers: dict[str, str]) -> Answer:
        asked.append(line)
        return 200, A_STRING

    async with playing(answer) as alive:
        registry = SchemaRegistry([dead, alive])
        for schema_id in (1, 2, 1):
            assert await registry.schema(schema_id) == Schema('"string"')
    assert asked == [f"GET /schemas/ids/{schema_id} HTTP/1.1" for schema_id in (1, 2)]


async def test_what_is_known_works_while_the_registry_is_away() -> None:
    async with playing(lambda line, headers: (200, {"id": 7, **A_STRING})) as url:
        registry = SchemaRegistry(url, timeout_sec=0.2)
        strings = Avro(registry, "string").for_topic("names")
        await strings.open()
    data = strings.serialize("anna")
    assert Avro(registry).deserialize(data) == "anna"
    await strings.open()
    with pytest.raises(RegistryUnreachable):
        await registry.schema(8)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {"message": "who are you"}), "check auth"),
        ((403, "no"), "check auth"),
        ((404, "<html>nothing here</html>"), "not what a schema registry says: check its address"),
        ((404, {"error_code": 404, "message": "HTTP 404 Not Found"}), "check its address"),
        ((200, "<html>a login page</html>"), "check its address"),
        ((302, ""), "check its address"),
        ((422, {"error_code": 42201, "message": "Invalid schema"}), "refuses what .* was given: Invalid schema"),
    ],
)
async def test_a_refusal_is_not_repeated_and_says_what_to_check(answer: Answer, says: str) -> None:
    asked: list[str] = []

    def refuse(line: str, headers: dict[str, str]) -> Answer:
        asked.append(line)
        return answer

    async with playing(refuse) as url:
        with pytest.raises(RegistryError, match=says) as caught:
            await SchemaRegistry(url).schema(1)
    assert not isinstance(caught.value, RegistryUnreachable)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        ({}, None),
        ({"auth": ("app", "secret")}, "Basic " + base64.b64encode(b"app:secret").decode()),
        ({"headers": {"Authorization": "Bearer token"}}, "Bearer token"),
        ("app:secret@", "Basic " + base64.b64encode(b"app:secret").decode()),
    ],
)
async def test_credentials_are_sent_and_never_shown(credentials: Any, sent: str | None) -> None:
    seen: list[str | None] = []

    def answer(line: str, headers: dict[str, str]) -> Answer:
        seen.append(headers.get("Authorization"))
        return 200, A_STRING

    async with playing(answer) as url:
        if isinstance(credentials, str):
            registry = SchemaRegistry(url.replace("http://", f"http://{credentials}"))
        else:
            registry = SchemaRegistry(url, **credentials)
        await registry.schema(1)
    assert seen == [sent]
    assert "secret" not in f"{registry!r} {registry.name}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server and a client that it has signed, and a stranger."""
    here = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=here, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    for authority in ("ca", "stranger"):
        openssl("req", "-x509", *key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-subj", "/CN=ca")
    (here / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    openssl("rsa", "-aes128", "-passout", "pass:secret", "-in", "client.key", "-out", "locked.key")
    return here


def server_side(certificates: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("key", ["client.key", "locked.key"])
async def test_mutual_tls(certificates: Path, key: str) -> None:
    async with playing(lambda line, headers: (200, A_STRING), server_side(certificates)) as url:
        registry = SchemaRegistry(
            url,
            ca_file=str(certificates / "ca.pem"),
            cert_file=str(certificates / "client.pem"),
            key_file=str(certificates / key),
            key_password="secret",
        )
        assert await registry.schema(1) == Schema('"string"')


@pytest.mark.parametrize(
    ("ca", "certificate", "key"),
    [("ca", None, None), ("stranger", "client", "client"), ("ca", "stranger", "stranger")],
)
async def test_tls_refuses_whom_nobody_vouches_for(
    certificates: Path, ca: str, certificate: str | None, key: str | None
) -> None:
    async with playing(lambda line, headers: (200, A_STRING), server_side(certificates)) as url:
        registry = SchemaRegistry(
            url,
            ca_file=str(certificates / f"{ca}.pem"),
            cert_file=None if certificate is None else str(certificates / f"{certificate}.pem"),
            key_file=None if key is None else str(certificates / f"{key}.key"),
            timeout_sec=0.2,
        )
        with pytest.raises(RegistryUnreachable):
            await registry.schema(1)


async def test_certificates_are_read_once_and_not_for_each_request(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would stop the loop for 20 ms each time."""
    async with playing(lambda line, headers: (200, A_STRING), server_side(certificates)) as url:
        registry = SchemaRegistry(
            url,
            ca_file=str(certificates / "ca.pem"),
            cert_file=str(certificates / "client.pem"),
            key_file=str(certificates / "client.key"),
        )
        monkeypatch.setattr(ssl, "create_default_context", None)
        for schema_id in (1, 2):
            assert await registry.schema(schema_id) == Schema('"string"')
