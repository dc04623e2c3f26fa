"""Sends the webhooks that are due: many at once, few of one owner to one host, each bounded in time and bytes."""

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from standardwebhooks import Webhook

from sfumato.core.errors import TransientError
from sfumato.core.events import JobRow
from sfumato.core.links import Links
from sfumato.core.prediction import PROTOCOL, prediction_json, version_id
from sfumato.core.shown import Sighting, job_json, rfc3339
from sfumato.core.webhooks import JOB_ENDPOINT, Attempt, Claimed, Outbox, Room, owners_secret, wait_after
from sfumato.net.fetcher import Fetcher, Unreachable
from sfumato.net.targets import RefusedUrl
from sfumato.observability import begin, count, gauge, observe

__all__ = ["ANSWER_BYTES", "ATTEMPT_S", "PAYLOAD_BYTES", "Payloads", "Sender", "signed"]

log = logging.getLogger(__name__)

AT_ONCE: Final = 256
"""Of which one owner alone gets half."""
RETRIES_AT_ONCE: Final = 64
"""Receivers that hung before will hang again: they get a part of the places, so that the others find one free."""
PER_HOST: Final = 4
ATTEMPT_S: Final = 10.0
ANSWER_BYTES: Final = 1024
"""Of a body that nobody looks at; whoever sends a short one gets it sent whole."""
LEASE_S: Final = 15.0
"""Longer than an attempt and its note; a recorder that died with it in hand is replaced after so long."""
POLL_S: Final = 0.5
TROUBLE_S: Final = 1.0
MEASURE_EVERY_S: Final = 5.0
PAYLOAD_BYTES: Final = 20_000
CUT_CHARS: Final = 500
GONE: Final = 410


