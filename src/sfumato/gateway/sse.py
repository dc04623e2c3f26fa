"""Server-sent events, as the HTML standard has them: how they are written, and where a client goes on."""

import json
from typing import Any, Final

from sfumato.core.events import Lifecycle
from sfumato.gateway.views import Estimate, rfc3339

__all__ = ["HEADERS", "MEDIA_TYPE", "SIGN_OF_LIFE", "SIGN_OF_LIFE_S", "event", "lifecycle", "still_here", "waiting"]

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
SIGN_OF_LIFE: Final = ": still here\n\n"
SIGN_OF_LIFE_S: Final = 15.0


def event(kind: str, data: dict[str, Any], identity: object = None) -> str:
    """One event; a client that comes back names the last `identity` that it was told."""
    named = "" if identity is None else f"id: {identity}\n"
    return f"{named}event: {kind}\ndata: {json.dumps(data)}\n\n"


def still_here(identity: object) -> str:
    """A sign of life that tells a client how far it has got, though nothing happened that is its own."""
    return f": still here\nid: {identity}\n\n"


def lifecycle(line: Lifecycle, identity: object, **more: Any) -> str:
    """A line of a job's life."""
    worker = {"worker": line.worker} if line.worker else {}
    data = {"at": rfc3339(line.at), "attempt": line.attempt, "delivery": line.delivery, **worker}
    return event(line.kind, {**more, **data}, identity)


def waiting(expected: Estimate, **more: Any) -> str:
    """Where a job stands in its queue by now."""
    return event("waiting", {**more, "position": expected.position, "eta_s": expected.eta_s})
