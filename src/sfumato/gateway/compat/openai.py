"""OpenAI's images: POST /v1/images/edits, as its API reference of November 2026 and openai-python 3.54 have it.

Fields of the gateway's own (strength, seed, priority …) may come beside them: the client sends them as `extra_body`.
"""

import json
import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sfumato.core.errors import SfumatoError
from sfumato.core.job import Outcome
from sfumato.gateway import problems, sse
from sfumato.gateway.asked import openapi_body, parse
from sfumato.gateway.compat.answers import base64_of, with_pictures
from sfumato.gateway.compat.calls import GONE, MOST_PICTURES, Call, Calls, Gone, Wish
from sfumato.gateway.compat.dialects import Dialect, Told
from sfumato.gateway.compat.previews import follow
from sfumato.gateway.context import Gateway
from sfumato.gateway.intake import Given
from sfumato.gateway.problems import Refusal
from sfumato.gateway.reception import Reception
from sfumato.gateway.uploads import FORM_OVERHEAD_BYTES, FileFields, Form, declared_length, media_type, read_form

__all__ = ["DIALECT", "OpenAIRoutes", "error_of"]

PROTOCOL: Final = "openai"
NO_MASK: Final = "mask is not taken: this service changes whole pictures; leave it out, or crop to what is to change."
FILES: Final = FileFields(
    names=("image", "image[]"),
    most=MOST_PICTURES,
    unwelcome=dict.fromkeys(("mask", "markup"), NO_MASK),
    claims_count=False,
)
STANDARD_SIZES: Final = ("1024x1024", "1536x1024", "1024x1536", "512x512", "256x256")
"""OpenAI's own, which programs have written into them. They stand for an aspect, as large as the model makes it."""
OWN: Final = ("strength", "num_inference_steps", "guidance_scale", "seed", "sampler", "negative_prompt", "resize_mode")
NAMES: Final = MappingProxyType(
    {
        "model_name": "model",
        "width × height": "size",
        "width": "the width in size",
        "height": "the height in size",
    }
)
ABOUT: Final = re.compile(r"(?:the (?:width|height) in )?(\w+)(?: '[^']*')? (?:is|must|has|ends|can't)\b")
"""How a sentence about a field begins."""
TYPES: Final = MappingProxyType({401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"})
CODES: Final = MappingProxyType(
    {
        "unknown-model": "model_not_found",
        "unauthorized": "invalid_api_key",
        "rate-exceeded": "rate_limit_exceeded",
        "quota-exceeded": "insufficient_quota",
    }
)
"""Where OpenAI has a word that programs look for; elsewhere `code` is the problem's own."""
AS_BAD_REQUEST: Final = (415, 422)
_TOKENS: Final = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
USAGE: Final = {**_TOKENS, "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}
"""Nothing here is counted in tokens."""
_DOCS: Final = openapi_body(
    "multipart/form-data",
    {
        "type": "object",
        "required": ["image", "prompt"],
        "properties": {
            "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "prompt": {"type": "string"},
        },
    },
)


class Edit(BaseModel):
    """The form's fields. Those typed `object` are taken and mean nothing here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    model: str = ""
    n: Annotated[int, Field(ge=1, le=10)] = 1
    size: Annotated[str, Field(pattern=r"^(auto|[0-9]{1,6}x[0-9]{1,6})$")] = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    background: Literal["auto", "opaque"] = "auto"
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    strength: str | None = None
    num_inference_steps: str | None = None
    guidance_scale: str | None = None
    seed: str | None = None
    sampler: str | None = None
    negative_prompt: str | None = None
    resize_mode: str | None = None
    priority: str | None = None
    metadata: str | None = None
    quality: object = None
    input_fidelity: object = None
    output_compression: object = None
    moderation: object = None
    complexity: object = None
    user: object = None
    safety_identifier: object = None


class OpenAIRoutes:
    """The routes of one gateway that speak OpenAI's protocol."""

    def __init__(self, gateway: Gateway, reception: Reception) -> None:
        self._gateway, self._calls = gateway, Calls(gateway, reception, PROTOCOL)

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=["openai"])
        router.add_api_route("/v1/images/edits", self.edits, methods=["POST"], openapi_extra=_DOCS)
        return router

    async def edits(self, request: Request) -> Response:
        """OpenAI: make a picture of each `image` given, `n` times."""
        began = time.perf_counter()
        await self._calls.room(request)
        with self._gateway.in_flight.holding(self._length(request)):
            edit, call = await self._take(request, began)
        if edit.stream:
            return StreamingResponse(self._streamed(edit, call), headers=sse.HEADERS, media_type=sse.MEDIA_TYPE)
        try:
            ends = await self._calls.ended(request, call)
        except Gone:
            return GONE
        about = {"created": int(self._gateway.clock()), "background": "opaque", "output_format": edit.output_format}
        body = {**about, "size": _size(ends[0]), "usage": USAGE}
        if edit.response_format == "b64_json":
            return await with_pictures(self._calls, ends, body, "data", lambda picture: {"b64_json": picture})
        links = [self._gateway.links_of(request, job.id, job.created_at).result_url for job in call.jobs]
        return JSONResponse({**body, "data": [{"url": link} for link in links]})

    async def _take(self, request: Request, began: float) -> tuple[Edit, Call]:
        """What is asked, and the call that came of it. By itself, so that nothing keeps the form until its end."""
        if media_type(request) != "multipart/form-data":
            detail = f"The body is {media_type(request)[:80]!r}; send multipart/form-data, as images.edit does."
            raise Refusal("unsupported-body", detail)
        form = await read_form(request.stream(), request.headers.get("content-type", ""), self._gateway.limits, FILES)
        edit = parse(Edit, form.fields)
        return edit, await self._calls.take(request, self._wishes(edit, form), began)

    def _length(self, request: Request) -> int:
        most_bytes = self._gateway.settings.max_upload_bytes
        return declared_length(request.headers.get("content-length"), most_bytes, FORM_OVERHEAD_BYTES)

    def _wishes(self, edit: Edit, form: Form) -> list[Wish]:
        if not form.pictures:
            raise Refusal("missing-image", "The form has no image; send the picture in it as a file.", param="image")
        pictures = len(form.pictures) * edit.n
        if pictures > MOST_PICTURES:
            told = f"{len(form.pictures)} times n {edit.n} is {pictures} pictures; at most {MOST_PICTURES} are made"
            raise Refusal("invalid-parameters", f"image {told} in one call. Send several.", param="n")
        width, height = self._wanted_size(edit)
        fields = edit.model_dump(include={*OWN, "prompt", "output_format", "priority", "metadata"}, exclude_none=True)
        fields |= {"model_name": self._calls.model_name(edit.model), "width": width, "height": height}
        first, wishes = self._calls.asked(fields), []
        for number in range(pictures):
            picture = form.pictures[number // edit.n]
            # Several pictures of one seed would be the same picture: each next one has the next seed.
            asked = first if first.seed is None else first.model_copy(update={"seed": first.seed + number})
            wishes.append(Wish(asked, Given(picture.data, picture.sha256), picture.header))
        return wishes

    def _wanted_size(self, edit: Edit) -> tuple[int | None, int | None]:
        """Width and height in pixels, None for the picture's own aspect."""
        if edit.size == "auto":
            return None, None
        width, height = map(int, edit.size.split("x"))
        rules = self._gateway.registry.get(self._calls.model_name(edit.model)).rules
        if edit.size not in STANDARD_SIZES or width * height <= rules.max_pixels:
            return width, height
        scale, unit = math.sqrt(rules.max_pixels / (width * height)), rules.size_multiple
        return int(width * scale) // unit * unit, int(height * scale) // unit * unit

    async def _streamed(self, edit: Edit, call: Call) -> AsyncIterator[str]:
        """The pictures one after the other, each behind its previews."""
        whole, done = False, {"output_format": edit.output_format, "usage": USAGE}
        try:
            for job in call.jobs:
                index = 0
                async for seen in follow(self._gateway, job, edit.partial_images):
                    if isinstance(seen, Outcome):
                        yield self._event("completed", await self._calls.picture(seen), {**done, "size": _size(seen)})
                    elif seen.data:
                        about = {"output_format": "jpeg", "size": edit.size, "partial_image_index": index}
                        yield self._event("partial_image", seen.data, about)
                        index += 1
                    else:
                        yield sse.SIGN_OF_LIFE
            whole = True
        except SfumatoError as error:
            told = DIALECT.told(json.loads(bytes(problems.answer(error).body)))
            yield sse.event("error", {"type": "error", **told.body})
        finally:
            if not whole:
                self._calls.leave(call)

    def _event(self, kind: str, picture: bytes, about: Mapping[str, Any]) -> str:
        plain = {"background": "opaque", "quality": "auto", "created_at": int(self._gateway.clock())}
        name = f"image_edit.{kind}"
        return sse.event(name, {"type": name, "b64_json": base64_of(picture), **plain, **about})


def error_of(problem: Mapping[str, Any]) -> Told:
    """A problem as OpenAI tells it: `code` is what programs go by, `param` the field at fault where one is known."""
    slug, status = problem["type"].rpartition(":")[2], problem["status"]
    status = 400 if status in AS_BAD_REQUEST else status
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    detail = problem["detail"]
    if slug == "no-such-route":
        detail += " This service changes pictures: POST /v1/images/edits, by a client whose base_url ends in /v1."
    named = ABOUT.match(detail)
    param = problem.get("param") or (named[1] if named and named[1] in (*Edit.model_fields, "image") else None)
    about = {"type": kind, "param": param, "code": CODES.get(slug, slug)}
    return Told(status, {"error": {"message": detail, **about}})


# "/images/" is what a client asks for that was given the address without /v1.
DIALECT: Final = Dialect(PROTOCOL, ("/v1/images/", "/images/"), error_of, NAMES)


def _size(end: Outcome) -> str:
    return f"{end.picture.width}x{end.picture.height}" if end.picture else "auto"
