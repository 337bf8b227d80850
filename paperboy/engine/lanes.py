"""The messages of one task that are handled at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from paperboy.brokers.protocol import TopicPartition
from paperboy.engine.outbox import Outbox
from paperboy.engine.source import Source
from paperboy.engine.window import Taken, Window
from paperboy.engine.wiring import Wiring
from paperboy.engine.work import Work
from paperboy.errors import TableError
from paperboy.handlers.beside import Attempt, attempt
from paperboy.handlers.failures import failed_before
from paperboy.handlers.outcome import Failing
from paperboy.log import get_logger
from paperboy.tables.isolation import Conflict, History, Isolation
from paperboy.tables.locks import HolderHasEnded, Locks, WouldWaitForEver
from paperboy.tables.partition import TablePartition, Undo

_log = get_logger("paperboy.task")

_SPAN = 16
"""How many records a window spans at most, for each lane: what a slow message, or a key with many, may hold back."""

_MOST_LOSSES = 5
"""After so many conflicts a message runs alone in its task."""


class Lane(Work):
    """The unit of work of one message at a time, beside others: what it writes is the task's when it has finished."""

    def __init__(
        self,
        name: str,
        tables: Mapping[str, TablePartition],
        outbox: Outbox,
        wiring: Wiring,
        history: History,
        locks: Locks,
        is_ending: Callable[[], bool],
    ) -> None:
        undo: Undo = []
        self.isolation = Isolation(tables, undo, history)
        super().__init__(
            name,
            self.isolation.tables,
            undo,
            outbox,
            wiring.topics,
            wiring.broker.clock,
            wiring.counters,
            wiring.options.group_id,
            is_ending=is_ending,
            has_to_stop=lambda: False,
            turn_sec=0.0,
        )
        self._locks = locks
        self._refused: Conflict | None = None
        """A key that could not be locked: whatever the message has done without it does not count."""

    def begin(self) -> None:
        self._refused = None
        self.isolation.begin()

    def conflict(self) -> Conflict | None:
        if self._refused is not None:
            return self._refused
        return self.isolation.conflict()

    def accept(self) -> None:
        self.isolation.merge()
        super().accept()

    async def lock(self, table: str, keys: Collection[bytes]) -> None:
        """Hold these keys until the message in hand has ended.

        Raises:
            TableError: it would wait for a message that waits for it.
        """
        try:
            await self._locks.take(self, [(table, key) for key in keys])
        except WouldWaitForEver as error:
            held = self.tables[table]
            self._refused = Conflict(table, repr(held.decoded_key(error.place[1])))
            raise TableError(
                f"Table {table!r}, key {self._refused.key}: this message and another one of {self.name} would wait for"
                " each other for ever: lock all keys that a message needs in one call of table.lock."
            ) from error
        except HolderHasEnded as error:
            raise TableError(
                f"A key of table {table!r} was to be locked in {self.name} after its message had ended: await what a"
                " hook starts before the hook returns."
            ) from error

    def end(self) -> None:
        """The message has ended, or its attempt: what was not accepted never happened, and its locks are free."""
        self.abandon()
        self.isolation.end()
        self._locks.release(self)


@dataclass
class _Track:
    """One input partition, its lanes, and what they have before them."""

    source: Source
    window: Window = field(default_factory=Window)
    lanes: list["asyncio.Task[None]"] = field(default_factory=list)
    idle: list["asyncio.Future[None]"] = field(default_factory=list)
    """Of lanes that wait to be called."""
    waiting: dict[Taken, asyncio.TimerHandle] = field(default_factory=dict)
    """Messages that have failed, and when they may begin again."""
    opening: asyncio.TimerHandle | None = None
    """When the circuit breaker lets one begin."""
    called: int = 0
    """Lanes that were called, or made, and have not looked yet."""
    dry: bool = True
    """Everything that was fetched has been taken."""

    @property
    def concurrency(self) -> int:
        return self.source.dispatch.concurrency

    @property
    def has_lanes_left(self) -> bool:
        """Whether one more could begin something."""
        return len(self.idle) > 0 or len(self.lanes) < self.concurrency

    @property
    def wants_more(self) -> bool:
        """Whether lanes may run idle soon, and the window takes more."""
        concurrency = self.concurrency
        return self.window.ready <= concurrency // 2 and len(self.window) <= (_SPAN - 1) * concurrency


