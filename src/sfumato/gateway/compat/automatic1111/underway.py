"""What of AUTOMATIC1111's calls is under way: how far, what it looks like by now, and ending it.

There such a service works for one person on one call at a time. Here everybody is told of their own calls alone, the
oldest that has not ended first, by whichever gateway is asked.
"""

import asyncio
import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from sfumato.core.errors import NotFound, TransientError
from sfumato.core.events import JobRow, Running, new_row
from sfumato.core.job import Job, State, model_slug, preview_key
from sfumato.core.ports import JobQuery
from sfumato.gateway.compat.automatic1111.words import PROTOCOL, timestamp
from sfumato.gateway.compat.calls import Call
from sfumato.gateway.context import Gateway
from sfumato.gateway.views import Sighting

__all__ = ["Underway"]

PAGE: Final = 500
TAKEN_WITHIN_S: Final = 60.0
"""The jobs of one call are taken in one behind the other, all within so long."""
BEGUN: Final = 0.01
"""What AUTOMATIC1111 says of a call that has only begun: 0 stands for none."""
IDLE: Final[Mapping[str, Any]] = MappingProxyType(
    {"job": "", "job_count": 0, "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0}
)
_FLAGS: Final = {"skipped": False, "interrupted": False, "stopping_generation": False}


@dataclass(frozen=True, slots=True)
class _Seen:
    """A picture of a call: its job, and what is known of it."""

    job: Job
    sighting: Sighting

    @property
    def row(self) -> JobRow:
        return self.sighting.row or new_row(self.job)

    @property
    def open(self) -> bool:
        return self.sighting.outcome is None


class Underway:
    """The calls that have not ended: those that wait in this gateway, and what the rows tell of others."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._waiting: dict[str, Call] = {}
        self._looking: dict[tuple[str, bool], asyncio.Task[dict[str, Any]]] = {}

    @contextmanager
    def waiting(self, call: Call) -> Iterator[None]:
        """Somebody waits for this call in this gateway."""
        name = call.jobs[0].call
        self._waiting[name] = call
        try:
            yield
        finally:
            self._waiting.pop(name, None)

    async def progress(self, owner: str, *, picture: bool) -> dict[str, Any]:
        """How far the owner's oldest open call is, with its newest preview where a `picture` is wanted.

        To want one lets previews be made, as a stream of events with previews does. Clients ask twice a second, each of
        them: those who ask at once are told the same, which is looked up once.
        """
        asked = (owner, picture)
        if (looking := self._looking.get(asked)) is None:
            looking = self._looking[asked] = asyncio.create_task(self._progress(owner, picture=picture))
            looking.add_done_callback(lambda _: self._looking.pop(asked))
        return await asyncio.shield(looking)

    async def _progress(self, owner: str, *, picture: bool) -> dict[str, Any]:
        seen = await self._oldest(owner)
        open_ones = [each for each in seen if each.open]
        if not open_ones:
            state: dict[str, Any] = {**_FLAGS, **IDLE}
            return _told(0.0, 0.0, state, None, None)
        ended, count = len(seen) - len(open_ones), len(seen)
        running = [found for each in open_ones if (found := self._running(each)) is not None]
        furthest = max(running, key=lambda each: each.step / each.steps, default=None)
        share = sum(each.step / each.steps for each in running)
        expected = await self._gateway.expect(open_ones[-1].sighting)
        first = seen[0].job
        state = {
            **_FLAGS,
            "skipped": any(each.sighting.state is State.CANCELED for each in seen),
            "job": "scripts_img2img",
            "job_count": count,
            "job_timestamp": timestamp(first.created_at),
            "job_no": ended,
            "sampling_step": furthest.step if furthest else 0,
            "sampling_steps": furthest.steps if furthest else 0,
        }
        left_s = expected.eta_s if expected and expected.eta_s is not None else 0.0
        image = await self._newest_preview(open_ones, running) if picture else None
        return _told(min(1.0, BEGUN + (ended + share) / count), left_s, state, image, first.call)

    async def interrupt(self, owner: str) -> None:
        """Cancel all that is open, of all calls. Raises TransientError: some may not be."""
        for job in (await self._open(owner)).values():
            await self._cancel(job)

    async def skip(self, owner: str) -> None:
        """Cancel the picture that has been worked on for longest, if one is. Raises TransientError."""
        jobs = await self._open(owner, (State.RUNNING,))
        seen = await self._sighted(list(jobs.values()))
        running = [each for each in seen if each.sighting.state is State.RUNNING]
        if running:
            await self._cancel(min(running, key=lambda each: each.row.started_at or each.job.created_at).job)

    async def _cancel(self, job: Job) -> None:
        await self._gateway.intake.cancel(job.id, self._gateway.clock(), job.model)

    async def _open(
        self,
        owner: str,
        states: Sequence[State] = (State.RUNNING, State.QUEUED),
        since: float | None = None,
        most_pages: int | None = None,
    ) -> dict[str, Job]:
        """Jobs that may not have ended, by their ids: of `most_pages` of the owner's newest ones in each state."""
        jobs = {job.id: job for call in self._waiting.values() for job in call.jobs if job.owner == owner}
        for state in states:
            query, pages = JobQuery(owner, state=state, limit=PAGE, since=since), 0
            while pages != most_pages:
                page = await self._gateway.rows.list(query)
                jobs |= {row.id: row.job for row in page.rows if row.job.protocol == PROTOCOL}
                query, pages = replace(query, cursor=page.next), pages + 1
                if not page.next:
                    break
        return jobs

    async def _oldest(self, owner: str) -> Sequence[_Seen]:
        """The pictures of the oldest call that has one that has not ended; none where there is no such call."""
        # Nobody waits longer for a call; what is older was left behind by who may ask for it again.
        since = self._gateway.clock() - self._gateway.settings.call_wait_s - TAKEN_WITHIN_S
        jobs = await self._open(owner, since=since, most_pages=1)
        for call in sorted({job.call for job in jobs.values()}):  # ids that begin with the time
            seen = await self._sighted(await self._siblings(next(job for job in jobs.values() if job.call == call)))
            if any(each.open for each in seen):
                return seen
        return ()

    async def _siblings(self, job: Job) -> Sequence[Job]:
        """All jobs of the job's call, in their order."""
        if (call := self._waiting.get(job.call)) is not None:
            return call.jobs
        since, until = job.created_at - TAKEN_WITHIN_S, job.created_at + TAKEN_WITHIN_S
        page = await self._gateway.rows.list(JobQuery(job.owner, limit=PAGE, since=since, until=until))
        found = {row.id: row.job for row in page.rows if row.job.call == job.call} | {job.id: job}
        return sorted(found.values(), key=lambda each: (each.created_at, each.params.seed))

    async def _sighted(self, jobs: Sequence[Job]) -> Sequence[_Seen]:
        sightings = await asyncio.gather(*(self._gateway.sight(job.id) for job in jobs))
        return [_Seen(job, sighting) for job, sighting in zip(jobs, sightings, strict=True)]

    def _running(self, seen: _Seen) -> Running | None:
        return self._gateway.live.progress(model_slug(seen.job.model), seen.row)

    async def _newest_preview(self, open_ones: Sequence[_Seen], running: Sequence[Running]) -> str | None:
        gateway = self._gateway
        with contextlib.suppress(NotFound, TransientError):
            for each in open_ones:
                await gateway.intake.watch(each.job, gateway.clock())
            shown = [each for each in running if each.preview]
            if shown:
                newest = max(shown, key=lambda each: each.preview / each.steps)
                return base64.b64encode(await gateway.blobs.get(preview_key(newest.job_id))).decode()
        return None


def _told(
    progress: float, left_s: float, state: Mapping[str, Any], image: str | None, task: str | None
) -> dict[str, Any]:
    return {
        "progress": progress,
        "eta_relative": left_s,
        "state": state,
        "current_image": image,
        "textinfo": None,
        "current_task": task,
    }
