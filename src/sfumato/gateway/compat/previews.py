"""A job as it comes, for calls that are answered with a stream: previews now and then, and its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from sfumato.core.errors import NotFound, TransientError
from sfumato.core.events import new_row
from sfumato.core.job import Job, Outcome, model_slug, preview_key
from sfumato.gateway.compat.calls import in_vain
from sfumato.gateway.context import Gateway

__all__ = ["Preview", "follow"]

LOOK_S: Final = 0.25
SIGN_OF_LIFE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job looked like after `step` of `steps`, as a JPEG; an empty one says only that it is still under way."""

    step: int
    steps: int
    data: bytes = b""


async def follow(gateway: Gateway, job: Job, previews: int) -> AsyncIterator[Preview | Outcome]:
    """A job until its end: at most `previews` of it, evenly apart, a sign of life now and then, and its outcome.

    Raises:
        Refusal: it took too long.
        TransientError: this gateway stops.
    """
    now = asyncio.get_running_loop().time
    shown, deadline, told_at = 0, now() + gateway.settings.call_wait_s, now()
    with gateway.live.followers.follower(job.id) as follower:
        while (outcome := await _outcome(gateway, job)) is None:
            if now() > deadline or gateway.stopping.is_set():
                raise in_vain(gateway)
            if shown < previews and (preview := await _newest(gateway, job, (shown + 1) / (previews + 1))):
                shown += 1
                told_at = now()
                yield preview
            elif now() > told_at + SIGN_OF_LIFE_S:
                told_at = now()
                yield Preview(0, 0)
            await follower.news(LOOK_S)
    yield outcome


async def _outcome(gateway: Gateway, job: Job) -> Outcome | None:
    """The job's end, if it is there and its store answers."""
    with contextlib.suppress(TransientError):
        return await gateway.outcomes.get(job.id)
    return None


async def _newest(gateway: Gateway, job: Job, share: float) -> Preview | None:
    """The newest preview of the job, once that much of it is done."""
    with contextlib.suppress(NotFound, TransientError):
        await gateway.intake.watch(job, gateway.clock())
        row = gateway.live.row(job.id) or new_row(job)
        running = gateway.live.progress(model_slug(job.model), row)
        if running is not None and running.preview and running.preview >= share * running.steps:
            data = await gateway.blobs.get(preview_key(job.id))
            return Preview(running.preview, running.steps, data)
    return None