class Lanes:
    """Long-lived asyncio tasks, up to a handler's `concurrency` for each of its partitions, that each handle one
    message after another: the next whose key is free.

    A message sees what has finished, and its own writes. When it finishes, its writes and sends become the task's in
    one step. So the task may checkpoint at any moment: what is in flight is not part of it.

    Args:
        name: the task's.
        tables: the task's, by name.
        wake: called when the task can feed more, when nothing is left, and when a message has failed.
        turn_sec: how long messages are begun before the event loop gets its turn.
        room_bytes: what the unfinished messages of a partition may cost in memory, about.
    """

    def __init__(
        self,
        name: str,
        tables: Mapping[str, TablePartition],
        outbox: Outbox,
        wiring: Wiring,
        wake: Callable[[], None],
        turn_sec: float,
        room_bytes: int,
    ) -> None:
        self.failure: Exception | None = None
        """Why a message failed for good: nothing begins any more."""
        self.in_flight = 0
        """Messages that have begun and not ended."""
        self.left_gaps = False
        """It was ended while it had gaps."""
        self._name = name
        self._tables = tables
        self._outbox = outbox
        self._wiring = wiring
        self._wake = wake
        self._turn_sec = turn_sec
        self._room_bytes = room_bytes
        self._loop = asyncio.get_running_loop()
        self._history = History()
        self._locks = Locks()
        self._tracks: dict[TopicPartition, _Track] = {}
        self._turn_ends: float | None = None
        self._ended = asyncio.Event()
        """Set whenever a message has ended."""
        self._ending = False
        self._held = False
        self._one_alone = asyncio.Lock()
        self._alone = False
        self._parked = 0
        """Messages that wait for their turn to be alone."""

    # What the task asks and tells.

    @property
    def is_empty(self) -> bool:
        """Whether everything that was taken has finished."""
        return not any(len(track.window) for track in self._tracks.values())

    def has(self, source: Source) -> bool:
        """Whether records of this partition were taken that have not finished."""
        track = self._tracks.get(source.partition)
        return track is not None and len(track.window) > 0

    def feed(self, source: Source, until: int | None) -> int:
        """Take records, up to the first with a timestamp above `until`, as far as the lanes can use them soon: either
        those that are to be handled one by one, or the others.

        Returns:
            How many.
        """
        track = self._tracks.get(source.partition)
        if track is None:
            track = self._tracks[source.partition] = _Track(source)
        window, concurrency = track.window, track.concurrency
        fed, apart = 0, source.is_isolated
        track.dry = False
        while window.ready < concurrency and (room := _SPAN * concurrency - len(window)) > 0:
            if window.bytes >= self._room_bytes:
                break
            head = source.head_timestamp
            if head is None or (until is not None and head > until) or source.is_isolated is not apart:
                track.dry = True
                break
            records = source.take_bulk(1 if until is not None else min(room, concurrency))
            window.add(records)
            fed += len(records)
        self._call(track)
        return fed

    def let_pass(self, source: Source) -> bool:
        """Whether a record of another partition may be handled outside, though not everything has finished: what is
        left waits to be handled again, or behind that."""
        return not self.in_flight and not self._may_begin() and not self.has(source)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing begins meanwhile."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self.call_all()

    def cut(self) -> None:
        """Give back to the partitions what has not begun, so that nothing is left but what has to finish soon."""
        for track in self._tracks.values():
            records = track.window.cut()
            if records:
                track.source.give_back(records)

    async def quiet(self) -> None:
        """Wait until everything that was taken has finished, but for what waits to be handled again, and what waits
        behind that; after a failure, until what is in flight has ended."""
        while self.in_flight or (self.failure is None and self._may_begin()):
            self._ended.clear()
            await self._ended.wait()

    async def end(self) -> None:
        """Cancel what is in flight, which never happened, and forget the rest. It can be fed anew afterwards."""
        self._ending = True
        for track in self._tracks.values():
            self._forget_timers(track)
        lanes = [lane for track in self._tracks.values() for lane in track.lanes]
        for lane in lanes:
            lane.cancel()
        if lanes:
            await asyncio.wait(lanes)
        self.left_gaps = self.left_gaps or self.has_gaps
        self._tracks.clear()
        self.failure = None
        self._ending = False

    def begun_to(self) -> dict[TopicPartition, int]:
        """Of each partition that has unfinished messages, the offset behind the last that was taken."""
        return {partition: end for partition, track in self._tracks.items() if (end := track.window.end) is not None}

    @property
    def has_gaps(self) -> bool:
        """Whether messages have finished behind one that has not: what they wrote and sent is the task's, which has not
        come so far."""
        return any(track.window.has_gaps for track in self._tracks.values())

    def _may_begin(self) -> bool:
        """Whether anything that was taken could begin."""
        return any(track.window.ready and not track.source.is_paused for track in self._tracks.values())

    # One lane.

    async def _run(self, track: _Track) -> None:
        lane = Lane(
            self._name, self._tables, self._outbox, self._wiring, self._history, self._locks, lambda: self._ending
        )
        track.called -= 1
        lane.time_limit.sec = track.source.dispatch.handler_timeout_sec
        lane.time_limit.watch([lane.time_limit.sec])
        while not self._ending:
            taken = self._next(track)
            if taken is None:
                called = self._loop.create_future()
                track.idle.append(called)
                await called
                track.called -= 1
                continue
            self.in_flight += 1
            breaker = track.source.dispatch.breaker
            probe = None if breaker is None or breaker.is_closed else breaker
            if probe is not None:
                probe.probe()
            outcome: Attempt | Failing | None = None
            try:
                outcome = await self._handle(track, taken, lane)
            finally:
                self.in_flight -= 1
                lane.end()
                if isinstance(outcome, Failing):
                    self._wait(track, taken, outcome, lane)
                elif outcome is not None:
                    self._finish(track, taken)
                if probe is not None:
                    probe.probed(outcome is Attempt.FINISHED)
                self._ended.set()

    def _next(self, track: _Track) -> Taken | None:
        """The next message, unless nothing may begin now: then lanes are called when something may."""
        if not track.window.ready or self._alone or self._held or self.failure is not None:
            return None
        now = self._loop.time()
        if track.source.is_paused:
            self._wait_for_breaker(track)
            return None
        if self._turn_ends is None:
            self._turn_ends = now + self._turn_sec
            self._loop.call_soon(self._new_turn)
        elif now >= self._turn_ends:
            return None
        return track.window.begin()

    async def _handle(self, track: _Track, taken: Taken, lane: Lane) -> Attempt | Failing | None:
        """Returns how it went; None where it has failed for good."""
        dispatch, record = track.source.dispatch, taken.record
        lane.failing = taken.failing or (failed_before(record) if track.source.is_delayed else None)
        try:
            for _ in range(_MOST_LOSSES):
                outcome = await attempt(dispatch, record, lane)
                if outcome is not Attempt.LOST:
                    return outcome
                self._lost(lane)
            async with self._being_alone():
                while (outcome := await attempt(dispatch, record, lane)) is Attempt.LOST:
                    self._lost(lane)
            return outcome
        except Exception as error:  # noqa: BLE001 - whatever a hook raised: the task raises it
            self._fail(error, taken)
            return None

    def _wait(self, track: _Track, taken: Taken, failing: Failing, lane: Lane) -> None:
        """It has failed and is to be handled again: its key waits, and the lane goes on with another."""
        if self._ending:  # whatever made of its cancellation something else
            return
        lane.waits(failing)
        taken.failing = failing
        track.source.waiting += 1
        track.waiting[taken] = self._loop.call_at(failing.due, self._again, track, taken)
        self._wake()

    def _again(self, track: _Track, taken: Taken) -> None:
        del track.waiting[taken]
        track.source.waiting -= 1
        track.window.again(taken)
        self._call(track)

    def _wait_for_breaker(self, track: _Track) -> None:
        breaker = track.source.dispatch.breaker
        opens_at = None if breaker is None else breaker.opens_at
        if opens_at is not None and track.opening is None:
            track.opening = self._loop.call_at(opens_at, self._opens, track)

    def _opens(self, track: _Track) -> None:
        track.opening = None
        self._call(track)

    def _forget_timers(self, track: _Track) -> None:
        for timer in track.waiting.values():
            timer.cancel()
        track.waiting.clear()
        track.source.waiting = 0
        if track.opening is not None:
            track.opening.cancel()

    def _finish(self, track: _Track, taken: Taken) -> None:
        window, source = track.window, track.source
        window.finish(taken)
        if window.position is not None and window.position > source.position:
            source.position = window.position
        self._wiring.counters.handled += 1
        if window.ready > 1 and track.has_lanes_left:  # this lane takes one itself
            self._call(track)
        if not len(window) or track.dry or track.wants_more:
            self._wake()

    def _lost(self, lane: Lane) -> None:
        """It has lost against another message: for the next attempt, nothing of it is left."""
        self._wiring.counters.reruns += 1
        lane.end()

    def _fail(self, error: Exception, taken: Taken) -> None:
        if self.failure is None:
            self.failure = error
        else:
            record = taken.record
            _log.error(
                "another message failed",
                task=self._name,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                error=repr(error),
                exc_info=error,
            )
        self._wake()

    def _broken(self, lane: "asyncio.Task[None]") -> None:
        """A lane has ended: not by `end`, if it has an exception."""
        if not lane.cancelled() and isinstance(error := lane.exception(), Exception):
            self.failure = self.failure or error
            self._ended.set()
            self._wake()

    # Who may begin.

    def _call(self, track: _Track) -> None:
        """Let as many lanes look for a message as there are messages that may begin."""
        wanted = 0 if self._ending else track.window.ready - track.called
        while wanted > 0 and track.idle:
            called = track.idle.pop()
            if not called.done():
                called.set_result(None)
                track.called += 1
                wanted -= 1
        for _ in range(min(wanted, track.concurrency - len(track.lanes))):
            track.called += 1
            lane = self._loop.create_task(self._run(track), name=f"lane {len(track.lanes)} of {track.source.partition}")
            lane.add_done_callback(self._broken)
            track.lanes.append(lane)

    def call_all(self) -> None:
        """Something that kept messages from beginning has ended."""
        for track in self._tracks.values():
            self._call(track)

    def _new_turn(self) -> None:
        """The event loop has turned."""
        self._turn_ends = None
        self.call_all()

    @asynccontextmanager
    async def _being_alone(self) -> AsyncIterator[None]:
        """Nothing else of this task is in flight, but for those that wait for the same."""
        self._parked += 1
        self._ended.set()
        try:
            await self._one_alone.acquire()
        finally:
            self._parked -= 1
        try:
            self._alone = True
            while self.in_flight - self._parked > 1:
                self._ended.clear()
                await self._ended.wait()
            yield
        finally:
            self._alone = False
            self._one_alone.release()
            self.call_all()
