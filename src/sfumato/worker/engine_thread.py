"""The one thread that owns the engine, and the awaitable face of it for the worker's event loop."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sfumato.core.errors import EngineDead
from sfumato.core.job import Job
from sfumato.engine.batcher import Whose
from sfumato.engine.events import Event, Failed, Finished, Pixels, Progress
from sfumato.engine.opening import AnyEngine
from sfumato.observability import observe

__all__ = ["Aborted", "EngineThread"]

log = logging.getLogger(__name__)


class Aborted(Exception):
    """The job was taken out of the engine before its end."""


@dataclass(slots=True)
class _Guest:
    """A job in the engine as the event loop sees it."""

    done: "asyncio.Future[Pixels]"
    told: Callable[[Progress], None]


class EngineThread:
    """Runs `engine.step()` while a job is in it. No device work on the event loop, no I/O on this thread."""

    def __init__(self, engine: AnyEngine, model: str) -> None:
        self._engine, self._model = engine, model
        self._loop = asyncio.get_running_loop()
        self._guests: dict[str, _Guest] = {}
        self._commands: deque[Callable[[], object]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._dead: EngineDead | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, key: str, job: Job, pixels: Pixels, told: Callable[[Progress], None]) -> Pixels:
        """Run one job; [height, width, 3] uint8 in and out. `told` is called with its progress.

        Raises:
            Aborted: `abort` was called for it.
            PermanentError: this job can't succeed.
            EngineDead: no job can, in this process.
        """
        if self._dead is not None:
            raise self._dead
        guest = _Guest(self._loop.create_future(), told)
        self._guests[key] = guest
        self._command(lambda: self._add(key, job, pixels))
        try:
            return await guest.done
        finally:
            del self._guests[key]

    def abort(self, key: str) -> None:
        """End a job's generation within one step; without effect when it is not in the engine."""
        guest = self._guests.get(key)
        if guest is not None and not guest.done.done():
            guest.done.set_exception(Aborted())
            self._command(lambda: self._engine.abort(key))

    def show(self, key: str, on: bool) -> None:
        """From now on this job's progress comes with previews, or without; no effect when it is not in the engine."""
        self._command(lambda: self._engine.show(key, on))

    async def close(self) -> None:
        """Stop after the current step; waits for the thread without blocking the loop."""
        self._stopping = True
        self._command(lambda: None)
        await asyncio.to_thread(self._thread.join)

    def _command(self, command: Callable[[], object]) -> None:
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    def _run(self) -> None:
        while not self._stopping:
            with self._wake:
                while not self._commands and self._engine.idle:
                    self._wake.wait()
                commands = list(self._commands)
                self._commands.clear()
            try:
                for command in commands:
                    command()
                if not self._engine.idle:
                    self._step()
            except Exception as error:
                log.exception("the engine stopped working")
                dead = error if isinstance(error, EngineDead) else EngineDead(f"{type(error).__name__}: {error}")
                self._loop.call_soon_threadsafe(self._die, dead)
                return

    def _add(self, key: str, job: Job, pixels: Pixels) -> None:
        try:
            self._engine.add(key, job.params, pixels, job.priority, Whose(job.owner, job.weight))
        except (MemoryError, EngineDead):
            raise
        except Exception as error:
            # A job that can't even enter is that job's trouble alone.
            self._loop.call_soon_threadsafe(self._tell, [Failed(key, error)])

    def _step(self) -> None:
        begin = time.perf_counter()
        happened = self._engine.step()
        observe("sfumato_step_seconds", time.perf_counter() - begin, model=self._model)
        observe("sfumato_batch_rows", self._engine.rows, model=self._model)
        if happened:
            self._loop.call_soon_threadsafe(self._tell, happened)

    def _tell(self, happened: Sequence[Event]) -> None:
        for event in happened:
            guest = self._guests.get(event.key)
            if guest is None or guest.done.done():
                continue
            if isinstance(event, Progress):
                guest.told(event)
            elif isinstance(event, Finished):
                guest.done.set_result(event.pixels)
            else:
                guest.done.set_exception(event.error)

    def _die(self, dead: EngineDead) -> None:
        self._dead = dead
        for guest in self._guests.values():
            if not guest.done.done():
                guest.done.set_exception(dead)
