"""Folds every model's jobs log and event log into the job rows, from the cursors stored beside them.

The logs are the truth and the rows follow: what is read twice changes nothing, and a cursor moves in the transaction
that stores what was read up to it.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sfumato.config import Settings
from sfumato.core.errors import TransientError
from sfumato.core.events import Ended, Event, JobEvent, Unreadable
from sfumato.core.job import Job, Outcome, model_slug
from sfumato.core.links import Links
from sfumato.core.ports import Broker, EventLog, Follower, JobRecorder, JobsLog, Logged, Outcomes, RowChange
from sfumato.core.webhooks import Outbox
from sfumato.models.registry import Registry
from sfumato.net.addresses import Allowed
from sfumato.net.fetcher import Fetcher
from sfumato.observability import begin, bound_log, count, gauge, observe
from sfumato.process import any_set, begin_role, run, stop_on_signals
from sfumato.recorder.lag import Lag
from sfumato.recorder.sweep import Sweep, promised
from sfumato.recorder.webhooks import ANSWER_BYTES, ATTEMPT_S, Payloads, Sender
from sfumato.storage.secrets import link_secrets, webhook_secrets
from sfumato.wiring import open_ports

__all__ = ["Place", "Recorder", "serve"]

log = logging.getLogger(__name__)

BATCH: Final = 500
EXPIRE_EVERY_S: Final = 1.0
EXPIRE_AT_ONCE: Final = 100
EXPIRY_GRACE_S: Final = 300.0
"""A model's dispatcher ends expired jobs at once; only what no dispatcher saw in this time is ended here."""
GATHER_S: Final = 0.02
"""A job's events come close together: waiting for them makes one transaction of several, and rows so much later."""
NEWS_S: Final = 1.0
"""Longest wait for news before models.toml and what is overdue are looked at again."""
RETRY_S: Final = 1.0
MEASURE_EVERY_S: Final = 1.0
SWEEP_FIRST_S: Final = 60.0
SWEEP_EVERY_S: Final = 3_600.0
UNSAVED: Final = 2_000
"""Beats change no row. So many may be read again after a restart before a cursor is stored for them alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """A log, and the cursor up to which it is in the rows."""

    log: Follower[Any]
    cursor: str


class Recorder:
    """Follows the logs of `models` (slugs), and of all models it ever followed, as the stored cursors tell."""

    def __init__(self, models: Iterable[str], broker: Broker, rows: JobRecorder, outcomes: Outcomes) -> None:
        self._broker, self._rows, self._outcomes = broker, rows, outcomes
        self._jobs: dict[str, JobsLog] = {}
        self._events: dict[str, EventLog] = {}
        self._cursors: dict[str, str] = {}
        self._begun = False
        self._unsaved: Counter[str] = Counter()
        self.lag = Lag()
        self.changed = asyncio.Event()
        """Set whenever rows changed; whoever waits for that clears it."""
        self._expire_at = 0.0
        self.watch(models)

    def watch(self, models: Iterable[str]) -> None:
        """Follow these models (slugs) too."""
        for model in models:
            if model not in self._jobs:
                self._jobs[model], self._events[model] = self._broker.jobs(model), self._broker.events(model)

    @property
    def places(self) -> Sequence[Place]:
        """Where it stands in every log: there its shell waits for more."""
        jobs = [Place(end, self._cursors.get(_jobs_name(model), "")) for model, end in self._jobs.items()]
        events = [Place(end, self._cursors.get(_events_name(model), "")) for model, end in self._events.items()]
        return [*jobs, *events]

    async def turn(self, now: float) -> int:
        """Record one batch of every log and end what is overdue; how many messages and jobs that were (0: idle)."""
        if not self._begun:
            self._cursors = await self._rows.cursors()
            # A model may have left the list while jobs of it have yet to end.
            self.watch(name.partition(":")[2] for name in self._cursors)
            self._begun = True
        moved = 0
        for model in tuple(self._jobs):
            moved += await self._record(model, now)
        # Who lags behind the logs would take jobs for overdue that ended long ago.
        if moved < BATCH and now >= self._expire_at:
            self._expire_at = now + EXPIRE_EVERY_S
            moved += await self._expire_overdue(now)
        return moved

    async def _record(self, model: str, now: float) -> int:
        jobs_name, events_name = _jobs_name(model), _events_name(model)
        # Events first: the message of whatever job they tell of is then in the jobs log for sure, so few events have to
        # wait for it in the database.
        events = await self._events[model].follow(self._cursors.get(events_name, ""), BATCH, wait_s=0)
        jobs = await self._jobs[model].follow(self._cursors.get(jobs_name, ""), BATCH, wait_s=0)
        await self._park(jobs_name, jobs.items)
        await self._park(events_name, events.items)
        changes = [*_of_jobs(jobs.items), *_of_events(events.items)]
        self._unsaved[model] += len(jobs.items) + len(events.items)
        cursors = {jobs_name: jobs.cursor, events_name: events.cursor}
        self.lag.found(model, _told_at(changes))
        if changes or self._unsaved[model] >= UNSAVED:
            await self._rows.record(changes, cursors)
            self._unsaved[model] = 0
            self.changed.set()
            _measure(changes)
        self._cursors |= cursors
        # A whole batch is the sign that there is more.
        more = [items[-1].value for items in (jobs.items, events.items) if len(items) == BATCH]
        self.lag.recorded(model, min((_at(value) or now for value in more), default=None))
        return len(jobs.items) + len(events.items)

    async def _park(self, name: str, items: Sequence[Logged[Any]]) -> None:
        for item in items:
            if isinstance(item.value, Unreadable):
                log.error("%s: message %d can't be read and is parked: %s", name, item.position, item.value.why)
                await self._rows.park(name, item.position, item.value)

    async def _expire_overdue(self, now: float) -> int:
        overdue = await self._rows.overdue(now - EXPIRY_GRACE_S, EXPIRE_AT_ONCE)
        for row in overdue:
            ours, model = Outcome.expired(row.id, row.attempt, now), model_slug(row.job.model)
            holds = await self._outcomes.decide(ours)
            if holds == ours:
                with bound_log(job=row.id):
                    log.warning("expired, and its dispatcher did not see that")
                count("sfumato_expired_total", model=model)
                count("sfumato_outcomes_total", model=model, state=holds.state)
                took_s = max(0.0, now - row.job.created_at)
                observe("sfumato_job_seconds", took_s, model=model, priority=row.job.priority)
            ended = Ended(job_id=row.id, at=now, attempt=row.attempt, delivery=row.delivery, outcome=holds)
            self.watch([model])
            await self._events[model].append([ended])
        return len(overdue)


def _jobs_name(model: str) -> str:
    return f"jobs:{model}"


def _events_name(model: str) -> str:
    return f"events:{model}"


def _of_jobs(items: Iterable[Logged[Job | Unreadable]]) -> Iterator[RowChange]:
    for item in items:
        if isinstance(item.value, Job):
            yield RowChange(job=item.value, position=item.position)


def _of_events(items: Iterable[Logged[Event | Unreadable]]) -> Iterator[RowChange]:
    for item in items:
        if isinstance(item.value, JobEvent):
            yield RowChange(event=item.value, position=item.position)


def _at(value: Job | Event | Unreadable) -> float | None:
    """When it was told (Unix seconds); None of what can't be read."""
    if isinstance(value, Unreadable):
        return None
    return value.created_at if isinstance(value, Job) else value.at


