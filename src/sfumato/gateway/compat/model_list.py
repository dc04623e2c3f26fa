"""The addresses of models that OpenAI and Replicate share: one answer that the clients of both can read."""

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sfumato.core.errors import UnknownModel
from sfumato.core.prediction import PROTOCOL as REPLICATE
from sfumato.gateway.compat.dialects import Dialect, Told, as_it_is
from sfumato.gateway.compat.openai import PROTOCOL as OPENAI
from sfumato.gateway.compat.openai import error_of
from sfumato.gateway.compat.replicate import models as replicate_models
from sfumato.gateway.compat.replicate.asked import NAMES
from sfumato.gateway.context import Gateway

__all__ = ["ModelList", "shared"]


class ModelList:
    """The routes of one gateway, with the part of each protocol that is `spoken`."""

    def __init__(self, gateway: Gateway, spoken: Collection[str]) -> None:
        self._gateway, self._spoken = gateway, spoken

    def router(self) -> APIRouter:
        """The routes, to be included in an app behind all others below /v1/models."""
        router = APIRouter(tags=[name for name in (OPENAI, REPLICATE) if name in self._spoken])
        router.add_api_route("/v1/models", self.list, methods=["GET"])
        router.add_api_route("/v1/models/{name:path}", self.get, methods=["GET"])
        return router

    async def list(self, request: Request) -> JSONResponse:
        """OpenAI, Replicate: the models there are; `data` has them for the one, `results` for the other."""
        registry, base_url = self._gateway.registry, self._gateway.base_url(request)
        answer: dict[str, Any] = {}
        if OPENAI in self._spoken:
            answer |= {"object": "list", "data": [_openai_json(name) for name in registry.names()]}
        if REPLICATE in self._spoken:
            results = [replicate_models.model_json(model, registry, base_url) for model in registry]
            answer |= {"previous": None, "next": None, "results": results}
        return JSONResponse(answer)

    async def get(self, request: Request, name: str) -> JSONResponse:
        """OpenAI, Replicate: one model, by its name for the one, by `owner/name` for the other."""
        registry, base_url = self._gateway.registry, self._gateway.base_url(request)
        answer: dict[str, Any] = {}
        if OPENAI in self._spoken and name in (*registry.names(), *registry.troubles):
            answer |= _openai_json(registry.get(name).name)
        if REPLICATE in self._spoken and ("/" in name or OPENAI not in self._spoken):
            try:
                model = replicate_models.found(registry, name)
            except UnknownModel:
                if not answer:
                    raise
            else:
                answer |= replicate_models.model_json(model, registry, base_url)
        if not answer:
            raise UnknownModel(name, registry.names())
        return JSONResponse(answer)


def shared(spoken: Collection[str]) -> list[Dialect]:
    """How failures are told at addresses below /v1/ that are not one protocol's alone."""
    both = {OPENAI, REPLICATE} <= set(spoken)
    tell = _both if both else error_of if OPENAI in spoken else as_it_is
    # Most of what comes below /v1/models/ are predictions, and the list itself is mostly OpenAI's clients'.
    below = REPLICATE if REPLICATE in spoken else OPENAI
    listed = OPENAI if OPENAI in spoken else REPLICATE
    # What OpenAI's clients ask for here has a model's name alone, which both call the same.
    return [Dialect(below, ("/v1/models/",), tell, NAMES), Dialect(listed, ("/v1/",), tell, NAMES)]


def _both(problem: Mapping[str, Any]) -> Told:
    """A problem that has OpenAI's `error` beside its own members."""
    return Told(problem["status"], {**problem, **error_of(problem).body})


def _openai_json(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sfumato"}
