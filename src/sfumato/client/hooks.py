"""The conversations about webhooks: the addresses that are told of all one's jobs, and what they were told."""

import json
from collections.abc import Sequence
from urllib.parse import quote

from sfumato.client.asking import ask, read
from sfumato.client.messages import Flow, Found, Request, Stream
from sfumato.client.views import DeliveryInfo, DeliveryPage, WebhookInfo
from sfumato.core.frozen import Frozen

__all__ = ["add", "deliveries", "listed", "redeliver", "remove", "rotate", "secrets"]

ENDPOINTS = "/api/webhooks/endpoints"
DELIVERIES = "/api/webhooks/deliveries"
PAGE = 100


class _Endpoints(Frozen):
    endpoints: tuple[WebhookInfo, ...]


class _Secrets(Frozen):
    secrets: tuple[str, ...]


def add(url: str, events: str | Sequence[str]) -> Flow[WebhookInfo]:
    """Tell an address of all jobs from now on. Not asked twice: each time would make another one."""
    names = events.split(",") if isinstance(events, str) else events
    body = {"url": url, "events": [name.strip() for name in names if name.strip()]}
    request = Request("POST", ENDPOINTS, content=json.dumps(body).encode(), repeatable=False)
    return read(WebhookInfo, (yield from ask(request, 201)))


def listed() -> Flow[tuple[WebhookInfo, ...]]:
    """The addresses there are, the oldest first, without their secrets."""
    return read(_Endpoints, (yield from ask(Request("GET", ENDPOINTS), 200))).endpoints


def remove(webhook: WebhookInfo | str) -> Flow[None]:
    """Tell this address nothing more."""
    yield from ask(Request("DELETE", _address(webhook)), 204)


def rotate(webhook: WebhookInfo | str, overlap_s: float) -> Flow[WebhookInfo]:
    """A new secret, shown only here; for `overlap_s` those of before sign beside it."""
    body = json.dumps({"overlap_s": overlap_s}).encode()
    return read(WebhookInfo, (yield from ask(Request("POST", f"{_address(webhook)}/rotate", content=body), 200)))


def secrets() -> Flow[tuple[str, ...]]:
    """What signs the webhooks of one's single jobs."""
    return read(_Secrets, (yield from ask(Request("POST", "/api/webhooks/secrets"), 200))).secrets


def deliveries(job_id: str | None, state: str | None, limit: int | None) -> Stream[DeliveryInfo]:
    """Deliveries, newest first, at most `limit`; pages are fetched as they are needed."""
    query = {name: value for name, value in (("job_id", job_id), ("state", state)) if value}
    left = limit
    while left is None or left > 0:
        size = {"limit": str(min(PAGE, left or PAGE))}
        page = read(DeliveryPage, (yield from ask(Request("GET", DELIVERIES, query | size), 200)))
        for each in page.deliveries:
            yield Found(each)
        if page.next is None:
            return
        query["cursor"] = page.next
        left = None if left is None else left - len(page.deliveries)


def redeliver(delivery: DeliveryInfo | str) -> Flow[DeliveryInfo]:
    """Send a delivery once more, now, whatever became of it."""
    identity = delivery.id if isinstance(delivery, DeliveryInfo) else delivery
    path = f"{DELIVERIES}/{quote(identity, safe='')}/redeliver"
    return read(DeliveryInfo, (yield from ask(Request("POST", path), 202)))


def _address(webhook: WebhookInfo | str) -> str:
    return f"{ENDPOINTS}/{quote(webhook.id if isinstance(webhook, WebhookInfo) else webhook, safe='')}"
