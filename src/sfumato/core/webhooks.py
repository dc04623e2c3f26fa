"""Webhooks: which events are told to whom, when a delivery is tried again, and the ports of who keeps them.

A delivery is one event of one job for one endpoint. Its id follows from these, so whatever is folded twice makes it
once, and a receiver knows a repeat by its id. Nothing here does I/O or reads a clock.
"""

import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from sfumato.core.events import JobRow
from sfumato.core.job import Job
from sfumato.core.keys import LOCAL

__all__ = [
    "JOB_ENDPOINT",
    "MOST_SECRETS",
    "SECRET_PREFIX",
    "WAITS_S",
    "Attempt",
    "Claimed",
    "Delivery",
    "DeliveryPage",
    "DeliveryQuery",
    "DeliveryState",
    "Due",
    "Endpoint",
    "Hook",
    "Outbox",
    "Pending",
    "Room",
    "Secret",
    "WebhookDesk",
    "delivery_id",
    "hook_of",
    "owners_secret",
    "shared_out",
    "wait_after",
    "wanted",
]

JOB_ENDPOINT: Final = "job"
"""Stands for the address that came with the job itself."""
WAITS_S: Final = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds from a failed attempt to the next, as Standard Webhooks proposes; after the last one it is given up."""
JITTER: Final = 0.2
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - of every secret
"""How Standard Webhooks marks a secret; base64 follows."""
MOST_SECRETS: Final = 5
"""Each of them signs every webhook, and all signatures go into one header."""


class Hook(StrEnum):
    """What is told."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    RETRIED = "retried"


class DeliveryState(StrEnum):
    """Where a delivery stands. `given_up` says why in its error."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one owner's events go. `disabled_why` is "" while it is in use. Times are Unix seconds."""

    id: str
    owner: str
    url: str
    events: tuple[Hook, ...]
    created_at: float
    disabled_why: str = ""


class Secret(NamedTuple):
    """What signs, and until when (Unix seconds; None: until it is rotated)."""

    text: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as its owner sees it. `next_at` is when it is tried next, None when it is not."""

    id: str
    job_id: str
    event: Hook
    endpoint: str
    url: str
    at: float
    state: DeliveryState
    attempts: int
    next_at: float | None
    last_status: int | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that one recorder has in hand. `row` is the job right after the event, `secrets` those of its
    endpoint (none where the job brought the address with it), `receipt` what `settle` wants back."""

    delivery: Delivery
    host: str
    row: JobRow
    secrets: Sequence[str]
    receipt: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt went. `status` None: no answer came. `wait_s` None: no further attempt; `gone`: the receiver wants
    no more at all."""

    delivered: bool
    status: int | None
    error: str = ""
    wait_s: float | None = None
    gone: bool = False


class Due(NamedTuple):
    """A delivery that might be taken now."""

    id: str
    host: str
    owner: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Room:
    """What a recorder has room for: `free` places, at most `retries` of them for what was tried before.

    `hosts` and `owners` say how many each has in hand. A host gets `per_host` in all; what an owner gets follows from
    what is free (`shared_out`).
    """

    free: int
    retries: int
    per_host: int
    hosts: Mapping[str, int] = field(default_factory=dict)
    owners: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pending:
    """How many deliveries wait, and the age of the oldest in seconds (0: none).

    `late_s`: for how long the longest due of those that nobody has in hand is due (0: none is).
    """

    count: int
    oldest_s: float
    late_s: float


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """Which deliveries to list; newest first. `cursor` is a page's `next`, "" for the first page."""

    owner: str
    job_id: str = ""
    state: DeliveryState | None = None
    cursor: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries, newest first; `next` is "" on the last page."""

    deliveries: Sequence[Delivery]
    next: str


class WebhookDesk(Protocol):
    """What a gateway needs: an owner's endpoints and deliveries."""

    async def endpoints(self, owner: str) -> Sequence[Endpoint]:
        """The owner's endpoints, the oldest first."""
        ...

    async def add(self, endpoint: Endpoint, secret: str, most: int) -> bool:
        """Events from now on go there too. False: the owner has `most` already, and nothing was added."""
        ...

    async def remove(self, owner: str, endpoint: str) -> bool:
        """Nothing more goes there; what waits for it is given up. False when the owner has no such endpoint."""
        ...

    async def rotate(self, owner: str, endpoint: str, secret: str, overlap_s: float) -> bool:
        """`secret` signs from now on; the latest MOST_SECRETS - 1 of before sign beside it, for `overlap_s` at most.

        False: no such one.
        """
        ...

    async def deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """Raises InvalidRequest when the cursor is not one of ours."""
        ...

    async def redeliver(self, owner: str, delivery: str) -> Delivery | None:
        """Send it once more, now, with all its attempts before it; as it stands then. None: no such one."""
        ...


