"""The dispatcher role: for each model, read both logs, keep the ledger, hand out, end what must end, commit.

`Dispatcher` awaits nothing but ports and is given the time, so the simulation drives it by hand; the shell around it
has the clock, the tasks and the signals. A crash at any await leaves what a fresh `lead` repairs from the logs.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sfumato.config import Settings
from sfumato.core.errors import Deposed, TransientError
from sfumato.core.events import Dispatched, Ended, Event, Standing, Unreadable
from sfumato.core.job import DeadLetter, Job, Priority, State
from sfumato.core.ports import Batch, EventLog, JobsReader, Lead, Logged, Outcomes, WorkSender
from sfumato.dispatcher.ledger import Ledger
from sfumato.models.registry import Registry
from sfumato.observability import begin, bound_log, count, gauge, observe
from sfumato.process import begin_role, run, stop_on_signals
from sfumato.wiring import Ports, check_logs, open_ports

__all__ = ["Dispatcher", "serve"]

log = logging.getLogger(__name__)

BATCH: Final = 1_000
ENDS_AT_ONCE: Final = 100
COMMIT_EVERY_S: Final = 0.25
CURSOR_EVERY_S: Final = 10.0
"""How often the event cursor is committed while no job is decided, so that a successor has little to read."""
STANDING_EVERY_S: Final = 1.0
RETOLD_EVERY_S: Final = 10.0
"""How often an unchanged standing is told all the same: a gateway that just started knows nothing."""
COUNTED: Final = {"expired": "sfumato_expired_total", "dead-letter": "sfumato_dead_letters_total"}
WAIT_S: Final = 1.0
PAUSE_S: Final = 0.2
REFRESH_S: Final = 2.0
COUNTERS: Final = (
    "sfumato_handouts_total",
    "sfumato_redeliveries_total",
    "sfumato_dead_letters_total",
    "sfumato_expired_total",
)


class Dispatcher:
    """The brain of one model (`model` is its slug): call `lead` until it is True, then `turn` for ever.

    A job's expiry and its dead letter go through `outcomes`, whose answer is told whoever decided. A worker silent
    for the reader's `takeover_s` is taken for dead. Jobs wait `patience_s` for a model that can't be loaded.
    """

    def __init__(
        self,
        model: str,
        jobs: JobsReader,
        work: WorkSender,
        events: EventLog,
        outcomes: Outcomes,
        patience_s: float = math.inf,
    ) -> None:
        self._model, self._patience_s = model, patience_s
        self._jobs, self._work, self._events, self._outcomes = jobs, work, events, outcomes
        self._ledger = Ledger(Lead(0, ""), jobs.takeover_s, patience_s)
        self._committed, self._committed_at = Lead(0, ""), 0.0
        self._standing: Standing | None = None
        self._stood_at = 0.0
        self._untold: list[Dispatched] = []

    async def lead(self, now: float, wait_s: float = 0.0) -> bool:
        """Become the model's dispatcher and read both logs to their ends; False while another one is.

        Raises:
            TransientError: a log could not be read; lead again.
        """
        lead = await self._jobs.lead(wait_s)
        if lead is None:
            return False
        self._ledger = Ledger(lead, self._jobs.takeover_s, self._patience_s)
        self._committed, self._committed_at = lead, now
        self._standing, self._stood_at = None, 0.0
        # Hand-outs of an earlier lead; told first, they are not made twice.
        await self._tell_untold()
        last, position = await self._jobs.last(), lead.position
        while position < last and (jobs := await self._jobs.read(BATCH, wait_s=0)):
            self._ledger.read(jobs)
            position = jobs[-1].position
        while (events := await self._events.follow(self._ledger.cursor, BATCH, wait_s=0)).items:
            self._ledger.follow(events, now, replay=True)
            # Reading is also the sign of life, and there may be many events.
            self._ledger.read(await self._jobs.read(BATCH, wait_s=0))
        return True

    async def turn(self, now: float) -> bool:
        """Read what is new and act on it; False when this one leads no more, then lead again.

        Raises:
            TransientError: a port did not answer; what could not be done is done by the next turn.
        """
        try:
            self.absorb_jobs(await self.more_jobs(wait_s=0))
            self.absorb_events(await self.more_events(wait_s=0), now)
            await self.act(now)
        except Deposed:
            return False
        return True

    async def more_jobs(self, wait_s: float) -> Sequence[Logged[Job | Unreadable]]:
        """What the jobs log has next, for `absorb_jobs`.

        Raises:
            Deposed: another took over, or nobody knows whether an answer with jobs was lost; lead again.
        """
        try:
            return await self._jobs.read(BATCH, wait_s)
        except TransientError as error:
            raise Deposed(error.detail) from error

    async def more_events(self, wait_s: float) -> Batch[Event | Unreadable]:
        """What the event log has next, for `absorb_events`."""
        return await self._events.follow(self._ledger.cursor, BATCH, wait_s)

    def absorb_jobs(self, jobs: Sequence[Logged[Job | Unreadable]]) -> None:
        """Take in what was read of the jobs log."""
        self._ledger.read(jobs)

    def absorb_events(self, batch: Batch[Event | Unreadable], now: float) -> None:
        """Take in what was read of the event log."""
        self._ledger.follow(batch, now)

    def next_at(self, now: float) -> float:
        """When to act though nothing comes (Unix seconds, infinity for never)."""
        due = self._ledger.next_at(now)
        return min(due, self._committed_at + COMMIT_EVERY_S) if self._moved() else due

    async def act(self, now: float) -> None:
        """End, hand out, commit and tell, as far as what is known asks for it.

        Raises:
            Deposed: another took over; drop everything and lead again.
            TransientError: a port did not answer; act again.
        """
        await self._end(now)
        await self._hand_out(now)
        await self._commit(now)
        await self._tell_standing(now)

    async def close(self) -> None:
        """Leave the place to a successor, with the latest commit."""
        with contextlib.suppress(TransientError):
            await self._commit(float("inf"))
        await self._jobs.close()

    async def _end(self, now: float) -> None:
        """Outcome, then event: the ledger hears of it first when both are durable."""
        ends = self._ledger.ends(now, ENDS_AT_ONCE)
        if not ends:
            return
        told = [await self._decide(end) for end in ends]
        await self._events.append(told)
        for end in told:
            self._ledger.apply(end, now)

    async def _decide(self, ours: Ended) -> Ended:
        """The end that holds; ours is counted when it won. A dead letter is buried before anybody is told of it."""
        job, holds = self._ledger.job(ours.job_id), await self._outcomes.decide(ours.outcome)
        if holds.error is not None and holds.error.slug == "dead-letter":
            await self._work.bury(DeadLetter(job=job, outcome=holds))
        if holds == ours.outcome and holds.error is not None:
            with bound_log(job=job.id):
                log.warning("%s: %s", holds.error.slug, holds.error.detail)
            if counter := COUNTED.get(holds.error.slug):
                count(counter, model=self._model)
            count("sfumato_outcomes_total", model=self._model, state=holds.state)
            took_s = max(0.0, holds.at - job.created_at)
            observe("sfumato_job_seconds", took_s, model=self._model, priority=job.priority)
        return ours.model_copy(update={"outcome": holds})

    async def _hand_out(self, now: float) -> None:
        """Work message, then event: a crash in between costs a double hand-out, the other order would lose the job."""
        await self._tell_untold()
        hand_outs = self._ledger.hand_outs(now)
        if not hand_outs:
            return
        try:
            await self._work.hand_out([hand_out.work for hand_out in hand_outs])
        except TransientError:
            self._ledger.take_back(hand_outs)
            raise
        self._untold = [hand_out.told for hand_out in hand_outs]
        for told in self._untold if log.isEnabledFor(logging.DEBUG) else ():
            with bound_log(job=told.job_id):
                log.debug("handed out to %s, attempt %d, delivery %d", told.worker, told.attempt, told.delivery)
        count("sfumato_handouts_total", len(hand_outs), model=self._model)
        again = sum(hand_out.work.delivery > 0 for hand_out in hand_outs)
        if again:
            count("sfumato_redeliveries_total", again, model=self._model)
        await self._tell_untold()

    async def _tell_untold(self) -> None:
        if self._untold:
            await self._events.append(self._untold)
            self._untold = []

    def _moved(self) -> bool:
        return self._ledger.commit().position > self._committed.position

    async def _commit(self, now: float) -> None:
        commit = self._ledger.commit()
        every_s = COMMIT_EVERY_S if commit.position > self._committed.position else CURSOR_EVERY_S
        if commit != self._committed and abs(now - self._committed_at) >= every_s:
            await self._jobs.commit(commit.position, commit.metadata)
            self._committed, self._committed_at = commit, now

    async def _tell_standing(self, now: float) -> None:
        told = self._standing
        # Whoever starts workers should hear of the first job at once.
        first = told is not None and not told.workers and not told.waiting and self._ledger.waiting_jobs
        if abs(now - self._stood_at) < STANDING_EVERY_S and not first:
            return
        standing = self._ledger.standing(now)
        stale = told is None or abs(now - told.at) >= RETOLD_EVERY_S
        if told is None or stale or standing != told.model_copy(update={"at": now}):
            await self._events.append([standing])
            self._standing = standing
        self._stood_at = now
        for priority, (waiting, oldest_at) in self._ledger.waiting().items():
            labels = {"model": self._model, "priority": priority.value}
            gauge("sfumato_waiting_jobs", waiting, **labels)
            gauge("sfumato_oldest_waiting_seconds", max(0.0, now - oldest_at) if waiting else 0.0, **labels)

    def stand_down(self) -> None:
        """Say that this one knows nothing of the queue any more; the next who leads says how it stands."""
        for priority in Priority:
            for name in ("sfumato_waiting_jobs", "sfumato_oldest_waiting_seconds"):
                gauge(name, math.nan, model=self._model, priority=priority.value)


# The shell: clock, tasks and signals


def serve(settings: Settings) -> int:
    """Dispatch for every model of the registry until SIGTERM or SIGINT; gives the exit status.

    Raises:
        SfumatoError: the data folder or models.toml can't be used; the message says why.
    """
    begin_role("dispatcher", settings)
    run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = stop_on_signals()
    registry = Registry.load(settings.models_file, settings.last_models_file)
    tasks: dict[str, asyncio.Task[None]] = {}
    async with open_ports(settings) as ports:
        await check_logs(ports.broker, settings, [model.slug for model in registry])
        while not stop.is_set():
            for slug in {model.slug for model in registry} - tasks.keys():
                tasks[slug] = asyncio.create_task(_dispatch(slug, ports, settings.broken_wait_s, stop))
            await _first_of(stop, tasks.values(), REFRESH_S)
            registry.refresh()
        await asyncio.gather(*tasks.values())


async def _first_of(stop: asyncio.Event, tasks: Iterable[asyncio.Task[Any]], wait_s: float) -> None:
    """Wait until `stop`, or one of the tasks is done, at most `wait_s`; a task that failed raises its error."""
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    for task in done:
        task.result()


async def _dispatch(model: str, ports: Ports, patience_s: float, stop: asyncio.Event) -> None:
    """One model until `stop`: wait for the lead, keep it, get it back."""
    broker = ports.broker
    dispatcher = Dispatcher(
        model, broker.jobs(model), broker.work(model), broker.events(model), ports.outcomes, patience_s=patience_s
    )
    begin(*COUNTERS, model=model)
    begin("sfumato_outcomes_total", model=model, state=State.FAILED.value)
    with bound_log(model=model):
        try:
            while not stop.is_set():
                try:
                    if await dispatcher.lead(time.time(), WAIT_S):
                        log.info("leads")
                        await _keep(dispatcher, stop)
                except TransientError as error:
                    log.warning("does not lead: %s", error.detail)
                    dispatcher.stand_down()
                    await asyncio.sleep(PAUSE_S)
        finally:
            await dispatcher.close()


async def _keep(dispatcher: Dispatcher, stop: asyncio.Event) -> None:
    """Wait on both logs and the next due time at once, and act on whatever comes first; until `stop`.

    Raises:
        Deposed: the lead is lost.
    """
    jobs = asyncio.create_task(dispatcher.more_jobs(wait_s=0))
    events = asyncio.create_task(dispatcher.more_events(wait_s=0))
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            now = time.time()
            pause_s = min(WAIT_S, max(0.0, dispatcher.next_at(now) - now))
            await asyncio.wait({jobs, events, stopping}, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            if jobs.done():
                dispatcher.absorb_jobs(jobs.result())
                jobs = asyncio.create_task(dispatcher.more_jobs(WAIT_S))
            try:
                if events.done():
                    # The new task first runs at the next await, when the cursor has moved on.
                    found, events = events, asyncio.create_task(dispatcher.more_events(WAIT_S))
                    dispatcher.absorb_events(found.result(), time.time())
                await dispatcher.act(time.time())
            except TransientError as error:
                if isinstance(error, Deposed):
                    raise
                log.warning("acts again in %.1f s: %s", PAUSE_S, error.detail)
                await asyncio.sleep(PAUSE_S)
    finally:
        for task in (jobs, events, stopping):
            task.cancel()
        await asyncio.gather(jobs, events, stopping, return_exceptions=True)
