"""The ports: what the roles need from a broker and a store, one small Protocol per caller.

Everything is async and semantic, so that SQLite and a folder, Kafka and S3, and the simulation's memory all fit. Every
method may raise TransientError, which means "unknown whether it took effect"; what else it raises is said beside it.
The contract suites in tests/contract state these semantics as tests that every implementation passes.

A `wait_s` is the longest a call waits for something to come; it returns sooner, with less than `limit`, when there is
something. `wait_s=0` only looks.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from sfumato.core.events import Event, JobEvent, JobRow, Unreadable
from sfumato.core.history import JobPage, JobQuery
from sfumato.core.job import DeadLetter, Job, Outcome, Work
from sfumato.core.news import NewsReader

__all__ = [
    "METADATA_LIMIT_BYTES",
    "Batch",
    "BlobHead",
    "BlobLinks",
    "BlobSweep",
    "Blobs",
    "Broker",
    "EventLog",
    "EventSink",
    "Follower",
    "JobPage",
    "JobPublisher",
    "JobQuery",
    "JobRecorder",
    "JobRows",
    "JobsLog",
    "JobsReader",
    "Lead",
    "LogSweep",
    "Logged",
    "Outcomes",
    "Received",
    "RowChange",
    "WorkQueue",
    "WorkReceiver",
    "WorkSender",
]

T_co = TypeVar("T_co", covariant=True)

METADATA_LIMIT_BYTES: Final = 4_096
"""Most that a commit of the jobs log carries: what a Kafka broker keeps beside an offset by default."""


# Logs: the jobs log and the event log of one model


@dataclass(frozen=True, slots=True)
class Logged(Generic[T_co]):
    """A value and its position: 1 or more, growing along the log (of Kafka: along the partition its key hashes to)."""

    position: int
    value: T_co


@dataclass(frozen=True, slots=True)
class Batch(Generic[T_co]):
    """What `follow` found, and the opaque cursor to follow on from."""

    items: Sequence[Logged[T_co]]
    cursor: str


class Follower(Protocol[T_co]):
    """Reads a log from any place, as often as it likes, beside any number of others."""

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[T_co]:
        """The next values after cursor `after` ("" is the oldest kept), in order per job.

        An empty batch says that whatever was appended before the call lies before its cursor, even with `wait_s=0`.
        """
        ...

    async def end(self) -> str:
        """The cursor behind the last value appended so far."""
        ...


class JobPublisher(Protocol):
    """What a gateway needs of a model's jobs log."""

    async def publish(self, job: Job) -> None:
        """Durable when this returns. TransientError: it may be in the log or not; publishing again is harmless."""
        ...


@dataclass(frozen=True, slots=True)
class Lead:
    """A reader's right to be the one: where its predecessor committed, and the metadata left there ("" at first)."""

    position: int
    metadata: str


class JobsReader(Protocol):
    """The one reader of a model's jobs log: its dispatcher. Others wait until it closes or falls silent.

    Silent means: no `read` for `takeover_s`, whatever else is called. `read` and `commit` raise Deposed before the
    first lead and after another took over; then this end holds nothing until it leads again.
    """

    @property
    def takeover_s(self) -> float: ...

    async def lead(self, wait_s: float) -> Lead | None:
        """Become the one reader, positioned behind the last commit; None while another one is.

        Who wants the place asks again and again: a candidate that stops asking is no candidate.
        """
        ...

    async def read(self, limit: int, wait_s: float) -> Sequence[Logged[Job | Unreadable]]:
        """The next jobs in the order they were published; empty when none came in `wait_s`."""
        ...

    async def last(self) -> int:
        """Position of the last job published so far (0: none), to know when a new reader has caught up."""
        ...

    async def commit(self, position: int, metadata: str) -> None:
        """All jobs up to and including `position` are decided; a successor starts behind it and is given `metadata`.

        `metadata` has at most METADATA_LIMIT_BYTES in UTF-8.
        """
        ...

    async def close(self) -> None:
        """Let another take over at once."""
        ...


class JobsLog(JobPublisher, JobsReader, Follower[Job | Unreadable], Protocol):
    """A model's jobs log whole, for who builds and who tests one."""


class EventSink(Protocol):
    """Where a role tells what happened."""

    async def append(self, events: Sequence[Event]) -> None:
        """Durable when this returns; events of one job keep the order in which they were appended.

        TransientError: some, all or none may be in the log; telling them again is harmless.
        """
        ...


class EventLog(EventSink, Follower[Event | Unreadable], Protocol):
    """A model's event log whole."""


# The work queue of one model


class WorkSender(Protocol):
    """What a dispatcher needs of a model's work queue."""

    async def hand_out(self, works: Sequence[Work]) -> None:
        """Put each into its lane, in order; durable when this returns."""
        ...

    async def bury(self, letter: DeadLetter) -> None:
        """Put it where others find it; nothing here reads it. Durable when this returns; twice is harmless."""
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """One hand-out as a worker gets it. `left_over`: it was in the lane before this worker held it, so whoever held the
    lane may have begun it; it is not run but told as returned. `receipt` is what `acknowledge` wants back."""

    work: Work | Unreadable
    receipt: str
    left_over: bool


