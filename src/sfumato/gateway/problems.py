"""Every way a request can fail, as one table, and the one shape it is answered in (RFC 9457 problem+json).

A problem's `type` is `urn:sfumato:problem:<slug>`; slugs and titles never vary, the detail names the values and says
what to do. docs/http-api.md carries this table and a test compares them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sfumato.core.errors import AlreadyExists, InvalidRequest, SfumatoError, TransientError, UnknownModel
from sfumato.core.shown import problem_of, problem_type
from sfumato.models.registry import BrokenModel
from sfumato.observability import count

__all__ = [
    "FORESEEN",
    "PROBLEMS",
    "PROBLEM_TYPE",
    "Case",
    "Refusal",
    "answer",
    "failed",
    "install",
    "problem_of",
    "problem_type",
    "unforeseen",
]

PROBLEM_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
MENDED_AFTER_S: Final = 60
"""A folder is mended by a person, not within a client's patience."""

FORESEEN: Final = (SfumatoError, RequestValidationError, HTTPException, ClientDisconnect)
"""What a route may raise: ours, and the framework's own."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """One row: what always holds for this problem."""

    slug: str
    status: int
    title: str


PROBLEMS: Final[Mapping[str, Case]] = MappingProxyType(
    {
        case.slug: case
        for case in (
            Case("bad-http", 400, "This is no HTTP request"),
            Case("bad-json", 400, "The body is not the JSON expected here"),
            Case("bad-multipart", 400, "The multipart body is broken or cut off"),
            Case("key-in-address", 400, "A key stands in the address"),
            Case("unauthorized", 401, "This needs a key"),
            Case("forbidden", 403, "This key may not do that"),
            Case("foreign-page", 403, "A page of another site sent this"),
            Case("unknown-model", 404, "No model has this name here"),
            Case("not-found", 404, "Nothing is stored under this id"),
            Case("no-such-route", 404, "This address does not exist"),
            Case("method-not-allowed", 405, "This address does not take this method"),
            Case("request-timeout", 408, "The body stopped arriving"),
            Case("already-ended", 409, "The job has ended otherwise before"),
            Case("already-exists", 409, "Something is stored under this key already"),
            Case("job-not-ended", 409, "The job has not ended yet"),
            Case("job-canceled", 410, "The job was canceled; there is no picture"),
            Case("job-failed", 410, "The job failed; there is no picture"),
            Case("picture-gone", 410, "The picture was deleted"),
            Case("body-too-large", 413, "The body is larger than this service takes"),
            Case("mislabeled-picture", 415, "The picture is not of the type it was declared to be"),
            Case("unsupported-body", 415, "The body is of a type this address does not take"),
            Case("unsupported-picture", 415, "This is no picture of a type this service reads"),
            Case("animated-picture", 422, "The picture moves; only still pictures can be worked on"),
            Case("bad-cursor", 422, "The cursor is not one of ours"),
            Case("bad-image-url", 422, "The picture's address can't be used"),
            Case("bad-webhook", 422, "This is no address that webhooks go to"),
            Case("bad-idempotency-key", 422, "The Idempotency-Key is not usable"),
            Case("idempotency-mismatch", 422, "This Idempotency-Key was used for another request"),
            Case("invalid-parameters", 422, "A parameter is missing or out of range"),
            Case("invalid-request", 422, "The request can't be served as it is"),
            Case("missing-image", 422, "There is no picture in the request"),
            Case("too-many-pixels", 422, "The picture has more pixels than this service takes"),
            Case("unknown-parameter", 422, "A parameter has a name this service does not know"),
            Case("backlog-full", 429, "Too many jobs wait for this model"),
            Case("quota-exceeded", 429, "The key has what it may have"),
            Case("rate-exceeded", 429, "The key sends more requests than it may"),
            Case("too-many-requests", 429, "Too many requests come from this address"),
            Case("headers-too-large", 431, "The address and headers are larger than this service takes"),
            Case("internal-error", 500, "The service made a mistake"),
            Case("broken-model", 503, "The model's files can't be used now"),
            Case("not-decided", 503, "Nobody has decided about this model yet"),
            Case("not-ready", 503, "The service can't work now"),
            Case("overloaded", 503, "The service holds as many bodies as it can"),
            Case("try-again", 503, "It did not work now; try the same again"),
            Case("took-too-long", 504, "The pictures were not ready in time"),
        )
    }
)
"""Slug → case, by status. Slugs of the core's own errors stand here too."""


