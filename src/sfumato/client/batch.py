"""Many pictures at once: each is sent, followed to its end and saved, a few uploads at a time."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sfumato.client.async_client import AsyncClient
from sfumato.client.errors import Busy, JobFailed
from sfumato.client.flows import Asked
from sfumato.client.views import JobInfo
from sfumato.core.errors import InvalidRequest, SfumatoError, TransientError
from sfumato.core.job import State

__all__ = ["Order", "Sent", "pictures_in", "send_all"]

PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp"})
UPLOADS_AT_ONCE: Final = 8
ABOUT_THE_REQUEST: Final = frozenset({"unknown-model", "invalid-parameters", "unknown-parameter"})
"""Refusals that every picture would get, as all are sent with the same request."""


@dataclass(frozen=True, slots=True)
class Order:
    """One picture to send, what to ask for it, and the result's file name without ending.

    `key` is its Idempotency-Key: sent again with the same one, it is the same job.
    """

    source: Path
    save_as: str
    asked: Asked
    key: str | None = None


@dataclass(slots=True)
class Sent:
    """What became of an order so far. `error` says why it was refused, failed, or could not be followed; `warnings`
    what the service said when it took it."""

    order: Order
    job: JobInfo | None = None
    saved: Path | None = None
    error: SfumatoError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """The job's state, or `sending`; without a job `refused`, or `unknown` when there was no clear answer."""
        if self.job is not None:
            return self.job.status
        if self.error is None:
            return "sending"
        unclear = isinstance(self.error, TransientError) and not isinstance(self.error, Busy)
        return "unknown" if unclear else "refused"

    @property
    def done(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.error or (self.job and self.job.ended):
            return 1.0
        progress = self.job.progress if self.job else None
        return progress.step / (progress.steps + 1) if progress else 0.0


def pictures_in(paths: Iterable[Path], asked: Asked, key: str | None = None) -> list[Order]:
    """One order for each file, and for each picture of each folder, in the order given.

    With `key` each has a key made of that and its name, so that the same pictures sent again are the same jobs.

    Of a folder these are the files of a type that services read; not those of its folders, and no hidden ones.

    Raises:
        InvalidRequest: a path does not exist, or there is no picture at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InvalidRequest(f"{path} does not exist.")
        found.extend(sorted(filter(_is_picture, path.iterdir())) if path.is_dir() else [path])
    if not found:
        raise InvalidRequest("there is no picture in these folders; pictures end in .png, .jpg, .jpeg or .webp.")
    return [Order(path, name, asked, _key(key, name)) for path, name in zip(found, _names(found), strict=True)]


async def send_all(
    client: AsyncClient,
    model_name: str,
    orders: Sequence[Order],
    *,
    wait: bool = True,
    out: Path | None = None,
    told: Callable[[Sent], None] = lambda sent: None,
) -> list[Sent]:
    """Send every order and, with `wait`, follow each to its end and save its picture into folder `out`.

    `told` is called whenever something about one changed. One that goes wrong does not stop the others: see `error`.

    Raises:
        InvalidRequest: the model or a parameter is refused, which no other picture would change; nothing was accepted.
    """
    uploads = _Uploads()

    async def one(order: Order) -> Sent:
        sent = Sent(order)
        try:
            async with uploads:
                sent.job = job = await client.submit(order.source, model_name, idempotency_key=order.key, **order.asked)
            sent.warnings = job.warnings
            if wait:
                told(sent)
                await _follow(client, sent, job, out, told)
        except SfumatoError as error:
            if uploads.ended_by(error):
                raise
            sent.error = error
        told(sent)
        return sent

    return await _all_or_refused([asyncio.create_task(one(order)) for order in orders])


class _Uploads:
    """One upload at a time while all are refused, so that a wrong request is refused only once; then several."""

    def __init__(self) -> None:
        self._trying = True
        self._places = asyncio.Semaphore(1)

    def ended_by(self, error: BaseException | None) -> bool:
        """Whether this refusal, the first of its kind and before any picture was accepted, would be everyone's."""
        return self._trying and isinstance(error, InvalidRequest) and error.case in ABOUT_THE_REQUEST

    async def __aenter__(self) -> None:
        await self._places.acquire()

    async def __aexit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if self.ended_by(error):
            return  # The place is kept, so no other picture is sent.
        if self._trying and not isinstance(error, InvalidRequest):
            self._trying = False
            for _place in range(UPLOADS_AT_ONCE - 1):
                self._places.release()
        self._places.release()


async def _all_or_refused(tasks: Sequence[asyncio.Task[Sent]]) -> list[Sent]:
    try:
        return await asyncio.gather(*tasks)
    except InvalidRequest:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _follow(
    client: AsyncClient, sent: Sent, job: JobInfo, out: Path | None, told: Callable[[Sent], None]
) -> None:
    async for info in client.watch(job):
        sent.job = job = info
        told(sent)
    if job.status is not State.SUCCEEDED:
        why = job.error.detail if job.error else f"the job was {job.status}."
        raise JobFailed(why, slug=f"job-{job.status}")
    if out is not None:
        picture = await client.result(job)
        # The ending is appended: a dot in the name (v1.2) is part of it.
        sent.saved = await asyncio.to_thread(picture.save, out / f"{sent.order.save_as}{picture.suffix}")


def _key(key: str | None, name: str) -> str | None:
    # A name may have any characters and length, a key may not.
    return None if key is None else f"{key}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _names(paths: Sequence[Path]) -> list[str]:
    """Each file's stem; where several share one, they are numbered."""
    often = Counter(path.stem for path in paths)
    seen: Counter[str] = Counter()
    names = []
    for path in paths:
        seen[path.stem] += 1
        names.append(path.stem if often[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}")
    return names
