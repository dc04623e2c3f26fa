"""Models that can't be stepped, one request after the other, behind the face of the step-level engine.

A pipeline's call runs on a thread of its own and stops after each of its steps until the engine lets it go on, so that
one `step` is one step here too, and a job can be taken out between two.
"""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato.core.errors import EngineDead, PermanentError
from sfumato.core.job import Priority
from sfumato.core.params import Params
from sfumato.engine.backends import WholeBackend
from sfumato.engine.batcher import LEFT_OUT_AT_MOST, NOBODYS, Whose
from sfumato.engine.events import Event, Failed, Finished, Pixels, Progress, does_not_fit, ended

__all__ = ["WholeEngine"]


class _Stopped(Exception):
    """The job was taken out; raised inside the pipeline's call, to end it."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: str
    params: Params
    pixels: Pixels
    urgent: bool


class _Run:
    """One call of the pipeline on its own thread. Between two `step`s it stands still."""

    def __init__(self, backend: WholeBackend, job: _Waiting) -> None:
        self.key = job.key
        self._backend, self._job = backend, job
        self._told: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._go = threading.Semaphore(0)
        self._stopped = False
        self._thread = threading.Thread(target=self._generate, name="pipeline", daemon=True)
        self._thread.start()

    def step(self) -> Event:
        self._go.release()
        return self._told.get()

    def stop(self) -> None:
        """End the call where it stands, and wait for that: the pipeline is free for the next one then."""
        self._stopped = True
        self._go.release()
        self._thread.join()

    def _generate(self) -> None:
        try:
            self._pause()
            picture = self._backend.generate(self._job.params, self._job.pixels, self._progress)
            self._told.put(_ended(self.key, picture, self._job.params))
        except _Stopped:
            return
        except MemoryError:
            self._told.put(Failed(self.key, does_not_fit()))
        except BaseException as error:  # whoever waits for the event must get one
            self._told.put(Failed(self.key, error if isinstance(error, Exception) else RuntimeError(repr(error))))

    def _progress(self, step: int, steps: int) -> None:
        self._told.put(Progress(self.key, step, steps))
        self._pause()

    def _pause(self) -> None:
        self._go.acquire()
        if self._stopped:
            raise _Stopped


class WholeEngine:
    """As `Engine`: jobs go in with `add` and come out of `step`; urgent ones begin first, each runs to its end.

    As in the batcher, ordinary jobs keep a quarter of the turns beside a stream of urgent ones.
    """

    def __init__(self, backend: WholeBackend) -> None:
        self._backend = backend
        self._waiting: list[_Waiting] = []
        self._urgent_in_a_row = 0
        self._run: _Run | None = None

    @property
    def idle(self) -> bool:
        """No job is in."""
        return self._run is None and not self._waiting

    @property
    def rows(self) -> int:
        """Jobs in a model call."""
        return 1

    def add(
        self, key: str, params: Params, pixels: Pixels, priority: Priority = Priority.NORMAL, whose: Whose = NOBODYS
    ) -> None:
        """Let a job in. `pixels` are [params.height, params.width, 3]; whose it is changes nothing."""
        del whose
        self._waiting.append(_Waiting(key, params, pixels, priority is Priority.HIGH))

    def show(self, key: str, on: bool) -> None:
        """No previews: what such a pipeline has between its steps is not known."""

    def abort(self, key: str) -> bool:
        """Take a job out; it has no further event. False when it was not in."""
        if self._run is not None and self._run.key == key:
            self._run.stop()
            self._run = None
            return True
        there = [job for job in self._waiting if job.key == key]
        for job in there:
            self._waiting.remove(job)
        return bool(there)

    def step(self) -> Sequence[Event]:
        """The next step of the job that runs, or the first of the next one; what happened to it.

        Raises:
            EngineDead: no job can go on in this process.
        """
        if self._run is None:
            if not self._waiting:
                return ()
            self._run = _Run(self._backend, self._next())
        event = self._run.step()
        if isinstance(event, Failed | Finished):
            self._run.stop()
            self._run = None
        if isinstance(event, Failed) and isinstance(event.error, EngineDead):
            raise event.error
        return (event,)

    def _next(self) -> _Waiting:
        """The oldest urgent job, but the oldest ordinary one when urgent ones were before it for long enough."""
        ordinary = [job for job in self._waiting if not job.urgent]
        urgent = [job for job in self._waiting if job.urgent]
        pick = urgent if urgent and not (ordinary and self._urgent_in_a_row >= LEFT_OUT_AT_MOST) else ordinary
        self._urgent_in_a_row = self._urgent_in_a_row + 1 if pick is urgent and ordinary else 0
        self._waiting.remove(pick[0])
        return pick[0]


def _ended(key: str, picture: npt.NDArray[np.float32], params: Params) -> Finished | Failed:
    """How a job ended; some pipelines choose a size of their own, and some make more than a picture."""
    if picture.ndim != 3 or picture.shape[2] != 3:
        return Failed(key, PermanentError(f"the pipeline made {picture.shape}, which is no picture."))
    event = ended(key, picture)
    if isinstance(event, Failed) or event.pixels.shape[:2] == (params.height, params.width):
        return event
    resized = Image.fromarray(event.pixels).resize(params.shape, Image.Resampling.LANCZOS)
    return Finished(event.key, np.asarray(resized))
