"""The worker process: receives hand-outs, runs each as a task of its own, beats, watches for cancels, and drains.

The protocol's order is in duties.py, one job's life in runner.py, the device in engine_thread.py.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import time
from uuid import uuid4

from sfumato.broker.tail import tail
from sfumato.config import Settings
from sfumato.core.errors import EngineDead, SfumatoError, TransientError
from sfumato.core.events import Alive, Ended, Event, Unreadable, Watched
from sfumato.core.job import State
from sfumato.core.ports import EventLog, WorkReceiver
from sfumato.core.retry import RetryPolicy
from sfumato.engine import backends
from sfumato.engine.opening import open_engine
from sfumato.models.registry import Model, Registry
from sfumato.observability import begin, gauge
from sfumato.process import CAN_NOT_SERVE_STATUS, NOT_NEEDED, age_s, begin_role, run
from sfumato.wiring import open_ports
from sfumato.worker.duties import Duties
from sfumato.worker.engine_thread import EngineThread
from sfumato.worker.filters import BadFilter, OutputFilter
from sfumato.worker.previews import Previews
from sfumato.worker.runner import JobRunner

__all__ = ["Worker", "serve"]

log = logging.getLogger(__name__)

ENGINE_DEAD_STATUS = 70
"""Exit status when the device or model process is unusable; the supervisor starts a fresh one."""
LOOKAHEAD = 2
"""Jobs held beyond the slots, so that fetching and decoding the next hides behind the current steps."""
GATHER_S = 0.05
QUIET_S = 0.25
"""Least time between two beats when steps move fast."""


class Worker:
    """One worker of one model."""

    def __init__(
        self, name: str, model: Model, settings: Settings, runner: JobRunner, work: WorkReceiver, events: EventLog
    ) -> None:
        self._name, self._model, self._settings = name, model, settings
        self._runner, self._work, self._events = runner, work, events
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = asyncio.Event()
        self._leave_at = math.inf
        self._cold_start_s = 0.0

    def leave(self, within_s: float) -> None:
        """Take nothing new; `run` ends when what runs has finished, or was handed back `within_s` from now."""
        self._leave_at = min(self._leave_at, time.monotonic() + within_s)
        self._leaving.set()
        self._runner.changed.set()

    async def run(self) -> None:
        """Work until told to leave.

        Raises:
            EngineDead: leave without handing back, so that a job that kills engines is found out.
        """
        self._cold_start_s = round(age_s(), 2)
        background = [asyncio.create_task(self._beat()), asyncio.create_task(self._listen())]
        try:
            while not self._leaving.is_set():
                await self._receive(self._model.slots + LOOKAHEAD - len(self._tasks))
            await self._drain()
        finally:
            for task in (*background, *self._tasks):
                task.cancel()
            await asyncio.gather(*background, *self._tasks, return_exceptions=True)
            await self._work.close()

    async def _receive(self, room: int) -> None:
        lanes = self._work.lanes
        try:
            # Without room it is a sign of life, no more; half a second is well within any takeover time.
            arrived = await self._work.receive(max(0, room), wait_s=0.5 if room > 0 else 0)
        except TransientError as error:
            log.warning("the work queue does not answer: %s", error.detail)
            await asyncio.sleep(0.5)
            return
        for received in arrived:
            self._tasks.add(asyncio.create_task(self._runner.run(received)))
        if lanes != self._work.lanes:
            self._runner.changed.set()
        if room <= 0:
            await asyncio.wait(self._tasks, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        self._reap()

    def _reap(self) -> None:
        """Forget finished tasks; a task ends with an exception only when the engine is dead."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            task.result()
        gauge("sfumato_running_jobs", len(self._tasks), model=self._model.slug)

    async def _drain(self) -> None:
        log.info("leaving; %d jobs in hand", len(self._tasks))
        self._runner.refuse()
        while self._tasks:
            if time.monotonic() > self._leave_at and self._runner.running:
                log.warning(
                    "not finished in the time to leave, begun anew elsewhere: %d jobs", len(self._runner.running)
                )
                self._runner.abort_all()
            await self._work.receive(0, wait_s=0)
            await asyncio.wait(self._tasks, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            self._reap()

    async def _beat(self) -> None:
        while True:
            self._runner.changed.clear()
            for device in backends.device_memory():
                gauge("sfumato_gpu_memory_used_bytes", device.used_bytes, device=device.name)
                gauge("sfumato_gpu_memory_total_bytes", device.total_bytes, device=device.name)
            alive = Alive(
                at=time.time(),
                worker=self._name,
                slots=self._model.slots,
                lanes=tuple(sorted(self._work.lanes)),
                running=tuple(self._runner.running.values()),
                draining=self._leaving.is_set(),
                cold_start_s=self._cold_start_s,
            )
            with contextlib.suppress(TransientError):  # The next beat says it again.
                await self._events.append([alive])
            await asyncio.sleep(QUIET_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._runner.changed.wait(), self._settings.beat_s - QUIET_S)

    async def _listen(self) -> None:
        # Each job causes several events; a cancel may come a moment later, waking up for each of them costs more.
        await tail(self._model.slug, self._events, self._heard, gather_s=GATHER_S)

    def _heard(self, _position: int, event: Event | Unreadable) -> None:
        """Makes a cancel quick (that it holds is the outcome's doing), and knows who is watched."""
        if isinstance(event, Ended):
            self._runner.abort(event.job_id)
        elif isinstance(event, Watched):
            self._runner.watch(event.job_id, event.until)


async def _work(settings: Settings, model: Model) -> None:
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    threads = settings.threads or max(1, (os.cpu_count() or 1) // max(1, settings.live_workers))
    async with open_ports(settings) as ports:
        work, events = ports.broker.work(model.slug), ports.broker.events(model.slug)
        try:
            engine, where = await asyncio.to_thread(
                open_engine,
                model.backend,
                model.path,
                model.rules,
                _options(model, threads),
                model.batch,
                settings.data_dir / "caps",
            )
            output_filter = OutputFilter(model.output_filter)
        except Exception as error:
            unusable = _unusable(error)
            last = Alive(at=time.time(), worker=name, slots=0, lanes=(), draining=True, trouble=unusable.detail)
            await events.append([last])
            if unusable is error:
                raise
            log.exception("%s can't be loaded", model.name)
            raise unusable from error
        thread = EngineThread(engine, model.slug)
        duties = Duties(name, work, events, ports.blobs, ports.outcomes, RetryPolicy())
        previews = Previews(ports.blobs)
        runner = JobRunner(
            model.slug,
            duties,
            thread,
            previews,
            output_filter,
            settings.max_input_pixels,
            settings.benchmark_file,
        )
        worker = Worker(name, model, settings, runner, work, events)
        begin("sfumato_duplicate_generations_total", "sfumato_retries_total", model=model.slug)
        for state in (State.SUCCEEDED, State.FAILED):
            begin("sfumato_outcomes_total", model=model.slug, state=state.value)
        for sign in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sign, worker.leave, settings.drain_s)
        # Nobody is in a hurry when there is less to do: a job begun anew would cost more than a place.
        asyncio.get_running_loop().add_signal_handler(NOT_NEEDED, worker.leave, settings.scale_drain_s)
        log.info("ready: %s, %s, with %d slots on %d threads", model.name, where, model.slots, threads)
        await worker.run()
        await previews.close()
        await thread.close()


def _unusable(error: Exception) -> SfumatoError:
    """Why the model can't be loaded; whatever it was, a fresh process would meet it too."""
    if isinstance(error, backends.BackendUnusable | BadFilter):
        return error
    return backends.BackendUnusable(f"{type(error).__name__}: {error}"[:400])


def _options(model: Model, threads: int) -> backends.Options:
    return backends.Options(
        threads=threads,
        device=model.device,
        dtype=model.dtype,
        loras=tuple(backends.Lora(lora.path, lora.weight) for lora in model.loras),
        attention_slicing=model.attention_slicing,
        vae_tiling=model.vae_tiling,
        cuda_graphs=model.cuda_graphs,
    )


def serve(settings: Settings, model_name: str) -> int:
    """Run one worker of `model_name` until SIGTERM or SIGINT; gives the exit status.

    Raises:
        UnknownModel: no model has this name; the message lists the known ones.
    """
    begin_role("worker", settings)
    model = Registry.load(settings.models_file, settings.last_models_file).get(model_name)
    try:
        run(_work(settings, model))
    except (backends.BackendUnusable, BadFilter) as error:
        log.error("%s can't be served: %s", model.name, error.detail)
        return CAN_NOT_SERVE_STATUS
    except EngineDead as error:
        log.error("%s; this process ends and a fresh one takes over", error.detail)
        # Not a clean exit: the engine's thread may hang in the device, and no destructor may wait for it.
        os._exit(ENGINE_DEAD_STATUS)
    return 0
