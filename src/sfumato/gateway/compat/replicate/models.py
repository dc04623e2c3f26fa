"""Replicate's models, versions and account: what models there are, and what each takes, as its HTTP API tells it."""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sfumato.core.errors import UnknownModel
from sfumato.core.job import Priority
from sfumato.core.params import MAX_SEED, ModelRules, ResizeMode
from sfumato.core.prediction import OWNER, PROTOCOL, model_id, scheduler_name
from sfumato.core.shown import rfc3339
from sfumato.gateway.callers import caller_of
from sfumato.gateway.context import Gateway
from sfumato.gateway.problems import Refusal
from sfumato.gateway.uploads import read_body
from sfumato.gateway.webhooks import own_secrets
from sfumato.models.registry import Model, Registry

__all__ = ["ReplicateModels", "found", "model_json", "version_found"]

COG_VERSION: Final = "0.16.0"
"""Whose schemas these are like. Clients take the output of versions before 0.3.9 for one that comes piece by piece."""
UNKNOWN_TIME: Final = rfc3339(0.0)
"""Nobody notes when a model came."""
VERSION_ID: Final = re.compile(r"[0-9a-f]{64}")
QUERY_BYTES: Final = 16 * 1024
NO_STORE: Final = MappingProxyType({"Cache-Control": "no-store"})
OUTPUT: Final = MappingProxyType(
    {"type": "array", "items": {"type": "string", "format": "uri"}, "title": "Output"},
)


