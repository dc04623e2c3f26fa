"""The conversations with the service, one generator each, without I/O: the shells only send and sleep.

Retries are a conversation around another one (`patience.persistent`), so none of these has to think of them.
"""

import json
import uuid
from collections.abc import Sequence
from typing import Any, Final, Literal, TypedDict
from urllib.parse import quote, urlsplit

from sfumato.client.asking import ask, read
from sfumato.client.errors import WaitTimeout
from sfumato.client.messages import Flow, Found, Image, Request, Response, Sleep, Stream
from sfumato.client.views import JobInfo, ModelInfo, Result, ScaleInfo
from sfumato.core.errors import InvalidRequest
from sfumato.core.frozen import Frozen

__all__ = [
    "Asked",
    "cancel",
    "delete",
    "generate",
    "job",
    "models",
    "result",
    "retry",
    "scale",
    "submit",
    "wait",
    "watch",
]

LONG_POLL_S: Final = 20.0
_HELD_BACK_S = 1.0
_TOLD: Final = ("webhook_url", "webhook_events")
"""What is asked for and belongs to no picture."""
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0


class Asked(TypedDict, total=False):
    """What a caller may ask for beside picture and model; what is left out is the model's default.

    Names and ranges are diffusers': strength in (0, 1], num_inference_steps ≥ 1, guidance_scale ≥ 0; width and height
    (pixels) come together, and `resize_mode` says how a picture of another aspect gets into them. `metadata` (≤ 1 KB as
    JSON) is given back with the job. `webhook_url` is told of the job, of `webhook_events` alone where they are given:
    started, retried, succeeded, failed, canceled.
    """

    prompt: str
    priority: Literal["high", "normal", "low"]
    negative_prompt: str
    strength: float | None
    num_inference_steps: int | None
    guidance_scale: float | None
    seed: int | None
    sampler: str | None
    width: int | None
    height: int | None
    resize_mode: Literal["crop", "fill", "stretch"] | None
    output_format: Literal["png", "jpeg", "webp"] | None
    metadata: dict[str, Any]
    webhook_url: str | None
    webhook_events: str | Sequence[str] | None


def submit(image: Image, model_name: str, asked: Asked, key: str | None, wait_s: float) -> Flow[JobInfo]:
    """Send a picture. The same Idempotency-Key goes with every attempt, so a retry never makes a second job.

    Raises:
        InvalidRequest: the metadata is no JSON, or the service refuses the request.
    """
    return _accepted((yield from _send(image, model_name, asked, key, wait_s)), model_name, asked)


def job(of: JobInfo | str) -> Flow[JobInfo]:
    """How a job stands."""
    return read(JobInfo, (yield from ask(Request("GET", _status_path(of)), 200)))


def watch(of: JobInfo | str, timeout_s: float | None = None) -> Stream[JobInfo]:
    """The job, each time that something about it changed, until it has ended.

    Raises:
        WaitTimeout: it had not ended after `timeout_s` seconds.
    """
    before: JobInfo | None = None
    request, deadline = Request("GET", _status_path(of)), None
    while True:
        response = yield from ask(request, 200)
        info = read(JobInfo, response)
        if info != before:
            yield Found(info)
        if info.ended:
            return
        before = info
        deadline = _deadline(deadline, response, timeout_s)
        yield Sleep(_within(_pace(info), _left_s(info.id, response, deadline)))


def wait(of: JobInfo | str, timeout_s: float | None = None) -> Flow[JobInfo]:
    """The job once it has ended, however that was; asks its access link, which knows first.

    Raises:
        WaitTimeout: it had not ended after `timeout_s` seconds.
    """
    info = of if isinstance(of, JobInfo) else (yield from job(of))
    if not info.ended:
        yield from _ended("HEAD", info, timeout_s, 200, 410)
        info = yield from job(info)
    return info


def result(of: JobInfo | str, timeout_s: float | None = None) -> Flow[Result]:
    """The picture behind the access link, waiting for it.

    Raises:
        JobFailed: there will be none.
        WaitTimeout: there was none after `timeout_s` seconds.
    """
    info = of if isinstance(of, JobInfo) else (yield from job(of))
    response = yield from _ended("GET", info, timeout_s, 200)
    return Result(response.body, response.headers.get("content-type", "").partition(";")[0], info.id)


def generate(image: Image, model_name: str, asked: Asked, timeout_s: float | None) -> Flow[Result]:
    """Send a picture and wait for its result.

    Raises:
        JobFailed: there will be none.
        WaitTimeout: it had not ended `timeout_s` seconds after it was sent.
    """
    response = yield from _send(image, model_name, asked, None, _within(LONG_POLL_S, timeout_s))
    sent = _accepted(response, model_name, asked)
    # What has ended in time is fetched, however little of the time is left.
    left_s = timeout_s if timeout_s is None or sent.ended else max(0.0, timeout_s - response.took_s)
    return (yield from result(sent, left_s))


def cancel(of: JobInfo | str) -> Flow[JobInfo]:
    """Cancel a job.

    Raises:
        AlreadyEnded: it has another end.
    """
    return read(JobInfo, (yield from ask(Request("POST", f"{_address(of)}/cancel"), 200)))


