"""Replicate's predictions, as its HTTP API reference and replicate-python 1.0.7 have them.

A prediction is an ordinary job, and every job of an owner is a prediction here, in whatever words it came.
"""

import asyncio
import contextlib
import re
import time
from types import MappingProxyType
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from sfumato.core.errors import NotFound, TransientError
from sfumato.core.events import JobRow, new_row
from sfumato.core.history import JobQuery
from sfumato.core.job import Job, Outcome, State, model_slug
from sfumato.core.prediction import PROTOCOL, prediction_json
from sfumato.gateway.asked import openapi_body, openapi_parameters, parse, read_query, wait_s
from sfumato.gateway.callers import caller_of
from sfumato.gateway.compat.answers import base64_of
from sfumato.gateway.compat.calls import Call, Calls, Wish
from sfumato.gateway.compat.dialects import Dialect, as_it_is
from sfumato.gateway.compat.leniency import without_claim
from sfumato.gateway.compat.replicate.asked import NAMES, VersionWanted, Wanted, fields_of, input_of
from sfumato.gateway.compat.replicate.files import file_id
from sfumato.gateway.compat.replicate.models import found, version_found
from sfumato.gateway.context import Gateway
from sfumato.gateway.reception import Reception
from sfumato.models.registry import Model

__all__ = ["DIALECT", "ReplicateRoutes"]

PREDICTIONS_A_PAGE: Final = 50
PLAIN_WAIT_S: Final = 60.0
"""What `Prefer: wait` without a number asks for."""
STORE_LINK_S: Final = 3600.0
RECORDED_WITHIN_S: Final = 2.0
LOOK_S: Final = 0.1
PYTHON_CLIENT: Final = "replicate-python/"
NO_STORE: Final = MappingProxyType({"Cache-Control": "no-store"})
_BODY: Final = openapi_body()


