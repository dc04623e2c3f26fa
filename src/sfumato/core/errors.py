"""Every error Sfumato raises on purpose; each says what to do about it.

SfumatoError
├── InvalidRequest           the caller must change the request; never retried (HTTP 4xx)
│   ├── UnknownModel         404, lists the models that exist
│   └── NotFound             404, no such job, upload or picture
├── TransientError           try the same again later; nothing is known to have happened (HTTP 503)
│   └── Deposed              another process took over this reader's place; stop acting for it
├── PermanentError           this job can never succeed; it ends failed with this reason
├── AlreadyExists            a create-only write found something there
├── UnusableStore            a folder or database can't be opened; repair it, then start again
└── EngineDead               the device or model process is unusable; the worker must exit and be restarted

Every error has a `slug`, the stable last part of its problem type (`urn:sfumato:problem:<slug>`), a `title` that never
varies and a `detail` that names the values.
"""

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "AlreadyExists",
    "Deposed",
    "EngineDead",
    "InvalidRequest",
    "NotFound",
    "PermanentError",
    "SfumatoError",
    "TransientError",
    "UnknownModel",
    "UnusableStore",
]


class SfumatoError(Exception):
    """Something Sfumato knows about went wrong; `detail` says what to do."""

    slug: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(SfumatoError):
    """The request can't be served as it is. `slug`, `title` and `status` may be narrowed per case."""

    slug = "invalid-request"
    title = "The request can't be served as it is"

    def __init__(self, detail: str, *, slug: str | None = None, status: int = 422, title: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.case = slug or self.slug
        self.case_title = title or self.title


class UnknownModel(InvalidRequest):
    """No model has this name here."""

    slug = "unknown-model"
    title = "No model has this name here"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        shown = name if len(name) <= 80 else name[:77] + "..."
        super().__init__(f"model_name {shown!r} is unknown. Choose one of: {', '.join(known) or '(none)'}.", status=404)
        self.known = tuple(known)


class NotFound(InvalidRequest):
    """Nothing is stored under this id, or the caller may not see it."""

    slug = "not-found"
    title = "Nothing is stored under this id"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, status=404)


class TransientError(SfumatoError):
    """It did not work now and may work later; whether it took effect is unknown, so retry with the same key."""

    slug = "try-again"
    title = "It did not work now; try the same again"


class Deposed(TransientError):
    """Another process took over; whoever gets this must stop acting and start again from the committed position."""

    slug = "deposed"
    title = "Another process took over"


class PermanentError(SfumatoError):
    """This job can never succeed, here or elsewhere."""

    slug = "job-failed"
    title = "The job can't be done"

    def __init__(self, detail: str, *, slug: str | None = None) -> None:
        super().__init__(detail)
        self.case = slug or self.slug


class AlreadyExists(SfumatoError):
    """A create-only write found an object under this key; what is there was written by someone else and holds."""

    slug = "already-exists"
    title = "Something is stored under this key already"


class UnusableStore(SfumatoError):
    """A folder or database that the service needs can't be used as it is; start again after repairing it."""

    slug = "unusable-store"
    title = "A store can't be used as it is"


class EngineDead(SfumatoError):
    """The engine can't go on in this process; exit, be restarted, and the jobs are redelivered."""

    slug = "engine-dead"
    title = "The engine stopped working"
