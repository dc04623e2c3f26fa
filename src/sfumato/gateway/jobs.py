"""Routes that follow a job: its status, lists, cancel, delete, and the access link itself."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from sfumato.core.errors import NotFound, TransientError
from sfumato.core.job import Outcome, State, model_slug
from sfumato.core.pictures import delete_pictures
from sfumato.core.ports import JobQuery
from sfumato.gateway.asked import ListAsked, openapi_parameters, parse, read_query, wait_s
from sfumato.gateway.callers import Caller, caller_of
from sfumato.gateway.context import Gateway, unknown_job
from sfumato.gateway.problems import Refusal, problem_of
from sfumato.gateway.views import Sighting, job_json, retry_after_s

__all__ = ["JobRoutes", "no_picture"]

NO_STORE = {"Cache-Control": "no-store"}
PICTURE_HEADERS: Final = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
REDIRECT_LIFETIME_S: Final = 60.0
"""Long enough to follow a redirect at once; who comes later asks the access link again."""


class JobRoutes:
    """The routes of one gateway that follow jobs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=["follow"])
        listing = {"parameters": openapi_parameters(ListAsked)}
        router.add_api_route("/api/jobs", self.list, methods=["GET"], openapi_extra=listing)
        router.add_api_route("/api/jobs/{job_id}", self.status, methods=["GET"])
        router.add_api_route("/api/jobs/{job_id}", self.delete, methods=["DELETE"], status_code=204)
        router.add_api_route("/api/jobs/{job_id}/cancel", self.cancel, methods=["POST"])
        router.add_api_route("/api/jobs/{job_id}/input", self.input, methods=["GET"])
        router.add_api_route("/api/jobs/{job_id}/result", self.result, methods=["GET"])
        router.add_api_route("/api/jobs/{job_id}/result", self.result, methods=["HEAD"], include_in_schema=False)
        return router

    async def status(self, request: Request, job_id: str) -> JSONResponse:
        """The job: where it stands, when it may end, how it ended."""
        seen = await self._gateway.find(request, job_id)
        return JSONResponse(await self._json(request, seen), headers=NO_STORE)

    async def list(self, request: Request) -> JSONResponse:
        """Jobs, newest first, a page at a time: give a page's `next` as `cursor` to get the one behind it."""
        gateway = self._gateway
        asked = parse(ListAsked, read_query(request.scope["query_string"]))
        # A broken model's jobs are there too, so only a name that nobody ever listed is refused.
        model = asked.model_name if asked.model_name in gateway.registry.troubles else ""
        model = model or (gateway.registry.get(asked.model_name).name if asked.model_name else "")
        caller = caller_of(request)
        since, until = asked.between
        owner = caller.owner_of(asked.owner)
        query = JobQuery(owner, model, asked.status, asked.cursor, asked.limit, since, until)
        page = await gateway.rows.list(query)
        jobs = []
        for row in page.rows:
            seen = Sighting(row.id, row, row.outcome)
            progress = gateway.live.progress(model_slug(row.job.model), row)
            shown = job_json(seen, gateway.links_of_seen(request, seen), None, progress)
            jobs.append(shown | _whose(caller, seen))
        count = {"count": await gateway.rows.count(query)} if asked.count else {}
        return JSONResponse({"jobs": jobs, "next": page.next or None, **count}, headers=NO_STORE)

    async def cancel(self, request: Request, job_id: str) -> JSONResponse:
        """End the job as canceled; 409 when it has ended otherwise. Canceling twice is the same as once."""
        gateway = self._gateway
        seen = await gateway.find(request, job_id, acting=True)
        held = seen.outcome
        if held is None or held.state is State.CANCELED:
            held = await gateway.intake.cancel(job_id, gateway.clock(), seen.row.job.model if seen.row else None)
        if held.state is not State.CANCELED:
            detail = f"The job ended {held.state} before it could be canceled; its link says more."
            raise Refusal("already-ended", detail, job_status=held.state.value)
        return JSONResponse(await self._json(request, Sighting(job_id, seen.row, held)), headers=NO_STORE)

    async def delete(self, request: Request, job_id: str) -> Response:
        """Delete an ended job with its pictures. Its outcome stays for a while, so that its link answers 410."""
        gateway = self._gateway
        seen = await gateway.find(request, job_id, acting=True)
        if seen.outcome is None:
            raise Refusal("job-not-ended", "Only a job that has ended can be deleted; cancel it first.")
        await delete_pictures(gateway.blobs, job_id)
        # The row goes last: should this stop half way, the job is still listed and can be deleted again.
        await gateway.rows.forget(job_id)
        gateway.live.forget(job_id)
        return Response(status_code=204)

    async def input(self, request: Request, job_id: str) -> Response:
        """The picture that the job was sent with, for its owner alone: a link shows what came of it and not this."""
        seen = await self._gateway.find(request, job_id, acting=True)
        if seen.row is None:
            raise TransientError("The job is not recorded yet; try again in a moment.")
        given = seen.row.job.input
        try:
            data = await self._gateway.blobs.get(given.key)
        except NotFound:
            raise Refusal("picture-gone", "The job's input is no longer stored.") from None
        return Response(data, headers=PICTURE_HEADERS, media_type=given.media_type)

    async def result(self, request: Request, job_id: str) -> Response:
        """The access link: 202 until the job has ended, then the picture or a link to it, or 410 when there is none."""
        gateway = self._gateway
        linked = gateway.holds_link(request, job_id)
        wait = wait_s(request.headers.get("prefer"), gateway.settings.max_wait_s)
        outcome, caller = await gateway.outcomes.get(job_id), caller_of(request)
        if outcome is None or not (linked or caller.everything):
            seen = await gateway.sight(job_id)
            if not (linked or await gateway.belongs(seen, caller)):
                raise unknown_job()
            outcome = seen.outcome or (await gateway.live.ended(job_id, wait, gateway.outcomes) if wait else None)
            if outcome is None:
                return await self._not_yet(request, seen)
        return await self._ended(request, outcome)

    async def _not_yet(self, request: Request, seen: Sighting) -> JSONResponse:
        expected = await self._gateway.expect(seen)
        headers = {"Retry-After": str(retry_after_s(expected)), **NO_STORE}
        return JSONResponse(await self._json(request, seen), 202, headers)

    async def _ended(self, request: Request, outcome: Outcome) -> Response:
        picture = outcome.picture
        if picture is None:
            raise no_picture(outcome)
        name = picture.key.rpartition("/")[2]
        extension = name.rpartition(".")[2]
        headers = {
            "ETag": f'"{name.partition(".")[0]}"',  # a stored picture never changes, so its key says which one it is
            "Content-Disposition": f'inline; filename="{outcome.job_id}.{extension}"',
            **PICTURE_HEADERS,
        }
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        try:
            if request.method == "HEAD":
                stored = await self._gateway.blobs.head(picture.key)
                size = {"Content-Length": str(stored.size_bytes)}
                return Response(headers=headers | size, media_type=picture.media_type)
            if (link := await self._store_link(picture.key)) is not None:
                return Response(status_code=302, headers={"Location": link, "ETag": headers["ETag"], **NO_STORE})
            data = await self._gateway.blobs.get(picture.key)
        except NotFound:
            raise Refusal("picture-gone", "The job succeeded and its picture was deleted since.") from None
        return Response(data, headers=headers, media_type=picture.media_type)

    async def _store_link(self, key: str) -> str | None:
        """A short link to the object in the store, where results are delivered so. Raises NotFound."""
        blobs = self._gateway.blobs
        if self._gateway.settings.result_delivery != "redirect":
            return None
        # The store would answer for a picture that was deleted in words of its own.
        await blobs.head(key)
        return await blobs.get_link(key, REDIRECT_LIFETIME_S)

    async def _json(self, request: Request, seen: Sighting) -> dict[str, Any]:
        gateway = self._gateway
        progress = gateway.live.progress(model_slug(seen.row.job.model), seen.row) if seen.row else None
        shown = job_json(seen, gateway.links_of_seen(request, seen), await gateway.expect(seen), progress)
        return shown | _whose(caller_of(request), seen)


def _whose(caller: Caller, seen: Sighting) -> dict[str, str]:
    """Who sees everybody's jobs is told whose this one is."""
    return {"owner": seen.row.job.owner} if caller.everything and caller.key and seen.row else {}


def no_picture(outcome: Outcome) -> Refusal:
    """Why a job has ended without a picture."""
    if outcome.state is State.CANCELED:
        return Refusal("job-canceled", "The job was canceled, so there will be no picture; submit it again.")
    error = outcome.error
    detail = f"{error.title}: {error.detail}" if error else "The job failed; see its status."
    return Refusal("job-failed", detail, error=problem_of(error) if error else None)