class Outbox(Protocol):
    """What a recorder needs: the deliveries that are due."""

    async def claim(self, room: Room, lease_s: float) -> Sequence[Claimed]:
        """Take due deliveries as far as there is room, nobody else's for `lease_s`.

        Owners come in turn, each with what is longest due; `shared_out` says who is passed over. A job's events reach
        one endpoint in order: none before the first attempt of the one before it has ended.
        """
        ...

    async def settle(self, claimed: Claimed, attempt: Attempt) -> None:
        """Note how it went. A failure is not noted by who lost its lease meanwhile; a success always is."""
        ...

    async def pending(self) -> Pending:
        """What waits, tried or not."""
        ...


def hook_of(before: JobRow, after: JobRow) -> Hook | None:
    """What is to be told when an event led from one row to the other; mostly nothing."""
    if after.events == before.events:
        return None
    kind = after.events[-1].kind
    if kind == "final":
        return None if before.state.terminal else Hook(after.state.value)
    return Hook(kind) if kind in (Hook.STARTED, Hook.RETRIED) else None


def owners_secret(secret: str, owner: str) -> str:
    """What signs the webhooks of one owner's single jobs, made from the service's `secret` (`whsec_<base64>`).

    Each owner has another one, since who can check a webhook can forge it too. Where nobody needs a key there is one
    owner, and it is the service's.
    """
    if owner == LOCAL:
        return secret
    made = hmac.digest(base64.b64decode(secret.removeprefix(SECRET_PREFIX)), f"owner:{owner}".encode(), hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(made).decode()


def wanted(job: Job, hook: Hook) -> bool:
    """Whether the job's own address is to be told of it."""
    return bool(job.webhook_url) and hook in (job.webhook_events or tuple(Hook))


def shared_out(found: Iterable[Due], room: Room) -> list[str]:
    """The ids of those that are taken, in the order in which they were found.

    An owner takes a place only while more are free than it holds. So one alone gets half of them, and however many
    addresses of it hang, whoever has none in hand finds one free.
    """
    hosts, owners, free, retries = Counter(room.hosts), Counter(room.owners), room.free, room.retries
    taken: list[str] = []
    for due in found:
        again = due.attempts > 0
        if hosts[due.host] >= room.per_host or owners[due.owner] >= free or (again and retries <= 0):
            continue
        hosts[due.host] += 1
        owners[due.owner] += 1
        free, retries = free - 1, retries - again
        taken.append(due.id)
    return taken


def delivery_id(row: JobRow, hook: Hook, endpoint: str) -> str:
    """The id of telling `endpoint` about `hook`, right after which the job stands as in `row`."""
    # A job may start and be retried several times, each for another attempt or delivery; it ends once.
    turn = "" if row.state.terminal else f"{row.attempt}.{row.delivery}"
    return "msg_" + hashlib.sha256(f"{row.id} {hook} {turn} {endpoint}".encode()).hexdigest()[:32]


def wait_after(attempts: int, dice: float) -> float | None:
    """Seconds until the next attempt when `attempts` have failed; None to give up. `dice` is uniform in [0, 1)."""
    return WAITS_S[attempts - 1] * (1 + JITTER * dice) if attempts <= len(WAITS_S) else None
