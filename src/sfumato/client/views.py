"""What the service answers, as values. Fields it does not send yet keep their defaults; unknown ones are ignored."""

import mimetypes
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from sfumato.core.frozen import Frozen
from sfumato.core.job import State

__all__ = ["Backlog", "Estimate", "JobError", "JobInfo", "JobPage", "ModelInfo", "Progress", "Result", "ResultInfo"]


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
    """A job as the service sees it. After `submit` only the id, the status and the links are known.

    `result_url` is the access link: it can be shared, and serves the picture once there is one. `attempt` counts
    planned retries, `timings` are seconds.
    """

    id: str
    status: State
    result_url: str
    status_url: str
    events_url: str = ""
    model_name: str = ""
    priority: str = ""
    prompt: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    attempt: int = 0
    delivery: int = 0
    next_attempt_at: datetime | None = None
    estimate: Estimate | None = None
    progress: Progress | None = None
    timings: dict[str, float | None] = Field(default_factory=dict)
    error: JobError | None = None
    result: ResultInfo | None = None

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self.status.terminal


class JobPage(Frozen):
    """A page of a list, and the cursor of the next one (None: this was the last)."""

    jobs: tuple[JobInfo, ...]
    next: str | None = None


class Backlog(Frozen):
    """What waits and runs in a model's queue: jobs, age of the oldest and expected wait of a new one in seconds."""

    waiting: int = 0
    running: int = 0
    oldest_s: float | None = None
    eta_s: float | None = None


class ModelInfo(Frozen):
    """A model one can ask for; `rules` are its ranges and defaults, `state` is idle, starting or ready."""

    name: str
    state: str
    summary: str = ""
    rules: dict[str, Any] = Field(default_factory=dict)
    backlog: Backlog = Backlog()
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """A finished picture, encoded."""

    data: bytes
    media_type: str

    @property
    def suffix(self) -> str:
        """The usual ending of a file of this type, with its dot."""
        return ".jpg" if self.media_type == "image/jpeg" else mimetypes.guess_extension(self.media_type) or ".bin"

    def save(self, path: str | Path) -> Path:
        """Write the picture to `path`; a path without an ending gets the right one. Returns where it is."""
        target = Path(path)
        if not target.suffix:
            target = target.with_suffix(self.suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.data)
        return target