class Payloads:
    """Makes what is sent: the job as it was shown right after the event, with its links, in the words it came in.

    `version_of` gives the version of a model that is now listed, by its name.
    """

    def __init__(
        self, links: Links, public_url: str, result_keep_s: float, version_of: Callable[[str], str] = version_id
    ) -> None:
        self._links, self._public_url, self._result_keep_s = links, public_url, result_keep_s
        self._version_of = version_of

    def of(self, claimed: Claimed) -> bytes:
        """The body, the same at every attempt; at most PAYLOAD_BYTES, for which long prompts are cut."""
        row, job = claimed.row, claimed.row.job
        base_url = self._public_url or job.link_base
        links = self._links.of_job(base_url, row.id, job.created_at + self._result_keep_s)
        # Who made an endpoint expects one shape of all jobs, in whatever words they came.
        if job.protocol == PROTOCOL and claimed.delivery.endpoint == JOB_ENDPOINT:
            return self._prediction(row, base_url, links.result_url)
        data = job_json(Sighting(row.id, row, row.outcome), links, None, None)
        told = {
            "type": f"job.{claimed.delivery.event}",
            "timestamp": rfc3339(claimed.delivery.at),
            "data": data,
        }
        body = _dumped(told)
        if len(body) > PAYLOAD_BYTES:
            data["prompt"] = data["prompt"][:CUT_CHARS]
            data["params"]["negative_prompt"] = data["params"]["negative_prompt"][:CUT_CHARS]
            body = _dumped(told | {"cut": ["prompt", "negative_prompt"]})
        return body

    def _prediction(self, row: JobRow, base_url: str, output_url: str) -> bytes:
        told = prediction_json(row, row.outcome, base_url, output_url, self._version_of(row.job.model), None)
        body = _dumped(told)
        if len(body) > PAYLOAD_BYTES:
            cut = ("prompt", "negative_prompt")
            told["input"] |= {name: told["input"][name][:CUT_CHARS] for name in cut}
            body = _dumped(told | {"cut": cut})
        return body


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def signed(identity: str, at: float, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of Standard Webhooks; every one of the secrets signs, so that a receiver may know any of them."""
    moment = datetime.fromtimestamp(int(at), UTC)
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": " ".join(Webhook(each).sign(identity, moment, body.decode()) for each in secrets),
    }


class Sender:
    """Delivers what `outbox` has. What signs the webhooks that came with a job is made from `secrets`.

    Set `bell` when more is owed.
    """

    def __init__(self, outbox: Outbox, fetcher: Fetcher, payloads: Payloads, secrets: Sequence[str]) -> None:
        self._outbox, self._fetcher, self._payloads, self._secrets = outbox, fetcher, payloads, secrets
        self._hosts: Counter[str] = Counter()
        self._owners: Counter[str] = Counter()
        self._retrying = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.bell = asyncio.Event()

    async def run(self) -> None:
        """Deliver until canceled; what is under way then is sent again by whoever claims it next."""
        for result in ("delivered", "failed", "given_up"):
            begin("sfumato_webhook_deliveries_total", result=result)
        measured = asyncio.create_task(self._measure_for_ever())
        try:
            while True:
                self.bell.clear()
                await self._turn()
                try:
                    async with asyncio.timeout(POLL_S):
                        await self.bell.wait()
                except TimeoutError:
                    pass
        finally:
            for task in (measured, *self._tasks):
                task.cancel()
            await asyncio.gather(measured, *self._tasks, return_exceptions=True)

    async def _turn(self) -> None:
        free, retries = AT_ONCE - len(self._tasks), RETRIES_AT_ONCE - self._retrying
        if free <= 0:
            return
        try:
            claimed = await self._outbox.claim(Room(free, retries, PER_HOST, self._hosts, self._owners), LEASE_S)
        except Exception as error:
            # Whatever it was: what is recorded must not wait for webhooks.
            foreseen = isinstance(error, TransientError)
            log.warning("can't look for webhooks now: %s", error, exc_info=not foreseen)
            await asyncio.sleep(TROUBLE_S)
            return
        for each in claimed:
            self._hold(each, 1)
            task = asyncio.create_task(self._deliver(each))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _hold(self, claimed: Claimed, change: Literal[1, -1]) -> None:
        """Count one more in hand, or one less."""
        for held, name in ((self._hosts, claimed.host), (self._owners, claimed.row.job.owner)):
            held[name] += change
            if not held[name]:
                del held[name]
        self._retrying += change * (claimed.delivery.attempts > 0)

    async def _deliver(self, claimed: Claimed) -> None:
        began = time.monotonic()
        try:
            attempt = await self._attempt(claimed)
            took_s = time.monotonic() - began
            await self._outbox.settle(claimed, attempt)
            result = "delivered" if attempt.delivered else "given_up" if attempt.wait_s is None else "failed"
            count("sfumato_webhook_deliveries_total", result=result)
            observe("sfumato_webhook_attempt_seconds", took_s, result=result)
            if attempt.delivered:
                observe("sfumato_webhook_delivery_seconds", max(0.0, time.time() - claimed.delivery.at))
            if result == "given_up":
                log.warning("webhook %s is given up: %s", claimed.delivery.id, attempt.error)
        except TransientError as error:
            log.warning(
                "webhook %s is sent again, its result could not be noted: %s", claimed.delivery.id, error.detail
            )
        except Exception:
            # One delivery that nobody foresaw must not end all others; it comes again when its lease is over.
            log.exception("webhook %s", claimed.delivery.id)
        finally:
            self._hold(claimed, -1)
            self.bell.set()

    async def _attempt(self, claimed: Claimed) -> Attempt:
        given = claimed.delivery
        try:
            secrets = self._signing(claimed)
            if not secrets:
                return Attempt(delivered=False, status=None, error="The endpoint was deleted.")
            body = self._payloads.of(claimed)
            headers = {"Content-Type": "application/json", "User-Agent": "Sfumato-Webhooks"}
            headers |= signed(given.id, time.time(), body, secrets)
            answer = await self._fetcher.fetch("POST", given.url, headers=headers, body=body)
        except (RefusedUrl, Unreachable) as error:
            return _failed(given.attempts, None, error.detail)
        except Exception:
            # It fails as any other does, so that it is given up some day instead of coming back for ever.
            log.exception("webhook %s could not be sent", given.id)
            return _failed(given.attempts, None, "It could not be sent; the service's log says why.")
        if 200 <= answer.status < 300:
            return Attempt(delivered=True, status=answer.status)
        if answer.status == GONE:
            return Attempt(delivered=False, status=GONE, error="It answered 410: it wants no more.", gone=True)
        redirect = " Redirects are not followed." if 300 <= answer.status < 400 else ""
        return _failed(given.attempts, answer.status, f"It answered {answer.status}.{redirect}")

    def _signing(self, claimed: Claimed) -> Sequence[str]:
        if claimed.delivery.endpoint == JOB_ENDPOINT:
            return [owners_secret(each, claimed.row.job.owner) for each in self._secrets]
        return claimed.secrets

    async def _measure_for_ever(self) -> None:
        while True:
            try:
                pending = await self._outbox.pending()
                gauge("sfumato_webhook_pending_deliveries", pending.count)
                gauge("sfumato_webhook_oldest_pending_seconds", pending.oldest_s)
                gauge("sfumato_webhook_late_seconds", pending.late_s)
            except TransientError:
                pass  # the sender's own turn tells of it
            await asyncio.sleep(MEASURE_EVERY_S)


def _failed(attempts_before: int, status: int | None, error: str) -> Attempt:
    return Attempt(delivered=False, status=status, error=error, wait_s=wait_after(attempts_before + 1, random.random()))
