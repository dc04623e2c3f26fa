"""GET /api/events: what happens to all jobs of an owner as server-sent events, live or from where a client was.

Lifecycle events come as the recorder writes them down, in one order; their SSE ids name a place in it that every
gateway knows. What is live only (progress, places in the queue, previews) carries no id.
"""

import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from sfumato.core.events import JobRow, Running
from sfumato.core.job import State, model_slug
from sfumato.core.news import News, Place, Settled, place_in
from sfumato.core.ports import JobQuery
from sfumato.gateway import sse
from sfumato.gateway.asked import NewsAsked, openapi_parameters, parse, read_query
from sfumato.gateway.callers import Caller, caller_of
from sfumato.gateway.context import Gateway
from sfumato.gateway.events import Watcher
from sfumato.gateway.newsroom import Subscriber
from sfumato.gateway.problems import Refusal
from sfumato.gateway.views import Sighting, job_json

__all__ = ["NewsRoutes"]

LOOK_S: Final = 0.5
"""How often the jobs under way are looked at."""
LOOK_AT_KEY_S: Final = 5.0
"""How often the key is looked at, though nothing happens."""
PAGE: Final = 200
SHOWN: Final = 100
"""Jobs under way whose progress and place are told; those that changed last, where there are more."""
PREVIEWED: Final = 8


class NewsRoutes:
    """The route of one gateway that tells of many jobs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def router(self) -> APIRouter:
        """The route, to be included in an app."""
        router = APIRouter(tags=["follow"])
        extra = {"parameters": openapi_parameters(NewsAsked)}
        router.add_api_route("/api/events", self.events, methods=["GET"], openapi_extra=extra)
        return router

    async def events(self, request: Request) -> StreamingResponse:
        """Events of all the caller's jobs as they happen, behind Last-Event-ID if it is given."""
        asked = parse(NewsAsked, read_query(request.scope["query_string"]))
        caller, told = caller_of(request), request.headers.get("last-event-id", "")
        after = place_in(told) if told else None
        if told and after is None:
            raise Refusal("invalid-parameters", "Last-Event-ID is no id of this stream; leave it out to begin anew.")
        owner = caller.owner_of(asked.owner)
        # Whether the database answers is known before the stream begins.
        settled = await self._gateway.rows.settled()
        desk = _Desk(self._gateway, request, asked.previews)
        stream = self._stream(caller, owner, desk, after, settled)
        return StreamingResponse(stream, headers=sse.HEADERS, media_type=sse.MEDIA_TYPE)

    async def _stream(
        self, caller: Caller, owner: str | None, desk: "_Desk", after: Place | None, settled: Settled
    ) -> AsyncIterator[str]:
        gateway = self._gateway
        with gateway.newsroom.subscribed(owner, settled.last) as subscriber:
            yield _begun(subscriber, after, settled)
            if after is not None and after.number >= settled.gone:
                async for page in self._missed(owner, after, subscriber.since):
                    yield "".join(map(desk.told, page))
            await desk.see_under_way(owner)
            last_at = time.monotonic()
            while not (gateway.stopping.is_set() or subscriber.lost) and self._good(caller):
                reached = max(gateway.newsroom.told, Place(subscriber.since))
                texts = [desk.told(news) for news in subscriber.take()]
                texts += [text async for text in desk.live()]
                if any(texts):
                    yield "".join(texts)
                    last_at = time.monotonic()
                elif time.monotonic() - last_at > sse.SIGN_OF_LIFE_S:
                    yield sse.still_here(reached)
                    last_at = time.monotonic()
                await subscriber.wait(LOOK_S if desk.under_way else LOOK_AT_KEY_S)

    async def _missed(self, owner: str | None, after: Place, since: int) -> AsyncIterator[Iterable[News]]:
        """What happened between a place and where the live part begins."""
        owners = None if owner is None else (owner,)
        while page := await self._gateway.rows.news(after, since, owners, PAGE):
            yield page
            after = page[-1].place

    def _good(self, caller: Caller) -> bool:
        """Whether the caller's key still opens the door; this stream has no end of its own."""
        if caller.key is None:
            return True
        key = self._gateway.keyring.get(caller.key.prefix)
        return key is not None and key.good(self._gateway.clock())


def _begun(subscriber: Subscriber, after: Place | None, settled: Settled) -> str:
    """The first event: where the stream begins, and whether something before it can't be told any more."""
    if after is None:
        return sse.event("open", {}, subscriber.since)
    if after.number < settled.gone:
        return sse.event("reset", {"detail": "Too long ago; list the jobs anew."}, subscriber.since)
    return sse.event("open", {}, after)


@dataclass(slots=True)
class _UnderWay:
    """A job that has not ended, and what was told of it last."""

    row: JobRow
    watcher: Watcher
    progress: Running | None = None
    position: int = 0


@dataclass(slots=True)
class _Desk:
    """What one client is told of."""

    gateway: Gateway
    request: Request
    previews: bool
    under_way: dict[str, _UnderWay] = field(default_factory=dict)

    async def see_under_way(self, owner: str | None) -> None:
        """Begin with what runs or waits by now, as far as nothing newer was told."""
        for state in (State.QUEUED, State.RUNNING):
            for row in (await self.gateway.rows.list(JobQuery(owner, state=state, limit=SHOWN // 2))).rows:
                if row.id not in self.under_way:
                    self._see(row)

    def told(self, news: News) -> str:
        """A line of a job's life as an event."""
        row, line = news.row, news.line
        if row.state.terminal:
            self.under_way.pop(row.id, None)
        else:
            self._see(row)
        if line.kind == "final" and row.outcome is not None:
            seen = Sighting(row.id, row, row.outcome)
            job = job_json(seen, self.gateway.links_of_seen(self.request, seen), None, None)
            return sse.event("final", {"job_id": row.id, **job}, news.place)
        return sse.lifecycle(line, news.place, job_id=row.id)

    def _see(self, row: JobRow) -> None:
        known = self.under_way.pop(row.id, None) or _UnderWay(row, Watcher(self.gateway, row.id, {"job_id": row.id}))
        known.row = row
        self.under_way[row.id] = known
        if len(self.under_way) > SHOWN:
            del self.under_way[next(iter(self.under_way))]

    async def live(self) -> AsyncIterator[str]:
        """What is new of the jobs under way: how far they are, where they stand, how they look."""
        shown = 0
        for each in list(self.under_way.values()):
            if each.row.state is State.QUEUED:
                yield self._place(each)
                continue
            step = self.gateway.live.progress(model_slug(each.row.job.model), each.row)
            if step is None:
                continue
            before = each.progress
            if before is None or (step.step, step.steps) != (before.step, before.steps):
                yield sse.event("progress", {"job_id": each.row.id, "step": step.step, "steps": step.steps})
            each.progress = step
            if self.previews and shown < PREVIEWED:
                shown += 1
                yield await each.watcher.look(each.row, step)

    def _place(self, each: _UnderWay) -> str:
        near = self.gateway.near(each.row)
        if near is None or near.position == each.position:
            return ""
        each.position = near.position
        return sse.waiting(near, job_id=each.row.id)
