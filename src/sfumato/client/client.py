"""The synchronous client: it sends, sleeps, and leaves everything else to the conversations in `flows`."""

import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx

from sfumato.client import flows, hooks, listing
from sfumato.client.flows import Asked
from sfumato.client.http import DEFAULT_URL, ImageSource, arguments, authorization, base_url, image_of, lost, response
from sfumato.client.listing import Listed
from sfumato.client.messages import Conversation, Found, Reply, Request, Sleep
from sfumato.client.patience import PATIENCE, persistent
from sfumato.client.views import DeliveryInfo, JobInfo, ModelInfo, Result, ScaleInfo, WebhookInfo
from sfumato.core.retry import RetryPolicy

__all__ = ["Client"]

F = TypeVar("F")
T = TypeVar("T")


class Client:
    """A Sfumato service, spoken to synchronously. May be shared by threads; close it, or use it in a `with`.

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
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - a blocking client pauses its caller's thread
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = httpx.Client(base_url=base_url(url), transport=transport, follow_redirects=True)
        self._shown = authorization(api_key)
        self._timeout_s, self._patience, self._sleep, self._now = timeout_s, patience, sleep, now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        image: ImageSource,
        model_name: str,
        *,
        wait_s: float = 0.0,
        idempotency_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> JobInfo:
        """Send a picture; its access link is `result_url`. `wait_s`: let the service answer later, with the end."""
        return self._run(flows.submit(image_of(image), model_name, asked, idempotency_key, wait_s))

    def generate(
        self, image: ImageSource, model_name: str, *, timeout_s: float | None = None, **asked: Unpack[Asked]
    ) -> Result:
        """Send a picture and wait for its result: `submit` and `result` in one."""
        return self._run(flows.generate(image_of(image), model_name, asked, timeout_s))

    def job(self, job: JobInfo | str) -> JobInfo:
        """How a job stands."""
        return self._run(flows.job(job))

    def wait(self, job: JobInfo | str, timeout_s: float | None = None) -> JobInfo:
        """The job once it has ended, however that was; WaitTimeout after `timeout_s`."""
        return self._run(flows.wait(job, timeout_s))

    def watch(self, job: JobInfo | str, timeout_s: float | None = None) -> Iterator[JobInfo]:
        """The job, each time that something about it changed, until it has ended; WaitTimeout after `timeout_s`."""
        return self._each(flows.watch(job, timeout_s))

    def result(self, job: JobInfo | str, timeout_s: float | None = None) -> Result:
        """The picture, waiting for it; JobFailed when there will be none, WaitTimeout after `timeout_s`."""
        return self._run(flows.result(job, timeout_s))

    def jobs(self, *, limit: int | None = None, **listed: Unpack[Listed]) -> Iterator[JobInfo]:
        """Jobs, newest first, at most `limit`; pages are fetched as they are needed."""
        return self._each(listing.jobs(listed, limit))

    def count_jobs(self, **listed: Unpack[Listed]) -> int | None:
        """How many jobs such a list has now, counted up to a million; None where the service can't say."""
        return self._run(listing.count_jobs(listed))

    def cancel(self, job: JobInfo | str) -> JobInfo:
        """Cancel a job; AlreadyEnded when it has another end."""
        return self._run(flows.cancel(job))

    def retry(self, job: JobInfo | str, *, idempotency_key: str | None = None) -> JobInfo:
        """Submit an ended job once more, as a new job with its picture, parameters and seed."""
        return self._run(flows.retry(job, idempotency_key))

    def delete(self, job: JobInfo | str) -> None:
        """Forget an ended job and its pictures."""
        self._run(flows.delete(job))

    def models(self) -> tuple[ModelInfo, ...]:
        """The models one can ask for, with what they allow and what waits for them."""
        return self._run(flows.models())

    def scale(self, model_name: str) -> ScaleInfo:
        """How many workers a model should have and has, and why."""
        return self._run(flows.scale(model_name))

    def webhooks(self) -> tuple[WebhookInfo, ...]:
        """The addresses that are told of all one's jobs."""
        return self._run(hooks.listed())

    def add_webhook(self, url: str, events: str | Sequence[str] = ()) -> WebhookInfo:
        """Tell this address of all jobs from now on, of all events when none are given; only here with `secret`."""
        return self._run(hooks.add(url, events))

    def remove_webhook(self, webhook: WebhookInfo | str) -> None:
        """Tell this address nothing more."""
        self._run(hooks.remove(webhook))

    def rotate_webhook(self, webhook: WebhookInfo | str, overlap_s: float = 86_400.0) -> WebhookInfo:
        """A new `secret`, told only here; for `overlap_s` seconds those of before sign beside it."""
        return self._run(hooks.rotate(webhook, overlap_s))

    def webhook_secrets(self) -> tuple[str, ...]:
        """What signs the webhooks of one's single jobs, always the same; the first one is the newest."""
        return self._run(hooks.secrets())

    def deliveries(
        self, *, job_id: str | None = None, state: str | None = None, limit: int | None = None
    ) -> Iterator[DeliveryInfo]:
        """What webhooks were told, newest first, at most `limit`; pages are fetched as they are needed."""
        return self._each(hooks.deliveries(job_id, state, limit))

    def redeliver(self, delivery: DeliveryInfo | str) -> DeliveryInfo:
        """Send a delivery once more, now, whatever became of it."""
        return self._run(hooks.redeliver(delivery))

    def _run(self, talk: Conversation[Any, T]) -> T:
        steps = self._each(talk)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome: T = end.value
                return outcome

    def _each(self, talk: Conversation[F, T]) -> Generator[F, None, T]:
        talk = persistent(talk, self._patience, random.random)
        reply: Reply | None = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as end:
                outcome: T = end.value
                return outcome
            reply = None
            match step:
                case Request():
                    reply = self._send(step)
                case Sleep(seconds):
                    self._sleep(seconds)
                case Found(value):
                    yield value

    def _send(self, request: Request) -> Reply:
        sent_at = self._now()
        try:
            answer = self._http.request(**arguments(request, self._timeout_s, self._http.base_url, self._shown))
        except httpx.RequestError as error:
            return lost(request, self._http.base_url, error)
        return response(answer, sent_at, self._now())
