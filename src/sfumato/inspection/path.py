"""One job's path, put together from everything that knows of it: objects, logs, row and outcome."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar
from uuid import UUID

from sfumato.core.errors import NotFound
from sfumato.core.events import Dispatched, Ended, Event, JobEvent, JobRow, Lifecycle, Retried, Returned
from sfumato.core.job import Job, Outcome, State, model_slug, preview_key
from sfumato.core.ports import Broker, Follower, Logged
from sfumato.wiring import Ports

__all__ = ["JobPath", "Step", "path_of"]

BATCH: Final = 1_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to the job, where that is written, and when it was told (Unix seconds).

    `position` is the one in its log. An object's time is as exact as its store tells it: S3 knows whole seconds.
    """

    at: float
    place: Literal["object", "log", "row", "outcome"]
    what: str
    detail: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class JobPath:
    """A job's steps in order of time; `job` is None when no message and no row of it is left."""

    job_id: str
    state: State
    steps: Sequence[Step]
    job: Job | None = None
    row: JobRow | None = None
    outcome: Outcome | None = None

    @property
    def seconds(self) -> float:
        """From the first step to the last."""
        return self.steps[-1].at - self.steps[0].at

    def timed(self) -> Iterator[tuple[Step, float | None]]:
        """Each step, and how long after the one before it was (seconds; None for the first)."""
        before: Step | None = None
        for step in self.steps:
            yield step, None if before is None else step.at - before.at
            before = step


@dataclass(slots=True)
class _Log:
    """What the logs have of the job."""

    jobs: list[Logged[Job]] = field(default_factory=list)
    events: list[Logged[JobEvent]] = field(default_factory=list)


async def path_of(job_id: str, ports: Ports, models: Iterable[str]) -> JobPath:
    """The job's path. Its logs are read from their beginning: those of its model, or of `models` (slugs) without a row.

    Raises:
        NotFound: nothing here knows of such a job.
    """
    if not _is_id(job_id):
        raise NotFound(f"{job_id!r} is no job's id; these are like 0199c0de-0000-7000-8000-000000000000.")
    row, outcome = await ports.rows.get(job_id), await ports.outcomes.get(job_id)
    found = await _logged(job_id, ports.broker, models if row is None else [model_slug(row.job.model)])
    steps = [step async for step in _objects(job_id, ports)]
    steps += _of_log(found)
    steps += _of_row(row, {logged.position for logged in found.events}, published=bool(found.jobs))
    if outcome is not None:
        steps.append(_of_outcome(outcome))
    if not steps:
        raise NotFound(f"nothing is known of a job {job_id}: no object, no message, no row, no outcome.")
    state = outcome.state if outcome else row.state if row else State.QUEUED
    job = row.job if row else found.jobs[0].value if found.jobs else None
    return JobPath(job_id, state, sorted(steps, key=_order), job, row, outcome)


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _order(step: Step) -> tuple[float, int]:
    """What bears one time stands as the protocol has it: an outcome is decided before its end is told."""
    return step.at, ("object", "outcome", "log", "row").index(step.place)


async def _logged(job_id: str, broker: Broker, models: Iterable[str]) -> _Log:
    found = _Log()
    for model in models:
        async for published in _whole(broker.jobs(model)):
            if isinstance(published.value, Job) and published.value.id == job_id:
                found.jobs.append(Logged(published.position, published.value))
        async for told in _whole(broker.events(model)):
            event: Event | object = told.value
            if isinstance(event, JobEvent) and event.job_id == job_id:
                found.events.append(Logged(told.position, event))
    return found


async def _whole(log: Follower[T]) -> AsyncIterator[Logged[T]]:
    cursor = ""
    while (batch := await log.follow(cursor, BATCH, wait_s=0)).items:
        for item in batch.items:
            yield item
        cursor = batch.cursor


async def _objects(job_id: str, ports: Ports) -> AsyncIterator[Step]:
    for prefix, what in (("inputs", "input stored"), ("outputs", "picture stored")):
        async for head in ports.blobs.old(f"{prefix}/{job_id}/", before=float("inf")):
            yield Step(head.modified_at, "object", what, f"{head.key}, {head.size_bytes} bytes")
    for key, what in ((f"requests/{job_id}", "request with its key stored"), (preview_key(job_id), "preview stored")):
        try:
            head = await ports.blobs.head(key)
        except NotFound:
            continue
        yield Step(head.modified_at, "object", what, f"{head.key}, {head.size_bytes} bytes")


def _of_log(found: _Log) -> Iterator[Step]:
    for logged in found.jobs:
        job = logged.value
        about = f"{job.model}, {job.priority}, owner {job.owner}, cost {job.cost}"
        yield Step(job.created_at, "log", "accepted", about, logged.position)
    for told in found.events:
        event = told.value
        what = f"ended, {event.outcome.state}" if isinstance(event, Ended) else event.kind
        yield Step(event.at, "log", what, _told(event), told.position)


def _told(event: JobEvent) -> str:
    order = f"attempt {event.attempt}, delivery {event.delivery}"
    match event:
        case Dispatched():
            return f"{order}, to {event.worker} by lane {event.lane}"
        case Returned():
            return f"{order}, by {event.worker}: {event.reason}"
        case Retried():
            return f"{order}, {event.error.slug}: {event.error.detail}"
        case Ended():
            return order
    return f"{order}, by {event.worker}"


def _of_row(row: JobRow | None, seen: set[int], *, published: bool) -> Iterator[Step]:
    """What the row kept of a log that is not kept any more."""
    for line in row.events if row else ():
        known = published if line.kind == "queued" else line.position in seen
        if not known:
            yield Step(line.at, "row", "accepted" if line.kind == "queued" else line.kind, _kept(line), line.position)


def _kept(line: Lifecycle) -> str:
    return f"attempt {line.attempt}, delivery {line.delivery}" + (f", by {line.worker}" if line.worker else "")


def _of_outcome(outcome: Outcome) -> Step:
    parts = [f"{name} {took_s:.3f} s" for name, took_s in outcome.seconds.items()]
    if outcome.error is not None:
        parts.append(f"{outcome.error.slug}: {outcome.error.detail}")
    return Step(outcome.at, "outcome", f"decided, {outcome.state}", ", ".join(parts))
