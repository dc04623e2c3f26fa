"""GET /api/jobs/{id}/events: a job's life as server-sent events, what was replayed first, then live until its end.

The SSE id of a lifecycle event is its position in the event log, so a client that comes back with Last-Event-ID gets
what it missed and nothing twice. Progress and previews are live only and carry no id.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from sfumato.core.errors import NotFound, TransientError
from sfumato.core.events import JobRow, Running, advance
from sfumato.core.job import State, model_slug, preview_key
from sfumato.gateway import sse
from sfumato.gateway.asked import EventsAsked, openapi_parameters, parse, read_query
from sfumato.gateway.context import Gateway
from sfumato.gateway.followers import Follower
from sfumato.gateway.views import Estimate, Sighting, job_json

__all__ = ["EventRoutes", "Watcher"]

LOOK_S: Final = 0.25
"""How often a job is looked for that nobody has recorded yet."""
LAGS_S: Final = 30.0
"""For how long a recorder that lags behind is waited for, before a line of the job's life is rather lost."""
LOOK_AGAIN_S: Final = 60.0
"""How often the row is read all the same: a net below the events, should any ever be missed."""
WATCHED_S: Final = 5.0


class EventRoutes:
    """The routes of one gateway that stream."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=["follow"])
        extra = {"parameters": openapi_parameters(EventsAsked)}
        router.add_api_route("/api/jobs/{job_id}/events", self.events, methods=["GET"], openapi_extra=extra)
        return router

    async def events(self, request: Request, job_id: str) -> StreamingResponse:
        """The job's events as they happen: queued, started, returned, retried, progress, preview on request, final."""
        asked = parse(EventsAsked, read_query(request.scope["query_string"]))
        await self._gateway.find(request, job_id)
        told = request.headers.get("last-event-id", "")
        after = int(told) if told.isascii() and told.isdigit() and len(told) < 19 else -1
        stream = self._stream(request, job_id, after, Watcher(self._gateway, job_id) if asked.previews else None)
        return StreamingResponse(stream, headers=sse.HEADERS, media_type=sse.MEDIA_TYPE)

    async def _stream(self, request: Request, job_id: str, after: int, watcher: "Watcher | None") -> AsyncIterator[str]:
        gateway, progress, position = self._gateway, None, 0
        # Who follows first and then looks misses nothing; what is told twice is told at a position already seen.
        with gateway.live.followers.follower(job_id) as follower:
            follower.whole = gateway.live.row(job_id) is not None
            seen, looked_at = await gateway.sight(job_id), time.monotonic()
            while not gateway.stopping.is_set():
                seen = _advanced(await self._caught_up(seen, follower), follower)
                lines = [line for line in seen.row.events if line.position > after] if seen.row else []
                texts = [sse.lifecycle(line, line.position) for line in lines if line.kind != "final"]
                after = max((line.position for line in lines), default=after)
                if seen.outcome is not None:
                    final = next((line.position for line in lines if line.kind == "final"), None)
                    texts.append(sse.event("final", self._job(request, seen), final))
                elif (step := self._progress(seen.row)) is not None and step != progress:
                    if progress is None or (step.step, step.steps) != (progress.step, progress.steps):
                        texts.append(sse.event("progress", {"step": step.step, "steps": step.steps}))
                    progress = step
                elif (near := await self._waits(seen, at_first=not position)) and near.position != position:
                    texts.append(sse.waiting(near))
                    position = near.position
                if watcher is not None and seen.outcome is None and seen.row is not None:
                    texts.append(await watcher.look(seen.row, progress))
                if any(texts):
                    yield "".join(texts)
                if seen.outcome is not None:
                    return
                wait_s = LOOK_S if seen.row is None else WATCHED_S if watcher else sse.SIGN_OF_LIFE_S
                if not await follower.news(wait_s) and wait_s > LOOK_S:
                    yield sse.SIGN_OF_LIFE
                if seen.row is None or follower.missed or time.monotonic() - looked_at > LOOK_AGAIN_S:
                    follower.whole = follower.whole and not follower.missed
                    follower.missed = False
                    seen, looked_at = _later(seen, await gateway.sight(job_id)), time.monotonic()

    async def _caught_up(self, seen: Sighting, follower: Follower) -> Sighting:
        """The sighting as soon as nothing is missing in it, or nearly: what happened before the client came may be in
        no row yet, and would never be told once a later event was."""
        until = time.monotonic() + LAGS_S
        while _lags(seen, follower) and time.monotonic() < until and not self._gateway.stopping.is_set():
            await asyncio.sleep(LOOK_S)
            seen = _later(seen, await self._gateway.sight(seen.job_id))
        return seen

    def _progress(self, row: JobRow | None) -> Running | None:
        return self._gateway.live.progress(model_slug(row.job.model), row) if row else None

    async def _waits(self, seen: Sighting, *, at_first: bool) -> Estimate | None:
        """The place of a job that waits: at first wherever that is, later once it is among the next ones."""
        if seen.row is None or seen.row.state is not State.QUEUED:
            return None
        try:
            return await self._gateway.expect(seen) if at_first else self._gateway.near(seen.row)
        except TransientError:
            return None

    def _job(self, request: Request, seen: Sighting) -> dict[str, Any]:
        return job_json(seen, self._gateway.links_of_seen(request, seen), None, None)


class Watcher:
    """One client who wants to see a job come; its events say what is in `more` too."""

    def __init__(self, gateway: Gateway, job_id: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
        self._gateway, self._job_id, self._more, self._seen = gateway, job_id, more, 0

    async def look(self, row: JobRow, progress: Running | None) -> str:
        """Tell the worker that somebody watches; the newest preview as an event, "" when there is no new one."""
        try:
            await self._gateway.intake.watch(row.job, self._gateway.clock())
            if progress is None or progress.preview in (0, self._seen):
                return ""
            picture = await self._gateway.blobs.get(preview_key(self._job_id))
        except (NotFound, TransientError):
            return ""  # the job has left its worker meanwhile, or the next preview comes in its stead
        self._seen = progress.preview
        image = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        return sse.event("preview", {**self._more, "step": progress.preview, "steps": progress.steps, "image": image})


def _advanced(seen: Sighting, follower: Follower) -> Sighting:
    """The sighting with what was told since folded into it, as the recorder folds it into the row."""
    if seen.row is None:
        return seen
    row = seen.row
    for position, event in follower.take():
        row, follower.whole = advance(row, event, position), True
    return Sighting(seen.job_id, row, seen.outcome or row.outcome)


def _lags(seen: Sighting, follower: Follower) -> bool:
    """Whether the row may lack something that is to be told before what is known besides it."""
    if seen.row is None or seen.row.state.terminal:
        return False
    gap = not follower.whole and follower.first is not None and seen.row.position < follower.first
    return gap or seen.outcome is not None


def _later(ours: Sighting, read: Sighting) -> Sighting:
    """What was read, with our row where the one read lags behind."""
    behind = ours.row is not None and (read.row is None or read.row.position < ours.row.position)
    return Sighting(read.job_id, ours.row if behind else read.row, read.outcome)
