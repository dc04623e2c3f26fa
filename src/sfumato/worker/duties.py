"""What a worker owes every job it receives, as the protocol orders it: picture → outcome → final event → acknowledge.

Only ports are awaited here and time comes in as `now`, so the simulation runs this very code and crashes it at each
await. Every duty may be run again from its beginning after a TransientError: each of its effects is idempotent.
"""

import logging
from dataclasses import dataclass, field

from sfumato.core.errors import NotFound, PermanentError, SfumatoError
from sfumato.core.events import Ended, Retried, Returned, Started, Unreadable
from sfumato.core.job import Job, Outcome, Picture, Problem, State, Work, model_slug
from sfumato.core.ports import Blobs, EventSink, Outcomes, Received, WorkReceiver
from sfumato.core.retry import Retry, RetryPolicy
from sfumato.observability import count, observe, spanned
from sfumato.worker.stage import stage

__all__ = ["Duties", "Held", "Result"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """A job in this worker's hands: what to run, and the receipt to acknowledge it by."""

    work: Work
    receipt: str

    @property
    def job(self) -> Job:
        return self.work.job


@dataclass(frozen=True, slots=True)
class Result:
    """An encoded picture. `nonce` makes its key this attempt's own; `seconds` is where the time went."""

    data: bytes
    media_type: str
    width: int
    height: int
    nonce: str
    seconds: dict[str, float] = field(default_factory=dict)


class Duties:
    """One worker's duties for one model."""

    def __init__(
        self,
        worker: str,
        work: WorkReceiver,
        events: EventSink,
        blobs: Blobs,
        outcomes: Outcomes,
        retry: RetryPolicy,
    ) -> None:
        self._worker, self._retry = worker, retry
        self._work, self._events, self._blobs, self._outcomes = work, events, blobs, outcomes

    async def take(self, received: Received, now: float) -> Held | None:
        """The job to run; None when all that could be done for this hand-out is done."""
        if isinstance(received.work, Unreadable):
            # Not acknowledged: it stays in the lane as left over, for a worker of a build that can read it.
            log.error("a work message can't be read here and is left for a newer worker: %s", received.work.why)
            return None
        held = Held(received.work, received.receipt)
        if received.left_over:
            await self._return(held, "left_over", now)
            return None
        outcome = await self._outcomes.get(held.job.id)
        if outcome is None and now >= held.job.expires_at:
            outcome = await self._decide(held, Outcome.expired(held.job.id, held.work.attempt, now))
        if outcome is not None:
            await self.follow(held, outcome, now)
            return None
        return held

    async def start(self, held: Held, now: float) -> None:
        """Tell that it runs here; owed before the engine gets it, so that a job that kills its worker is known."""
        await self._events.append([Started(**self._who(held, now), worker=self._worker)])
        observe("sfumato_wait_seconds", max(0.0, now - held.job.created_at), **self._labels(held.job))
        spanned("wait", held.job.traceparent, held.job.created_at, now, attempt=held.work.attempt)

    async def fetch(self, held: Held) -> bytes:
        """The input picture's bytes.

        Raises:
            PermanentError: it is no longer stored, so no attempt can succeed.
        """
        try:
            return await self._blobs.get(held.job.input.key)
        except NotFound as error:
            raise PermanentError(
                "the input picture is no longer stored; submit it again.", slug="input-gone"
            ) from error

    async def ended(self, held: Held) -> Outcome | None:
        """The outcome, if someone decided it meanwhile; asked before the work of encoding."""
        return await self._outcomes.get(held.job.id)

    async def succeed(self, held: Held, result: Result, now: float) -> Outcome:
        """Store the picture, decide, tell, acknowledge; gives the outcome that holds, ours or another's."""
        key = f"outputs/{held.job.id}/{result.nonce}.{result.media_type.partition('/')[2]}"
        with stage(model_slug(held.job.model), "store"):
            await self._blobs.put(key, result.data)
        picture = Picture(
            key=key,
            media_type=result.media_type,
            width=result.width,
            height=result.height,
            size_bytes=len(result.data),
        )
        ours = Outcome(
            job_id=held.job.id,
            state=State.SUCCEEDED,
            attempt=held.work.attempt,
            at=now,
            picture=picture,
            seconds=result.seconds,
        )
        outcome = await self._decide(held, ours)
        if outcome.picture is None or outcome.picture.key != key:
            if outcome.picture is not None:
                count("sfumato_duplicate_generations_total", model=model_slug(held.job.model))
            await self._blobs.delete(key)
        await self.follow(held, outcome, now)
        return outcome

    async def fail(self, held: Held, error: Exception, now: float, dice: float) -> Outcome | None:
        """Plan the next attempt (None), or decide that the job failed and why."""
        problem = Problem.of(error) if isinstance(error, SfumatoError) else _unforeseen(error)
        after = self._retry.after(held.work.attempt, error, now, dice)
        if isinstance(after, Retry):
            who = self._who(held, now) | {"attempt": after.attempt, "delivery": 0}
            await self._events.append([Retried(**who, not_before=after.not_before, error=problem)])
            await self._work.acknowledge(held.receipt)
            count("sfumato_retries_total", model=model_slug(held.job.model))
            return None
        ours = Outcome(job_id=held.job.id, state=State.FAILED, attempt=held.work.attempt, at=now, error=problem)
        outcome = await self._decide(held, ours)
        await self.follow(held, outcome, now)
        return outcome

    async def hand_back(self, held: Held, now: float) -> None:
        """Give up a job unfinished because this worker leaves; it never counts against the job."""
        await self._return(held, "drain", now)

    async def follow(self, held: Held, outcome: Outcome, now: float) -> None:
        """Tell the outcome that holds, whoever decided it, then acknowledge: never the other way round."""
        await self._events.append([Ended(**self._who(held, now), outcome=outcome)])
        await self._work.acknowledge(held.receipt)

    async def _decide(self, held: Held, ours: Outcome) -> Outcome:
        """The outcome that holds; ours is counted when it won, so that each end is counted by who made it."""
        model = model_slug(held.job.model)
        with stage(model, "decide"):
            outcome = await self._outcomes.decide(ours)
        if outcome == ours:
            count("sfumato_outcomes_total", model=model, state=outcome.state)
            observe("sfumato_job_seconds", max(0.0, outcome.at - held.job.created_at), **self._labels(held.job))
        return outcome

    async def _return(self, held: Held, reason: str, now: float) -> None:
        await self._events.append([Returned(**self._who(held, now), worker=self._worker, reason=reason)])
        await self._work.acknowledge(held.receipt)

    @staticmethod
    def _who(held: Held, now: float) -> dict[str, object]:
        work = held.work
        return {"job_id": work.job.id, "at": now, "attempt": work.attempt, "delivery": work.delivery}

    @staticmethod
    def _labels(job: Job) -> dict[str, str]:
        return {"model": model_slug(job.model), "priority": job.priority}


def _unforeseen(error: Exception) -> Problem:
    return Problem(
        slug="internal-error",
        title="The worker met an error nobody foresaw",
        detail=f"{type(error).__name__}: {error}"[:400],
    )
