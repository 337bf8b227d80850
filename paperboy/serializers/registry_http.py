"""A schema registry over HTTP, through python-schema-registry-client."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from paperboy.errors import ConfigurationError, IncompatibleSchema, PaperboyError, RegistryError, RegistryUnreachable
from paperboy.log import get_logger
from paperboy.serializers.extras import extra
from paperboy.serializers.registry import Level
from paperboy.serializers.schema import Kind, Reference, RegisteredSchema, Schema

if TYPE_CHECKING:
    import httpx
    from schema_registry.client import AsyncSchemaRegistryClient

_log = get_logger("paperboy.registry")

_BACKOFF_SEC: Final = 0.1
_LONGEST_BACKOFF_SEC: Final = 2.0
_ASK_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_THERE: Final = (40401, 40402, 40403, 40408)
"""The error codes of a registry that has looked: no such subject, version, schema, level."""


class HttpConnection:
    """See `SchemaRegistry`, whose arguments these are.

    Each request has a connection of its own: there are few, and so nothing has to be closed, and one registry serves
    one event loop after another.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        auth: "tuple[str, str] | httpx.Auth | None",
        headers: Mapping[str, str],
        ca_file: str | None,
        cert_file: str | None,
        key_file: str | None,
        key_password: str | None,
        request_timeout_sec: float,
        timeout_sec: float,
    ) -> None:
        library = extra("schema_registry.client", "avro", for_="A schema registry over HTTP")
        self._http = extra("httpx", "avro", for_="A schema registry over HTTP")
        if not urls:
            raise ConfigurationError("A schema registry needs an address, as in http://localhost:8081.")
        tls = _tls(urls, ca_file, cert_file, key_file, key_password)
        self._clients: list[AsyncSchemaRegistryClient] = []
        for url in urls:
            address, user = _checked(url)
            # httpx.Auth itself is nobody: without one, the client would send an empty user.
            by = auth or user or self._http.Auth()
            client = library.AsyncSchemaRegistryClient(
                address,
                extra_headers=dict(headers),
                timeout=self._http.Timeout(request_timeout_sec),
                auth=self._http.BasicAuth(*by) if isinstance(by, tuple) else by,
            )
            client.client_kwargs["verify"] = tls
            self._clients.append(client)
        self._timeout_sec = timeout_sec
        self._first = 0
        """Which of them answered last."""

    @property
    def name(self) -> str:
        return ", ".join(client.url_manager.url.rstrip("/") for client in self._clients)

    async def schema(self, schema_id: int) -> Schema | None:
        code, answer = await self._ask("get_by_id", schema_id=schema_id)
        return None if code == 404 else self._schema_in(answer)

    async def lookup(self, subject: str, schema: Schema) -> int | None:
        code, answer = await self._ask("check_version", _in_json(schema), subject=subject)
        return None if code == 404 else int(answer["id"])

    async def register(self, subject: str, schema: Schema) -> int:
        code, answer = await self._ask("register", _in_json(schema), subject=subject)
        if code == 409:
            raise IncompatibleSchema(
                f"The registry {self.name} refuses the schema for subject {subject!r}, because it does not go with the"
                f" earlier ones ({_said(answer)}): change it so that it does, or the subject's compatibility level."
            )
        return int(answer["id"])

    async def subjects(self) -> list[str]:
        _, answer = await self._ask("get_subjects")
        return list(answer)

    async def versions(self, subject: str) -> list[int]:
        code, answer = await self._ask("get_versions", subject=subject)
        return [] if code == 404 else list(answer)

    async def version(self, subject: str, version: int) -> RegisteredSchema | None:
        code, answer = await self._ask("get_schema", subject=subject, version=version)
        return None if code == 404 else RegisteredSchema(subject, version, int(answer["id"]), self._schema_in(answer))

    async def compatibility(self, subject: str) -> Level | None:
        code, answer = await self._ask("get_compatibility", subject=subject)
        level: Level | None = None if code == 404 else answer["compatibilityLevel"]
        return level

    async def set_compatibility(self, subject: str, level: Level) -> None:
        await self._ask("update_compatibility", {"compatibility": level}, subject=subject)

    async def _ask(self, what: str, body: dict[str, Any] | None = None, **of: Any) -> tuple[int, Any]:
        """The status and the answer: of success, 404 (it is not there) or 409.

        Raises:
            RegistryUnreachable: nobody answered in time.
            RegistryError: the answer is another.
        """
        places = {name: quote(str(value), safe="") for name, value in of.items()}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_sec
        pause_sec = _BACKOFF_SEC
        while True:
            troubles = []
            for turn in range(len(self._clients)):
                number = (self._first + turn) % len(self._clients)
                client = self._clients[number]
                url, method = client.url_manager.url_for(what, **places)
                try:
                    response = await client.request(url, method=method, body=body)
                except self._http.TransportError as error:
                    troubles.append(error)
                    continue
                except ExceptionGroup as errors:
                    raise self._not_here(errors) from errors
                if response.status_code not in _ASK_AGAIN:
                    self._first = number
                    return self._understood(response, url)
                troubles.append(RegistryError(f"{url} answered {response.status_code}: {_said(_json_of(response))}"))
            if loop.time() + pause_sec > deadline:
                raise RegistryUnreachable(
                    f"No schema registry answered at {self.name} within {self._timeout_sec:g} s"
                    f" ({troubles[-1]!r}): check its address, and whether it is up; the registry's timeout_sec says how"
                    " long it is waited for."
                ) from troubles[-1]
            _log.warning("schema registry away", registry=self.name, error=repr(troubles[-1]))
            await asyncio.sleep(pause_sec)
            pause_sec = min(2 * pause_sec, _LONGEST_BACKOFF_SEC)

    def _not_here(self, errors: ExceptionGroup[Exception]) -> Exception:
        """What an event loop in virtual time says of sockets, put for who asks a registry."""
        refusal, _ = errors.split(PaperboyError)
        if refusal is None:
            return errors
        return RegistryUnreachable(
            f"The registry {self.name} cannot be asked in virtual time: give the engine under test one of its own, as"
            " SchemaRegistry('memory://test'), or let the test run in real time."
        )

    def _understood(self, response: "httpx.Response", url: str) -> tuple[int, Any]:
        code = response.status_code
        answer = _json_of(response)
        if (200 <= code < 300 and answer is not None) or code == 409:
            return code, answer
        if code == 404 and isinstance(answer, dict) and answer.get("error_code") in _NOT_THERE:
            return code, answer
        if code in (401, 403):
            raise RegistryError(
                f"The registry refuses {url} ({code}: {_said(answer)}): check auth, headers, cert_file and your rights."
            )
        if code == 422:
            raise RegistryError(f"The registry refuses what {url} was given: {_said(answer)}")
        raise RegistryError(
            f"{url} answered {code} ({_said(answer)}), which is not what a schema registry says: check its address."
        )

    def _schema_in(self, answer: Any) -> Schema:
        references = tuple(
            Reference(each["name"], each["subject"], int(each["version"])) for each in answer.get("references") or ()
        )
        kind: Kind | None = answer.get("schemaType")
        return Schema(answer["schema"], kind or "AVRO", references)


