"""Routes about webhooks: an owner's endpoints, and what was delivered to whom."""

import os
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from sfumato.core.errors import NotFound
from sfumato.core.job import uuid7
from sfumato.core.keys import LOCAL, Scope
from sfumato.core.shown import rfc3339
from sfumato.core.webhooks import Delivery, DeliveryQuery, Endpoint, Hook, owners_secret
from sfumato.gateway.asked import (
    DeliveriesAsked,
    EndpointAsked,
    RotateAsked,
    openapi_body,
    openapi_parameters,
    parse,
    read_query,
)
from sfumato.gateway.callers import Caller, caller_of
from sfumato.gateway.context import Gateway
from sfumato.gateway.problems import Refusal
from sfumato.gateway.uploads import read_body
from sfumato.net.addresses import Allowed
from sfumato.net.targets import RefusedUrl, Target
from sfumato.storage.secrets import new_webhook_secret

__all__ = ["WebhookRoutes", "check_webhook", "own_secrets"]

MOST_ENDPOINTS: Final = 20
BODY_BYTES: Final = 16 * 1024
_BODY: Final = openapi_body()
_LISTING: Final = {"parameters": openapi_parameters(DeliveriesAsked)}


def check_webhook(url: str, events: str, allowed: Allowed) -> None:
    """See that webhooks may go to `url`, as far as it tells by itself. Raises Refusal."""
    if not url:
        if events:
            raise Refusal("bad-webhook", "webhook_events says what to send, webhook_url must say where.")
        return
    try:
        Target.of(url, allowed)
    except RefusedUrl as error:
        detail = f"The webhook's address is refused. {error.detail} Who runs the service may allow more"
        raise Refusal("bad-webhook", f"{detail} (SFUMATO_WEBHOOK_ALLOW).") from error


def own_secrets(caller: Caller, secrets: Sequence[str]) -> list[str]:
    """What signs the webhooks of the caller's single jobs, made from the service's `secrets`; the first signs first.

    Raises:
        Refusal: forbidden; the secret would be the service's own, or the key may only read.
    """
    if caller.key is None or caller.owner == LOCAL:
        raise Refusal(
            "forbidden",
            "This is the service's own secret: who runs it finds it in the file webhook-secret of its data folder.",
        )
    if not caller.key.may(Scope.SUBMIT):
        raise Refusal("forbidden", f"This needs a key with the scope {Scope.SUBMIT}; this one has others.")
    return [owners_secret(each, caller.owner) for each in secrets]


class WebhookRoutes:
    """The routes of one gateway about webhooks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def router(self) -> APIRouter:
        """The routes, to be included in an app."""
        router = APIRouter(tags=["webhooks"], prefix="/api/webhooks")
        router.add_api_route("/endpoints", self.add, methods=["POST"], status_code=201, openapi_extra=_BODY)
        router.add_api_route("/endpoints", self.endpoints, methods=["GET"])
        router.add_api_route("/endpoints/{endpoint_id}", self.remove, methods=["DELETE"], status_code=204)
        router.add_api_route("/endpoints/{endpoint_id}/rotate", self.rotate, methods=["POST"])
        router.add_api_route("/secrets", self.secrets, methods=["POST"])
        router.add_api_route("/deliveries", self.deliveries, methods=["GET"], openapi_extra=_LISTING)
        router.add_api_route("/deliveries/{delivery_id}/redeliver", self.redeliver, methods=["POST"], status_code=202)
        return router

    async def add(self, request: Request) -> JSONResponse:
        """Send events of all jobs there from now on; the secret that signs them is shown only here."""
        gateway, now = self._gateway, self._gateway.clock()
        asked = parse(EndpointAsked, await self._body(request))
        if not asked.url:
            raise Refusal("bad-webhook", "url is empty; give the address that webhooks are to go to.")
        check_webhook(asked.url, "", gateway.webhook_allow)
        events = tuple(dict.fromkeys(asked.events)) or tuple(Hook)
        endpoint = Endpoint(f"ep_{uuid7(now, os.urandom(10))}", caller_of(request).owner, asked.url, events, now)
        secret = new_webhook_secret()
        if not await gateway.webhooks.add(endpoint, secret, MOST_ENDPOINTS):
            raise Refusal("bad-webhook", f"There are {MOST_ENDPOINTS} endpoints already; delete one first.")
        return JSONResponse({**_endpoint_json(endpoint), "secret": secret}, 201, {"Cache-Control": "no-store"})

    async def endpoints(self, request: Request) -> JSONResponse:
        """The endpoints there are, the oldest first, without their secrets."""
        found = await self._gateway.webhooks.endpoints(caller_of(request).owner)
        return JSONResponse({"endpoints": [_endpoint_json(each) for each in found]})

    async def remove(self, request: Request, endpoint_id: str) -> Response:
        """Send nothing more there; what waits for it is given up."""
        if not await self._gateway.webhooks.remove(caller_of(request).owner, _clean(endpoint_id)):
            raise _unknown("endpoint")
        return Response(status_code=204)

    async def rotate(self, request: Request, endpoint_id: str) -> JSONResponse:
        """A new secret, shown only here; for `overlap_s` those of before sign beside it."""
        asked = parse(RotateAsked, await self._body(request) or b"{}")
        secret = new_webhook_secret()
        if not await self._gateway.webhooks.rotate(
            caller_of(request).owner, _clean(endpoint_id), secret, asked.overlap_s
        ):
            raise _unknown("endpoint")
        body = {"id": endpoint_id, "secret": secret, "overlap_s": asked.overlap_s}
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    async def secrets(self, request: Request) -> JSONResponse:
        """What signs the webhooks of the owner's single jobs; POST, since a key that may only read must not see it."""
        found = own_secrets(caller_of(request), self._gateway.webhook_secrets)
        return JSONResponse({"secrets": found}, headers={"Cache-Control": "no-store"})

    async def deliveries(self, request: Request) -> JSONResponse:
        """Deliveries, newest first, a page at a time: give a page's `next` as `cursor` to get the one behind it."""
        asked = parse(DeliveriesAsked, read_query(request.scope["query_string"]))
        query = DeliveryQuery(caller_of(request).owner, _clean(asked.job_id), asked.state, asked.cursor, asked.limit)
        page = await self._gateway.webhooks.deliveries(query)
        body = {"deliveries": [_delivery_json(each) for each in page.deliveries], "next": page.next or None}
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    async def redeliver(self, request: Request, delivery_id: str) -> JSONResponse:
        """Send a delivery once more, now, whatever became of it."""
        delivery = await self._gateway.webhooks.redeliver(caller_of(request).owner, _clean(delivery_id))
        if delivery is None:
            raise _unknown("delivery")
        return JSONResponse(_delivery_json(delivery), 202)

    async def _body(self, request: Request) -> bytes:
        return bytes(await read_body(request.stream(), BODY_BYTES, self._gateway.limits.stall_s))


def _clean(identity: str) -> str:
    """An id as a database may be asked for it: PostgreSQL knows no NUL."""
    return identity.replace("\0", "")


def _unknown(what: str) -> NotFound:
    return NotFound(f"No {what} has this id, or it was removed.")


def _endpoint_json(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "created_at": rfc3339(endpoint.created_at),
        "disabled": endpoint.disabled_why or None,
    }


def _delivery_json(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "job_id": delivery.job_id,
        "event": delivery.event.value,
        "endpoint": delivery.endpoint,
        "url": delivery.url,
        "at": rfc3339(delivery.at),
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "next_attempt_at": rfc3339(delivery.next_at),
        "last_status": delivery.last_status,
        "last_error": delivery.last_error or None,
    }
