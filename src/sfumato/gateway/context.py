"""What every route needs, in one frozen value, and how a job is found from whatever knows of it."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fastapi import Request

from sfumato.config import Settings
from sfumato.core.errors import NotFound
from sfumato.core.events import JobRow
from sfumato.core.job import State, model_slug
from sfumato.core.links import Links
from sfumato.core.ports import BlobLinks, Blobs, BlobSweep, Broker, JobRows, Outcomes
from sfumato.core.scaling import DecisionReader
from sfumato.core.webhooks import WebhookDesk
from sfumato.gateway.asked import is_job_id
from sfumato.gateway.callers import Caller, caller_of
from sfumato.gateway.intake import Intake, input_key
from sfumato.gateway.keyring import Keyring
from sfumato.gateway.live import Live
from sfumato.gateway.newsroom import Newsroom
from sfumato.gateway.places import place
from sfumato.gateway.quotas import Quotas
from sfumato.gateway.remote import RemotePictures
from sfumato.gateway.uploads import InFlight, Limits
from sfumato.gateway.views import Estimate, JobLinks, Sighting, estimate, estimate_running
from sfumato.models.registry import Registry
from sfumato.net.addresses import Allowed

__all__ = ["Gateway", "ObjectStore", "unknown_job"]


MOST_HOST_BYTES: Final = 260
"""The longest name that there is, and a port."""


class ObjectStore(Blobs, BlobLinks, BlobSweep, Protocol):
    """The object store as a gateway uses it."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: its settings, its ports and its own memory. `clock` gives Unix seconds."""

    settings: Settings
    registry: Registry
    broker: Broker
    blobs: ObjectStore
    outcomes: Outcomes
    rows: JobRows
    scaling: DecisionReader
    webhooks: WebhookDesk
    webhook_allow: Allowed
    webhook_secrets: Sequence[str]
    links: Links
    intake: Intake
    live: Live
    newsroom: Newsroom
    keyring: Keyring
    quotas: Quotas
    in_flight: InFlight
    remote: RemotePictures
    stopping: asyncio.Event
    clock: Callable[[], float]

    @property
    def limits(self) -> Limits:
        """What a picture may measure."""
        return Limits(self.settings.max_upload_bytes, self.settings.max_input_pixels)

    def base_url(self, request: Request) -> str:
        """What links begin with: the public address, or the one the request came to."""
        scope = request.scope
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        # It is kept with every job, and webhooks carry it.
        host = host if host is None or len(host) <= MOST_HOST_BYTES else None
        root = scope.get("app_root_path", scope.get("root_path", ""))
        server = tuple(scope.get("server") or ())
        return self.settings.public_url or _address(scope.get("scheme", "http"), host, server, root)

    def links_of(self, request: Request, job_id: str, created_at: float) -> JobLinks:
        """The job's addresses, good for as long as its result is kept."""
        return self.links.of_job(self.base_url(request), job_id, created_at + self.settings.result_keep_s)

    def links_of_seen(self, request: Request, seen: Sighting) -> JobLinks:
        """The addresses of a job found."""
        return self.links_of(request, seen.job_id, seen.row.job.created_at if seen.row else self.clock())

    def holds_link(self, request: Request, job_id: str) -> bool:
        """Whether the request carries the job's token; without one nothing is proved.

        Raises:
            NotFound: the id is none of ours, or the token is wrong or expired and there is no key beside it.
        """
        token = request.query_params.get("token")
        opens = token is not None and self.links.opens(token, "job", job_id, self.clock())
        wrong = token is not None and not opens and caller_of(request).key is None
        if wrong or not is_job_id(job_id):
            raise unknown_job()
        return opens

    async def sight(self, job_id: str) -> Sighting:
        """What row and outcome say of a job; nothing at all is said of one that nobody recorded or ended yet."""
        row = self.live.row(job_id)
        if row is None or not row.state.terminal:
            row = _newest(row, await self.rows.get(job_id))
        if row is not None and row.state.terminal:
            return Sighting(job_id, row, row.outcome)
        return Sighting(job_id, row, await self.outcomes.get(job_id))

    async def find(self, request: Request, job_id: str, *, acting: bool = False) -> Sighting:
        """The job the request may see or, `acting`, change: a link shows a job, and changes it where all is open.

        One that is not recorded yet is known by its link or by its input.

        Raises:
            NotFound: there is none, it was deleted, or it is not the caller's.
        """
        caller = caller_of(request)
        linked = self.holds_link(request, job_id) and (caller.everything or not acting)
        seen = await self.sight(job_id)
        shown = linked and (seen.row is not None or seen.outcome is None)
        if not (shown or await self.belongs(seen, caller)):
            raise unknown_job()
        return seen

    async def belongs(self, seen: Sighting, caller: Caller) -> bool:
        """Whether the job is there for the caller: by the owner in its row or, before there is one, by its input."""
        if seen.row is not None:
            return caller.sees(seen.row.job.owner)
        job_id = seen.job_id
        async for stored in self.blobs.old(f"inputs/{job_id}/", before=float("inf")):
            digest = stored.key.rpartition("/")[2]
            if caller.everything or (caller.owner and stored.key == input_key(caller.owner, job_id, digest)):
                return True
        return False

    async def expect(self, seen: Sighting) -> Estimate | None:
        """When the job may end, as far as anyone can tell; None when it has ended or is not recorded yet."""
        row = seen.row
        if row is None or seen.outcome is not None:
            return None
        return self.near(row) or self._estimate(row, await self.rows.ahead(row.job))

    def near(self, row: JobRow) -> Estimate | None:
        """As `expect`, of a job that runs or is among the next ones; None of any other."""
        slug = model_slug(row.job.model)
        standing = self.live.standing(slug)
        if row.state is State.RUNNING:
            return estimate_running(row, standing, self.live.progress(slug, row), self._batch(row))
        return self._estimate(row, 0) if standing is not None and row.id in standing.front else None

    def _estimate(self, row: JobRow, rank: int) -> Estimate:
        standing = self.live.standing(model_slug(row.job.model))
        return estimate(row, place(row.job, rank, standing), standing, self._batch(row), self.clock())

    def _batch(self, row: JobRow) -> int:
        """How many rows a call of the job's model has; 1 while that is not known."""
        return next((model.batch for model in self.registry if model.name == row.job.model), 1)


@functools.lru_cache(maxsize=256)
def _address(scheme: str, host: bytes | None, server: tuple[str | int, ...], root: str) -> str:
    """What the framework makes of these; remembered, since every link of every answer begins with it."""
    headers = [] if host is None else [(b"host", host)]
    told = {"type": "http", "scheme": scheme, "headers": headers, "server": server or None, "root_path": root}
    return str(Request(told).base_url).rstrip("/")


def unknown_job() -> NotFound:
    """One answer for all that must look alike: never was, was deleted, or the link is not good."""
    return NotFound("No job has this id, it was deleted, or the link is wrong or expired.")


def _newest(live: JobRow | None, recorded: JobRow | None) -> JobRow | None:
    """The row that has seen more of the job's log."""
    if live is None or recorded is None:
        return live or recorded
    return live if live.position > recorded.position else recorded
