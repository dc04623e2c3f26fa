"""The asynchronous client: it sends, sleeps, and leaves everything else to the conversations in `flows`."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Self, TypeVar, Unpack

import httpx

from sfumato.client import flows, hooks, listing
from sfumato.client.flows import Asked
from sfumato.client.http import DEFAULT_URL, ImageSource, arguments, authorization, base_url, image_of, lost, response
from sfumato.client.listing import Listed
from sfumato.client.messages import Flow, Found, Reply, Request, Sleep, Stream
from sfumato.client.patience import PATIENCE, persistent
from sfumato.client.views import DeliveryInfo, JobInfo, ModelInfo, Result, ScaleInfo, WebhookInfo
from sfumato.core.retry import RetryPolicy

__all__ = ["AsyncClient"]

F = TypeVar("F")
T = TypeVar("T")


class AsyncClient:
    """A Sfumato service, spoken to from asyncio. Many tasks may share one; close it, or use it in an `async with`.

    `api_key` is shown to the service alone. `timeout_s` is the longest silence of one request (seconds), `patience` how
    requests are tried again. `transport`, `sleep` and `now` are for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        patience: RetryPolicy = PATIENCE,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=base_url(url), transport=transport, follow_redirects=True)
        self._shown = authorization(api_key)
        self._timeout_s, self._patience, self._sleep, self._now = timeout_s, patience, sleep, now

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        image: ImageSource,
        model_name: str,
        *,
        wait_s: float = 0.0,
        idempotency_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> JobInfo:
        """Send a picture; its access link is `result_url`. `wait_s`: let the service answer later, with the end."""
        picture = await asyncio.to_thread(image_of, image)
        return await self._run(flows.submit(picture, model_name, asked, idempotency_key, wait_s))

    async def generate(
        self, image: ImageSource, model_name: str, *, timeout_s: float | None = None, **asked: Unpack[Asked]
    ) -> Result:
        """Send a picture and wait for its result: `submit` and `result` in one."""
        picture = await asyncio.to_thread(image_of, image)
        return await self._run(flows.generate(picture, model_name, asked, timeout_s))

    async def job(self, job: JobInfo | str) -> JobInfo:
        """How a job stands."""
        return await self._run(flows.job(job))

    async def wait(self, job: JobInfo | str, timeout_s: float | None = None) -> JobInfo:
        """The job once it has ended, however that was; WaitTimeout after `timeout_s`."""
        return await self._run(flows.wait(job, timeout_s))

    def watch(self, job: JobInfo | str, timeout_s: float | None = None) -> AsyncIterator[JobInfo]:
        """The job, each time that something about it changed, until it has ended; WaitTimeout after `timeout_s`."""
        return self._each(flows.watch(job, timeout_s))

    async def result(self, job: JobInfo | str, timeout_s: float | None = None) -> Result:
        """The picture, waiting for it; JobFailed when there will be none, WaitTimeout after `timeout_s`."""
        return await self._run(flows.result(job, timeout_s))

    def jobs(self, *, limit: int | None = None, **listed: Unpack[Listed]) -> AsyncIterator[JobInfo]:
        """Jobs, newest first, at most `limit`; pages are fetched as they are needed."""
        return self._each(listing.jobs(listed, limit))

    async def count_jobs(self, **listed: Unpack[Listed]) -> int | None:
        """How many jobs such a list has now, counted up to a million; None where the service can't say."""
        return await self._run(listing.count_jobs(listed))

    async def cancel(self, job: JobInfo | str) -> JobInfo:
        """Cancel a job; AlreadyEnded when it has another end."""
        return await self._run(flows.cancel(job))

    async def retry(self, job: JobInfo | str, *, idempotency_key: str | None = None) -> JobInfo:
        """Submit an ended job once more, as a new job with its picture, parameters and seed."""
        return await self._run(flows.retry(job, idempotency_key))

    async def delete(self, job: JobInfo | str) -> None:
        """Forget an ended job and its pictures."""
        await self._run(flows.delete(job))

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models one can ask for, with what they allow and what waits for them."""
        return await self._run(flows.models())

    async def scale(self, model_name: str) -> ScaleInfo:
        """How many workers a model should have and has, and why."""
        return await self._run(flows.scale(model_name))

    async def webhooks(self) -> tuple[WebhookInfo, ...]:
        """The addresses that are told of all one's jobs."""
        return await self._run(hooks.listed())

    async def add_webhook(self, url: str, events: str | Sequence[str] = ()) -> WebhookInfo:
        """Tell this address of all jobs from now on, of all events when none are given; only here with `secret`."""
        return await self._run(hooks.add(url, events))

    async def remove_webhook(self, webhook: WebhookInfo | str) -> None:
        """Tell this address nothing more."""
        await self._run(hooks.remove(webhook))

    async def rotate_webhook(self, webhook: WebhookInfo | str, overlap_s: float = 86_400.0) -> WebhookInfo:
        """A new `secret`, told only here; for `overlap_s` seconds those of before sign beside it."""
        return await self._run(hooks.rotate(webhook, overlap_s))

    async def webhook_secrets(self) -> tuple[str, ...]:
        """What signs the webhooks of one's single jobs, always the same; the first one is the newest."""
        return await self._run(hooks.secrets())

    def deliveries(
        self, *, job_id: str | None = None, state: str | None = None, limit: int | None = None
    ) -> AsyncIterator[DeliveryInfo]:
        """What webhooks were told, newest first, at most `limit`; pages are fetched as they are needed."""
        return self._each(hooks.deliveries(job_id, state, limit))

    async def redeliver(self, delivery: DeliveryInfo | str) -> DeliveryInfo:
        """Send a delivery once more, now, whatever became of it."""
        return await self._run(hooks.redeliver(delivery))

    async def _run(self, talk: Flow[T]) -> T:
        talk = persistent(talk, self._patience, random.random)
        reply: Reply | None = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as end:
                outcome: T = end.value
                return outcome
            reply = await self._do(step)

    async def _each(self, talk: Stream[F]) -> AsyncIterator[F]:
        talk = persistent(talk, self._patience, random.random)
        reply: Reply | None = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration:
                return
            if isinstance(step, Found):
                yield step.value
                reply = None
            else:
                reply = await self._do(step)

    async def _do(self, step: Request | Sleep) -> Reply | None:
        if isinstance(step, Sleep):
            await self._sleep(step.seconds)
            return None
        sent_at = self._now()
        try:
            answer = await self._http.request(**arguments(step, self._timeout_s, self._http.base_url, self._shown))
        except httpx.RequestError as error:
            return lost(step, self._http.base_url, error)
        return response(answer, sent_at, self._now())