class PredictionsAsked(BaseModel):
    """Which page of predictions to list; `cursor` stands in the address of the next one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: Annotated[str, Field(max_length=500)] = ""


class ReplicateRoutes:
    """The routes of one gateway about predictions."""

    def __init__(self, gateway: Gateway, reception: Reception) -> None:
        self._gateway, self._reception = gateway, reception
        self._calls = Calls(gateway, reception, PROTOCOL)

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=[PROTOCOL])
        made: dict[str, Any] = {"methods": ["POST"], "status_code": 201, "openapi_extra": _BODY}
        listing = {"parameters": openapi_parameters(PredictionsAsked)}
        router.add_api_route("/v1/models/{owner}/{name:path}/predictions", self.create_of_model, **made)
        router.add_api_route("/v1/predictions", self.create, **made)
        router.add_api_route("/v1/predictions", self.list, methods=["GET"], openapi_extra=listing)
        router.add_api_route("/v1/predictions/{prediction_id}", self.get, methods=["GET"])
        router.add_api_route("/v1/predictions/{prediction_id}/cancel", self.cancel, methods=["POST"])
        return router

    async def create_of_model(self, request: Request, owner: str, name: str) -> JSONResponse:
        """Replicate: make a picture by the model that the address names."""
        return await self._made(request, f"{owner}/{name}")

    async def create(self, request: Request) -> JSONResponse:
        """Replicate: make a picture by the model that `version` names."""
        return await self._made(request, None)

    async def get(self, request: Request, prediction_id: str) -> JSONResponse:
        """Replicate: a prediction, whichever way its job came."""
        row, outcome = await self._recorded(request, prediction_id, acting=False)
        return JSONResponse(await self._json(request, row, outcome), headers=NO_STORE)

    async def list(self, request: Request) -> JSONResponse:
        """Replicate: your predictions, newest first, a page at a time."""
        gateway = self._gateway
        asked = parse(PredictionsAsked, read_query(request.scope["query_string"]))
        query = JobQuery(caller_of(request).owner, cursor=asked.cursor, limit=PREDICTIONS_A_PAGE)
        page = await gateway.rows.list(query)
        results = [await self._json(request, row, row.outcome, listed=True) for row in page.rows]
        more = f"{gateway.base_url(request)}/v1/predictions?cursor={quote(page.next, safe='')}" if page.next else None
        return JSONResponse({"previous": None, "next": more, "results": results}, headers=NO_STORE)

    async def cancel(self, request: Request, prediction_id: str) -> JSONResponse:
        """Replicate: end the prediction as canceled; one that has ended otherwise is answered as it is."""
        gateway = self._gateway
        row, held = await self._recorded(request, prediction_id, acting=True)
        if held is None or held.state is State.CANCELED:
            held = await gateway.intake.cancel(prediction_id, gateway.clock(), row.job.model)
        return JSONResponse(await self._json(request, row, held), headers=NO_STORE)

    async def _made(self, request: Request, named: str | None) -> JSONResponse:
        began = time.perf_counter()
        gateway = self._gateway
        await self._calls.room(request)
        with gateway.in_flight.holding(self._calls.length(request)):
            call = await self._take(request, named, began)
        (job,) = call.jobs
        longest_s = _wait_s(request.headers.get("prefer"), gateway.settings.max_wait_s)
        # Clients give up half a second after what they asked for, and they count from when their request was sent.
        left_s = max(0.0, longest_s - (time.perf_counter() - began))
        ended = None  # The prediction is taken: what can't be read of it now is told later.
        with contextlib.suppress(TransientError):
            ended = await gateway.live.ended(job.id, left_s, gateway.outcomes) if longest_s or call.keyed else None
        headers = {**NO_STORE, **({"Preference-Applied": f"wait={longest_s:g}"} if longest_s else {})}
        if ended is None:
            # Still "starting", even if it runs: any other word would be taken for its end by who has waited.
            shown = await self._json(request, new_row(job), None)
            return JSONResponse(shown, 202 if longest_s else 201, headers)
        row = new_row(job)
        with contextlib.suppress(TransientError):
            row = (await gateway.sight(job.id)).row or row
        return JSONResponse(await self._json(request, row, ended), 201, headers)

    async def _take(self, request: Request, named: str | None, began: float) -> Call:
        """The call that came of a body. By itself, so that nothing keeps the body while its end is waited for."""
        body, registry = await self._calls.body(request), self._gateway.registry
        if named is not None:
            wanted, model = parse(Wanted, body), found(registry, named)
        else:
            of_version = parse(VersionWanted, body)
            wanted, model = of_version, version_found(registry, of_version.version)
        return await self._calls.take(request, [await self._wish(request, wanted, model)], began)

    async def _wish(self, request: Request, wanted: Wanted, model: Model) -> Wish:
        given, caller = input_of(wanted), caller_of(request)
        asked = self._calls.asked({**fields_of(wanted, given, model.rules), "model_name": model.name})
        self._reception.admitted(asked, caller)
        picture, header = await self._reception.picture_of(file_id(given.image) or without_claim(given.image), caller)
        return Wish(asked, picture, header)

    async def _recorded(self, request: Request, job_id: str, *, acting: bool) -> tuple[JobRow, Outcome | None]:
        """The job's row and its end; one that another gateway took in a moment ago has a row soon.

        Raises:
            NotFound: as `Gateway.find`.
            TransientError: it still has none.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + RECORDED_WITHIN_S
        while (seen := await self._gateway.find(request, job_id, acting=acting)).row is None:
            if now() > deadline:
                raise TransientError("The prediction is not recorded yet; try again in a moment.")
            await asyncio.sleep(LOOK_S)
        return seen.row, seen.outcome

    async def _json(
        self, request: Request, row: JobRow, outcome: Outcome | None, *, listed: bool = False
    ) -> dict[str, Any]:
        gateway, job = self._gateway, row.job
        progress = gateway.live.progress(model_slug(job.model), row)
        output_url = None if listed else await self._whole(request, outcome)
        output_url = output_url or await self._output_url(request, job, outcome)
        version = gateway.registry.version_of(job.model)
        return prediction_json(row, outcome, gateway.base_url(request), output_url, version, progress)

    async def _whole(self, request: Request, outcome: Outcome | None) -> str | None:
        """The picture itself as a data URL, for a client that can read a file from no address without TLS."""
        agent = request.headers.get("user-agent", "")
        plain = agent.startswith(PYTHON_CLIENT) and not self._gateway.base_url(request).startswith("https:")
        if not plain or outcome is None or outcome.picture is None:
            return None
        try:
            data = await self._gateway.blobs.get(outcome.picture.key)
        except NotFound:
            return None  # its address says so
        return f"data:{outcome.picture.media_type};base64,{base64_of(data)}"

    async def _output_url(self, request: Request, job: Job, outcome: Outcome | None) -> str:
        """Where the picture is: the client follows no redirect, so where links lead into the store, it gets such."""
        gateway = self._gateway
        link = None
        if gateway.settings.result_delivery == "redirect" and outcome and outcome.picture:
            link = await gateway.blobs.get_link(outcome.picture.key, STORE_LINK_S)
        return link or gateway.links_of(request, job.id, job.created_at).result_url


DIALECT: Final = Dialect(PROTOCOL, ("/v1/predictions", "/v1/account", "/v1/webhooks"), as_it_is, NAMES)


def _wait_s(prefer: str | None, longest_s: float) -> float:
    plain = re.search(r"(?:^|[,;\s])wait\s*(?:$|[,;])", prefer or "", re.IGNORECASE)
    return min(PLAIN_WAIT_S, longest_s) if plain else wait_s(prefer, longest_s)
