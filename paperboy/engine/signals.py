"""SIGINT and SIGTERM, taken while an engine runs and given back afterwards."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from paperboy.log import get_logger

_log = get_logger("paperboy.engine")


@contextmanager
def stopping_on_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call `stop` with the signal's name, once each; a signal that somebody else has taken is left to them.

    Outside the main thread, and on loops without signals, nothing is taken.
    """
    loop = asyncio.get_running_loop()
    taken = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        if not _is_free(before):
            _log.info("signal left to whoever has taken it", signal=number.name)
            continue
        try:
            loop.add_signal_handler(number, stop, number.name)
        except (NotImplementedError, RuntimeError, ValueError):
            continue
        taken[number] = before
    try:
        yield
    finally:
        for number, before in taken.items():
            loop.remove_signal_handler(number)
            signal.signal(number, before)


def _is_free(handler: object) -> bool:
    """Whether nobody has set it; asyncio.run's own SIGINT handler counts as nobody's."""
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    return isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner)