def _in_json(schema: Schema) -> dict[str, Any]:
    body: dict[str, Any] = {"schema": schema.text, "schemaType": schema.kind}
    if schema.references:
        body["references"] = [
            {"name": each.name, "subject": each.subject, "version": each.version} for each in schema.references
        ]
    return body


def _json_of(response: "httpx.Response") -> Any:
    """None where it is something else."""
    try:
        return response.json()
    except ValueError:
        return None


def _said(answer: Any) -> str:
    """What a registry says of a refusal; at length, because it may name each field."""
    said = answer.get("message") if isinstance(answer, dict) else None
    return str(said or "it says nothing more")[:1000]


def _checked(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address without the user, and the user that stands in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{url!r} is no address of a schema registry: write one as http://localhost:8081.")
    user = None if parts.username is None else (parts.username, parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), user


def _tls(
    urls: Sequence[str], ca_file: str | None, cert_file: str | None, key_file: str | None, key_password: str | None
) -> "ssl.SSLContext | bool":
    """Made once: the client would read all certificates again for each request, which takes 20 ms."""
    if not any(url.startswith("https:") for url in urls):
        return False
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file, key_password)
    except (OSError, ValueError) as cause:
        raise ConfigurationError(
            f"The certificates of the schema registry cannot be used ({cause}): check ca_file, cert_file, key_file and"
            " key_password."
        ) from cause
    return context
