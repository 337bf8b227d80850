"""A TCP proxy in front of one Kafka broker, which does to chosen requests what networks do."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from enum import Enum, IntEnum
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"


class Kind(IntEnum):
    """Requests, by their api keys in Kafka's protocol."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CONFIGS = 32


class Fault(Enum):
    """What is done to a request. TCP keeps order, so what follows on its connection shares its fate."""

    DELAY = "delay"
    """It reaches the broker late, even if its client has hung up by then."""
    DROP = "drop"
    """Neither it nor what follows reaches the broker, and the connection stays open."""
    CUT_BEFORE = "cut before"
    """The connection ends, and the broker has not heard of the request."""
    CUT_AFTER = "cut after"
    """The broker has carried it out and answered; the connection ends in place of the answer. One that the broker
    refuses as a whole does not count: its answer goes through, and the next request meets the fault."""


ERROR_AT = {
    Kind.FIND_COORDINATOR: (0, 4),
    Kind.JOIN_GROUP: (0, 0, 4),
    Kind.HEARTBEAT: (0, 4),
    Kind.LEAVE_GROUP: (0, 4),
    Kind.SYNC_GROUP: (0, 4),
    Kind.INIT_PRODUCER_ID: (4,),
    Kind.ADD_OFFSETS_TO_TXN: (4,),
    Kind.END_TXN: (4,),
}
"""Where an answer's error code stands behind its correlation id: by version, the same from the last one on. Kinds with
an error for each topic or partition are not among them."""


class Mishap:
    """A fault that the next `count` requests of a kind meet, whoever sends them, once it is armed."""

    def __init__(self, kind: Kind, fault: Fault, count: int = 1) -> None:
        self.kind = kind
        self.fault = fault
        self.hits = 0
        """How many requests have met it."""
        self.over = asyncio.Event()
        """Set when all have."""
        self._count = count
        self._taken = 0

    def take(self, api_key: int) -> bool:
        """Whether a request of this kind is to meet it."""
        if api_key != self.kind or self._taken == self._count:
            return False
        self._taken += 1
        return True

    def spare(self) -> None:
        """The request that was taken does not count: another one is to meet it."""
        self._taken -= 1

    def hit(self) -> None:
        """A request has met it."""
        self.hits += 1
        if self.hits == self._count:
            self.over.set()


class Proxy:
    """Passes on what clients say to the broker at `broker_port`, and its answers, but for the faults that are armed.

    Args:
        listening: where clients connect; it stays open when the proxy has ended, for the next one.
        delay_sec: how late a request is that meets `Fault.DELAY`.
    """

    def __init__(self, listening: socket.socket, broker_port: int, delay_sec: float) -> None:
        self._listening = listening
        self._broker_port = broker_port
        self._delay_sec = delay_sec
        self._armed: list[Mishap] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self._listening.getsockname()[1]}"

    def arm(self, mishap: Mishap) -> None:
        """Let requests meet it from now on."""
        self._armed.append(mishap)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, sock=self._listening.dup())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(client, to_client), name="proxied connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            broker, to_broker = await asyncio.open_connection(HOST, self._broker_port)
        except OSError:
            to_client.transport.abort()
            return
        connection = _Connection(client, to_client, broker, to_broker, self._mishap_for, self._delay_sec)
        try:
            await connection.run()
        finally:
            to_client.transport.abort()
            to_broker.transport.abort()

    def _mishap_for(self, api_key: int) -> Mishap | None:
        return next((mishap for mishap in self._armed if mishap.take(api_key)), None)


class _Connection:
    """One client's, and ours to the broker for it."""

    def __init__(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        broker: asyncio.StreamReader,
        to_broker: asyncio.StreamWriter,
        mishap_for: Callable[[int], Mishap | None],
        delay_sec: float,
    ) -> None:
        self._client = client
        self._to_client = to_client
        self._broker = broker
        self._to_broker = to_broker
        self._mishap_for = mishap_for
        self._delay_sec = delay_sec
        self._unanswered: dict[int, tuple[int, Mishap | None]] = {}
        """By correlation id: versions of requests that the broker has, and what they meet."""
        self._client_is_gone = False

    async def run(self) -> None:
        """Returns when one side has hung up, and the broker has answered what it was asked; or when it is cut."""
        requests = asyncio.create_task(_until_the_end(self._pass_requests), name="proxied requests")
        responses = asyncio.create_task(_until_the_end(self._pass_responses), name="proxied responses")
        try:
            await asyncio.wait([requests, responses], return_when=asyncio.FIRST_COMPLETED)
            if self._client_is_gone and self._unanswered:
                await responses
        finally:
            requests.cancel()
            responses.cancel()
            await asyncio.gather(requests, responses, return_exceptions=True)

    async def _pass_requests(self) -> None:
        try:
            while await self._pass_request(await _frame(self._client)):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self._client_is_gone = True

    async def _pass_request(self, frame: bytes) -> bool:
        """False: the connection is to end."""
        mishap = self._mishap_for(int.from_bytes(frame[4:6]))
        fault = None if mishap is None else mishap.fault
        if mishap is not None and fault is Fault.CUT_BEFORE:
            mishap.hit()
            return False
        if mishap is not None and fault is Fault.DROP:
            mishap.hit()
            while True:
                await _frame(self._client)
        if fault is Fault.DELAY:
            await asyncio.sleep(self._delay_sec)
        self._unanswered[int.from_bytes(frame[8:12])] = (int.from_bytes(frame[6:8]), mishap)
        self._to_broker.write(frame)
        await self._to_broker.drain()
        return True

    async def _pass_responses(self) -> None:
        while not (self._client_is_gone and not self._unanswered):
            frame = await _frame(self._broker)
            version, mishap = self._unanswered.pop(int.from_bytes(frame[4:8]))
            if mishap is not None and mishap.fault is Fault.CUT_AFTER and _is_refusal(mishap.kind, version, frame):
                mishap.spare()
            elif mishap is not None:
                mishap.hit()
                if mishap.fault is Fault.CUT_AFTER:
                    return
            if not self._client_is_gone:
                self._to_client.write(frame)
                await self._to_client.drain()


def _is_refusal(kind: Kind, version: int, answer: bytes) -> bool:
    if kind not in ERROR_AT:
        return False
    at = 8 + ERROR_AT[kind][min(version, len(ERROR_AT[kind]) - 1)]
    return answer[at : at + 2] != bytes(2)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """A request or a response, with its size in front."""
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size))


async def _until_the_end(passing: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await passing()