class ReplicateModels:
    """The routes of one gateway about models, versions and who asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=[PROTOCOL])
        versions = "/v1/models/{owner}/{name:path}/versions"
        router.add_api_route("/v1/models", self.search, methods=["QUERY"], include_in_schema=False)
        router.add_api_route(versions, self.versions, methods=["GET"])
        router.add_api_route(f"{versions}/{{version_id}}", self.version, methods=["GET"])
        router.add_api_route("/v1/account", self.account, methods=["GET"])
        router.add_api_route("/v1/webhooks/default/secret", self.secret, methods=["GET"])
        return router

    async def search(self, request: Request) -> JSONResponse:
        """Replicate: the models whose name or summary has what the body says, in whatever case."""
        body = await read_body(request.stream(), QUERY_BYTES, self._gateway.limits.stall_s)
        wanted = body.decode("utf-8", "replace").strip().lower()
        registry, base_url = self._gateway.registry, self._gateway.base_url(request)
        models = [each for each in registry if wanted in f"{model_id(each.name)} {each.name} {each.summary}".lower()]
        return JSONResponse(_page([model_json(each, registry, base_url) for each in models]))

    async def versions(self, owner: str, name: str) -> JSONResponse:
        """Replicate: the versions of a model; there is one, that which is served now."""
        registry = self._gateway.registry
        return JSONResponse(_page([_version_json(found(registry, f"{owner}/{name}"), registry)]))

    async def version(self, owner: str, name: str, version_id: str) -> JSONResponse:
        """Replicate: a version of a model, with what it takes as a schema."""
        registry = self._gateway.registry
        model = version_found(registry, f"{owner}/{name}:{version_id}")
        return JSONResponse(_version_json(model, registry))

    async def account(self, request: Request) -> JSONResponse:
        """Replicate: who asks."""
        owner = caller_of(request).owner
        about = {"type": "user", "username": owner, "name": owner, "github_url": None}
        return JSONResponse(about, headers=NO_STORE)

    async def secret(self, request: Request) -> JSONResponse:
        """Replicate: what signs the webhooks of your predictions; a key that may only read does not see it."""
        secrets = own_secrets(caller_of(request), self._gateway.webhook_secrets)
        return JSONResponse({"key": secrets[0]}, headers=NO_STORE)


def found(registry: Registry, ref: str) -> Model:
    """The model that is meant by `owner/name`, by that name decoded, or by our own.

    Raises:
        UnknownModel: there is none; its known ones are as clients write them.
        BrokenModel: as `Registry.get`.
    """
    name = _meant(registry, ref)
    if name is None:
        raise UnknownModel(ref, [model_id(each) for each in registry.names()])
    return registry.get(name)


def version_found(registry: Registry, ref: str) -> Model:
    """The model that is meant by a version's id, by `owner/name:version`, or by what `found` takes.

    Raises:
        Refusal: unknown-model; the model is there, in another version.
        UnknownModel, BrokenModel: as `found`.
    """
    name, colon, version = ref.rpartition(":")
    if not colon:
        by_id = next((each for each in registry if registry.version_of(each.name) == ref), None)
        if by_id is None and VERSION_ID.fullmatch(ref):
            known = [model_id(each) for each in registry.names()]
            said = f"No model has the version {ref} here; leave out what is behind the colon, and name a model"
            raise Refusal("unknown-model", f"{said}: {', '.join(known)}.", known_models=known)
        return by_id or found(registry, ref)
    model = found(registry, ref if _meant(registry, ref) else name)
    ours = registry.version_of(model.name)
    if version != ours and not _meant(registry, ref):
        known = [model_id(each) for each in registry.names()]
        detail = f"{model_id(model.name)} has no version {version[:80]!r}; it has {ours}."
        raise Refusal("unknown-model", detail, known_models=known)
    return model


def _meant(registry: Registry, ref: str) -> str | None:
    names = (*registry.names(), *registry.troubles)
    return next((each for each in names if ref in (each, model_id(each), f"{OWNER}/{each}")), None)


def model_json(model: Model, registry: Registry, base_url: str) -> dict[str, Any]:
    """A model as Replicate shows it. How often it ran is not counted by it, so `run_count` is 0."""
    owner, _, name = model_id(model.name).partition("/")
    return {
        "url": f"{base_url}/v1/models/{owner}/{name}",
        "owner": owner,
        "name": name,
        "description": model.summary,
        "visibility": "public",
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": 0,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": _version_json(model, registry),
    }


def _page(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {"previous": None, "next": None, "results": results}


def _version_json(model: Model, registry: Registry) -> dict[str, Any]:
    schemas = {"Input": _input_schema(model.rules), "Output": dict(OUTPUT)}
    schema = {
        "openapi": "3.0.2",
        "info": {"title": model_id(model.name), "version": COG_VERSION},
        "paths": {},
        "components": {"schemas": schemas},
    }
    return {
        "id": registry.version_of(model.name),
        "created_at": UNKNOWN_TIME,
        "cog_version": COG_VERSION,
        "openapi_schema": schema,
    }


def _input_schema(rules: ModelRules) -> dict[str, Any]:
    properties = {
        name: {**about, "title": name.replace("_", " ").capitalize(), "x-order": order}
        for order, (name, about) in enumerate(_properties(rules).items())
    }
    return {"type": "object", "title": "Input", "required": ["image"], "properties": properties}


def _properties(rules: ModelRules) -> Mapping[str, dict[str, Any]]:
    side = {"type": "integer", "minimum": rules.size_multiple, "multipleOf": rules.size_multiple, "nullable": True}
    schedulers = [scheduler_name(each) for each in rules.samplers]
    text = {"type": "string", "default": "", "maxLength": rules.max_prompt_chars}
    formats = ["png", "jpg", "webp"]
    default_format = "jpg" if rules.output_format == "jpeg" else rules.output_format.value
    steps = {"type": "integer", "minimum": 1, "maximum": rules.max_steps, "default": rules.num_inference_steps}
    guidance = {"type": "number", "minimum": 0, "maximum": rules.max_guidance_scale, "default": rules.guidance_scale}
    return {
        "image": _told("The picture to change: a PNG, JPEG or WebP file.", {"type": "string", "format": "uri"}),
        "prompt": _told("What the picture should become.", text),
        "negative_prompt": _told("What it should not become.", text),
        "prompt_strength": _told(
            "How far the result may move away from the picture, above 0.",
            {"type": "number", "minimum": 0, "maximum": 1, "default": rules.strength},
        ),
        "num_inference_steps": _told("Steps of the whole schedule.", steps),
        "guidance_scale": _told("How strictly the prompt is followed.", guidance),
        "seed": _told(
            "The same seed gives the same picture; random when left out.",
            {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "nullable": True},
        ),
        "scheduler": _told(
            "How it walks from noise to picture.",
            {"type": "string", "enum": schedulers, "default": scheduler_name(rules.sampler)},
        ),
        "width": _told("The exact width in pixels, together with height.", side),
        "height": _told("The exact height in pixels, together with width.", side),
        "resize_mode": _told(
            "How a picture of another aspect gets into that size.",
            {"type": "string", "enum": [each.value for each in ResizeMode], "nullable": True},
        ),
        "output_format": _told(
            "The file type of the result.", {"type": "string", "enum": formats, "default": default_format}
        ),
        "num_outputs": _told("One picture comes of a prediction.", {"type": "integer", "enum": [1], "default": 1}),
        "priority": _told(
            "Which of your own predictions go first.",
            {"type": "string", "enum": [each.value for each in Priority], "default": Priority.NORMAL.value},
        ),
        "metadata": _told("An object of at most 1 KB, given back with the job.", {"type": "object", "default": {}}),
    }


def _told(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    # A copy: what is shared above must not be shared in the document.
    return {"description": description, **json.loads(json.dumps(schema))}
