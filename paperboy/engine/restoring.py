"""How far restores have come, for a person and for `engine.status()`."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from paperboy.log import get_logger

_log = get_logger("paperboy.restore")

SHOW_SEC = 1.0
"""How often `RestoreDisplay.show` wants to be called."""
_LOG_EVERY = 5


@dataclass(frozen=True, slots=True)
class Restoring:
    """A task's restore at some moment."""

    records: int
    """Changelog records read so far."""
    offsets: int
    """Changelog offsets passed so far; compaction leaves fewer records than offsets."""
    total_offsets: int
    """Changelog offsets there were to pass."""
    elapsed_sec: float

    @property
    def records_per_sec(self) -> float:
        return self.records / self.elapsed_sec if self.elapsed_sec > 0 else 0.0

    @property
    def left_sec(self) -> float | None:
        """How long it will take yet, at the rate so far; None while nothing is known."""
        if not self.offsets or self.elapsed_sec <= 0:
            return None
        # A restore reads on to where its last fetch has brought it, which may be beyond the end that it had.
        return max(0, self.total_offsets - self.offsets) * self.elapsed_sec / self.offsets


class RestoreProgress:
    """One restore's own account of itself: it begins anew with `expect`.

    Args:
        now: the time in seconds, as the event loop has it.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._records = 0
        self._offsets = 0
        self._total = 0
        self._began = now()

    def expect(self, offsets: int) -> None:
        """So many offsets are to be read from now on."""
        self._records, self._offsets, self._total, self._began = 0, 0, offsets, self._now()

    def passed(self, records: int, offsets: int) -> None:
        """So many more records, and offsets, were read."""
        self._records += records
        self._offsets += offsets

    def so_far(self) -> Restoring:
        return Restoring(self._records, self._offsets, self._total, self._now() - self._began)


class RestoreDisplay:
    """Shows the restores that are under way: on a terminal as a bar, elsewhere as a log line now and then.

    Args:
        restores: what is being restored now, by task name.
        on_restore: the user's own, called with each.
        on_terminal: whether a bar may be drawn on standard error, where that is a terminal.
    """

    def __init__(
        self,
        restores: Callable[[], Mapping[str, Restoring]],
        on_restore: Callable[[str, Restoring], object] | None,
        on_terminal: bool,
    ) -> None:
        self._restores = restores
        self._on_restore = on_restore
        self._draws = on_terminal and sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._shown = 0

    async def show(self) -> None:
        """How things stand now."""
        restores = self._restores()
        if self._on_restore is not None:
            for task, restoring in restores.items():
                self._on_restore(task, restoring)
        if self._draws:
            self._draw(restores.values())
        elif restores:
            self._shown += 1
            if self._shown % _LOG_EVERY == 0:
                self._say(restores)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, restores: Mapping[str, Restoring]) -> None:
        for task, restoring in restores.items():
            _log.info(
                "restoring",
                task=task,
                records=restoring.records,
                records_per_sec=round(restoring.records_per_sec),
                left_sec=None if restoring.left_sec is None else round(restoring.left_sec, 1),
            )

    def _draw(self, restores: Iterable[Restoring]) -> None:
        under_way = list(restores)
        if not under_way:
            self.close()
            return
        if self._bar is None:
            from tqdm import tqdm

            class Bar(tqdm):  # type: ignore[misc]
                monitor_interval = 0  # no thread of its own: it is redrawn here

            self._bar = Bar(desc="restoring", unit=" offsets", unit_scale=True, leave=False, mininterval=0)
        self._bar.total = sum(restoring.total_offsets for restoring in under_way)
        self._bar.n = sum(restoring.offsets for restoring in under_way)
        self._bar.refresh()
