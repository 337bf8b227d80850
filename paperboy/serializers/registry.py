"""Schema registries: where the schemas of a topic's records are kept, by number."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from paperboy.errors import DeserializationError, RegistryError
from paperboy.serializers.schema import RegisteredSchema, Schema

if TYPE_CHECKING:
    import httpx

Level: TypeAlias = Literal[
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"
]
"""How a new schema must go with a subject's earlier ones. BACKWARD: it reads what the latest one wrote; FORWARD: the
latest one reads what it writes; FULL: both; TRANSITIVE: not the latest one only, but all."""


class Connection(Protocol):
    """What a registry answers, without a cache."""

    @property
    def name(self) -> str:
        """Its address, as errors show it."""
        ...

    async def schema(self, schema_id: int) -> Schema | None: ...

    async def lookup(self, subject: str, schema: Schema) -> int | None: ...

    async def register(self, subject: str, schema: Schema) -> int: ...

    async def subjects(self) -> list[str]: ...

    async def versions(self, subject: str) -> list[int]: ...

    async def version(self, subject: str, version: int) -> RegisteredSchema | None: ...

    async def compatibility(self, subject: str) -> Level | None: ...

    async def set_compatibility(self, subject: str, level: Level) -> None: ...


class SchemaRegistry:
    """A schema registry that speaks Confluent's API: Confluent's own, Apicurio, Karapace, Redpanda's.

    What was fetched once is kept: an id means one schema for ever. So records in schemas that are known are read and
    written while the registry is away.

        registry = SchemaRegistry("http://localhost:8081", auth=("app", "secret"))
        orders = Avro(registry, schema)

    Args:
        url: its address, or several of the same registry, which are tried in turn. ``memory://`` is a registry of its
            own inside this process, ``memory://name`` the one of that name: for tests, and beside the memory broker.
        auth: user and password for HTTP's basic authentication, or an ``httpx.Auth``.
        headers: for each request, as in ``{"Authorization": "Bearer …"}``.
        ca_file: a file of PEM certificates of those to be trusted, in place of the system's.
        cert_file: a PEM certificate to show to the registry.
        key_file: its private key, where that is not in `cert_file`.
        key_password: of `key_file`.
        request_timeout_sec: how long one request may take, in seconds.
        timeout_sec: how long a registry that does not answer is asked again, in seconds, before that is an error.

    Raises:
        ConfigurationError: the address is none, or the registry's client is not installed.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        auth: "tuple[str, str] | httpx.Auth | None" = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        key_password: str | None = None,
        request_timeout_sec: float = 5.0,
        timeout_sec: float = 30.0,
    ) -> None:
        urls = (url,) if isinstance(url, str) else tuple(url)
        self._connection: Connection
        if urls and all(each.startswith("memory:") for each in urls):
            from paperboy.serializers.registry_memory import memory_registry

            self._connection = memory_registry(urls)
        else:
            from paperboy.serializers.registry_http import HttpConnection

            self._connection = HttpConnection(
                urls,
                auth=auth,
                headers=headers or {},
                ca_file=ca_file,
                cert_file=cert_file,
                key_file=key_file,
                key_password=key_password,
                request_timeout_sec=request_timeout_sec,
                timeout_sec=timeout_sec,
            )
        self._schemas: dict[int, Schema] = {}
        self._ids: dict[tuple[str, Schema], int] = {}
        self._versions: dict[tuple[str, int], RegisteredSchema] = {}

    def __repr__(self) -> str:
        return f"SchemaRegistry({self.name!r})"

    @property
    def name(self) -> str:
        """Its address, without credentials."""
        return self._connection.name

    def known(self, schema_id: int) -> Schema | None:
        """The schema of this id, if it was fetched before, with all that it refers to. Asks nobody."""
        return self._schemas.get(schema_id)

    def referenced(self, schema: Schema) -> list[tuple[str, Schema]]:
        """All that a known schema refers to, by the names that it is referred to by: first what others refer to.

        Asks nobody.
        """
        found: dict[str, Schema] = {}
        for reference in schema.references:
            other = self._versions[reference.subject, reference.version].schema
            found.update(self.referenced(other))
            found[reference.name] = other
        return list(found.items())

    async def schema(self, schema_id: int) -> Schema:
        """The schema of this id.

        Raises:
            DeserializationError: the registry has none.
            RegistryError: the registry does not answer, or refuses to.
        """
        schema = self._schemas.get(schema_id)
        if schema is None:
            schema = await self._connection.schema(schema_id)
            if schema is None:
                raise DeserializationError(f"The registry {self.name} has no schema with id {schema_id}.")
            await self._fetch_referenced(schema)
            self._schemas[schema_id] = schema
        return schema

    async def lookup(self, subject: str, schema: Schema) -> int | None:
        """The id of `schema` under `subject`; None where it is not registered there."""
        known = self._ids.get((subject, schema))
        if known is not None:
            return known
        found = await self._connection.lookup(subject, schema)
        if found is not None:
            await self._keep(subject, schema, found)
        return found

    async def register(self, subject: str, schema: Schema) -> int:
        """The id of `schema` under `subject`, where it is registered if it was not there.

        Raises:
            IncompatibleSchema: it does not go with the subject's earlier ones.
            RegistryError: the registry does not answer, or refuses it.
        """
        found = await self.lookup(subject, schema)
        if found is None:
            found = await self._connection.register(subject, schema)
            await self._keep(subject, schema, found)
        return found

    async def subjects(self) -> list[str]:
        return await self._connection.subjects()

    async def versions(self, subject: str, latest: int | None = None) -> list[RegisteredSchema]:
        """What is registered under `subject`, oldest first; the newest `latest` where that is given."""
        numbers = sorted(await self._connection.versions(subject))
        if latest is not None:
            numbers = numbers[-latest:]
        found = [await self.version(subject, number) for number in numbers]
        return [each for each in found if each is not None]

    async def version(self, subject: str, version: int) -> RegisteredSchema | None:
        known = self._versions.get((subject, version))
        if known is None:
            known = await self._connection.version(subject, version)
            if known is not None:
                await self._fetch_referenced(known.schema)
                self._versions[subject, version] = known
                self._schemas.setdefault(known.id, known.schema)
        return known

    async def compatibility(self, subject: str) -> Level | None:
        """The level that was set for `subject`; None: the registry's own."""
        return await self._connection.compatibility(subject)

    async def set_compatibility(self, subject: str, level: Level) -> None:
        await self._connection.set_compatibility(subject, level)

    async def _keep(self, subject: str, schema: Schema, schema_id: int) -> None:
        await self._fetch_referenced(schema)
        self._ids[subject, schema] = schema_id
        self._schemas.setdefault(schema_id, schema)

    async def _fetch_referenced(self, schema: Schema) -> None:
        for reference in schema.references:
            if await self.version(reference.subject, reference.version) is None:
                raise RegistryError(
                    f"The registry {self.name} has no version {reference.version} of subject {reference.subject!r},"
                    f" which another schema refers to as {reference.name!r}."
                )
