"""What the roles tell each other about a job, in the order it happened to that job, and how a row follows.

`dispatched, started, returned, retried, final` move a job; `alive` (a worker's beat, with each running job's step),
`standing` (a dispatcher's view of its queue) and `watched` (somebody looks) are live only. Nothing here does I/O or
reads a clock.
"""

from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from sfumato.core.frozen import Frozen
from sfumato.core.job import VERSION, Job, JobId, Outcome, Problem, State, Work, move

__all__ = [
    "Alive",
    "Dispatched",
    "Ended",
    "Event",
    "JobEvent",
    "JobRow",
    "Lifecycle",
    "Retried",
    "Returned",
    "Running",
    "Share",
    "Standing",
    "Started",
    "Unreadable",
    "Watched",
    "advance",
    "decode_event",
    "decode_job",
    "decode_work",
    "new_row",
]


class _OfJob(Frozen):
    version: int = VERSION
    job_id: JobId
    at: float
    attempt: int
    delivery: int


class Dispatched(_OfJob):
    """The dispatcher wrote the work message for this lane. `deaths`: so many workers fell silent over this job."""

    kind: Literal["dispatched"] = "dispatched"
    lane: int
    worker: str
    deaths: int = 0


class Started(_OfJob):
    """A worker has the job in hand and is about to fetch its input."""

    kind: Literal["started"] = "started"
    worker: str


class Returned(_OfJob):
    """A worker gives the job back without an end. `left_over`: its former holder died; `drain`: this worker leaves."""

    kind: Literal["returned"] = "returned"
    worker: str
    reason: Literal["left_over", "drain"]


class Retried(_OfJob):
    """It failed in a way that may pass; `attempt` is the next one, which must not begin before `not_before`."""

    kind: Literal["retried"] = "retried"
    not_before: float
    error: Problem


class Ended(_OfJob):
    """The outcome that holds, told by whoever made or found it; telling it twice is harmless."""

    kind: Literal["final"] = "final"
    outcome: Outcome


class Running(Frozen):
    """One job on a worker: how many of its steps are done, and how many were when its stored preview was made."""

    job_id: JobId
    attempt: int
    delivery: int
    step: int
    steps: int
    preview: int = 0


class Alive(Frozen):
    """A worker's beat, about every 2 s and when a step count changed. `slots` is how many jobs it can hold at once.

    `cold_start_s` is how long it took from its process's start to its first beat, 0 when it doesn't know. A worker that
    can't load its model says so with its last word: no slots, and why in `trouble`.
    """

    kind: Literal["alive"] = "alive"
    version: int = VERSION
    at: float
    worker: str
    slots: int
    lanes: tuple[int, ...]
    running: tuple[Running, ...] = ()
    draining: bool = False
    cold_start_s: float = 0.0
    trouble: str = ""


class Share(Frozen):
    """One owner's jobs, as a dispatcher serves them beside others'.

    `jobs` counts those that wait by priority, high first; `cost` is theirs, `charge` the same by their weights, and
    `lead` how much charge all others are given before the owner's next one. `running` counts those handed out.
    Who has jobs and no share was not there yet: lead 0.
    """

    owner: str
    jobs: tuple[int, ...] = (0, 0, 0)
    cost: int = 0
    charge: float = 0.0
    lead: float = 0.0
    running: int = 0


class Standing(Frozen):
    """A dispatcher's view of its model, told when it changes, at most once a second.

    `front` holds the ids of the first waiting jobs in exact order, `front_costs` their costs; `shares` is by what the
    places of those behind can be foretold: the owners with most jobs, and one without a name for all others.
    `seconds_per_job` is a moving average. Costs are as in `Job`; `cost_per_s` is the model's pace while it works, None
    until a job was done. `worker_cost_per_s` is the pace of one worker that has all it can hold, as far as one was seen
    so; `mean_cost` that of a job; `arriving` what comes in, in cost per second, averaged over 10 and over 60 s;
    `cold_start_s` how long the last worker took to its first beat. These are 0 while unknown.
    `trouble` says why nothing is handed out although jobs and workers are there; mostly "".
    """

    kind: Literal["standing"] = "standing"
    version: int = VERSION
    at: float
    waiting: int
    running: int
    slots: int
    workers: int
    oldest_created_at: float | None
    seconds_per_job: float
    front: tuple[JobId, ...] = ()
    front_costs: tuple[int, ...] = ()
    shares: tuple[Share, ...] = ()
    waiting_cost: int = 0
    running_cost: int = 0
    cost_per_s: Annotated[float, Field(gt=0)] | None = None
    worker_cost_per_s: float = 0.0
    mean_cost: float = 0.0
    arriving: tuple[float, float] = (0.0, 0.0)
    cold_start_s: float = 0.0
    trouble: str = ""


