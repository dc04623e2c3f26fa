"""Taking jobs in and canceling them: the gateway's part of the protocol, as coroutines that await nothing but ports.

Accept: request (with a key only, create-only) → input → publish → answered. Cancel: outcome → final event → answered.
docs/protocol.md says what each crash between two arrows leaves behind and who repairs it.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Final, NamedTuple

from pydantic import ValidationError

from sfumato.core.errors import AlreadyExists, NotFound, TransientError
from sfumato.core.events import Ended, Watched
from sfumato.core.frozen import Frozen
from sfumato.core.job import InputPicture, Job, Outcome, Priority, State, model_slug
from sfumato.core.keys import LOCAL
from sfumato.core.params import ParamsRequest, Shape, evaluations
from sfumato.core.ports import Blobs, Broker, EventSink, JobPublisher, JobRows, Outcomes
from sfumato.core.webhooks import Hook
from sfumato.gateway.pictures import PictureHeader
from sfumato.gateway.problems import Refusal
from sfumato.models.registry import Model
from sfumato.observability import bound_log, count, span, traceparent

__all__ = ["NATIVE", "Accepted", "Came", "Given", "Intake", "Submission", "Uploaded", "input_key"]

WATCH_FOR_S: Final = 15.0
"""Who watches says so again and again, so that a job that nobody watches any more costs nothing."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Given:
    """A picture in hand; `sha256` is the hex digest of `data`."""

    data: bytes
    sha256: str

    @property
    def size_bytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A picture in the store, whose first bytes were checked when its etag was this one.

    `known` is what stood for its content when it was taken for an earlier job.
    """

    key: str
    etag: str
    size_bytes: int
    known: str = ""

    @property
    def sha256(self) -> str:
        """Stands for the content, which the gateway never read whole."""
        return self.known or hashlib.sha256(self.etag.encode()).hexdigest()


class Came(NamedTuple):
    """How a job came: by which protocol ("" is the service's own), and within which call, where a call has several."""

    protocol: str = ""
    call: str = ""


NATIVE: Final = Came()


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request. `job_id` is derived from the key when there is one (`keyed`), else new.

    `retry_of` is the job whose picture and parameters are taken once more.
    """

    job_id: str
    keyed: bool
    owner: str
    model: Model
    priority: Priority
    asked: ParamsRequest
    picture: Given | Uploaded
    header: PictureHeader
    metadata: dict[str, object]
    weight: float = 1.0
    retry_of: str = ""
    webhook_url: str = ""
    webhook_events: tuple[Hook, ...] = ()
    link_base: str = ""
    came: Came = NATIVE


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job as it stands in the log. `outcome` is there when the same request was made before and has ended."""

    job: Job
    outcome: Outcome | None = None


class _Request(Frozen):
    fingerprint: str
    created_at: float


class Intake:
    """The flows of accepting and canceling. `job_wait_s` is how long a job may wait before it expires."""

    def __init__(self, broker: Broker, blobs: Blobs, outcomes: Outcomes, rows: JobRows, job_wait_s: float) -> None:
        self._broker = broker
        self._blobs = blobs
        self._outcomes = outcomes
        self._rows = rows
        self._job_wait_s = job_wait_s
        self._publishers: dict[str, JobPublisher] = {}
        self._sinks: dict[str, EventSink] = {}
        self._watched_until: dict[str, float] = {}

    async def accept(self, submission: Submission, now: float) -> Accepted:
        """Store the picture and publish the job; when this returns the job will end, whatever crashes.

        Raises:
            InvalidRequest: the model does not allow these parameters; nothing was stored.
            Refusal: idempotency-mismatch, the key belongs to another request.
            TransientError: unknown whether it took effect; the input is left to expire.
        """
        job = self._job(submission, now)
        if submission.keyed:
            created_at, seen = await self._register(submission, now)
            if seen:
                job = self._job(submission, created_at)
                if (outcome := await self._outcomes.get(job.id)) is not None:
                    return Accepted(job, outcome)
        with span("store"):
            await self._store(submission.picture, job.input.key)
        with span("publish"):
            await self._publisher(submission.model.slug).publish(job)
        with bound_log(job=job.id):
            log.debug("accepted for %s, %s", job.model, job.priority)
        return Accepted(job)

    def cost(self, submission: Submission, now: float) -> int:
        """Pixels × steps of the job. Raises InvalidRequest when the model does not allow its parameters."""
        return self._job(submission, now).cost

    async def cancel(self, job_id: str, now: float, model: str | None = None) -> Outcome:
        """End the job as canceled, unless it has ended; gives the outcome that holds.

        `model` is the job's model name if the caller knows it, else the job's row is asked. A job that no row tells of
        yet is canceled all the same: whoever meets it finds the outcome and tells it. Whether the job exists at all is
        for the caller to know.
        """
        if model is None:
            row = await self._rows.get(job_id)
            model = row.job.model if row else None
        ours = Outcome(job_id=job_id, state=State.CANCELED, at=now)
        held = await self._outcomes.decide(ours)
        if held == ours:
            count("sfumato_outcomes_total", model=model_slug(model) if model else "", state=held.state)
            with bound_log(job=job_id):
                log.info("canceled")
        if held.state is State.CANCELED and model is not None:
            # Told even when an earlier call canceled it: that one may have died before it told.
            event = Ended(job_id=job_id, at=held.at, attempt=held.attempt, delivery=0, outcome=held)
            await self._sink(model_slug(model)).append([event])
        return held

    async def watch(self, job: Job, now: float, for_s: float = WATCH_FOR_S) -> None:
        """Ask whoever runs the job for previews of it, for `for_s` seconds; call it as often as you like meanwhile."""
        if now < self._watched_until.get(job.id, 0.0) - for_s / 2:
            return
        until = now + for_s
        await self._sink(model_slug(job.model)).append([Watched(at=now, job_id=job.id, until=until)])
        self._watched_until = {known: end for known, end in self._watched_until.items() if end > now} | {job.id: until}

    def _job(self, submission: Submission, created_at: float) -> Job:
        header, picture = submission.header, submission.picture
        params = submission.model.rules.resolve(
            submission.asked, Shape(header.width, header.height), _seed(submission.job_id)
        )
        steps = evaluations(params.num_inference_steps, params.strength, params.sampler)
        return Job(
            id=submission.job_id,
            owner=submission.owner,
            model=submission.model.name,
            priority=submission.priority,
            cost=params.width * params.height * steps,
            created_at=created_at,
            expires_at=created_at + self._job_wait_s,
            weight=submission.weight,
            params=params,
            input=InputPicture(
                key=input_key(submission.owner, submission.job_id, picture.sha256),
                media_type=header.media_type,
                width=header.width,
                height=header.height,
                size_bytes=picture.size_bytes,
            ),
            metadata=submission.metadata,
            retry_of=submission.retry_of,
            webhook_url=submission.webhook_url,
            webhook_events=submission.webhook_events,
            link_base=submission.link_base,
            protocol=submission.came.protocol,
            call=submission.came.call,
            traceparent=traceparent(),
        )

    async def _register(self, submission: Submission, now: float) -> tuple[float, bool]:
        """When this request was first made, and whether that was before now."""
        mine = _Request(fingerprint=_fingerprint(submission), created_at=now)
        key = f"requests/{submission.job_id}"
        try:
            await self._blobs.put(key, mine.model_dump_json().encode(), create_only=True)
        except AlreadyExists:
            first = await self._first(key)
            if first.fingerprint != mine.fingerprint:
                raise Refusal(
                    "idempotency-mismatch",
                    "This Idempotency-Key came with other parameters or another picture; use a new key for this one.",
                ) from None
            return first.created_at, True
        return now, False

    async def _first(self, key: str) -> _Request:
        try:
            return _Request.model_validate_json(await self._blobs.get(key))
        except NotFound as error:
            raise TransientError("The request made with this key is being stored or removed; try again.") from error
        except ValidationError as error:
            raise TransientError(f"{key} in the store is unreadable: {error.error_count()} errors.") from error

    async def _store(self, picture: Given | Uploaded, key: str) -> None:
        if isinstance(picture, Given):
            await self._blobs.put(key, picture.data)
            return
        if picture.key == key:
            return  # it was taken when this request came before
        try:
            await self._blobs.copy(picture.key, key, if_etag=picture.etag)
        except NotFound as error:
            raise TransientError("The upload changed or went away while it was taken; upload it again.") from error

    def _publisher(self, slug: str) -> JobPublisher:
        return self._publishers.get(slug) or self._publishers.setdefault(slug, self._broker.jobs(slug))

    def _sink(self, slug: str) -> EventSink:
        return self._sinks.get(slug) or self._sinks.setdefault(slug, self._broker.events(slug))


def input_key(owner: str, job_id: str, digest: str) -> str:
    """Where a job's input is stored. It says whose it is, for a job that no row tells of yet."""
    mark = "" if owner == LOCAL else f"{hashlib.sha256(owner.encode()).hexdigest()[:16]}/"
    return f"inputs/{job_id}/{mark}{digest}"


def _seed(job_id: str) -> int:
    """A seed for who gave none: the id's last 32 bits, random and the same when the same request comes again."""
    return int(job_id[-8:], 16)


def _fingerprint(submission: Submission) -> str:
    """What must be the same for a request to be the same: all that the caller gave, in one order, and the picture."""
    asked = submission.asked.model_dump_json(exclude_none=True, include=set(ParamsRequest.model_fields))
    parts = [submission.model.name, submission.priority.value, asked, json.dumps(submission.metadata, sort_keys=True)]
    parts += [submission.retry_of] if submission.retry_of else []
    parts += [submission.webhook_url, *submission.webhook_events] if submission.webhook_url else []
    return hashlib.sha256("\n".join((*parts, submission.picture.sha256)).encode()).hexdigest()
