"""What AUTOMATIC1111's clients ask for at their start: the lists that there are, and the many that are empty here."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sfumato.gateway.asked import openapi_body, parse
from sfumato.gateway.compat.automatic1111.asked import PngInfo
from sfumato.gateway.compat.automatic1111.words import NOTHING, PROTOCOL, ROOT, sampler_names
from sfumato.gateway.compat.calls import Calls
from sfumato.gateway.context import Gateway
from sfumato.gateway.reception import Reception

__all__ = ["Automatic1111Lists"]


class Automatic1111Lists:
    """The routes of one gateway that tell AUTOMATIC1111's clients what there is."""

    def __init__(self, gateway: Gateway, reception: Reception) -> None:
        self._gateway, self._calls = gateway, Calls(gateway, reception, PROTOCOL)

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(prefix=ROOT, tags=[PROTOCOL])
        router.add_api_route("/samplers", self.samplers, methods=["GET"])
        router.add_api_route("/sd-models", self.sd_models, methods=["GET"])
        router.add_api_route("/refresh-checkpoints", self.refresh_checkpoints, methods=["POST"])
        router.add_api_route(
            "/png-info", self.png_info, methods=["POST"], openapi_extra=openapi_body(schema=PngInfo.model_json_schema())
        )
        for name, value in NOTHING.items():
            about = f"AUTOMATIC1111: {name}; always the same, this service has none of its own."
            router.add_api_route(f"/{name}", _always(value), methods=["GET"], description=about, name=name)
        return router

    async def samplers(self) -> JSONResponse:
        """AUTOMATIC1111: the samplers that there are; not every model has all of them."""
        names = sampler_names(model.rules for model in self._gateway.registry)
        return JSONResponse([{"name": name, "aliases": [], "options": {}} for name in names])

    async def sd_models(self) -> JSONResponse:
        """AUTOMATIC1111: the models."""
        plain = {"hash": None, "sha256": None, "config": None}
        names = self._gateway.registry.names()
        return JSONResponse([{"title": each, "model_name": each, "filename": each, **plain} for each in names])

    async def refresh_checkpoints(self) -> JSONResponse:
        """AUTOMATIC1111: read the list of models again, if it changed; this service does so by itself too."""
        self._gateway.registry.refresh()
        return JSONResponse(None)

    async def png_info(self, request: Request) -> JSONResponse:
        """AUTOMATIC1111: what a picture of this service says of how it was made: nothing; its call's `info` does."""
        with self._gateway.in_flight.holding(self._calls.length(request)):
            parse(PngInfo, await self._calls.body(request))
        return JSONResponse({"info": "", "items": {}, "parameters": {}})


def _always(value: Any) -> Callable[[], Awaitable[JSONResponse]]:
    async def told() -> JSONResponse:
        return JSONResponse(value)

    return told
