"""Routes about the service itself: models, status, scale, health, metrics."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from sfumato.core.errors import NotFound, SfumatoError, TransientError
from sfumato.core.job import model_slug
from sfumato.core.ports import EventLog
from sfumato.core.scaling import Decided
from sfumato.core.version import VERSION
from sfumato.gateway.context import Gateway
from sfumato.gateway.problems import Refusal
from sfumato.gateway.views import broken_json, model_json, rfc3339
from sfumato.models.registry import Model
from sfumato.observability import exposition

__all__ = ["ServiceRoutes"]

CHECK_S: Final = 2.0
NOBODY: Final = "00000000-0000-7000-8000-000000000000"
"""An id that no job has, to ask a store with."""


class ServiceRoutes:
    """The routes of one gateway about itself and its models."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._began_at = gateway.clock()
        self._events: EventLog | None = None
        self._decisions: Mapping[str, Decided] = {}

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=["service"])
        router.add_api_route("/api/models", self.models, methods=["GET"])
        router.add_api_route("/api/status", self.status, methods=["GET"])
        router.add_api_route("/api/scale/{model_name:path}", self.scale, methods=["GET"])
        router.add_api_route("/healthz", self.healthz, methods=["GET"])
        router.add_api_route("/readyz", self.readyz, methods=["GET"])
        router.add_api_route("/metrics", self.metrics, methods=["GET"])
        return router

    async def models(self, request: Request) -> JSONResponse:
        """The models there are, what they allow, and how busy they are."""
        return JSONResponse({"models": self._models()})

    async def status(self, request: Request) -> JSONResponse:
        """The service at a glance: version, stores, limits, models."""
        settings = self._gateway.settings
        stores = await self._stores()
        limits = {"max_upload_bytes": settings.max_upload_bytes, "max_input_pixels": settings.max_input_pixels}
        body = {
            "status": "degraded" if any(stores.values()) else "ok",
            "version": VERSION,
            "started_at": rfc3339(self._began_at),
            "stores": {name: trouble or "ok" for name, trouble in stores.items()},
            "limits": {**limits, "max_wait_s": settings.max_wait_s},
            "body_bytes_in_flight": self._gateway.in_flight.held_bytes,
            "models": self._models(),
        }
        return JSONResponse(body)

    async def scale(self, model_name: str) -> JSONResponse:
        """How many workers this model should have as the controller decided last, and why; KEDA's metrics-api scaler
        reads `desired_replicas`."""
        gateway = self._gateway
        model = gateway.registry.get(model_name)
        decided = await self._decided(model.slug)
        body = {
            "model": model.name,
            "desired_replicas": decided.replicas,
            "workers": len(gateway.live.workers(model.slug, gateway.clock())),
            "why": decided.why,
            "decided_at": rfc3339(decided.at),
        }
        return JSONResponse(body)

    async def healthz(self) -> JSONResponse:
        """200 as long as this process answers at all."""
        return JSONResponse({"status": "ok"})

    async def readyz(self) -> JSONResponse:
        """200 when every store answers, so that jobs can be taken; else 503."""
        troubles = {name: trouble for name, trouble in (await self._stores()).items() if trouble}
        if self._gateway.stopping.is_set():
            troubles["gateway"] = "it is stopping."
        if troubles:
            detail = "; ".join(f"{name}: {trouble}" for name, trouble in troubles.items())
            raise Refusal("not-ready", detail, retry_after_s=1)
        return JSONResponse({"status": "ready"})

    async def metrics(self) -> Response:
        """Prometheus' text format, of all processes that share their metrics with this one."""
        text = await asyncio.to_thread(exposition, self._gateway.settings.metrics_dir)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _models(self) -> list[dict[str, Any]]:
        registry = self._gateway.registry
        broken = [self._broken(name, trouble) for name, trouble in registry.troubles.items()]
        return [self._served(model) for model in registry] + broken

    def _served(self, model: Model) -> dict[str, Any]:
        live, slug, now = self._gateway.live, model.slug, self._gateway.clock()
        queue = live.standing(slug), live.waiting(slug, now)
        return model_json(model, *queue, live.workers(slug, now), live.trouble(slug), now)

    def _broken(self, name: str, trouble: str) -> dict[str, Any]:
        live, slug, now = self._gateway.live, model_slug(name), self._gateway.clock()
        return broken_json(name, trouble, live.standing(slug), live.waiting(slug, now), now)

    async def _decided(self, model: str) -> Decided:
        """The latest decision about a model (its slug); while the rows are away, the latest that was seen here."""
        try:
            self._decisions = await self._gateway.scaling.decisions()
        except TransientError:
            if model not in self._decisions:
                raise
        if model not in self._decisions:
            raise Refusal("not-decided", "No controller has decided about this model yet.", retry_after_s=1)
        return self._decisions[model]

    async def _queue(self) -> None:
        """Ask the broker for the end of a log."""
        for model in list(self._gateway.registry)[:1]:
            self._events = self._events or self._gateway.broker.events(model.slug)
            await self._events.end()

    async def _stores(self) -> dict[str, str]:
        """Store → what is wrong with it, "" when it answers."""
        gateway = self._gateway
        asked: dict[str, Awaitable[object]] = {
            "rows": gateway.rows.get(NOBODY),
            "outcomes": gateway.outcomes.get(NOBODY),
            "objects": gateway.blobs.head(f"uploads/{NOBODY}"),
            "queue": self._queue(),
        }
        troubles = await asyncio.gather(*(_trouble(answer) for answer in asked.values()))
        return dict(zip(asked, troubles, strict=True))


async def _trouble(answer: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(CHECK_S):
            await answer
    except NotFound:
        return ""
    except TimeoutError:
        return f"no answer within {CHECK_S:g} s."
    except SfumatoError as error:
        return error.detail
    return ""
