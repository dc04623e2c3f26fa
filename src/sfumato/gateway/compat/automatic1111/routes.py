"""AUTOMATIC1111's stable-diffusion-webui: its /sdapi/v1 of version 1.10, as webuiapi 0.9.17 and others speak to it."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from sfumato.core.errors import NotFound, TransientError
from sfumato.core.job import Outcome, State
from sfumato.gateway.asked import idempotency_key, openapi_body, parse
from sfumato.gateway.callers import Caller, caller_of
from sfumato.gateway.compat.answers import with_pictures
from sfumato.gateway.compat.automatic1111.asked import (
    Img2Img,
    Options,
    as_url,
    check_done_here,
    echo,
    first_seed,
    format_of,
    order_of,
    resize_mode,
    sampler_of,
)
from sfumato.gateway.compat.automatic1111.underway import Underway
from sfumato.gateway.compat.automatic1111.words import (
    NAMES,
    PROTOCOL,
    ROOT,
    described,
    model_name,
)
from sfumato.gateway.compat.calls import GONE, MOST_PICTURES, Call, Calls, Gone, Wish
from sfumato.gateway.compat.dialects import Dialect, Told
from sfumato.gateway.compat.leniency import up_to
from sfumato.gateway.context import Gateway
from sfumato.gateway.intake import Given, Uploaded
from sfumato.gateway.jobs import no_picture
from sfumato.gateway.pictures import PictureHeader
from sfumato.gateway.reception import Reception
from sfumato.gateway.uploads import too_large

__all__ = ["DIALECT", "Automatic1111Routes", "error_of"]

CHALLENGE: Final = b'Basic realm="sfumato"'
BEARER: Final = "as Authorization: Bearer KEY"
PASSWORD: Final = "as the password, with any user name"  # noqa: S105 - a sentence's end
NO_STORE: Final = {"Cache-Control": "no-store"}


class Automatic1111Routes:
    """The routes of one gateway that speak AUTOMATIC1111's protocol."""

    def __init__(self, gateway: Gateway, reception: Reception) -> None:
        self._gateway, self._reception = gateway, reception
        self._calls, self._underway = Calls(gateway, reception, PROTOCOL), Underway(gateway)

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(prefix=ROOT, tags=[PROTOCOL])
        router.add_api_route(
            "/img2img", self.img2img, methods=["POST"], openapi_extra=openapi_body(schema=Img2Img.model_json_schema())
        )
        router.add_api_route(
            "/options",
            self.set_options,
            methods=["POST"],
            openapi_extra=openapi_body(schema=Options.model_json_schema()),
        )
        router.add_api_route("/options", self.options, methods=["GET"])
        router.add_api_route("/progress", self.progress, methods=["GET"])
        router.add_api_route("/interrupt", self.interrupt, methods=["POST"])
        router.add_api_route("/skip", self.skip, methods=["POST"])
        return router

    async def img2img(self, request: Request) -> Response:
        """AUTOMATIC1111: make pictures of `init_images`, and answer with all of them."""
        began = time.perf_counter()
        await self._calls.room(request)
        with self._gateway.in_flight.holding(self._calls.length(request)):
            taken = await self._take(request, began)
        try:
            with self._underway.waiting(taken.call):
                ends = await self._calls.ended(request, taken.call, all_of_them=False)
        except Gone:
            return GONE
        return await self._answer(taken, ends)

    async def options(self, request: Request) -> JSONResponse:
        """AUTOMATIC1111: the options that mean something here, and how they stand for who asks."""
        registry = self._gateway.registry
        name = await self._chosen(caller_of(request))
        models = {model.name: model for model in registry}
        samples = models[name].rules.output_format.value if name in models else "png"
        told = {
            "sd_model_checkpoint": name,
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
            "samples_format": samples.replace("jpeg", "jpg"),
            "return_grid": False,
            "enable_pnginfo": False,
            "live_previews_enable": True,
            "live_previews_image_format": "jpeg",
        }
        return JSONResponse(told, headers=NO_STORE)

    async def set_options(self, request: Request) -> JSONResponse:
        """AUTOMATIC1111: keep `sd_model_checkpoint` as the model of your calls that name none; no other is kept."""
        with self._gateway.in_flight.holding(self._calls.length(request)):
            wanted = parse(Options, await self._calls.body(request)).sd_model_checkpoint
        if wanted is not None:
            name = self._gateway.registry.get(self._spelled(wanted)).name
            kept = json.dumps({"sd_model_checkpoint": name}).encode()
            await self._gateway.blobs.put(_options_key(caller_of(request)), kept)
        return JSONResponse(None)

    async def progress(self, request: Request, skip_current_image: bool = False) -> JSONResponse:
        """AUTOMATIC1111: how far your oldest call is that has not ended; its newest preview makes more be made."""
        told = await self._underway.progress(caller_of(request).owner, picture=not skip_current_image)
        return JSONResponse(told, headers=NO_STORE)

    async def interrupt(self, request: Request) -> JSONResponse:
        """AUTOMATIC1111: end all your calls now; each answers with the pictures that it has."""
        await self._underway.interrupt(caller_of(request).owner)
        return JSONResponse({})

    async def skip(self, request: Request) -> JSONResponse:
        """AUTOMATIC1111: give up the picture that has been worked on for longest; its call goes on with the others."""
        await self._underway.skip(caller_of(request).owner)
        return JSONResponse({})

    async def _take(self, request: Request, began: float) -> "_Taken":
        asked = parse(Img2Img, await self._calls.body(request))
        check_done_here(asked)
        order, caller = order_of(asked, MOST_PICTURES), caller_of(request)
        fields = await self._fields(asked, caller)
        seed = first_seed(asked, idempotency_key(request.headers.get("idempotency-key")))
        each = [self._calls.asked({**fields, "seed": seed + number}) for number in range(len(order))]
        self._reception.admitted(each[0], caller)  # before addresses are followed
        pictures = await self._pictures(asked.init_images or (), caller)
        wishes = [Wish(one, *pictures[index]) for one, index in zip(each, order, strict=True)]
        call = await self._calls.take(request, wishes, began)
        return _Taken(call, echo(asked), len(wishes) // (asked.n_iter or 1), asked.send_images is not False)

    async def _pictures(
        self, images: Sequence[str], caller: Caller
    ) -> Sequence[tuple[Given | Uploaded, PictureHeader]]:
        """The pictures; together they have what one may have, wherever they come from. Raises Refusal."""
        pictures, left_bytes = list[tuple[Given | Uploaded, PictureHeader]](), self._gateway.limits.max_bytes
        for image in images:
            picture, header = await self._reception.picture_of(as_url(image), caller)
            if (left_bytes := left_bytes - picture.size_bytes) < 0:
                raise too_large(self._gateway.limits.max_bytes)
            pictures.append((picture, header))
        return pictures

    async def _fields(self, asked: Img2Img, caller: Caller) -> Mapping[str, Any]:
        """What is asked, in the gateway's own words."""
        settings = asked.override_settings or {}
        override = settings.get("sd_model_checkpoint")
        name = self._spelled(str(override)) if override else await self._chosen(caller)
        rules = self._gateway.registry.get(name).rules
        exact = asked.width is not None and asked.height is not None
        return {
            "model_name": name,
            "prompt": asked.prompt,
            "negative_prompt": asked.negative_prompt,
            "strength": asked.denoising_strength,
            "num_inference_steps": asked.steps,
            "guidance_scale": up_to(rules.max_guidance_scale, asked.cfg_scale),
            "sampler": sampler_of(asked, rules),
            "width": asked.width if exact else None,
            "height": asked.height if exact else None,
            "resize_mode": resize_mode(asked),
            "output_format": format_of(settings),
            "priority": asked.priority,
        }

    async def _chosen(self, caller: Caller) -> str:
        """The model of a call that names none: the one that its owner chose by an option, or the first there is."""
        try:
            kept = json.loads(await self._gateway.blobs.get(_options_key(caller)))
        except NotFound:
            return self._calls.model_name(None)
        except ValueError as error:
            raise TransientError("The options in the store can't be read; set sd_model_checkpoint again.") from error
        return str(kept["sd_model_checkpoint"])

    def _spelled(self, checkpoint: str) -> str:
        registry = self._gateway.registry
        return model_name(checkpoint, (*registry.names(), *registry.troubles))

    async def _answer(self, taken: "_Taken", ends: Sequence[Outcome]) -> Response:
        """The pictures of an ended call, without those that were canceled. Raises Refusal: one failed, or none is."""
        made = [(job, end) for job, end in zip(taken.call.jobs, ends, strict=True) if end.picture is not None]
        failed = next((end for end in ends if end.state is State.FAILED), None)
        if failed is not None or not made:
            raise no_picture(failed or ends[0])
        wanted = [end for _, end in made] if taken.send_images else []
        pictures = [(job, end.picture) for job, end in made if end.picture is not None]
        body = {"parameters": taken.sent, "info": json.dumps(described(pictures, taken.batch_size))}
        return await with_pictures(self._calls, wanted, body, "images", lambda picture: picture)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A call whose jobs were taken in, and what its answer needs to know of what was asked."""

    call: Call
    sent: Mapping[str, Any]
    batch_size: int
    send_images: bool


def error_of(problem: Mapping[str, Any]) -> Told:
    """A problem as AUTOMATIC1111 tells it; `detail` is what its clients show."""
    detail = problem["detail"].replace(BEARER, PASSWORD)
    if problem["type"].endswith(":no-such-route"):
        detail += f" This service changes pictures: POST {ROOT}/img2img."
    body = {"error": problem["title"], "detail": detail, "body": "", "errors": detail}
    return Told(problem["status"], body, challenge=CHALLENGE)


DIALECT: Final = Dialect(PROTOCOL, ("/sdapi/",), error_of, NAMES)


def _options_key(caller: Caller) -> str:
    return f"options/{hashlib.sha256(caller.owner.encode()).hexdigest()}"
