"""The one way into the queue: every route that takes a job, in whatever protocol, hands it over here.

What is asked was read by then. Whether the caller may have one job more, whether the model has room for it, whose
picture is meant and what is kept of it is settled here, in the same words for all.
"""

import base64
import math
import os
import re
import time
from collections.abc import Sequence
from typing import Final

from fastapi import Request

from sfumato.core.errors import NotFound
from sfumato.core.job import Priority, idempotent_job_id, uuid7
from sfumato.core.keys import ApiKey
from sfumato.gateway.asked import Asked, hooks, is_job_id
from sfumato.gateway.callers import Caller, caller_of
from sfumato.gateway.context import Gateway
from sfumato.gateway.intake import NATIVE, Accepted, Came, Given, Submission, Uploaded
from sfumato.gateway.pictures import PictureHeader
from sfumato.gateway.problems import Refusal
from sfumato.gateway.uploads import Receiving, check_header
from sfumato.gateway.views import BLIND_RETRY_AFTER_S, backlog_s
from sfumato.gateway.webhooks import check_webhook
from sfumato.models.registry import Model
from sfumato.observability import count, observe, span

__all__ = ["Reception"]

HEAD_BYTES: Final = 64 * 1024
LONGEST_RETRY_AFTER_S: Final = 60.0