def _told_at(changes: Sequence[RowChange]) -> list[float]:
    values = [change.job or change.event for change in changes]
    return [at for value in values if value is not None and (at := _at(value)) is not None]


def _measure(changes: Sequence[RowChange]) -> None:
    published = sum(change.job is not None for change in changes)
    count("sfumato_recorded_total", published, log="jobs")
    count("sfumato_recorded_total", len(changes) - published, log="events")


def serve(settings: Settings) -> int:
    """Record until SIGTERM or SIGINT; gives the exit status.

    Raises:
        SfumatoError: the data folder or models.toml can't be used; the message says why.
    """
    begin_role("recorder", settings)
    run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = stop_on_signals()
    registry = Registry.load(settings.models_file, settings.last_models_file)
    async with open_ports(settings) as ports:
        recorder = Recorder((model.slug for model in registry), ports.broker, ports.rows, ports.outcomes)
        sweep = Sweep(promised(settings), ports.blobs, ports.outcomes, ports.rows, ports.broker)
        sender = _sender(settings, ports.outbox, registry)
        sender.bell = recorder.changed  # what is folded is owed in the same transaction
        log.info("ready: %d models", len(registry.names()))
        begin("sfumato_recorded_total", log="jobs")
        begin("sfumato_swept_total", kind="rows")
        async with asyncio.TaskGroup() as tasks:
            beside = [_sweep_for_ever(sweep), _measure_for_ever(recorder.lag, settings.data_dir), sender.run()]
            running = [tasks.create_task(each) for each in beside]
            await _record_until(stop, recorder, registry)
            for task in running:
                task.cancel()


