"""A job, its states, and how events move them. All state logic lives here; it does not know which role is asking."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import Field

from sfumato.core.errors import SfumatoError
from sfumato.core.frozen import Frozen
from sfumato.core.params import Params

__all__ = [
    "OUTCOME_LIMIT_BYTES",
    "SHARES",
    "TRANSITIONS",
    "VERSION",
    "IllegalTransition",
    "InputPicture",
    "Job",
    "JobId",
    "Outcome",
    "Picture",
    "Priority",
    "Problem",
    "State",
    "Work",
    "idempotent_job_id",
    "model_slug",
    "move",
    "preview_key",
    "uuid7",
]

VERSION: Final = 1
"""Written into every message; a reader parks what it does not know."""

OUTCOME_LIMIT_BYTES: Final = 2_048

_ID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
JobId = Annotated[str, Field(pattern=_ID)]


class Priority(StrEnum):
    """Orders jobs within an owner's share; slots go 70/25/5 when all three wait."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is first."""
        return list(Priority).index(self)


SHARES: Final[Mapping[Priority, float]] = MappingProxyType(
    {Priority.HIGH: 70.0, Priority.NORMAL: 25.0, Priority.LOW: 5.0}
)
"""How the turns of an owner are divided whose jobs of all priorities wait."""


class State(StrEnum):
    """Where a job stands. A job that waits for a retry shows queued, with its attempt and when."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Final[Mapping[State, Mapping[State, str]]] = MappingProxyType(
    {
        State.QUEUED: {
            State.RUNNING: "a worker started it",
            State.CANCELED: "canceled while it waited",
            State.FAILED: "dead letter or expired",
        },
        State.RUNNING: {
            State.RUNNING: "redelivered after a worker died",
            State.SUCCEEDED: "its picture is stored",
            State.FAILED: "it can't succeed",
            State.CANCELED: "canceled while it ran",
            State.QUEUED: "waits for its retry",
        },
        State.SUCCEEDED: {},
        State.FAILED: {},
        State.CANCELED: {},
    }
)
"""From → to → why. Terminal states have empty rows. docs/protocol.md draws its diagram from this table."""


class IllegalTransition(SfumatoError):
    """A state was asked to move where the table has no arrow; nothing was changed."""

    slug = "illegal-transition"
    title = "A job can't move that way"


def move(current: State, to: State) -> State:
    """The new state, when the table has the arrow.

    Raises:
        IllegalTransition: it has not.
    """
    if to not in TRANSITIONS[current]:
        raise IllegalTransition(f"a job can't go from {current} to {to}.")
    return to


class InputPicture(Frozen):
    """What the gateway learned from the input's header; the pixels are first decoded by the worker."""

    key: str
    media_type: str
    width: int
    height: int
    size_bytes: int


class Job(Frozen):
    """The message a gateway publishes: everything needed to run the job, and nothing that changes later.

    `cost` is pixels × steps that really run; times are Unix seconds.
    """

    version: int = VERSION
    id: JobId
    owner: str
    model: str
    priority: Priority
    cost: Annotated[int, Field(gt=0)]
    created_at: float
    expires_at: float
    attempt: int = 0
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Its owner's share beside others' of 1, by the key it was submitted with."""
    params: Params
    input: InputPicture
    metadata: dict[str, Any] = Field(default_factory=dict)
    webhook_url: str = ""
    webhook_events: tuple[str, ...] = ()
    """What `webhook_url` is told of; all that there is when empty."""
    link_base: str = ""
    """What links to the job begin with, as its caller reached the service."""
    protocol: str = ""
    """Which protocol it came by; "" is the service's own."""
    call: str = ""
    """What jobs of one call have in common, where a protocol asks for several pictures at once."""
    retry_of: str = ""
    traceparent: str = ""
    """The span in which it was accepted, as W3C's header of this name; "" where traces are off."""


class Work(Frozen):
    """One hand-out of a job to a worker's lane. `alone`: run nothing beside it, it may have killed a worker."""

    version: int = VERSION
    job: Job
    lane: int
    attempt: int
    delivery: int
    alone: bool = False


class Problem(Frozen):
    """Why a job failed, in RFC 9457's words: a stable slug, a title that never varies, a detail with the values."""

    slug: str
    title: str
    detail: str

    @classmethod
    def of(cls, error: SfumatoError) -> "Problem":
        slug = getattr(error, "case", error.slug)
        return cls(slug=slug, title=error.title, detail=error.detail[:800])


class Picture(Frozen):
    """A stored result: `key` in the blob store, size in pixels and bytes."""

    key: str
    media_type: str
    width: int
    height: int
    size_bytes: int


class Outcome(Frozen):
    """The one end of a job, created create-only by whoever comes first; at most 2 KB as JSON."""

    version: int = VERSION
    job_id: JobId
    state: State
    attempt: int = 0
    at: float
    picture: Picture | None = None
    error: Problem | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    """Where the time went on the worker: fetch, generate, encode, store (seconds)."""

    @classmethod
    def expired(cls, job_id: str, attempt: int, now: float) -> "Outcome":
        """The end of a job that waited past its time; whoever sees that first decides it."""
        detail = "no worker was free before its time was over; submit it again."
        error = Problem(slug="expired", title="The job waited too long", detail=detail)
        return cls(job_id=job_id, state=State.FAILED, attempt=attempt, at=now, error=error)


class DeadLetter(Frozen):
    """A job that was given up and the outcome that says why, for whoever looks into such jobs from outside."""

    version: int = VERSION
    job: Job
    outcome: Outcome


def model_slug(name: str) -> str:
    """A model's name as it may stand in topic and metric names: lower case letters, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not slug:
        raise ValueError(f"model name {name!r} has no letter or digit.")
    return slug


def preview_key(job_id: str) -> str:
    """Where the newest preview of a running job is stored."""
    return f"previews/{job_id}.jpeg"


def uuid7(now: float, entropy: bytes) -> str:
    """A time-ordered id (RFC 9562, section 5.7) from Unix seconds and 10 random bytes."""
    value = (int(now * 1000) & (1 << 48) - 1) << 80 | int.from_bytes(entropy[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def idempotent_job_id(owner: str, key: str) -> str:
    """The same owner and Idempotency-Key always mean the same job (RFC 9562 UUIDv5)."""
    return str(uuid5(NAMESPACE_URL, f"sfumato:{len(owner)}:{owner}:{key}"))
