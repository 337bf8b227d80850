"""An event loop in which part of what runs can die as a killed process does, and which another loop's task may turn."""

import asyncio
import contextlib
import ctypes
import selectors
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakSet

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PAUSES_SEC = (0.005, 0.1)
"""How often is looked whether a condition holds: at first, and after a while."""


class Process:
    """What one worker has started, as if it were a process of its own: whatever it starts inherits it."""

    def __init__(self) -> None:
        self.is_alive = True
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.generators: WeakSet[AsyncGenerator[Any, Any]] = WeakSet()


_process: ContextVar[Process | None] = ContextVar("paperboy_process", default=None)


def current_process() -> Process | None:
    """The process that this is called in; None outside of any."""
    return _process.get()


def process_of(handle: asyncio.Handle) -> Process | None:
    """The process in which a callback will run; None outside of any."""
    context: Context = handle._context  # type: ignore[attr-defined]
    return context.get(_process)


class ProcessLoop(asyncio.SelectorEventLoop):
    """See the module."""

    has_threads = True
    """Whether what goes to an executor is done in a thread."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._files = selectors.DefaultSelector() if selector is None else selector
        self._dead: list[Process] = []
        super().__init__(self._files)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Turn until `main` has ended, wherever we are called: also where another loop of this thread is running,
        which stands still meanwhile."""
        with _standing_still():
            task: asyncio.Task[T] = self.create_task(main)
            try:
                return self.run_until_complete(task)
            finally:
                if not task.done():  # the loop itself has given up
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        self.run_until_complete(task)

    def at_once(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what waits for nothing, without a turn of the loop: nothing else happens meanwhile."""
        with _standing_still():
            asyncio._set_running_loop(self)
            try:
                work.send(None)
            except StopIteration as end:
                done: T = end.value
                return done
            finally:
                asyncio._set_running_loop(None)
        work.close()
        raise RuntimeError(f"{work!r} waits for something.")

    async def quiet(self) -> None:
        """Let what is ready run. Real time has no moment at which nothing is ready any more."""
        await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds, about."""
        pause, longest = _PAUSES_SEC
        while not condition():
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def spawn(self, process: Process, work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Start a task in `process`."""
        context = copy_context()
        context.run(_process.set, process)
        return self.create_task(work, name=name, context=context)

    def kill(self, process: Process) -> None:
        """Let nothing of `process` run ever again: nothing is cancelled, no ``finally`` block is run."""
        process.is_alive = False
        self._dead.append(process)
        _never_let_go([task for task in process.tasks if not task.done()])  # before their handles, which may hold them
        waiting: list[asyncio.Handle] = [*self._ready, *self._scheduled]  # type: ignore[attr-defined]
        for handle in waiting:
            if process_of(handle) is process:
                handle.cancel()
        self._asyncgens.difference_update(process.generators)  # type: ignore[attr-defined]
        self._hang_up(process)

    def close(self) -> None:
        """Cancel what is still running, other than the dead, and close."""
        if not self.is_closed():
            self.run(_end(self._alive(asyncio.all_tasks(self))))
            self.run(self.shutdown_asyncgens())
        super().close()

    def create_task(self, coro: Any, *, context: Context | None = None, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, context=context, **options)
        process = _process.get() if context is None else context.get(_process)
        if process is not None:
            process.tasks.add(task)
        return task

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if self._dead and context is not None:
            process = context.get(_process)
            if process is not None and not process.is_alive:
                handle = asyncio.Handle(callback, args, self, context)
                handle.cancel()
                return handle
        return super().call_soon(callback, *args, context=context)

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        super()._asyncgen_firstiter_hook(agen)  # type: ignore[misc]
        process = _process.get()
        if process is not None:
            process.generators.add(agen)

    def _alive(self, tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
        return sorted(
            (task for task in tasks if not any(task in process.tasks for process in self._dead)),
            key=asyncio.Task.get_name,
        )

    def _hang_up(self, process: Process) -> None:
        """Close the connections of a dead process, as its kernel would."""
        for key in list(self._files.get_map().values()):
            handles = [handle for handle in key.data or () if handle is not None]
            if any(process_of(handle) is process for handle in handles):
                self._files.unregister(key.fileobj)
                _never_let_go(handles)
                with contextlib.suppress(OSError):
                    connection = socket.socket(fileno=key.fd)
                    try:
                        connection.shutdown(socket.SHUT_RDWR)
                    finally:
                        connection.detach()  # the file is closed with its owner, that is never


@contextlib.contextmanager
def _standing_still() -> Iterator[None]:
    """Whichever loop runs in this thread does not, for a while."""
    outer = asyncio._get_running_loop()
    # From Python 3.12 on; 3.14 lets no task begin while another one has not been put aside.
    swap: Callable[..., Any] | None = getattr(asyncio.tasks, "_swap_current_task", None)
    if outer is None:
        yield
        return
    task = None if swap is None else swap(outer, None)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if swap is not None:
            swap(outer, task)


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _never_let_go(things: Iterable[object]) -> None:
    """Keep these for as long as Python runs.

    A coroutine that is let go runs its ``finally`` blocks, and a task complains of it: those of a killed process must
    not. No container of ours is safe, because modules are emptied when the interpreter ends.
    """
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
