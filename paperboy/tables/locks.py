"""Keys of tables that messages hold for themselves until they have finished."""

import asyncio
from collections import deque
from collections.abc import Collection

Place = tuple[str, bytes]
"""A table's name, and the bytes of a key."""


class WouldWaitForEver(Exception):
    """The holder of this place waits, through others or by itself, for what the one who asks holds."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


class HolderHasEnded(Exception):
    """Somebody asked for its holder, which has let go of everything meanwhile."""


class Locks:
    """One task's locked keys: each has one holder, and is handed on in the order in which others asked."""

    def __init__(self) -> None:
        self._holders: dict[Place, object] = {}
        self._held: dict[object, list[Place]] = {}
        self._queues: dict[Place, deque[tuple[object, asyncio.Future[None]]]] = {}
        self._awaited: dict[object, list[Place]] = {}

    async def take(self, holder: object, places: Collection[Place]) -> None:
        """Hold these places until `release`: taken in one order, whoever asks. What is held already is free.

        Raises:
            WouldWaitForEver: two would wait for each other, because one of them asks a second time.
            HolderHasEnded: it was released while this waited.
        """
        for place in sorted(set(places)):
            owner = self._holders.get(place)
            if owner is None:
                self._give(place, holder)
            elif owner is not holder:
                await self._wait(holder, place)

    def release(self, holder: object) -> None:
        """Let go of everything, and hand it to those who wait. What still waits for this holder waits in vain."""
        for place in self._awaited.get(holder, ()):
            for waiting, future in self._queues[place]:
                if waiting is holder and not future.done():
                    future.set_exception(HolderHasEnded())
        for place in self._held.pop(holder, ()):
            del self._holders[place]
            queue = self._queues.get(place)
            while queue:
                waiting, future = queue.popleft()
                if not future.done():
                    self._give(place, waiting)
                    future.set_result(None)
                    break
            if not queue:
                self._queues.pop(place, None)

    def _give(self, place: Place, holder: object) -> None:
        self._holders[place] = holder
        self._held.setdefault(holder, []).append(place)

    async def _wait(self, holder: object, place: Place) -> None:
        if self._waits_for(self._holders[place], holder):
            raise WouldWaitForEver(place)
        future = asyncio.get_running_loop().create_future()
        self._queues.setdefault(place, deque()).append((holder, future))
        awaited = self._awaited.setdefault(holder, [])
        awaited.append(place)
        try:
            await future
        finally:
            awaited.remove(place)
            if not awaited:
                self._awaited.pop(holder, None)

    def _waits_for(self, one: object, other: object) -> bool:
        """Whether `one` cannot go on before `other` has finished."""
        asked, seen = [one], {id(one)}
        while asked:
            for place in self._awaited.get(asked.pop(), ()):
                owner = self._holders.get(place)
                if owner is other:
                    return True
                if owner is not None and id(owner) not in seen:
                    seen.add(id(owner))
                    asked.append(owner)
        return False
