"""One worker: a process that runs one engine, for the supervisor that has started it.

    python -m paperboy.cli.worker_process app:engine --number 1 --of 4 --socket 7

It ends when it is told to by a signal, when its engine does, and when the supervisor is no more.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence

from paperboy.cli.errors import Misuse
from paperboy.cli.loading import definition_of, load_engine
from paperboy.cli.logging_setup import configure_logging
from paperboy.cli.worker_report import Report
from paperboy.engine import Engine
from paperboy.errors import PaperboyError
from paperboy.log import get_logger

CLEAN, FAILED, MISUSED = 0, 1, 2
"""Exit codes."""
DRAIN_MARGIN_SEC = 60.0
"""What a stop may take beyond ``drain_timeout_sec``: the last checkpoints, and leaving the group."""
_LOOK_SEC = 0.1
"""How often the engine is asked how it stands."""

_log = get_logger("paperboy.worker")


class SupervisorSocket:
    """The supervisor, as its worker sees it: somebody to tell, who may be gone one day."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def at(cls, descriptor: int) -> "SupervisorSocket":
        """Through the socket that this process was given."""
        ours = socket.socket(fileno=descriptor)
        ours.set_inheritable(False)
        return cls(*await asyncio.open_connection(sock=ours))

    def tell(self, report: Report) -> None:
        self._writer.write(report.line())

    async def until_gone(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._reader.read()  # it never says a word

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker to its end. Returns the exit code."""
    given = _parser().parse_args(arguments)
    configure_logging(given.log, given.log_level, worker=given.number)
    return asyncio.run(_work(given))


async def _work(given: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    supervisor = await SupervisorSocket.at(given.socket)
    deadline_sec = given.stop_timeout or DRAIN_MARGIN_SEC
    watching = asyncio.create_task(_stop_when_gone(supervisor, stop, lambda: deadline_sec), name="supervisor")
    try:
        engine = numbered(await load_engine(given.engine), given.number, given.of)
        options = definition_of(engine).options
        deadline_sec = given.stop_timeout or options.drain_timeout_sec + DRAIN_MARGIN_SEC
        supervisor.tell(Report(drain_timeout_sec=options.drain_timeout_sec))
        if not stop.is_set():
            await _run(engine, supervisor, stop)
    except Exception as error:  # noqa: BLE001 - whatever a user's module or hook raises ends the worker
        ours = isinstance(error, PaperboyError)
        trace = None if ours else "".join(traceback.format_exception(error))
        supervisor.tell(Report(failure=_sentence(error), traceback=trace))
        return MISUSED if isinstance(error, Misuse) else FAILED
    finally:
        watching.cancel()
        await supervisor.close()
    return CLEAN


def numbered(engine: Engine, number: int, workers: int) -> Engine:
    """The engine as the worker of this number runs it: under a name of its own, where it has one and is not alone.

    Raises:
        Misuse: it cannot be shared by so many processes.
    """
    options = definition_of(engine).options
    if workers == 1:
        return engine
    if options.bootstrap_servers.startswith("memory:"):
        raise Misuse(
            f"{options.bootstrap_servers} is a broker inside one process, which {workers} workers cannot share: let"
            " bootstrap_servers name a Kafka, or run --workers 1."
        )
    if options.group_instance_id is not None:
        own = f"{options.group_instance_id}-{number}"
        engine._options = dataclasses.replace(options, group_instance_id=own)
    return engine


async def _run(engine: Engine, supervisor: SupervisorSocket, stop: asyncio.Event) -> None:
    definition = definition_of(engine)
    _log.info(
        "worker started",
        group_id=definition.options.group_id,
        broker=definition.options.bootstrap_servers,
        state_dir=os.fspath(definition.options.state_dir),
        topics=sorted(definition.dispatches),
        pid=os.getpid(),
    )
    stopping = asyncio.create_task(_stop_engine(engine, stop), name="stop")
    try:
        ready = False
        async with engine:
            while engine.status().running and not stop.is_set():
                if ready is not engine.status().ready:
                    ready = not ready
                    supervisor.tell(Report(ready=ready))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK_SEC)
    finally:
        stopping.cancel()
    if not stop.is_set():
        supervisor.tell(Report(finished=True))


async def _stop_engine(engine: Engine, stop: asyncio.Event) -> None:
    await stop.wait()
    await engine.stop()


async def _stop_when_gone(supervisor: SupervisorSocket, stop: asyncio.Event, deadline_sec: Callable[[], float]) -> None:
    await supervisor.until_gone()
    _log.warning("supervisor gone", meaning="it was killed: this worker stops")
    # Nobody is left to kill a worker that does not end, not even one whose loop stands still; so let the kernel do it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, deadline_sec())
    stop.set()


def _sentence(error: Exception) -> str:
    said = str(error) if isinstance(error, PaperboyError) else f"{type(error).__name__}: {error}"
    return "; ".join([said, *getattr(error, "__notes__", ())])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m paperboy.cli.worker_process", description=__doc__)
    parser.add_argument("engine")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--of", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--stop-timeout", type=float)
    parser.add_argument("--log", default="text")
    parser.add_argument("--log-level", default="info")
    return parser


if __name__ == "__main__":
    sys.exit(main())