def _sender(settings: Settings, outbox: Outbox, registry: Registry) -> Sender:
    """Raises NoSecret when a secret is neither set nor can be kept in the data folder."""
    links = Links(link_secrets(settings.link_secrets.get_secret_value(), settings.data_dir))
    payloads = Payloads(links, settings.public_url, settings.result_keep_s, registry.version_of)
    fetcher = Fetcher(Allowed.parse(settings.webhook_allow), total_s=ATTEMPT_S, limit_bytes=ANSWER_BYTES)
    return Sender(
        outbox, fetcher, payloads, webhook_secrets(settings.webhook_secrets.get_secret_value(), settings.data_dir)
    )


async def _record_until(stop: asyncio.Event, recorder: Recorder, registry: Registry) -> None:
    while not stop.is_set():
        if registry.refresh():
            recorder.watch(model.slug for model in registry)
        try:
            moved = await recorder.turn(time.time())
            recorder.lag.moving()
            if not moved:
                await _news(stop, recorder)
            # What comes in a burst is recorded in one batch, and not while the burst itself needs the cores.
            await any_set(GATHER_S, stop)
        except TransientError as error:
            # The cursors have not moved: what could not be recorded is read again.
            recorder.lag.stuck(time.time())
            log.warning("can't record now, trying again every %g s: %s", RETRY_S, error.detail)
            await any_set(RETRY_S, stop)


async def _news(stop: asyncio.Event, recorder: Recorder) -> None:
    """Wait until a log has something new or `stop` is set, at most NEWS_S."""
    waiting: set[asyncio.Task[Any]] = {asyncio.create_task(stop.wait())}
    waiting |= {asyncio.create_task(place.log.follow(place.cursor, 1, wait_s=NEWS_S)) for place in recorder.places}
    try:
        done, _ = await asyncio.wait(waiting, timeout=NEWS_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _measure_for_ever(lag: Lag, folder: Path) -> None:
    """Tell how far the rows are behind, also while the database keeps a turn waiting, and how full the disk is."""
    while True:
        gauge("sfumato_recorder_lag_seconds", lag.seconds(time.time()))
        _measure_disk(folder)
        await asyncio.sleep(MEASURE_EVERY_S)


def _measure_disk(folder: Path) -> None:
    """A role in a cluster may never have made its folder: then it is the disk on which it would be."""
    with contextlib.suppress(OSError):  # A disk that can't be looked at must not keep anybody from recording.
        disk = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.is_dir()))
        gauge("sfumato_disk_free_bytes", disk.free)
        gauge("sfumato_disk_size_bytes", disk.total)


async def _sweep_for_ever(sweep: Sweep) -> None:
    await asyncio.sleep(SWEEP_FIRST_S)
    while True:
        await sweep.turn(time.time())
        await asyncio.sleep(SWEEP_EVERY_S)