def retry(of: JobInfo | str, key: str | None) -> Flow[JobInfo]:
    """Submit an ended job once more, as a new job; the same key goes with every attempt.

    Raises:
        InvalidRequest: it has not ended, or its picture is no longer stored.
    """
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    return read(JobInfo, (yield from ask(Request("POST", f"{_address(of)}/retry", headers=headers), 200, 202)))


def delete(of: JobInfo | str) -> Flow[None]:
    """Forget an ended job and its pictures."""
    yield from ask(Request("DELETE", _address(of)), 204)


def models() -> Flow[tuple[ModelInfo, ...]]:
    """The models one can ask for, with what they allow and what waits for them."""
    return read(_Models, (yield from ask(Request("GET", "/api/models"), 200))).models


def scale(model_name: str) -> Flow[ScaleInfo]:
    """How many workers a model should have and has, and why."""
    path = f"/api/scale/{quote(model_name, safe='/')}"
    return read(ScaleInfo, (yield from ask(Request("GET", path), 200)))


class _Models(Frozen):
    models: tuple[ModelInfo, ...]


def _send(image: Image, model_name: str, asked: Asked, key: str | None, wait_s: float) -> Flow[Response]:
    headers = {"Idempotency-Key": key or str(uuid.uuid4())} | _prefer(wait_s)
    request = Request("POST", "/api/diffusion", _query(model_name, asked), headers, image, server_wait_s=wait_s)
    return (yield from ask(request, 200, 202))


def _accepted(response: Response, model_name: str, asked: Asked) -> JobInfo:
    """The job as the service told it; what a short answer leaves out is what was asked."""
    told = read(JobInfo, response)
    params: dict[str, Any] = {name: value for name, value in asked.items() if value is not None and name not in _TOLD}
    mine: dict[str, Any] = {"model_name": model_name, "priority": params.pop("priority", "normal"), "params": params}
    mine.update((name, params.pop(name)) for name in ("prompt", "metadata") if name in params)
    return told.model_copy(update={name: mine[name] for name in mine.keys() - told.model_fields_set})


def _ended(method: str, info: JobInfo, timeout_s: float | None, *good: int) -> Flow[Response]:
    """The access link's answer once there is an end.

    The service is asked to hold its answer back until then; one that does not is asked again as its Retry-After says.
    """
    deadline: float | None = None
    left_s = timeout_s
    while True:
        hold_s = _within(LONG_POLL_S, left_s)
        request = Request(
            method, _linked(f"{_address(info)}/result", info.result_url), headers=_prefer(hold_s), server_wait_s=hold_s
        )
        response = yield from ask(request, 202, *good)
        if response.status != 202:
            return response
        deadline = _deadline(deadline, response, timeout_s)
        left_s = _left_s(info.id, response, deadline)
        if response.took_s < _HELD_BACK_S:
            yield Sleep(_within(response.retry_after_s or 1.0, left_s))


def _query(model_name: str, asked: Asked) -> dict[str, str]:
    plain: dict[str, Any] = {"model_name": model_name, **asked}
    metadata, events = plain.pop("metadata", None), plain.pop("webhook_events", None)
    if metadata:
        plain["metadata"] = _json(metadata)
    if events:
        plain["webhook_events"] = events if isinstance(events, str) else ",".join(events)
    return {name: str(value) for name, value in plain.items() if value is not None}


def _json(metadata: object) -> str:
    try:
        return json.dumps(metadata)
    except (TypeError, ValueError) as error:
        said = f"metadata can't be written as JSON ({error})"
        raise InvalidRequest(f"{said}; give a dict of str, int, float, bool, None, lists and dicts.") from error


def _prefer(wait_s: float) -> dict[str, str]:
    return {"Prefer": f"wait={int(wait_s)}"} if wait_s >= 1 else {}


def _status_path(of: JobInfo | str) -> str:
    return _linked(_address(of), of.status_url) if isinstance(of, JobInfo) else _address(of)


def _linked(path: str, link: str) -> str:
    """`path` with the link's token, which opens the job to whoever holds it.

    The link itself may begin with the service's public address, which need not be reachable from here.
    """
    query = urlsplit(link).query
    return f"{path}?{query}" if query else path


def _address(of: JobInfo | str) -> str:
    return f"/api/jobs/{quote(of.id if isinstance(of, JobInfo) else of, safe='')}"


def _deadline(known: float | None, response: Response, timeout_s: float | None) -> float | None:
    if known is not None or timeout_s is None:
        return known
    return response.at - response.took_s + timeout_s


def _left_s(job_id: str, response: Response, deadline: float | None) -> float | None:
    if deadline is None:
        return None
    if response.at >= deadline:
        raise WaitTimeout(f"job {job_id} has no end yet. It goes on: wait again, or cancel it.")
    return deadline - response.at


def _within(wanted_s: float, left_s: float | None) -> float:
    return wanted_s if left_s is None else min(wanted_s, left_s)


def _pace(info: JobInfo) -> float:
    """Seconds to the next look: a quarter of the time the job may still take."""
    eta_s = info.estimate.eta_s if info.estimate else None
    return _SHORTEST_PAUSE_S if eta_s is None else min(max(eta_s / 4, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
