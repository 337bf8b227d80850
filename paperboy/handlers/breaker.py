"""A circuit breaker: pauses a handler when what it needs is away."""

import asyncio
from collections import deque
from collections.abc import Callable

from paperboy.durations import seconds
from paperboy.handlers.error_policy import CircuitBreaker
from paperboy.handlers.failed_record import shown
from paperboy.log import get_logger

_log = get_logger("paperboy.task")


class Breaker:
    """The state of one handler's `CircuitBreaker`, shared by this worker's tasks.

    Closed, it counts failures. Open, nothing begins until its pause is over; then one message, the probe, may begin:
    if that finishes, it closes; if it fails with what counts, the pause begins again; if it fails otherwise, or is
    given up, the next message is the probe.

    Args:
        handler: its name, for the log.
    """

    def __init__(self, settings: CircuitBreaker, handler: str) -> None:
        self.opened = 0
        """How many times it has opened."""
        self._settings = settings
        self._within_sec = seconds(settings.within)
        self._pause_sec = seconds(settings.pause)
        self._handler = handler
        self._failures: deque[float] = deque(maxlen=settings.failures)
        """When the latest were."""
        self._until: float | None = None
        """When its pause is over; None while it is closed."""
        self._probing = False
        self._wakes: list[Callable[[], None]] = []

    @property
    def is_closed(self) -> bool:
        return self._until is None

    @property
    def opens_at(self) -> float | None:
        """When something may begin again, in loop time; None where it may now, or a probe is under way."""
        return None if self._until is None or self._probing or self._now() >= self._until else self._until

    def may_begin(self) -> bool:
        """Whether a message may begin: when it is not closed, one, the probe, for which `probe` is called."""
        return self._until is None or (not self._probing and self._now() >= self._until)

    def probe(self) -> None:
        """The one message begins."""
        self._probing = True

    def probed(self, finished: bool) -> None:
        """The probe has ended."""
        self._probing = False
        if finished and self._until is not None:
            self._until = None
            self._failures.clear()
            _log.info("handler goes on", handler=self._handler)
        for wake in self._wakes:
            wake()

    def failed(self, error: Exception) -> float | None:
        """A message has failed. How long it is held, in seconds, if it is; None where it is to be judged as ever."""
        if not self._settings.counts(error):
            return None
        now = self._now()
        if self._until is not None:  # the probe, or a message that had begun before
            if now >= self._until:
                self._pause(now, error)
            return self._until - now
        self._failures.append(now)
        if len(self._failures) < self._settings.failures or now - self._failures[0] > self._within_sec:
            return None
        self._pause(now, error)
        return self._pause_sec

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever a probe has ended. Returns what ends that."""
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _pause(self, now: float, error: Exception) -> None:
        self._until = now + self._pause_sec
        self.opened += 1
        _log.error(
            "handler paused",
            handler=self._handler,
            seconds=self._pause_sec,
            failures=len(self._failures),
            error=shown(error),
        )
