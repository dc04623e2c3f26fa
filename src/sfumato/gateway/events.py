"""GET /api/jobs/{id}/events: a job's life as server-sent events, what was replayed first, then live until its end.

The SSE id of a lifecycle event is its position in the event log, so a client that comes back with Last-Event-ID gets
what it missed and nothing twice. Estimates, progress and previews are live only and carry no id.
"""

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from sfumato.core.errors import NotFound, TransientError
from sfumato.core.events import JobRow, Lifecycle, Running, advance
from sfumato.core.job import State, model_slug, preview_key
from sfumato.gateway.asked import EventsAsked, openapi_parameters, parse, read_query
from sfumato.gateway.context import Gateway
from sfumato.gateway.followers import Follower
from sfumato.gateway.views import Sighting, job_json, rfc3339

__all__ = ["EventRoutes"]

LOOK_S: Final = 0.25
"""How often a job is looked for that nobody has recorded yet."""
LOOK_AGAIN_S: Final = 60.0
"""How often the row is read all the same: a net below the events, should any ever be missed."""
WATCHED_S: Final = 5.0
SIGN_OF_LIFE_S: Final = 15.0
WATCH_FOR_S: Final = 15.0
"""Who watches says so again and again, so that a job that nobody watches any more costs nothing."""
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


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
        """The job's events as they happen: queued, estimate, started, returned, retried, progress, preview on request,
        final."""
        asked = parse(EventsAsked, read_query(request.scope["query_string"]))
        await self._gateway.find(request, job_id)
        told = request.headers.get("last-event-id", "")
        after = int(told) if told.isascii() and told.isdigit() and len(told) < 19 else -1
        stream = self._stream(request, job_id, after, _Watcher(self._gateway, job_id) if asked.previews else None)
        return StreamingResponse(stream, headers=_HEADERS, media_type="text/event-stream")

    async def _stream(
        self, request: Request, job_id: str, after: int, watcher: "_Watcher | None"
    ) -> AsyncIterator[str]:
        gateway, progress, queue = self._gateway, None, _Queue(self._gateway)
        # Who follows first and then looks misses nothing; what is told twice is told at a position already seen.
        with gateway.live.followers.follower(job_id) as follower:
            seen, looked_at = await gateway.sight(job_id), time.monotonic()
            while not gateway.stopping.is_set():
                seen = _advanced(seen, follower)
                lines = [line for line in seen.row.events if line.position > after] if seen.row else []
                place = await queue.news(seen)
                texts = [_lifecycle(line, place) for line in lines if line.kind != "final"]
                if place and not any(line.kind == "queued" for line in lines):
                    texts.append(_event("estimate", place))
                after = max((line.position for line in lines), default=after)
                if seen.outcome is not None:
                    final = next((line.position for line in lines if line.kind == "final"), None)
                    texts.append(_event("final", self._job(request, seen), final))
                elif (step := self._progress(seen.row)) is not None and step != progress:
                    if progress is None or (step.step, step.steps) != (progress.step, progress.steps):
                        texts.append(_event("progress", {"step": step.step, "steps": step.steps}))
                    progress = step
                if watcher is not None and seen.outcome is None and seen.row is not None:
                    texts.append(await watcher.look(seen.row, progress))
                if any(texts):
                    yield "".join(texts)
                if seen.outcome is not None:
                    return
                wait_s = LOOK_S if seen.row is None else WATCHED_S if watcher else SIGN_OF_LIFE_S
                if not await follower.news(wait_s) and wait_s > LOOK_S:
                    yield ": still here\n\n"
                if seen.row is None or follower.missed or time.monotonic() - looked_at > LOOK_AGAIN_S:
                    follower.missed = False
                    seen, looked_at = _later(seen, await gateway.sight(job_id)), time.monotonic()

    def _progress(self, row: JobRow | None) -> Running | None:
        return self._gateway.live.progress(model_slug(row.job.model), row) if row else None

    def _job(self, request: Request, seen: Sighting) -> dict[str, Any]:
        return job_json(seen, self._gateway.links_of_seen(request, seen), None, None)


class _Queue:
    """One client whose job may wait: its place is told at first and, among the next ones, whenever it moves up."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._told = gateway, -1

    async def news(self, seen: Sighting) -> dict[str, Any]:
        """Position and eta_s, {} when there is nothing new."""
        row = seen.row
        if row is None or seen.outcome is not None or row.state is not State.QUEUED:
            return {}
        standing = self._gateway.live.standing(model_slug(row.job.model))
        if self._told >= 0 and (standing is None or row.id not in standing.front):
            return {}
        try:
            expected = await self._gateway.expect(seen)
        except TransientError:
            return {}
        if expected is None or expected.position == self._told:
            return {}
        self._told = expected.position
        return {"position": expected.position, "eta_s": expected.eta_s}


class _Watcher:
    """One client who wants to see the job come."""

    def __init__(self, gateway: Gateway, job_id: str) -> None:
        self._gateway, self._job_id, self._seen = gateway, job_id, 0

    async def look(self, row: JobRow, progress: Running | None) -> str:
        """Tell the worker that somebody watches; the newest preview as an event, "" when there is no new one."""
        try:
            await self._gateway.intake.watch(row.job, self._gateway.clock(), WATCH_FOR_S)
            if progress is None or progress.preview in (0, self._seen):
                return ""
            picture = await self._gateway.blobs.get(preview_key(self._job_id))
        except (NotFound, TransientError):
            return ""  # the job has left its worker meanwhile, or the next preview comes in its stead
        self._seen = progress.preview
        image = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        return _event("preview", {"step": progress.preview, "steps": progress.steps, "image": image})


def _advanced(seen: Sighting, follower: Follower) -> Sighting:
    """The sighting with what was told since folded into it, as the recorder folds it into the row."""
    if seen.row is None:
        return seen
    row = seen.row
    for position, event in follower.take():
        row = advance(row, event, position)
    return Sighting(seen.job_id, row, seen.outcome or row.outcome)


def _later(ours: Sighting, read: Sighting) -> Sighting:
    """What was read, with our row where the one read lags behind."""
    behind = ours.row is not None and (read.row is None or read.row.position < ours.row.position)
    return Sighting(read.job_id, ours.row if behind else read.row, read.outcome)


def _lifecycle(line: Lifecycle, place: dict[str, Any]) -> str:
    worker = {"worker": line.worker} if line.worker else {}
    data = {"at": rfc3339(line.at), "attempt": line.attempt, "delivery": line.delivery, **worker}
    data |= place if line.kind == "queued" else {}
    return _event(line.kind, data, line.position)


def _event(kind: str, data: dict[str, Any], position: int | None = None) -> str:
    identity = "" if position is None else f"id: {position}\n"
    return f"{identity}event: {kind}\ndata: {json.dumps(data)}\n\n"
