"""What a client may raise. One `except SfumatoError` catches everything below.

SfumatoError
├── InvalidRequest        the service refused the request (4xx): change it; `case`, `status`, `detail` say why
│   ├── UnknownModel      no such model; `known` lists those that exist
│   ├── NotFound          no such job
│   └── AlreadyEnded      too late to cancel: the job has another end
├── TransientError        still no luck after the retries; nothing is lost by trying later with the same key
│   ├── Unreachable       nothing answers at this address
│   └── Busy              a queue is full, or a limit of your key is reached; `retry_after_s` says when again
├── JobFailed             the job ended without a picture: failed, canceled or expired; `case` says which
├── WaitTimeout           your own timeout passed; the job goes on (also a TimeoutError)
└── BadAnswer             something answers there that does not talk like Sfumato
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from sfumato.client.messages import Lost, Reply, Request, Response
from sfumato.core.errors import InvalidRequest, NotFound, PermanentError, SfumatoError, TransientError, UnknownModel

__all__ = [
    "AlreadyEnded",
    "BadAnswer",
    "Busy",
    "InvalidRequest",
    "JobFailed",
    "NotFound",
    "SfumatoError",
    "TransientError",
    "UnknownModel",
    "Unreachable",
    "WaitTimeout",
    "error_of",
]

URN = "urn:sfumato:problem:"


class AlreadyEnded(InvalidRequest):
    """The job had another end before it could be canceled."""

    slug = "already-ended"
    title = "The job has another end"


class Unreachable(TransientError):
    """Nothing answers at the service's address."""

    slug = "unreachable"
    title = "Nothing answers there"


class Busy(TransientError):
    """The service takes no more of these now, and took none of this; `retry_after_s` (seconds) says when to come again,
    `case` which limit it is."""

    slug = "busy"
    title = "The queue is full"

    def __init__(self, detail: str, retry_after_s: float | None, case: str = slug) -> None:
        super().__init__(detail)
        self.retry_after_s, self.case = retry_after_s, case


class JobFailed(PermanentError):
    """The job ended without a picture: it failed, was canceled, or expired; `case` is the problem's slug."""


class WaitTimeout(SfumatoError, TimeoutError):
    """The job had no end within your timeout. It goes on; wait again, or cancel it."""

    slug = "wait-timeout"
    title = "The job has no end yet"


class BadAnswer(SfumatoError):
    """Something answers at this address, but not as Sfumato does; check the URL."""

    slug = "bad-answer"
    title = "That does not look like Sfumato"


def error_of(request: Request, reply: Reply) -> SfumatoError:  # noqa: PLR0911 - a table of cases
    """The exception that says what `reply`, which is no success, means for `request`."""
    if isinstance(reply, Lost):
        return Unreachable(reply.reason)
    problem = _problem(reply)
    if problem is None:
        return _unexplained(request, reply)
    slug = str(problem.get("type", "")).removeprefix(URN)
    detail = str(problem.get("detail") or problem.get("title") or slug)
    if slug == UnknownModel.slug:
        # Where the query does not name it, it is the end of the path.
        named = request.query.get("model_name") or unquote(request.url.partition("/api/scale/")[2])
        return UnknownModel(named, problem.get("known_models", ()))
    if reply.status >= 500:
        return TransientError(detail)
    match reply.status:
        case 404:
            return NotFound(detail)
        case 409:
            return AlreadyEnded(detail, slug=slug, status=409)
        case 410:
            return JobFailed(detail, slug=slug)
        case 429:
            return Busy(detail, reply.retry_after_s, slug)
    return InvalidRequest(detail, slug=slug, status=reply.status, title=problem.get("title"))


def _problem(response: Response) -> Mapping[str, Any] | None:
    """The problem (RFC 9457) in the body; None when there is none of Sfumato's."""
    try:
        body = json.loads(response.body)
    except ValueError:
        return None
    ours = isinstance(body, dict) and str(body.get("type", "")).startswith(URN)
    return body if ours else None


def _unexplained(request: Request, response: Response) -> SfumatoError:
    said = f"{request.method} {request.url} was answered {response.status} without a reason"
    if response.status >= 500:
        return TransientError(f"{said}; a proxy in between may have lost the service. Try again later.")
    return BadAnswer(f"{said}. Is a Sfumato service behind this address?")