class Refusal(SfumatoError):
    """A request this gateway does not serve: a slug of PROBLEMS, what to do, and headers and members for the answer."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.case = PROBLEMS[slug]
        self.retry_after_s = retry_after_s
        self.headers = headers or {}
        self.members = members


def answer(error: Exception) -> JSONResponse:
    """The one answer to an error, whatever it is; unforeseen ones tell the caller nothing but that they happened."""
    slug, status, title, detail, members, retry_after_s = _read(error)
    count("sfumato_refusals_total", problem=slug)
    for policy in members.get("violated_policies", ()):
        count("sfumato_quota_refusals_total", policy=policy)
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
    headers |= error.headers if isinstance(error, Refusal) else {}
    if status == 410:
        headers["Cache-Control"] = "no-store"
    body = {"type": problem_type(slug), "title": title, "status": status, "detail": detail, **members}
    return JSONResponse(body, status, headers, media_type=PROBLEM_TYPE)


def _read(error: Exception) -> tuple[str, int, str, str, dict[str, Any], float | None]:
    if isinstance(error, Refusal):
        case = error.case
        return case.slug, case.status, case.title, error.detail, error.members, error.retry_after_s
    if isinstance(error, InvalidRequest):
        members = {"known_models": list(error.known)} if isinstance(error, UnknownModel) else {}
        return error.case, error.status, error.case_title, error.detail, members, None
    if isinstance(error, BrokenModel):
        case = PROBLEMS[error.slug]
        return case.slug, case.status, case.title, error.detail, {}, MENDED_AFTER_S
    if isinstance(error, TransientError):
        case = PROBLEMS["try-again"]
        return case.slug, case.status, case.title, error.detail, {}, RETRY_AFTER_S
    if isinstance(error, AlreadyExists):
        case = PROBLEMS["already-exists"]
        return case.slug, case.status, case.title, error.detail, {}, None
    case = PROBLEMS["internal-error"]
    return case.slug, case.status, case.title, "This is our fault and is in the service's log.", {}, None


def install(app: FastAPI) -> None:
    """Answer every failure of `app` as a problem: ours, the framework's own, and the unforeseen."""
    for kind in FORESEEN:
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(Exception, _unforeseen)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return failed(request, error)


def failed(request: Request, error: Exception) -> JSONResponse:
    """The answer to one of the FORESEEN errors; what is not the caller's fault is logged."""
    known = _in_our_words(request, error)
    if not isinstance(known, Refusal | InvalidRequest):
        log.warning("%s %s: %s: %s", request.method, request.url.path, type(known).__name__, known)
    response = answer(known)
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response


def _in_our_words(request: Request, error: Exception) -> Exception:
    match error:
        case RequestValidationError():
            found = [f"{'.'.join(str(part) for part in each['loc'][1:])}: {each['msg']}" for each in error.errors()]
            return Refusal("invalid-parameters", "; ".join(found))
        case HTTPException(status_code=404):
            return Refusal("no-such-route", f"Nothing is at {request.url.path[:200]}; see /docs for the addresses.")
        case HTTPException(status_code=405):
            allowed = (error.headers or {}).get("Allow", "other methods")
            return Refusal("method-not-allowed", f"{request.url.path[:200]} takes {allowed}, not {request.method}.")
        case HTTPException():
            return InvalidRequest(str(error.detail), status=error.status_code)
        case ClientDisconnect():
            return Refusal("bad-multipart", "The connection was closed before the body was whole; send it again.")
    return error


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return unforeseen(request, error)


def unforeseen(request: Request, error: Exception) -> JSONResponse:
    """The answer to what should not have happened, which is logged."""
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return answer(error)
