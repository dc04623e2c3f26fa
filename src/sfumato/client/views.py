"""What the service answers, as values. Fields it does not send yet keep their defaults; unknown ones are ignored."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import Field, PlainSerializer

from sfumato.core.errors import InvalidRequest
from sfumato.core.frozen import Frozen
from sfumato.core.job import State

__all__ = [
    "Backlog",
    "DeliveryInfo",
    "DeliveryPage",
    "Estimate",
    "JobError",
    "JobInfo",
    "JobPage",
    "ModelInfo",
    "Progress",
    "Result",
    "ResultInfo",
    "ScaleInfo",
    "WebhookInfo",
]


ENDINGS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"image/png": (".png",), "image/jpeg": (".jpg", ".jpeg"), "image/webp": (".webp",)}
)
"""Media type → the file endings that say so, the usual one first."""

OTHER_PICTURES: Final = frozenset({".avif", ".bmp", ".gif", ".heic", ".ico", ".jxl", ".svg", ".tif", ".tiff"})


def _as_told(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_as_told, when_used="json-unless-none")]
"""A time; written as JSON it has the service's form, RFC 3339 in UTC with milliseconds."""


class Estimate(Frozen):
    """Place in the queue (1 is next, 0 runs) and seconds until the result; None where nobody can tell."""

    position: int | None = None
    eta_s: float | None = None


class Progress(Frozen):
    """Steps done of the steps that run."""

    step: int
    steps: int


class JobError(Frozen):
    """Why a job failed, as RFC 9457 puts it."""

    type: str
    title: str = ""
    detail: str = ""


class ResultInfo(Frozen):
    """The stored picture: size in pixels and in bytes."""

    media_type: str
    width: int
    height: int
    size_bytes: int


class JobInfo(Frozen):
    """A job as the service sees it. After `submit`: the id, the status, the links, and what was asked.

    `result_url` is the access link: it can be shared, and serves the picture once there is one. `attempt` counts
    planned retries, `timings` are seconds. `params` are what was asked, and once the service was asked about the job,
    all of them. `owner` is told to who sees the jobs of all. `warnings` are there after `submit` alone.
    """

    id: str
    owner: str = ""
    status: State
    result_url: str
    status_url: str
    events_url: str = ""
    model_name: str = ""
    priority: str = ""
    prompt: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    expires_at: Moment | None = None
    attempt: int = 0
    delivery: int = 0
    next_attempt_at: Moment | None = None
    estimate: Estimate | None = None
    progress: Progress | None = None
    timings: dict[str, float | None] = Field(default_factory=dict)
    error: JobError | None = None
    result: ResultInfo | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self.status.terminal


class JobPage(Frozen):
    """A page of a list, and the cursor of the next one (None: this was the last); `count`: of all pages, if asked."""

    jobs: tuple[JobInfo, ...]
    next: str | None = None
    count: int | None = None


class WebhookInfo(Frozen):
    """An address that is told of all one's jobs. `disabled` says why it is told nothing any more, None while it is.

    `secret` signs what goes there; it is there only right after it was made.
    """

    id: str
    url: str = ""
    events: tuple[str, ...] = ()
    created_at: Moment | None = None
    disabled: str | None = None
    secret: str | None = None


class DeliveryInfo(Frozen):
    """One event of one job for one address. `endpoint` is a `WebhookInfo.id`, or "job": the job's own webhook_url.

    `state` is pending, delivered or given_up; `last_status` what the receiver answered (None: nothing).
    """

    id: str
    job_id: str
    event: str
    endpoint: str
    url: str
    at: Moment
    state: str
    attempts: int = 0
    next_attempt_at: Moment | None = None
    last_status: int | None = None
    last_error: str | None = None


class DeliveryPage(Frozen):
    """A page of a list, and the cursor of the next one (None: this was the last)."""

    deliveries: tuple[DeliveryInfo, ...]
    next: str | None = None


class Backlog(Frozen):
    """What waits and runs in a model's queue: jobs, age of the oldest and expected wait of a new one in seconds."""

    waiting: int = 0
    running: int = 0
    oldest_s: float | None = None
    eta_s: float | None = None


class ModelInfo(Frozen):
    """A model one can ask for; `rules` are its ranges and defaults, `state` is idle, starting, ready or broken.

    `trouble` says why a broken one can't be served, and what to do; None for any other.
    """

    name: str
    state: str
    summary: str = ""
    rules: dict[str, Any] = Field(default_factory=dict)
    backlog: Backlog = Backlog()
    workers: int = 0
    trouble: str | None = None


class ScaleInfo(Frozen):
    """How many workers a model should have, how many it has, and one sentence that says why."""

    model: str
    desired_replicas: int
    workers: int
    why: str
    decided_at: Moment


@dataclass(frozen=True, slots=True)
class Result:
    """A finished picture, encoded, and the id of the job it is of."""

    data: bytes
    media_type: str
    job_id: str

    def __repr__(self) -> str:
        return f"Result(data=<{len(self.data)} bytes>, media_type={self.media_type!r}, job_id={self.job_id!r})"

    @property
    def suffix(self) -> str:
        """The usual ending of a file of this type, with its dot."""
        return ENDINGS.get(self.media_type, (".bin",))[0]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture and give the file's path; missing folders are made.

        Into an existing folder, or where `path` ends in a slash, it is saved under the job's id. A name that does not
        say which type it holds gets the right ending appended.

        Raises:
            InvalidRequest: the name ends as pictures of another type do.
        """
        target = self._file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.data)
        return target

    def _file(self, path: str | os.PathLike[str]) -> Path:
        target, separators = Path(path), tuple(filter(None, (os.sep, os.altsep)))
        if target.is_dir() or os.fspath(path).endswith(separators):
            return target / f"{self.job_id}{self.suffix}"
        ending, right = target.suffix.lower(), ENDINGS.get(self.media_type, (self.suffix,))
        if ending in right:
            return target
        if ending in OTHER_PICTURES.union(*ENDINGS.values()):
            said = f"{target} would hold {self.media_type}; name it {target.stem}{self.suffix}"
            raise InvalidRequest(f"{said}, or ask for another output_format (png, jpeg or webp).")
        # Appended, for a dot in the name (v1.2) is part of it.
        return target.with_name(f"{target.name}{self.suffix}")
