"""What a gateway knows by following the event logs: standings, workers, progress, and who waits for an end.

All of it is an optimisation: events from before the start or missed over a restart are simply not known, and every
answer that matters is read from the stores.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sfumato.core.events import (
    Alive,
    Dispatched,
    Ended,
    Event,
    JobRow,
    Retried,
    Returned,
    Running,
    Standing,
    Started,
    Unreadable,
    advance,
    new_row,
)
from sfumato.core.job import Job, Outcome
from sfumato.core.ports import Outcomes
from sfumato.core.seen import Seen
from sfumato.gateway.followers import Followers

__all__ = ["Live", "Waiting"]

POLL_S: Final = 0.25
REMEMBERED_JOBS: Final = 10_000
COUNTED_AFTER_S: Final = 0.5
"""A standing made so long after an accept has counted it, clocks being a little apart."""
SETTLED_S: Final = 3.0
"""A standing follows within a second of a change: when none did for so long, the last one had all that was there."""


class Waiting(NamedTuple):
    """How many jobs wait for a model, and their cost in all (as in `Job`)."""

    jobs: int
    cost: int


class _Accept(NamedTuple):
    at: float
    cost: int


@dataclass(slots=True)
class _Model:
    seen: Seen
    accepting: int = 0
    accepts: OrderedDict[str, _Accept] = field(default_factory=OrderedDict)
    accepts_cost: int = 0

    def add(self, job: Job, now: float) -> None:
        """The job waits, and no standing has counted it yet."""
        self.drop(job.id)
        self.accepts[job.id] = _Accept(now, job.cost)
        self.accepts_cost += job.cost

    def drop(self, job_id: str) -> None:
        """It is counted elsewhere, or waits no more."""
        if (accept := self.accepts.pop(job_id, None)) is not None:
            self.accepts_cost -= accept.cost

    def drop_counted(self, standing: Standing, now: float) -> None:
        """Drop what the standing has counted. Oldest first: the first that it has not counted is the end."""
        while self.accepts:
            job_id, accept = next(iter(self.accepts.items()))
            if not _counted(accept, standing, now):
                return
            self.drop(job_id)


class Live:
    """The latest of each model and of the jobs accepted here. `silent_s`: a worker silent for so long is gone."""

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._models: dict[str, _Model] = {}
        self._rows: OrderedDict[str, JobRow] = OrderedDict()
        self._bells: dict[str, set[asyncio.Future[Outcome | None]]] = {}
        self._closing = False
        self.followers = Followers()

    def apply(self, slug: str, position: int, event: Event | Unreadable, now: float) -> None:
        """Take in one event of the model's log."""
        model = self._model(slug)
        model.seen.apply(event, now)
        if isinstance(event, Standing):
            self.followers.ring(event.front)
        elif isinstance(event, Alive):
            self.followers.ring(running.job_id for running in event.running)
        elif isinstance(event, Dispatched | Started | Returned | Retried | Ended):
            model.drop(event.job_id)  # whoever tells of it has taken it out of the queue
            if (row := self._rows.get(event.job_id)) is not None:
                self._rows[event.job_id] = advance(row, event, position)
            self.followers.tell(position, event)
            if isinstance(event, Ended):
                self._ring(event.job_id, event.outcome)

    @contextmanager
    def accepting(self, slug: str) -> Iterator[None]:
        """One job more counts as waiting while it is being stored and published, so that no two take the last place."""
        model = self._model(slug)
        model.accepting += 1
        try:
            yield
        finally:
            model.accepting -= 1

    def remember(self, slug: str, job: Job, now: float) -> None:
        """A job accepted here: it has no row in the database yet."""
        if job.id in self._rows:
            return  # sent again with its key: the dispatcher counts it once
        self._model(slug).add(job, now)
        self._rows[job.id] = new_row(job)
        if len(self._rows) > REMEMBERED_JOBS:
            self._rows.popitem(last=False)

    def forget(self, job_id: str) -> None:
        """The job was deleted."""
        self._rows.pop(job_id, None)

    def row(self, job_id: str) -> JobRow | None:
        """The job as the log tells it, if it was accepted here and not long ago."""
        return self._rows.get(job_id)

    def knows_ended(self, job_id: str) -> bool:
        """Whether the log told of the end of a job accepted here."""
        row = self._rows.get(job_id)
        return row is not None and row.state.terminal

    def standing(self, slug: str) -> Standing | None:
        """The last word of the model's dispatcher."""
        return self._model(slug).seen.standing

    def waiting(self, slug: str, now: float) -> Waiting:
        """What waits: the dispatcher's count, what was accepted here since, and what is just being accepted."""
        model = self._model(slug)
        standing = model.seen.standing
        told = Waiting(0, 0)
        if standing is not None:
            told = Waiting(standing.waiting, standing.waiting_cost)
            model.drop_counted(standing, now)
        return Waiting(told.jobs + len(model.accepts) + model.accepting, told.cost + model.accepts_cost)

    def workers(self, slug: str, now: float) -> Sequence[Alive]:
        """The workers that live and stay."""
        return self._model(slug).seen.workers(now)

    def trouble(self, slug: str) -> str:
        """Why the model's last worker could not load it; "" since one lives, and when none has tried."""
        return self._model(slug).seen.trouble

    def progress(self, slug: str, row: JobRow) -> Running | None:
        """How far the job is, by its worker's last beat; None until its steps are known."""
        beats = self._model(slug).seen.beats
        found = [running for beat in beats for running in beat.running if running.job_id == row.id and running.steps]
        current = [running for running in found if (running.attempt, running.delivery) >= (row.attempt, row.delivery)]
        return max(current, key=lambda running: (running.attempt, running.delivery, running.step), default=None)

    async def ended(self, job_id: str, wait_s: float, outcomes: Outcomes) -> Outcome | None:
        """The job's outcome as soon as it is there, None when it is not within `wait_s`.

        Events only make it quick: the outcome is also asked for every 250 ms, since an event may be missed.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + wait_s
        while (outcome := await outcomes.get(job_id)) is None:
            left_s = deadline - now()
            if left_s <= 0 or self._closing:
                return None
            if (outcome := await self._bell(job_id, min(left_s, POLL_S))) is not None:
                return outcome
        return outcome

    def release(self) -> None:
        """Let all who wait go: this gateway stops."""
        self._closing = True
        for job_id in list(self._bells):
            self._ring(job_id, None)
        self.followers.ring_all()

    async def _bell(self, job_id: str, wait_s: float) -> Outcome | None:
        bell: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        waiting = self._bells.setdefault(job_id, set())
        waiting.add(bell)
        try:
            async with asyncio.timeout(wait_s):
                return await bell
        except TimeoutError:
            return None
        finally:
            waiting.discard(bell)
            if not waiting and self._bells.get(job_id) is waiting:
                del self._bells[job_id]

    def _ring(self, job_id: str, outcome: Outcome | None) -> None:
        for bell in self._bells.pop(job_id, ()):
            if not bell.done():
                bell.set_result(outcome)

    def _model(self, slug: str) -> _Model:
        return self._models.get(slug) or self._models.setdefault(slug, _Model(Seen(self._silent_s)))


def _counted(accept: _Accept, standing: Standing, now: float) -> bool:
    return standing.at >= accept.at + (COUNTED_AFTER_S if now < accept.at + SETTLED_S else 0.0)