class Reception:
    """Takes the jobs of one gateway in."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def room(self, caller: Caller, key: str | None) -> None:
        """See that the caller may have one job more. Raises Refusal (quota-exceeded)."""
        if caller.key is not None and caller.key.quota.counts_jobs:
            job_id = "" if key is None else idempotent_job_id(caller.owner, key)
            await self._gateway.quotas.room(self._limits(caller, job_id))

    async def room_for(self, request: Request, wanted: Sequence[tuple[Asked, Given | Uploaded, PictureHeader]]) -> None:
        """See that who asks may have all of these, which come without a key of their own, before one is taken.

        Raises:
            Refusal, InvalidRequest: as `accept`.
        """
        caller, now = caller_of(request), self._gateway.clock()
        if (limits := self._limits(caller, "")) is not None:
            each = [self._submission(request, *one, NATIVE) for one in wanted]
            cost = sum(self._gateway.intake.cost(one, now) for one in each)
            await self._gateway.quotas.room(limits, len(each), cost)

    def admitted(self, asked: Asked, caller: Caller) -> Model:
        """The model, if it exists, has room for one more job, the caller may ask for this priority, and the job's
        webhook may be sent."""
        _priority(asked, caller)
        check_webhook(asked.webhook_url, asked.webhook_events, self._gateway.webhook_allow)
        model = self._gateway.registry.get(asked.model_name)
        live = self._gateway.live
        waiting = live.waiting(model.slug, self._gateway.clock())
        if waiting.jobs >= model.max_backlog:
            raise _full(model, waiting.jobs, backlog_s(waiting, live.standing(model.slug)))
        return model

    async def accept(
        self,
        request: Request,
        asked: Asked,
        key: str | None,
        picture: Given | Uploaded,
        header: PictureHeader,
        began: float,
        retry_of: str = "",
        came: Came = NATIVE,
        job_id: str = "",
    ) -> Accepted:
        """The job, in the log: when this returns it will end, whatever crashes. `began` is when the request did, by
        `time.perf_counter`; with a `key` the same request is the same job, else it is a new one, or `job_id`.

        Raises:
            Refusal: its model has no room for it, the key has what it may have, or may not ask for this.
            InvalidRequest: the model does not allow these parameters.
            TransientError: unknown whether it took effect.
        """
        gateway, now, caller = self._gateway, self._gateway.clock(), caller_of(request)
        submission = self._submission(request, asked, picture, header, came, key, retry_of, job_id)
        model = submission.model
        took_s = time.perf_counter() - began
        tracing = span("accept", request.headers.get("traceparent", ""), time.time() - took_s, job=submission.job_id)
        limits = self._limits(caller, submission.job_id)
        cost = gateway.intake.cost(submission, now) if limits else 0
        # A body may take its time, and meanwhile other gateways take jobs and jobs end.
        await gateway.quotas.room(limits)
        with gateway.quotas.taking(limits, submission.job_id, cost), gateway.live.accepting(model.slug), tracing:
            accepted = await gateway.intake.accept(submission, now)
        if accepted.outcome is None:
            gateway.live.remember(model.slug, accepted.job, gateway.clock())
        count("sfumato_accepts_total", model=model.slug, priority=submission.priority.value)
        observe("sfumato_accept_seconds", time.perf_counter() - began, model=model.slug)
        return accepted

    def _submission(
        self,
        request: Request,
        asked: Asked,
        picture: Given | Uploaded,
        header: PictureHeader,
        came: Came,
        key: str | None = None,
        retry_of: str = "",
        job_id: str = "",
    ) -> Submission:
        gateway, caller = self._gateway, caller_of(request)
        model = self.admitted(asked, caller)
        new_id = job_id or uuid7(gateway.clock(), os.urandom(10))
        return Submission(
            job_id=new_id if key is None else idempotent_job_id(caller.owner, key),
            keyed=key is not None,
            owner=caller.owner,
            model=model,
            priority=_priority(asked, caller),
            weight=caller.weight,
            asked=asked,
            picture=picture,
            header=header,
            metadata=asked.metadata,
            retry_of=retry_of,
            webhook_url=asked.webhook_url,
            webhook_events=hooks(asked.webhook_events),
            link_base=gateway.base_url(request),
            came=came,
        )

    async def picture_of(self, image: str, caller: Caller) -> tuple[Given | Uploaded, PictureHeader]:
        """The picture that a caller names: by an upload's id, a data URL or, where that is allowed, its address.

        Raises:
            Refusal: it is none, or none that is taken.
            NotFound: the upload is not there, or not the caller's.
        """
        limits, remote = self._gateway.limits, self._gateway.remote
        if image.startswith("data:"):
            declared, data = _data_url(image)
            receiving = Receiving(limits, declared)
            receiving.feed(data)
            received = receiving.finish()
            return Given(received.data, received.sha256), received.header
        if image.startswith(("http://", "https://")):
            received = await remote.picture(image)
            return Given(received.data, received.sha256), received.header
        if not is_job_id(image):
            raise Refusal("missing-image", "image is neither an upload's id nor a data URL (data:image/png;base64,…).")
        if not (caller.everything or self._gateway.links.is_marked(caller.owner, image)):
            raise _no_upload()
        return await self._uploaded(f"uploads/{image}")

    async def _uploaded(self, key: str) -> tuple[Uploaded, PictureHeader]:
        limits, blobs = self._gateway.limits, self._gateway.blobs
        try:
            stored = await blobs.head(key)
            if stored.size_bytes > limits.max_bytes:
                # The store takes what it is sent, so only now is it known how much that was.
                raise Refusal("body-too-large", f"The upload is over {limits.max_bytes} bytes; shrink the picture.")
            head = await blobs.get(key, limit_bytes=HEAD_BYTES)
            header = check_header(head, "", limits.max_pixels)
            if header is None and stored.size_bytes > len(head):
                whole = await blobs.get(key, limit_bytes=limits.max_bytes)
                header = check_header(whole, "", limits.max_pixels)
        except NotFound:
            raise _no_upload() from None
        if header is None:
            raise Refusal("unsupported-picture", "The upload ends within its header.")
        return Uploaded(key, stored.etag, stored.size_bytes), header

    def _limits(self, caller: Caller, job_id: str) -> ApiKey | None:
        """The key whose quotas a job needs room in, if any; what was accepted here before needs none again."""
        key = caller.key
        return key if key and key.quota.counts_jobs and self._gateway.live.row(job_id) is None else None


def _priority(asked: Asked, caller: Caller) -> Priority:
    return caller.priority(asked.priority, said="priority" in asked.model_fields_set)


def _no_upload() -> NotFound:
    return NotFound("Nothing was uploaded under this id, or it expired; PUT the picture first.")


def _full(model: Model, waiting: int, eta_s: float | None) -> Refusal:
    """Too many wait: come again when there is room for one, as far as the model's pace is known."""
    if eta_s is None:
        work, room_s = "", float(BLIND_RETRY_AFTER_S)
    else:
        work, room_s = f", about {math.ceil(eta_s)} s of work", eta_s * (waiting - model.max_backlog + 1) / waiting
    detail = f"{waiting} jobs wait for {model.name}{work}; send it later."
    retry_after_s = min(LONGEST_RETRY_AFTER_S, max(1.0, room_s))
    return Refusal("backlog-full", detail, retry_after_s=retry_after_s, eta_s=eta_s)


def _data_url(url: str) -> tuple[str, bytes]:
    found = re.match(r"data:([\w.+/-]{0,80});base64,", url)
    if found is None:
        raise Refusal("missing-image", "image must be a data URL of base64: data:image/png;base64,….")
    try:
        return found.group(1), base64.b64decode(url[found.end() :], validate=True)
    except ValueError as error:  # binascii.Error, and what is no ASCII
        raise Refusal("missing-image", f"image is no valid base64: {error}.") from error
