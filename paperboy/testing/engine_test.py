"""Runs a user's engine in a test: on a broker in memory, in a time that the test turns."""

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, get_args

from paperboy.brokers.memory import Operation
from paperboy.brokers.protocol import GivenHeaders, Record
from paperboy.durations import Duration, seconds
from paperboy.engine import Engine
from paperboy.engine.outbox import check_bytes, checked_headers
from paperboy.errors import ConfigurationError, PaperboyError, TableError, TopicNotFound
from paperboy.serializers.outgoing import Serialize, to_bytes
from paperboy.serializers.protocol import SchemaNotFetched
from paperboy.tables import Table
from paperboy.tables.global_table import GlobalTable
from paperboy.testing.bench import REAL_PATIENCE_SEC, Bench
from paperboy.testing.table_view import TableView
from paperboy.testing.workers import check_free, topics_of
from paperboy.topic import Topic, addressed, name_of_topic

Decode = Callable[[bytes], Any]

BOOTSTRAP_VARIABLE = "PAPERBOY_TEST_BOOTSTRAP_SERVERS"
"""The environment variable that takes every test to another broker."""

_DEAD_LETTERS = "-dlt"


class EngineTest:
    """Runs an engine, as it was built for production, on a broker of the test's own.

        async with EngineTest(engine) as t:
            await t.send("page-views", "viewed", key="home")
            await t.settle()
            assert t.table("views") == {"home": 1}

    The broker is in memory, and time is virtual: it stands still until the test lets it go on, costs nothing, and
    nothing happens but in the calls below. The engine runs in an event loop of its own, which those calls turn, so
    that it does not matter what the test itself runs in.

    With `bootstrap_servers` (or the environment variable ``PAPERBOY_TEST_BOOTSTRAP_SERVERS``, or pytest's
    ``--paperboy-bootstrap``) the same test runs on a Kafka, in real time. Topics and groups have a prefix there, so
    that tests do not see each other's records, and topics are deleted in the end. ``memory://`` is a broker in memory
    in real time: for handlers that use sockets, subprocesses or threads.

    What a handler raised, the next call raises as it was; at the latest the end of the block does.

    Args:
        engine: it must not have been started. It is given back as it was, for the next test.
        partitions: how many partitions an input topic gets, and the topic of a global table.
        topics: further topics, such as those that handlers send to, with their partition counts; an input topic that
            stands here gets this count.
        bootstrap_servers: a broker to use in place of the one in memory.
        client_options: further options of aiokafka's clients, for that broker. The engine's own are not used.
        start_time: what the broker's clock shows at first; by default the time it is. Where time is real, it is real.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        partitions: int = 1,
        topics: Mapping[str, int] | None = None,
        bootstrap_servers: str | None = None,
        client_options: Mapping[str, object] | None = None,
        start_time: datetime | None = None,
    ) -> None:
        self._engine = engine
        self._topics = {**topics_of(engine, partitions), **(topics or {})}
        self._bootstrap_servers = bootstrap_servers or os.environ.get(BOOTSTRAP_VARIABLE) or None
        self._client_options = client_options
        self._start_time = start_time
        self._bench: Bench | None = None
        self._check()

    async def __aenter__(self) -> Self:
        """Start the engine, and return when it has its partitions and its tables are restored.

        Raises:
            ConfigurationError, BrokerError: it refused to start.
            PaperboyError: it was started already.
        """
        check_free(self._engine)
        bench = Bench(self._engine, self._topics, self._bootstrap_servers, self._client_options, self._start_time)
        try:
            bench.open()
        except BaseException:
            bench.close()
            raise
        self._bench = bench
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the engine, cleanly, and leave nothing behind."""
        bench = self._open
        self._bench = None
        bench.close()
        failure = bench.workers.failure(again=False)
        if failure is not None and error is None:
            raise failure

    # What goes in, and what has come of it.

    async def send(
        self,
        topic: str | Topic,
        value: Any,
        *,
        key: Any = None,
        headers: GivenHeaders = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
        serializer: Serialize | None = None,
        key_serializer: Serialize | None = None,
    ) -> tuple[int, int]:
        """Send a record, whether the engine runs or not. It is handled later: in `settle`, or `advance`.

        Args:
            topic: an input topic, or one of `topics`: its name, or a `Topic`, which brings its serializers.
            value: bytes, str (as UTF-8), or None for a tombstone; anything with `serializer`.
            key: as `value`. Without `partition` it chooses the partition, as `Engine.send` does; records without a key
                go to each partition in turn.
            headers: pairs of name and bytes.
            timestamp_ms: milliseconds since 1970; by default the time the broker's clock shows.

        Returns:
            Its partition and offset.

        Raises:
            TopicNotFound: there is no such topic in this test.
            SerializationError, BrokerError: it is nothing that the topic takes.
        """
        bench = self._open
        bench.tell_failure()
        topic, serializer, key_serializer = addressed(topic, serializer, key_serializer)
        value = _encoded(value) if serializer is None else to_bytes(serializer, value, part="value", topic=topic)
        key = _encoded(key) if key_serializer is None else to_bytes(key_serializer, key, part="key", topic=topic)
        if isinstance(value, SchemaNotFetched):
            value = bench.ask(_finished(value))
        if isinstance(key, SchemaNotFetched):
            key = bench.ask(_finished(key))
        outgoing = checked_headers(topic, headers)
        check_bytes(topic, key, value)
        return bench.ask(bench.records.send(topic, partition, key, value, outgoing, timestamp_ms))

    def sent(
        self, topic: str | Topic, *, key_deserializer: Decode | None = None, value_deserializer: Decode | None = None
    ) -> list[Record]:
        """The records of a topic: those of handlers once they are flushed, and the test's own.

        They are in the order of their partition, those of several partitions by their timestamps.

        Args:
            topic: its name, or a `Topic`, whose serializers decode where nothing else is said.
            key_deserializer: what becomes of the bytes of a key, as in ``key_deserializer=bytes.decode``.
            value_deserializer: and of a value.

        Raises:
            TopicNotFound: there is no such topic in this test.
        """
        bench = self._open
        if isinstance(topic, Topic):
            if key_deserializer is None and topic.key is not None:
                key_deserializer = topic.key.deserialize
            if value_deserializer is None and topic.value is not None:
                value_deserializer = topic.value.deserialize
        records = bench.ask(bench.records.read(name_of_topic(topic)))
        for record in records:
            if key_deserializer is not None and record.key is not None:
                record.key = key_deserializer(record.key)
            if value_deserializer is not None and record.value is not None:
                record.value = value_deserializer(record.value)
        return records

    def dead_letters(self, topic: str) -> list[Record]:
        """The records that were given up and put into ``{topic}-dlt``, which need not exist while there are none."""
        bench = self._open
        bench.ask(bench.records.topic(topic))
        try:
            return self.sent(topic + _DEAD_LETTERS)
        except TopicNotFound:
            return []

    def table(self, table: str | Table | GlobalTable, *, partition: int | None = None) -> TableView:
        """What a table holds now, of what is checkpointed: after `settle`, all of it.

        Args:
            table: a table of the engine's, or its name.
            partition: what stands in this partition alone.

        Raises:
            TableError: the engine has no such table; or nobody holds it, because no worker runs.
        """
        workers = self._open.workers
        tables: dict[str, Table | GlobalTable] = {**self._engine._tables, **self._engine._global_tables}
        name = table if isinstance(table, str) else table.name
        if name not in tables or (table != name and tables[name] is not table):
            registered = ", ".join(map(repr, sorted(tables))) or "none"
            raise TableError(f"Table {name!r} is not registered with this engine: it has {registered}.")
        if not workers.any_running:
            raise TableError(f"Table {name!r} is held by nobody: no worker runs; await t.restart() first.")
        if partition is not None and isinstance(tables[name], GlobalTable):
            raise TableError(f"Global table {name!r} is the same in all partitions: leave out partition={partition!r}.")
        entries = workers.entries(name)
        return TableView(name, [entry for entry in entries if partition is None or entry.partition == partition])

    # Time.

    async def settle(self, within: Duration | None = None) -> None:
        """Return when nothing is left to do: all input is handled and committed, and what handling it has sent to
        input topics as well; and nothing is due any more, but timers of times to come.

        The clock moves on only as far as that takes: for a handler that sleeps, a retry after a pause, a session that
        has to end.

        Args:
            within: how long it may take; by default 5 minutes of virtual time, or one minute of real time.

        Raises:
            NotSettled: it took longer, or handlers go on feeding each other for ever.
            Exception: what a handler has raised.
        """
        bench = self._open
        bench.tell_failure(again=True)
        bench.settle(None if within is None else seconds(within))
        bench.tell_failure(again=True)

    async def advance(self, duration: Duration) -> None:
        """Let so much time pass, with all that happens in it. ``advance(0)`` does what is due now.

        Args:
            duration: ``"1h"``, ``"1h 30m"``, ``"10s"``, ``"250ms"``, a number of seconds, or a timedelta.

        Raises:
            ConfigurationError: it is none; or it is more than a minute, in real time.
            Exception: what a handler has raised.
        """
        bench = self._open
        duration_sec = seconds(duration)
        if not bench.is_virtual and duration_sec > REAL_PATIENCE_SEC:
            raise ConfigurationError(
                f"t.advance({duration!r}): on {bench.backdoor.name} time is real, and the test would take as long;"
                f" {REAL_PATIENCE_SEC:g} s at most are waited for."
            )
        bench.tell_failure()
        bench.advance(duration_sec)
        bench.tell_failure()

    def time_ms(self) -> int:
        """What the broker's clock shows, in milliseconds since 1970."""
        return self._open.time_ms()

    # What can happen to an engine.

    async def crash(self, worker: int | None = None) -> None:
        """Kill the engine, as ``kill -9`` does: nothing of it ever runs again, no ``finally`` block either.

        The broker stays as it is, the committed offsets and the group's session with it. Of tables that are kept on
        disk there stays what was flushed.

        Args:
            worker: which worker is killed, from 0, where there are several; by default all.
        """
        bench = self._open
        bench.tell_failure()
        bench.workers.kill(worker)

    async def stop(self) -> None:
        """Stop the engine, cleanly, as SIGTERM does. Then `send`, for instance, and `restart`."""
        bench = self._open
        bench.tell_failure()
        bench.wait("The stop", bench.workers.stop())
        bench.tell_failure()

    async def restart(self) -> None:
        """Run the engine anew after a crash, a stop or a failure; one that runs is stopped first.

        Returns when it has its partitions, with its tables restored. After a crash the group waits for the old session
        to end first (``session_timeout_sec``): virtual time passes, real time where it is real.
        """
        bench = self._open
        bench.tell_failure()
        bench.wait("The restart", bench.workers.restart())
        bench.tell_failure()

    async def rebalance(self, *, workers: int | None = None) -> None:
        """Let the group revoke everything and assign it anew.

        Args:
            workers: so many workers of this engine share the work from now on: further ones join, or the last leave.
        """
        bench = self._open
        bench.tell_failure()
        bench.wait("The rebalance", bench.workers.rebalance(workers))
        bench.tell_failure()

    def fail_next(self, operation: Operation, error: Exception | None = None) -> None:
        """Let the broker's next operation fail. Called n times, the next n do, in this order.

        Args:
            operation: ``"produce"`` (nothing is written) or ``"produce_ack"`` (it is, and nobody hears of it),
                ``"commit"``, ``"commit_ack"``, ``"fetch"``, ``"describe"``, ``"create"``, ``"offsets"``,
                ``"committed"``, ``"start"``. The test's own sends do not count.
            error: what the engine's client raises; a BrokerError by default.

        Raises:
            ConfigurationError: there is no such operation.
            PaperboyError: this broker does not fail on demand.
        """
        if operation not in get_args(Operation):
            raise ConfigurationError(
                f"t.fail_next({operation!r}): an operation is one of {', '.join(map(repr, get_args(Operation)))}."
            )
        self._open.backdoor.fail_next(operation, error)

    @property
    def _open(self) -> Bench:
        if self._bench is None:
            raise PaperboyError("This EngineTest is not open: use it inside 'async with EngineTest(engine) as t:'.")
        return self._bench

    def _check(self) -> None:
        for topic, partitions in self._topics.items():
            if type(partitions) is not int or partitions < 1:
                raise ConfigurationError(f"Topic {topic!r} cannot have {partitions!r} partitions: say 1 or more.")
        if self._start_time is not None and self._start_time.tzinfo is None:
            raise ConfigurationError(f"start_time={self._start_time!r} has no time zone: give it one, such as UTC.")


async def _finished(waiting: SchemaNotFetched) -> Any:
    return await waiting.finish()


def _encoded(data: Any) -> Any:
    return data.encode() if isinstance(data, str) else data
