"""Where the table commands look: in a state directory, or on a broker."""

import argparse
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from paperboy.cli.administration import Administration, open_administration
from paperboy.cli.changelogs import changelog_parts
from paperboy.cli.errors import Misuse
from paperboy.cli.loading import Definition, definition_of, load_engine
from paperboy.cli.parts import Part
from paperboy.cli.stores import Stores
from paperboy.engine.topology import changelog_topic
from paperboy.errors import RegistryError
from paperboy.tables.schemas import open_to_read

_ADDRESS = re.compile(r"memory:.*|[^/]+:\d+(,[^/]+:\d+)*")


def is_address(text: str) -> bool:
    """Whether this is a broker's address, and no directory."""
    return _ADDRESS.fullmatch(text) is not None and not Path(text).is_dir()


class Source:
    """See above.

    Args:
        text: as it was given.
        table: only this one.
        definition: of the engine that was named.

    Raises:
        Misuse: it is neither.
    """

    def __init__(self, text: str, table: str | None, definition: Definition | None) -> None:
        self.address = text if is_address(text) else None
        """Of a broker; None: it is a directory."""
        self.table = table
        self.definition = definition
        self.unreadable = False
        """Whether `parts` came by a store that cannot be read."""
        self._directory = Path(text)
        if self.address is None and not self._directory.is_dir():
            raise Misuse(f"{text!r} is neither a directory nor a broker's address, such as localhost:9092.")

    def stores(self) -> Stores:
        return Stores(self._directory, self.table, self.definition)

    @asynccontextmanager
    async def connected(self, address: str) -> AsyncIterator[Administration]:
        options = None if self.definition is None else self.definition.options.client_options
        broker = open_administration(address, client_options=options)
        try:
            await broker.start()
            yield broker
        finally:
            await broker.stop()

    async def parts(self) -> AsyncGenerator[Part, None]:
        """What is there, one after another."""
        if self.address is None:
            stores = self.stores()
            async with aclosing(stores.parts()) as in_stores:
                async for part in in_stores:
                    yield part
            self.unreadable = stores.unreadable > 0
            return
        async with (
            self.connected(self.address) as broker,
            aclosing(changelog_parts(broker, self.table, self.definition)) as in_changelogs,
        ):
            async for read in in_changelogs:
                yield read


async def source_of(given: argparse.Namespace) -> Source:
    """What a command line names by SOURCE, TABLE and --engine."""
    definition = None if given.engine is None else definition_of(await load_engine(given.engine))
    if definition is not None:
        await _fetch_schemas(definition)
    return Source(given.source, given.table, definition)


async def _fetch_schemas(definition: Definition) -> None:
    """Have what tables are written in; without a registry, they are shown raw."""
    group_id = definition.options.group_id
    topics = {changelog_topic(table, group_id): table for table in definition.tables.values()}
    topics |= {table.topic: table.kept_as for table in definition.global_tables.values()}
    for topic, table in topics.items():
        try:
            await open_to_read(table, topic)
        except RegistryError as error:
            print(f"paperboy: {error}", file=sys.stderr)