class Watched(Frozen):
    """Somebody looks at this job: whoever runs it makes previews of it until `until` (Unix seconds)."""

    kind: Literal["watched"] = "watched"
    version: int = VERSION
    at: float
    job_id: JobId
    until: float


JobEvent = Dispatched | Started | Returned | Retried | Ended
Event = Annotated[JobEvent | Alive | Standing | Watched, Field(discriminator="kind")]
_EVENT: Final[TypeAdapter[JobEvent | Alive | Standing | Watched]] = TypeAdapter(Event)
_JOB: Final = TypeAdapter(Job)
_WORK: Final = TypeAdapter(Work)


class Unreadable(Frozen):
    """A message of a version or shape this build does not know. It is parked, never skipped as if done."""

    raw: str
    why: str


def decode_job(raw: bytes | str) -> Job | Unreadable:
    """A job message, or what could not be read of it."""
    return _decode(_JOB, raw)


def decode_work(raw: bytes | str) -> Work | Unreadable:
    """A work message, or what could not be read of it."""
    return _decode(_WORK, raw)


def decode_event(raw: bytes | str) -> JobEvent | Alive | Standing | Watched | Unreadable:
    """An event, or what could not be read of it."""
    return _decode(_EVENT, raw)


class _Versioned(Protocol):
    @property
    def version(self) -> int: ...


V = TypeVar("V", bound=_Versioned)


def _decode(adapter: TypeAdapter[V], raw: bytes | str) -> V | Unreadable:
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    try:
        value = adapter.validate_json(raw)
    except ValidationError as error:
        return Unreadable(raw=text, why=str(error))
    if value.version != VERSION:
        return Unreadable(raw=text, why=f"version {value.version} is unknown here; this build reads {VERSION}.")
    return value


class Lifecycle(Frozen):
    """One line of a job's kept history, with its position in the event log (0 for queued: the job message itself)."""

    kind: Literal["queued", "started", "returned", "retried", "final"]
    at: float
    position: int
    attempt: int = 0
    delivery: int = 0
    worker: str = ""


MAX_LIFECYCLE: Final = 12


class JobRow(Frozen):
    """What the database knows of a job; a fold over its message and events, so it can be built anew from the logs."""

    job: Job
    state: State = State.QUEUED
    attempt: int = 0
    delivery: int = 0
    worker: str = ""
    started_at: float | None = None
    not_before: float | None = None
    last_error: Problem | None = None
    outcome: Outcome | None = None
    position: int = 0
    """Position of the last event folded in; an event at or before it changes nothing."""
    events: tuple[Lifecycle, ...] = ()

    @property
    def id(self) -> str:
        return self.job.id


def new_row(job: Job) -> JobRow:
    """The row of a job just published: queued."""
    return JobRow(job=job, attempt=job.attempt, events=(Lifecycle(kind="queued", at=job.created_at, position=0),))


def advance(row: JobRow, event: JobEvent, position: int) -> JobRow:
    """The row after `event`, which stands at `position` in its log.

    Late, repeated and stale events (an older attempt or delivery) change nothing but the position; a terminal row never
    changes state again.
    """
    if position <= row.position:
        return row
    seen = row.model_copy(update={"position": position})
    stale = (event.attempt, event.delivery) < (row.attempt, row.delivery)
    if row.state.terminal or (stale and event.kind != "final") or event.kind == "dispatched":
        return seen
    return seen.model_copy(update={**_change(row, event), "events": _kept(row, event, position)})


def _change(row: JobRow, event: JobEvent) -> dict[str, Any]:
    order = {"attempt": event.attempt, "delivery": event.delivery}
    if isinstance(event, Started):
        state = move(row.state, State.RUNNING)
        return order | {"state": state, "worker": event.worker, "started_at": event.at, "not_before": None}
    if isinstance(event, Retried):
        # A retry told before its `started` was seen passes through running: the log is per job in order, a row may lag.
        state = State.QUEUED if row.state is State.QUEUED else move(row.state, State.QUEUED)
        return order | {"state": state, "worker": "", "not_before": event.not_before, "last_error": event.error}
    if isinstance(event, Ended):
        running = row.state if event.outcome.state in (State.FAILED, State.CANCELED) else State.RUNNING
        return {"state": move(running, event.outcome.state), "outcome": event.outcome, "not_before": None}
    return order


def _kept(row: JobRow, event: JobEvent, position: int) -> tuple[Lifecycle, ...]:
    if isinstance(event, Dispatched):
        return row.events
    worker = getattr(event, "worker", "")
    line = Lifecycle(
        kind=event.kind, at=event.at, position=position, attempt=event.attempt, delivery=event.delivery, worker=worker
    )
    # The first line and the latest ones: a job redelivered many times still shows when it came and how it ended.
    return (*row.events[:1], *(*row.events[1:], line)[-(MAX_LIFECYCLE - 1) :])
