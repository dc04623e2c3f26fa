"""Replicate's files: pictures uploaded before the predictions that name them, for a day.

A file is an upload like any other, at `uploads/<id>`, with what is known of it beside. What is known lies by owner, so
that listing reads nothing of others'.
"""

import hashlib
import json
import os
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sfumato.core.errors import NotFound
from sfumato.core.job import uuid7
from sfumato.core.pictures import UPLOAD_KEEP_S
from sfumato.core.prediction import PROTOCOL
from sfumato.core.shown import rfc3339
from sfumato.gateway.asked import Metadata, is_job_id, openapi_body, openapi_parameters, parse, read_query, without_nul
from sfumato.gateway.callers import caller_of
from sfumato.gateway.compat.dialects import Dialect, as_it_is
from sfumato.gateway.context import Gateway
from sfumato.gateway.problems import Refusal
from sfumato.gateway.uploads import FORM_OVERHEAD_BYTES, FileFields, Receiving, declared_length, read_form

__all__ = ["FILES_DIALECT", "ReplicateFiles", "file_id"]

FILES_A_PAGE: Final = 50
CONTENT: Final = FileFields(names=("content",))
NO_STORE: Final = {"Cache-Control": "no-store"}
ADDRESS: Final = re.compile(r"https?://[^/?#]+(?:/[^?#]*)?/v1/files/([^/?#]+)")
IMAGE_STANDS: Final = (("field ", ""), ("", " is"), ("", " has"), ("", " ends"), ("", " can't"))
"""How the field is spoken of, and not a type such as image/png."""
FILES_DIALECT: Final = Dialect(
    PROTOCOL,
    ("/v1/files",),
    as_it_is,
    {f"{before}image{behind}": f"{before}content{behind}" for before, behind in IMAGE_STANDS},
)
_DOCS: Final = openapi_body(
    "multipart/form-data",
    {
        "type": "object",
        "required": ["content"],
        "properties": {
            "content": {"type": "string", "format": "binary"},
            **{name: {"type": "string"} for name in ("filename", "type", "metadata")},
        },
    },
)


class FileAsked(BaseModel):
    """The form's fields beside the picture; `type` is what it is declared as."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filename: Annotated[str, Field(max_length=255), AfterValidator(without_nul)] = ""
    type: Annotated[str, Field(max_length=255)] = ""
    metadata: Metadata = Field(default_factory=dict)


class FilesAsked(BaseModel):
    """Which page of files to list; `cursor` stands in the address of the next one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: Annotated[str, Field(max_length=100)] = ""


class ReplicateFiles:
    """The routes of one gateway about files."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=[PROTOCOL])
        listing = {"parameters": openapi_parameters(FilesAsked)}
        router.add_api_route("/v1/files", self.create, methods=["POST"], status_code=201, openapi_extra=_DOCS)
        router.add_api_route("/v1/files", self.list, methods=["GET"], openapi_extra=listing)
        router.add_api_route("/v1/files/{file_id}", self.get, methods=["GET"])
        router.add_api_route("/v1/files/{file_id}", self.delete, methods=["DELETE"], status_code=204)
        return router

    async def create(self, request: Request) -> JSONResponse:
        """Replicate: take a picture that predictions will name, checked as all are."""
        gateway, now, owner = self._gateway, self._gateway.clock(), caller_of(request).owner
        most_bytes = gateway.settings.max_upload_bytes
        length = declared_length(request.headers.get("content-length"), most_bytes, FORM_OVERHEAD_BYTES)
        with gateway.in_flight.holding(length):
            form = await read_form(request.stream(), request.headers.get("content-type", ""), gateway.limits, CONTENT)
            asked = parse(FileAsked, form.fields)
            if form.picture is None:
                raise Refusal("missing-image", "The form has no field image; send the picture in it as a file.")
            picture, name = form.picture, asked.filename or form.names[0]
            if asked.type:
                declared = Receiving(gateway.limits, asked.type)
                declared.feed(picture.data)
                declared.finish()
            identity = gateway.links.marked(owner, uuid7(now, os.urandom(10)))
            etag = await gateway.blobs.put(f"uploads/{identity}", picture.data)
        kept = {
            "id": identity,
            "name": without_controls(name)[:255],
            "content_type": picture.header.media_type,
            "size": len(picture.data),
            "etag": etag,
            "checksums": {"sha256": picture.sha256},
            "metadata": asked.metadata,
            "created_at": rfc3339(now),
            "expires_at": rfc3339(now + UPLOAD_KEEP_S),
        }
        # Last: what is listed is there.
        await gateway.blobs.put(_record(owner, identity), json.dumps(kept).encode())
        return JSONResponse(self._shown(request, kept), 201, NO_STORE)

    async def list(self, request: Request) -> JSONResponse:
        """Replicate: your files, newest first, a page at a time."""
        gateway, owner = self._gateway, caller_of(request).owner
        cursor = parse(FilesAsked, read_query(request.scope["query_string"])).cursor
        stored = [each.key async for each in gateway.blobs.old(_records(owner), before=float("inf"))]
        # Their ids begin with when they were made.
        identities = sorted((key.rpartition("/")[2].removesuffix(".json") for key in stored), reverse=True)
        behind = [each for each in identities if not cursor or each < cursor]
        page = behind[:FILES_A_PAGE]
        results = [self._shown(request, kept) for each in page if (kept := await self._kept(owner, each))]
        more = f"{gateway.base_url(request)}/v1/files?cursor={page[-1]}" if len(behind) > len(page) else None
        return JSONResponse({"previous": None, "next": more, "results": results}, headers=NO_STORE)

    async def get(self, request: Request, file_id: str) -> JSONResponse:
        """Replicate: what is known of a file."""
        return JSONResponse(self._shown(request, await self._found(request, file_id)), headers=NO_STORE)

    async def delete(self, request: Request, file_id: str) -> Response:
        """Replicate: delete a file; predictions that were made with it have a copy."""
        await self._found(request, file_id)
        await self._gateway.blobs.delete(f"uploads/{file_id}")
        await self._gateway.blobs.delete(_record(caller_of(request).owner, file_id))
        return Response(status_code=204)

    async def _found(self, request: Request, identity: str) -> dict[str, Any]:
        kept = await self._kept(caller_of(request).owner, identity) if is_job_id(identity) else None
        if kept is None:
            raise NotFound("No file has this id, it expired or was deleted.")
        return kept

    async def _kept(self, owner: str, identity: str) -> dict[str, Any] | None:
        """What is known of a file; None when it is not the owner's, or went away."""
        try:
            kept: dict[str, Any] = json.loads(await self._gateway.blobs.get(_record(owner, identity)))
        except NotFound:
            return None
        return kept

    def _shown(self, request: Request, kept: dict[str, Any]) -> dict[str, Any]:
        return {**kept, "urls": {"get": f"{self._gateway.base_url(request)}/v1/files/{kept['id']}"}}


def file_id(url: str) -> str | None:
    """The id in a file's own address, under whatever host this service is reached; None when it is none."""
    found = ADDRESS.fullmatch(url)
    return found[1] if found and is_job_id(found[1]) else None


def without_controls(text: str) -> str:
    """The text without what can't be printed."""
    return "".join(each for each in text if each.isprintable())


def _records(owner: str) -> str:
    return f"uploads/files/{hashlib.sha256(owner.encode()).hexdigest()[:32]}/"


def _record(owner: str, identity: str) -> str:
    return f"{_records(owner)}{identity}.json"
