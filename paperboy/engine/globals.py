"""Global tables: this worker's copy of each, brought to the end of its topic and kept in step with it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from paperboy.brokers.protocol import Reader, TopicDescription, TopicPartition
from paperboy.engine.restore import take_over, uselessness
from paperboy.engine.restoring import RestoreProgress, Restoring
from paperboy.engine.silence import Silence
from paperboy.engine.status import GlobalTableStatus
from paperboy.engine.stores import HeldStore, StoreId, Stores
from paperboy.engine.wiring import Wiring
from paperboy.errors import BrokerError, StoreError, TopicNotFound
from paperboy.log import get_logger
from paperboy.tables.global_table import GlobalTable
from paperboy.tables.stores.protocol import Scan, Store, StoreIdentity

_log = get_logger("paperboy.globals")

SLICE = 5_000
"""Differences between two copies that are written before the loop gets its turn."""
_RESTORE_FETCH_SEC = 0.1
"""A tail without records gives a fetch nothing to return with: this is what it costs a restore."""
_FETCH_SEC = 1.0
"""How long a fetch waits for something new; what is new comes at once."""
_LOOK_SEC = 5.0
"""How often the topic is looked at: its partitions, its id, its ends."""
_ANSWER_SEC = 10.0
"""How long such a look waits for the broker."""
_GRACE_MS = 60_000
"""For a topic that hardly keeps tombstones: a copy that lags for less than this goes on."""
_BACKOFF_SEC = 0.1
_MAX_DOUBLINGS = 6
"""What has failed is tried again after 6.4 s at the latest."""
_NOWHERE: Final = -1
"""The offset of a copy that is of no use any more: the next start wipes it, whatever has become of it."""


class Follower:
    """Keeps this worker's copy of one global table: a store for each partition of its topic.

    The topic is read to the end that it has at the start, and then followed for ever. What fails is tried again, while
    the table shows what it knew last. A copy that the topic cannot bring up to date any more (records were deleted
    unread, or the topic was made anew) is restored beside the one that is shown, which then takes over what differs:
    the table is never seen empty. That costs the room of a second copy of one partition at a time.

    Args:
        topic: as it was found at the start.
    """

    def __init__(self, table: GlobalTable, topic: TopicDescription, stores: Stores, wiring: Wiring) -> None:
        self.table = table
        self.complete = asyncio.Event()
        """Set while the table can be read."""
        self.store_ids: set[StoreId] = set()
        """The stores it uses."""
        self._topic = topic
        self._stores = stores
        self._wiring = wiring
        self._broker = wiring.broker
        self._copies: list[_Copy] = []
        self._readable: list[Store] | None = None
        self._broken = False
        """A store has failed: all of them are opened again, from the disk."""
        self._ends: Mapping[TopicPartition, int] = {}
        self._asked_ms = 0
        """When the broker was asked for these ends."""
        self._progress: RestoreProgress | None = None
        self._moved = asyncio.Event()
        self._ended = False
        self._catch_ups = 0
        self._failures = 0
        self._failing: str | None = None
        self._keyless = 0

    def readable(self) -> Sequence[Store] | None:
        """The stores, by partition; None while they are not complete."""
        return self._readable

    async def run(self) -> None:
        """Restore the table, and follow its topic until cancelled.

        Raises:
            BrokerError, StoreError: it cannot be restored, and trying again (`checkpoint_attempts` times) did not help.
        """
        try:
            while True:
                try:
                    await self._catch_up()
                    await self._follow()
                except (BrokerError, StoreError) as error:
                    self._failed(error)
                    await asyncio.sleep(_BACKOFF_SEC * 2 ** min(self._failures - 1, _MAX_DOUBLINGS))
        finally:
            self._ended = True
            self._moved.set()

    async def caught_up(self) -> None:
        """Until the table holds what its topic holds at the call, or `run` has ended."""
        asked_in: int | None = None
        ends: Mapping[TopicPartition, int] = {}
        while not self._ended:
            self._moved.clear()
            if asked_in != self._catch_ups:
                asking_in = self._catch_ups
                try:
                    ends = await self._broker.end_offsets([copy.source for copy in self._copies])
                    asked_in = asking_in
                except BrokerError as error:
                    _log.warning("end offsets unknown", error=str(error))
                    await self._moved.wait()
            elif self.complete.is_set() and all(copy.offset >= ends[copy.source] for copy in self._copies):
                return
            else:
                await self._moved.wait()

    def restoring(self) -> Restoring | None:
        """How far a restore that is under way has come."""
        return None if self._progress is None else self._progress.so_far()

    def status(self) -> GlobalTableStatus:
        offsets = {copy.source: max(0, copy.offset) for copy in self._copies}
        known = self._ends.keys() >= offsets.keys() and bool(offsets)
        return GlobalTableStatus(
            name=self.table.name,
            topic=self.table.topic,
            ready=self.complete.is_set(),
            lag=sum(max(0, self._ends[source] - offset) for source, offset in offsets.items()) if known else None,
            offsets={str(source): offset for source, offset in offsets.items()},
            keyless=self._keyless,
            failing=self._failing,
            restoring=self.restoring(),
        )

    # Bringing copies to the end.

    async def _catch_up(self) -> None:
        """Open what is not open yet, and bring to the end what cannot simply be read on."""
        shown = len(self._copies)
        name, count = self.table.name, self._topic.partitions
        copies = [*self._copies[:count], *[await self._open(name, number) for number in range(shown, count)]]
        self._broken = False
        sources = [copy.source for copy in copies]
        now_ms = self._broker.clock.time_ms()
        begins, ends = await self._broker.beginning_offsets(sources), await self._broker.end_offsets(sources)
        for number, copy in enumerate(copies):
            why = self._uselessness(copy, begins[copy.source], ends[copy.source], now_ms)
            if why is not None and number < shown:
                await self._renew(copy, why)
            elif why is not None:
                await copy.held.wipe(why)
        await self._restore(copies[shown:])
        given_up, self._copies = self._copies[count:], copies
        self._readable = [copy.store for copy in copies]
        self._catch_ups += 1
        self.complete.set()
        self._moved.set()
        for copy in given_up:  # now that nobody reads them
            await copy.held.close()

    async def _open(self, name: str, number: int) -> "_Copy":
        topic, table = self._topic, self.table.kept_as
        held = self._stores.hold(table, StoreIdentity(name, number, topic.name, topic.id, table.definition))
        self.store_ids.add((name, number))
        store = await (held.reopen() if self._broken else held.open())
        return _Copy(TopicPartition(topic.name, number), held, store)

    async def _restore(self, copies: Sequence["_Copy"]) -> None:
        """Read each from where it stands to the end that its partition has now."""
        if not copies:
            return
        sources = {copy.source: copy for copy in copies}
        now_ms = self._broker.clock.time_ms()
        begins, ends = await self._broker.beginning_offsets(sources), await self._broker.end_offsets(sources)
        for source, copy in sources.items():
            if copy.store.changelog_offset is None:
                copy.store.write({}, begins[source], now_ms)
        progress = self._progress = RestoreProgress(asyncio.get_running_loop().time)
        progress.expect(sum(ends[copy.source] - copy.offset for copy in copies))
        behind = [copy for copy in copies if copy.offset < ends[copy.source]]
        read = list(behind)
        if behind:
            reader = self._broker.reader()
            try:
                await reader.start(_offsets(behind))
                silence = Silence(reader, {copy.source: ends[copy.source] for copy in behind}, self._broker)
                while behind:
                    await self._read(reader, behind, _RESTORE_FETCH_SEC)
                    await silence.listen()
                    behind = [copy for copy in behind if copy.offset < ends[copy.source]]
            finally:
                await reader.stop()
        _note_in_step(copies, ends, now_ms)
        for copy in read:
            await copy.held.flush()
        self._ends = {**self._ends, **ends}
        self._tell_restored(progress)

    async def _renew(self, copy: "_Copy", why: str) -> None:
        """Restore a copy beside the one that is shown, and let that take over what differs."""
        names = {"table": self.table.name, "topic": str(copy.source), "reason": why}
        _log.warning("global table restored anew", **names)
        copy.store.write({}, _NOWHERE, 0)
        beside = await self._open(f"{self.table.name}~", copy.source.partition)
        try:
            if beside.store.changelog_offset is not None:
                await beside.held.wipe("a restore left it behind that did not end")
            await self._restore([beside])
            for changes in _sliced(differences(copy.store.scan(), beside.store.scan())):
                copy.store.write(changes, _NOWHERE, 0)
                if copy.store.flush_due:
                    await copy.held.flush()
                await asyncio.sleep(0)
            copy.store.write({}, beside.offset, beside.store.in_step_ms or 0)
            await copy.held.flush()
            await beside.held.wipe("its entries were taken over")
        finally:
            await beside.held.close()

    def _tell_restored(self, progress: RestoreProgress) -> None:
        restored = progress.so_far()
        self._progress = None
        self._wiring.counters.restored += restored.records
        seconds = round(restored.elapsed_sec, 3)
        _log.info("restored", table=self.table.name, records=restored.records, seconds=seconds)
        if self._wiring.options.on_restore is not None:
            self._wiring.options.on_restore(self.table.name, restored)

    # Following.

    async def _follow(self) -> None:
        """Read on, until the copies have to be looked at again."""
        loop = asyncio.get_running_loop()
        reader = self._broker.reader()
        try:
            await reader.start(_offsets(self._copies))
            look_at = loop.time()
            while True:
                await self._read(reader, self._copies, _FETCH_SEC)
                _note_in_step(self._copies, self._ends, self._asked_ms)
                self._failures = 0
                self._moved.set()
                if loop.time() >= look_at:
                    if await self._has_to_catch_up():
                        return
                    look_at = loop.time() + _LOOK_SEC
        finally:
            await reader.stop()

    async def _has_to_catch_up(self) -> bool:
        """Hear how the topic is and where it ends: whether the copies can be read on as they are."""
        try:
            async with asyncio.timeout(_ANSWER_SEC):
                if await self._has_changed():
                    return True
                asked_ms = self._broker.clock.time_ms()
                ends = await self._broker.end_offsets([copy.source for copy in self._copies])
        except (BrokerError, TimeoutError) as error:
            self._note_failure(error)
            return False
        self._ends, self._asked_ms, self._failing = ends, asked_ms, None
        _note_in_step(self._copies, ends, asked_ms)
        return any(
            self._uselessness(copy, 0, ends[copy.source], asked_ms, at_least_ms=_GRACE_MS) for copy in self._copies
        )

    async def _has_changed(self) -> bool:
        """Whether the topic has other partitions than before, or is another one of the same name."""
        before, name = self._topic, self._topic.name
        now = (await self._broker.describe_topics([name])).get(name)
        if now is None:
            raise TopicNotFound(f"Topic {name!r} of global table {self.table.name!r} is gone: create it again.")
        made_anew = now.id != before.id if now.id and before.id else now.partitions < before.partitions
        if made_anew:
            _log.warning("topic made anew", table=self.table.name, topic=name)
            for copy in self._copies:
                copy.store.write({}, _NOWHERE, 0)
        elif now.partitions > before.partitions:
            _log.info("topic has grown", table=self.table.name, topic=name, partitions=now.partitions)
        else:
            return False
        self._topic = now
        return True

    def _failed(self, error: BrokerError | StoreError) -> None:
        """Note a failure; raise it where the table cannot be read for it, and it goes on."""
        self._failures += 1
        self._progress = None
        self._note_failure(error)
        if isinstance(error, StoreError):
            self.complete.clear()
            self._copies, self._readable = [], None
            self._broken = True
        attempts = self._wiring.options.checkpoint_attempts
        if self._failures >= attempts and not self.complete.is_set():
            kind = StoreError if isinstance(error, StoreError) else BrokerError
            raise kind(
                f"Global table {self.table.name!r} could not be restored from topic {self.table.topic!r} in {attempts}"
                f" attempts (checkpoint_attempts), the last of which says: {error}"
            ) from error

    def _note_failure(self, error: Exception) -> None:
        self._failing = str(error) or f"the broker did not answer within {_ANSWER_SEC:g} s"
        _log.warning("global table not followed", table=self.table.name, topic=self.table.topic, error=self._failing)

    # Reading.

    async def _read(self, reader: Reader, copies: Sequence["_Copy"], timeout_sec: float) -> None:
        """Write to the stores what one fetch brings."""
        chunks = await reader.fetch_changes([copy.source for copy in copies], timeout_sec)
        for copy in copies:
            await take_over(
                copy.held,
                copy.store,
                chunks.get(copy.source, ()),
                reader.position(copy.source),
                self._passed,
                partial(self._tell_keyless, copy),
            )

    def _passed(self, records: int, offsets: int) -> None:
        if self._progress is not None:
            self._progress.passed(records, offsets)

    def _tell_keyless(self, copy: "_Copy", keyless: Sequence[int]) -> None:
        self._keyless += len(keyless)
        _log.error(
            "records without a key passed over",
            table=self.table.name,
            topic=str(copy.source),
            records=len(keyless),
            first_offset=keyless[0],
            last_offset=keyless[-1],
        )

    def _uselessness(self, copy: "_Copy", begin: int, end: int, now_ms: int, at_least_ms: int = 0) -> str | None:
        keeps_ms = max(self._topic.delete_retention_ms, at_least_ms)
        return uselessness(copy.store.changelog_offset, begin, end, copy.store.in_step_ms, now_ms, keeps_ms)


def differences(old: Scan, new: Scan) -> Iterator[tuple[bytes, bytes | None]]:
    """The changes that make the entries of one store those of another: both in the order of their keys.

    Example:
        >>> list(differences(iter([(b"a", b"1"), (b"b", b"1")]), iter([(b"a", b"2"), (b"c", b"1")])))
        [(b'a', b'2'), (b'b', None), (b'c', b'1')]
    """
    was = next(old, None)
    for key, value in new:
        while was is not None and was[0] < key:
            yield was[0], None
            was = next(old, None)
        if was is None or was[0] != key:
            yield key, value
            continue
        if was[1] != value:
            yield key, value
        was = next(old, None)
    while was is not None:
        yield was[0], None
        was = next(old, None)


@dataclass(slots=True)
class _Copy:
    """This worker's copy of one partition of the topic."""

    source: TopicPartition
    held: HeldStore
    store: Store

    @property
    def offset(self) -> int:
        return self.store.changelog_offset or 0


def _offsets(copies: Sequence[_Copy]) -> dict[TopicPartition, int]:
    """Where they stand."""
    return {copy.source: copy.offset for copy in copies}


def _note_in_step(copies: Sequence[_Copy], ends: Mapping[TopicPartition, int], asked_ms: int) -> None:
    """Those that have come to the ends that were asked for then lacked nothing then."""
    for copy in copies:
        if asked_ms > (copy.store.in_step_ms or 0) and copy.offset >= ends.get(copy.source, copy.offset + 1):
            copy.store.write({}, copy.offset, asked_ms)


def _sliced(changes: Iterator[tuple[bytes, bytes | None]]) -> Iterator[dict[bytes, bytes | None]]:
    part: dict[bytes, bytes | None] = {}
    for key, value in changes:
        part[key] = value
        if len(part) == SLICE:
            yield part
            part = {}
    if part:
        yield part