class WorkReceiver(Protocol):
    """A worker's end of a model's work queue: it holds lanes, and gets what was left in the lanes of the dead.

    Dead means: no `receive` for `takeover_s`. So `receive` is called at least once a second for ever, with limit=0 when
    there is no room. No two living receivers hold one lane. Lanes may move to a receiver that joins; what its former
    holder had not acknowledged by then is left over to the new one, and the former one finishes what it runs.
    """

    @property
    def takeover_s(self) -> float: ...

    async def receive(self, limit: int, wait_s: float) -> Sequence[Received]:
        """The next hand-outs of the lanes held, in order per lane, each once while the lane stays with this receiver.

        The first calls may give nothing while the broker shares out the lanes. What a call that failed would have given
        comes with the next one.
        """
        ...

    async def acknowledge(self, receipt: str) -> None:
        """This one is done with, in any order. Without effect when the lane was lost: its new holder returns it.

        Durable at the latest when all before it in its lane are acknowledged; until then it may be left over.
        """
        ...

    @property
    def lanes(self) -> frozenset[int]:
        """The lanes held now, as of the last `receive`; what `alive` tells the dispatcher. May be none for a while."""
        ...

    async def close(self) -> None:
        """Give the lanes up at once; what was not acknowledged is left over for others."""
        ...


class WorkQueue(WorkSender, WorkReceiver, Protocol):
    """One process's end of a model's work queue, for who builds and who tests one."""


class LogSweep(Protocol):
    """For who expires what the logs keep. A broker that expires its logs itself removes nothing here."""

    async def trim(self, before: float) -> int:
        """Remove log entries older than `before` (Unix seconds), of jobs only committed ones; how many."""
        ...


class Broker(LogSweep, Protocol):
    """Opens logs and queues by the model's slug. Each call gives an end of its own (its own reader, its own lanes)."""

    def jobs(self, model: str) -> JobsLog: ...

    def work(self, model: str) -> WorkQueue: ...

    def events(self, model: str) -> EventLog: ...

    async def close(self) -> None:
        """Close every end that was opened here."""
        ...


# Stores


@dataclass(frozen=True, slots=True)
class BlobHead:
    """What is known of an object without reading it. `modified_at` is Unix seconds."""

    key: str
    size_bytes: int
    etag: str
    modified_at: float


class Blobs(Protocol):
    """Objects by key: inputs/…, outputs/…, requests/…, uploads/…, previews/…, options/…. Keys are slash-separated and
    never start with one. What is under options/ is an owner's choice and is kept for good; the others expire."""

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        """Store `data` whole or not at all; durable when this returns; gives the etag.

        Raises:
            AlreadyExists: create_only, and someone created it before.
        """
        ...

    async def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """The object, or its first `limit_bytes`.

        Raises:
            NotFound: no object has this key.
        """
        ...

    async def head(self, key: str) -> BlobHead:
        """Raises NotFound when no object has this key."""
        ...

    async def copy(self, source: str, target: str, *, if_etag: str) -> None:
        """Copy inside the store.

        Raises:
            NotFound: `source` is gone, or is no longer the object with `if_etag`.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove it; without effect when it is not there."""
        ...


class BlobLinks(Protocol):
    """Links that let a client talk to the store itself; a store without them answers None, the gateway serves."""

    async def get_link(self, key: str, lifetime_s: float) -> str | None: ...

    async def put_link(self, key: str, lifetime_s: float) -> str | None: ...


class BlobSweep(Protocol):
    """For who expires objects."""

    def old(self, prefix: str, before: float) -> AsyncIterator[BlobHead]:
        """Objects under `prefix` last written before `before` (Unix seconds)."""
        ...


class Outcomes(Protocol):
    """The one end of every job."""

    async def decide(self, outcome: Outcome) -> Outcome:
        """Create the outcome of its job, unless there is one; gives the one that holds. Durable when this returns."""
        ...

    async def get(self, job_id: str) -> Outcome | None:
        """The outcome that holds, if the job has ended."""
        ...

    async def sweep(self, before: float) -> int:
        """Forget outcomes decided before `before` (Unix seconds); how many."""
        ...


class JobRows(NewsReader, Protocol):
    """What a gateway reads of the rows."""

    async def get(self, job_id: str) -> JobRow | None: ...

    async def list(self, query: JobQuery) -> JobPage:
        """Raises InvalidRequest when the cursor is not one of ours."""
        ...

    async def count(self, query: JobQuery) -> int:
        """How many rows all pages of the list have, whatever its cursor (counted up to a million)."""
        ...

    async def ahead(self, job: Job) -> int:
        """About how many of its owner's jobs of its model and priority wait before it (counted up to 10,000)."""
        ...

    async def forget(self, job_id: str) -> None:
        """Hide the row for good; its outcome stays as the tombstone."""
        ...


@dataclass(frozen=True, slots=True)
class RowChange:
    """One thing to fold into a row: its job message (creates it) or an event at its position."""

    job: Job | None = None
    event: JobEvent | None = None
    position: int = 0


class JobRecorder(Protocol):
    """What the recorder writes. Rows and cursors change in one transaction, so a replay changes nothing."""

    async def cursors(self) -> dict[str, str]:
        """Log name → the cursor up to which it is folded into the rows."""
        ...

    async def record(self, changes: Sequence[RowChange], cursors: dict[str, str]) -> None:
        """Fold the changes in by `core.events.advance`; an event without a row waits for its job message.

        A row that is terminal stays so, whatever comes late or twice.
        """
        ...

    async def park(self, log: str, position: int, message: Unreadable) -> None:
        """Keep a message that this build can't read; parking it again changes nothing."""
        ...

    async def overdue(self, now: float, limit: int) -> Sequence[JobRow]:
        """Rows not yet terminal whose job expired before `now`."""
        ...

    async def sweep(self, before: float) -> int:
        """Remove terminal rows created before `before` (Unix seconds); how many."""
        ...
