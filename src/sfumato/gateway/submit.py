"""Routes that take pictures in: POST /api/diffusion (multipart or the picture itself), uploads, POST /api/jobs."""

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from sfumato.core.errors import NotFound, TransientError, UnknownModel
from sfumato.core.job import Job, State, idempotent_job_id, uuid7
from sfumato.gateway.asked import (
    Asked,
    AskedJson,
    idempotency_key,
    is_job_id,
    openapi_body,
    openapi_parameters,
    parse,
    read_query,
    wait_s,
)
from sfumato.gateway.callers import caller_of
from sfumato.gateway.context import Gateway
from sfumato.gateway.intake import NATIVE, Accepted, Came, Given, Uploaded, input_key
from sfumato.gateway.pictures import PictureHeader
from sfumato.gateway.problems import Refusal
from sfumato.gateway.reception import Reception
from sfumato.gateway.shortcut import Handler
from sfumato.gateway.uploads import (
    FORM_OVERHEAD_BYTES,
    Form,
    declared_length,
    media_type,
    read_body,
    read_form,
    read_picture,
)
from sfumato.gateway.views import Sighting, job_json, rfc3339
from sfumato.models.registry import BrokenModel

__all__ = ["SubmitRoutes"]

UPLOAD_LIFETIME_S: Final = 3600.0
_SUBMIT_DOCS: Final = {
    "parameters": openapi_parameters(Asked),
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
_JSON_DOCS: Final = openapi_body()


class SubmitRoutes:
    """The routes of one gateway that take jobs and pictures."""

    def __init__(self, gateway: Gateway, reception: Reception) -> None:
        self._gateway, self._reception = gateway, reception

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=["submit"])
        router.add_api_route(
            "/api/diffusion", self.diffusion, methods=["POST"], status_code=202, openapi_extra=_SUBMIT_DOCS
        )
        router.add_api_route("/api/jobs", self.job, methods=["POST"], status_code=202, openapi_extra=_JSON_DOCS)
        router.add_api_route("/api/jobs/{job_id}/retry", self.retry, methods=["POST"], status_code=202)
        router.add_api_route("/api/uploads", self.new_upload, methods=["POST"], status_code=201)
        router.add_api_route("/api/uploads/{upload_id}", self.upload, methods=["PUT"])
        return router

    def hot(self) -> Mapping[str, Handler]:
        """Path → handler of the POST routes that most requests ask for; they are among the `router`'s too."""
        return {"/api/diffusion": self.diffusion, "/api/jobs": self.job}

    async def diffusion(self, request: Request) -> Response:
        """Submit a picture, as multipart field `image` or as the body itself, and get its access link."""
        return await self._answer(request, await self._of_form(request, time.perf_counter()))

    async def _of_form(self, request: Request, began: float) -> Accepted:
        """By itself, so that nothing keeps the picture while its job's end is waited for."""
        gateway, query = self._gateway, read_query(request.scope["query_string"])
        key = idempotency_key(request.headers.get("idempotency-key"))
        await self._reception.room(caller_of(request), key)
        asked = parse(Asked, query, gateway.registry) if "model_name" in query else None
        if asked is not None:
            self._reception.admitted(asked, caller_of(request))  # before the body is read
        length = declared_length(
            request.headers.get("content-length"), gateway.settings.max_upload_bytes, FORM_OVERHEAD_BYTES
        )
        with gateway.in_flight.holding(length):
            form = await self._receive(request)
            if asked is None or form.fields:
                asked = parse(Asked, _merged(query, form.fields), gateway.registry)
            if form.picture is None:
                raise Refusal("missing-image", "The form has no field image; send the picture in it as a file.")
            picture = Given(form.picture.data, form.picture.sha256)
            return await self._reception.accept(request, asked, key, picture, form.picture.header, began)

    async def job(self, request: Request) -> Response:
        """Submit as JSON; `image` is an upload's id or a data URL."""
        return await self._answer(request, await self._of_json(request, time.perf_counter()))

    async def _of_json(self, request: Request, began: float) -> Accepted:
        """As `_of_form`."""
        gateway = self._gateway
        key = idempotency_key(request.headers.get("idempotency-key"))
        await self._reception.room(caller_of(request), key)
        max_bytes = gateway.limits.max_json_bytes
        length = declared_length(request.headers.get("content-length"), max_bytes)
        with gateway.in_flight.holding(length):
            body = await read_body(request.stream(), max_bytes, gateway.limits.stall_s)
            asked = parse(AskedJson, body, gateway.registry)
            self._reception.admitted(asked, caller_of(request))
            picture, header = await self._reception.picture_of(asked.image, caller_of(request))
            return await self._reception.accept(request, asked, key, picture, header, began)

    async def retry(self, request: Request, job_id: str) -> Response:
        """Submit an ended job once more, as a new job: the same picture, parameters and seed."""
        began = time.perf_counter()
        gateway = self._gateway
        key = idempotency_key(request.headers.get("idempotency-key"))
        caller = caller_of(request)
        await self._reception.room(caller, key)
        seen = await gateway.find(request, job_id, acting=True)
        if seen.outcome is None:
            raise Refusal("job-not-ended", "Only a job that has ended can be run again.")
        if seen.row is None:
            raise TransientError("The job has ended and is not recorded yet; try again in a moment.")
        job = seen.row.job
        asked = _asked_again(job, caller.owner)
        self._reception.admitted(asked, caller)
        picture = await self._input_of(job, caller.owner, key)
        # What its webhooks say is in the words that they were asked for in.
        came = Came(job.protocol) if asked.webhook_url else NATIVE
        header = PictureHeader(job.input.media_type, job.input.width, job.input.height)
        accepted = await self._reception.accept(request, asked, key, picture, header, began, job.id, came)
        return await self._answer(request, accepted)

    async def _input_of(self, job: Job, owner: str, key: str | None) -> Uploaded:
        """The job's input; or, where that is gone, what this very request took of it when it came before."""
        digest = job.input.key.rpartition("/")[2]
        taken = [] if key is None else [input_key(owner, idempotent_job_id(owner, key), digest)]
        for place in (job.input.key, *taken):
            with contextlib.suppress(NotFound):
                stored = await self._gateway.blobs.head(place)
                return Uploaded(stored.key, stored.etag, stored.size_bytes, digest)
        raise Refusal("picture-gone", "The job's input is no longer stored; submit its picture anew.")

    async def new_upload(self, request: Request) -> JSONResponse:
        """A place to put a picture: PUT it to `put_url` before `expires_at`, then name `id` in POST /api/jobs."""
        gateway, now = self._gateway, self._gateway.clock()
        upload_id = gateway.links.marked(caller_of(request).owner, uuid7(now, os.urandom(10)))
        expires_at = now + UPLOAD_LIFETIME_S
        put_url = await gateway.blobs.put_link(f"uploads/{upload_id}", UPLOAD_LIFETIME_S)
        if put_url is None:
            token = gateway.links.token("upload", upload_id, expires_at)
            put_url = f"{gateway.base_url(request)}/api/uploads/{upload_id}?token={token}"
        return JSONResponse({"id": upload_id, "put_url": put_url, "expires_at": rfc3339(expires_at)}, 201)

    async def upload(self, request: Request, upload_id: str) -> JSONResponse:
        """Take the picture of an upload; the body is the picture itself."""
        gateway = self._gateway
        token = request.query_params.get("token", "")
        if not is_job_id(upload_id) or not gateway.links.opens(token, "upload", upload_id, gateway.clock()):
            raise NotFound("No upload has this id, or its link is wrong or expired; POST /api/uploads for a new one.")
        length = declared_length(request.headers.get("content-length"), gateway.settings.max_upload_bytes)
        with gateway.in_flight.holding(length):
            received = await read_picture(request.stream(), media_type(request), gateway.limits)
            await gateway.blobs.put(f"uploads/{upload_id}", received.data)
        header = received.header
        size = {"width": header.width, "height": header.height, "size_bytes": len(received.data)}
        return JSONResponse({"id": upload_id, "media_type": header.media_type, **size})

    async def _receive(self, request: Request) -> Form:
        limits, content_type = self._gateway.limits, request.headers.get("content-type", "")
        kind = media_type(request)
        if kind == "multipart/form-data":
            return await read_form(request.stream(), content_type, limits)
        if kind.startswith("image/") or kind == "application/octet-stream":
            return Form(pictures=[await read_picture(request.stream(), kind, limits)])
        if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
            raise Refusal("missing-image", "The body is empty; send multipart/form-data with the picture in image.")
        raise Refusal(
            "unsupported-body", f"The body is {kind[:80]!r}; send multipart/form-data, or a picture as image/*."
        )

    def _doubts(self, job: Job) -> Mapping[str, list[str]]:
        """What the caller may want to ask otherwise; nothing in the answer when there is nothing to say."""
        with contextlib.suppress(UnknownModel, BrokenModel):  # The list may have changed since the job was taken.
            model = self._gateway.registry.get(job.model)
            if not model.knows(job.params.prompt):
                said = f"The prompt has no word that {model.name} knows, so the picture stays nearly as it is."
                return {"warnings": [f"{said} {model.summary}".strip()]}
        return {}

    async def _answer(self, request: Request, accepted: Accepted) -> Response:
        """202 with the links, or 200 with the whole job when the caller waited for its end and it came."""
        gateway, job = self._gateway, accepted.job
        links = gateway.links_of(request, job.id, job.created_at)
        wait = wait_s(request.headers.get("prefer"), gateway.settings.max_wait_s)
        if wait:
            ended = accepted.outcome or await gateway.live.ended(job.id, wait, gateway.outcomes)
            if ended is not None:
                seen = Sighting(job.id, (await gateway.sight(job.id)).row, ended)
                headers = {"Preference-Applied": f"wait={wait:g}", "Location": links.status_url}
                return JSONResponse(job_json(seen, links, None, None), 200, headers)
        status = accepted.outcome.state if accepted.outcome else State.QUEUED
        body = to_json({"id": job.id, "status": status, **links.json(), **self._doubts(job)})
        return Response(body, 202, {"Location": links.status_url}, "application/json")


def _asked_again(job: Job, owner: str) -> Asked:
    """What was asked for the job, in a caller's words; a size only if the caller asked for one.

    Where the new job is another `owner`'s, its webhooks are no business of who is told of this one.
    """
    hook = (
        {"webhook_url": job.webhook_url, "webhook_events": ",".join(job.webhook_events)} if owner == job.owner else {}
    )
    left_out = {"exact"} if job.params.exact else {"exact", "width", "height", "resize_mode"}
    return Asked(
        model_name=job.model,
        priority=job.priority,
        metadata=job.metadata,
        **hook,
        **job.params.model_dump(exclude=left_out),
    )


def _merged(query: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, object]:
    differing = [name for name in query.keys() & fields.keys() if query[name] != fields[name]]
    if differing:
        raise Refusal("invalid-parameters", f"{', '.join(differing)}: the query says one thing, the form another.")
    return {**fields, **query}
