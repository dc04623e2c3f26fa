"""One job's life on a worker, from hand-out to acknowledgment: duties and engine put in order, with the clock."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from sfumato.core.errors import EngineDead, SfumatoError, TransientError
from sfumato.core.events import Running, Unreadable
from sfumato.core.params import evaluations
from sfumato.core.ports import Received
from sfumato.engine import images
from sfumato.engine.events import Pixels, Progress
from sfumato.observability import benchmark, bound_log, span
from sfumato.worker.duties import Duties, Held, Result
from sfumato.worker.engine_thread import Aborted, EngineThread
from sfumato.worker.filters import OutputFilter
from sfumato.worker.previews import Previews
from sfumato.worker.stage import stage

__all__ = ["JobRunner"]

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_PAUSE_S = 5.0


class JobRunner:
    """Runs received jobs side by side; `running` has the steps done of each in the engine, `changed` a sign of it."""

    def __init__(
        self,
        model: str,
        duties: Duties,
        engine: EngineThread,
        previews: Previews,
        output_filter: OutputFilter,
        max_input_pixels: int,
        benchmark_file: Path | None,
    ) -> None:
        self._model, self._duties, self._engine, self._max_pixels = model, duties, engine, max_input_pixels
        self._previews, self._filter = previews, output_filter
        self._generate = benchmark(model, benchmark_file)(engine.generate)
        self._leaving = False
        self._under_way: dict[str, str] = {}
        self._ended: set[str] = set()
        self.running: dict[str, Running] = {}
        self.changed = asyncio.Event()

    def abort(self, job_id: str) -> None:
        """Stop generating this job within one step: its outcome was decided elsewhere.

        What has not reached the engine yet, since its picture is still being fetched, does not get there.
        """
        for receipt, under_way in self._under_way.items():
            if under_way == job_id:
                self._ended.add(receipt)
                self._engine.abort(receipt)

    def watch(self, job_id: str, until: float) -> None:
        """Make previews of this job until then (Unix seconds), from its next step on if it runs here."""
        self._previews.watch(job_id, until, time.time())

    def refuse(self) -> None:
        """From now on nothing new begins: what has not reached the engine is handed back."""
        self._leaving = True

    def abort_all(self) -> None:
        """Hand back what is still in the engine."""
        for receipt in self.running:
            self._engine.abort(receipt)

    async def run(self, received: Received) -> None:
        """Bring one hand-out to its end, whatever happens to it.

        Raises:
            EngineDead: nothing can be run here any more; this hand-out is left unacknowledged.
        """
        if not isinstance(received.work, Unreadable):
            # From before it is asked whether the job has ended: whoever ends it later is heard.
            self._under_way[received.receipt] = received.work.job.id
        try:
            await self._run(received)
        finally:
            self._under_way.pop(received.receipt, None)
            self._ended.discard(received.receipt)

    async def _run(self, received: Received) -> None:
        held = await _surely(lambda: self._duties.take(received, time.time()))
        if held is None:
            return
        order = {"attempt": held.work.attempt, "delivery": held.work.delivery}
        running = span("run", held.job.traceparent, job=held.job.id, model=held.job.model, **order)
        with bound_log(job=held.job.id, attempt=str(held.work.attempt)), running:
            try:
                await self._make(held)
            except EngineDead:
                raise
            except Aborted:
                await self._give_way(held)
            except Exception as error:
                await self._fail(held, error)

    async def _make(self, held: Held) -> None:
        params, seconds = held.job.params, dict[str, float]()
        # Telling takes as long as fetching, so both are under way at once; the engine waits for both.
        starting = asyncio.create_task(_surely(lambda: self._duties.start(held, time.time())))
        try:
            data = await self._timed("fetch", seconds, _surely(lambda: self._duties.fetch(held)))
            decoding = asyncio.to_thread(images.prepare, data, params, self._max_pixels)
            prepared = await self._timed("decode", seconds, decoding)
        finally:
            await starting
        pixels = await self._timed("generate", seconds, self._through_engine(held, prepared))
        if await _surely(lambda: self._duties.ended(held)):
            return await self._give_way(held)
        pixels = await self._timed("filter", {}, self._filter(pixels, params.prompt))
        encoded = await self._timed("encode", seconds, asyncio.to_thread(images.finish, pixels, prepared, params))
        result = Result(encoded.data, encoded.media_type, encoded.width, encoded.height, uuid4().hex, seconds)
        outcome = await _surely(lambda: self._duties.succeed(held, result, time.time()))
        log.info("%s after %.2f s on this worker", outcome.state, sum(seconds.values()))
        return None

    async def _through_engine(self, held: Held, prepared: images.Prepared) -> Pixels:
        if self._leaving or held.receipt in self._ended:
            raise Aborted
        asked, shown = held.job.params, False
        steps = evaluations(asked.num_inference_steps, asked.strength, asked.sampler)
        self.running[held.receipt] = Running(
            job_id=held.job.id, attempt=held.work.attempt, delivery=held.work.delivery, step=0, steps=steps
        )

        def told(progress: Progress) -> None:
            nonlocal shown
            # A preview is a picture that the filter has not seen.
            wanted = not self._filter.there and self._previews.wanted(held.job.id, time.time())
            if wanted != shown:
                shown = wanted
                self._engine.show(held.receipt, on=wanted)
            self._note(held, step=progress.step, steps=progress.steps)
            if progress.preview is not None:
                step = progress.step
                self._previews.post(held.job, prepared, progress.preview, lambda: self._note(held, preview=step))

        try:
            return await self._generate(held.receipt, held.job, prepared.pixels, told)
        finally:
            last = self.running.pop(held.receipt)
            self.changed.set()
            if shown or last.preview:
                self._previews.drop(held.job.id)

    def _note(self, held: Held, **changes: int) -> None:
        """What is new of a job in the engine; the next beat tells it."""
        if (running := self.running.get(held.receipt)) is not None:
            self.running[held.receipt] = running.model_copy(update=changes)
            self.changed.set()

    async def _give_way(self, held: Held) -> None:
        """It ended elsewhere (a cancel): tell that again and acknowledge. Else this worker leaves: hand it back."""
        outcome = await _surely(lambda: self._duties.ended(held))
        if outcome is None:
            await _surely(lambda: self._duties.hand_back(held, time.time()))
        else:
            await _surely(lambda: self._duties.follow(held, outcome, time.time()))
        log.info("given up: %s", outcome.state if outcome else "handed back")

    async def _fail(self, held: Held, error: Exception) -> None:
        if not isinstance(error, SfumatoError):
            log.exception("an error nobody foresaw")
        dice = random.random()
        outcome = await _surely(lambda: self._duties.fail(held, error, time.time(), dice))
        log.warning("%s: %s", outcome.state if outcome else "will be tried again", error)

    async def _timed(self, name: str, seconds: dict[str, float], awaited: Awaitable[T]) -> T:
        with stage(self._model, name, seconds):
            return await awaited


async def _surely(duty: Callable[[], Awaitable[T]]) -> T:
    """Do a duty again until its ports answer: an acknowledged loss is worse than a late picture."""
    pause_s = 0.1
    while True:
        try:
            return await duty()
        except TransientError as error:
            log.warning("%s (in %.1f s)", error.detail, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
