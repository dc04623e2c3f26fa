"""API keys: who may ask for what, how much of it, and the ports through which keys and what they used are known.

A key is `sfu_<prefix>_<secret>`. Only its prefix, by which it is found, and the SHA-256 of the whole are kept. One hash
is enough: slow password hashes make guessing dear where people choose the secret; this one is 256 random bits.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from sfumato.core.errors import InvalidRequest
from sfumato.core.job import Priority

__all__ = [
    "HEAVIEST",
    "LIGHTEST",
    "LOCAL",
    "ApiKey",
    "KeyReader",
    "KeyStore",
    "Quota",
    "RateCounter",
    "Scope",
    "Usage",
    "UsageReader",
    "checked_owner",
    "key_text",
    "looks_like_key",
    "prefix_of",
]

LOCAL: Final = "local"
"""The owner of what is asked without a key, where none is needed."""
LIGHTEST: Final = 0.01
HEAVIEST: Final = 100.0
"""The least and the most that a key's jobs may weigh."""
ENTROPY_BYTES: Final = 37
"""5 bytes become the prefix, 32 the secret."""
_TEXT: Final = re.compile(r"sfu_([a-z2-7]{8})_[A-Za-z0-9_-]{43}")
MOST_IN_FLIGHT: Final = 2**31 - 1
"""The largest integer that every database takes for it."""
MOST_RATE: Final = 1e9
MOST_PER_DAY: Final = 999_999_999_999_999
"""The largest integer of a structured field (RFC 9651), which is how a limit is told."""
_OWNER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")


class Scope(StrEnum):
    """What a key is for."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a key may have; None has no end.

    `rate` is requests a second, `in_flight` jobs not ended, `per_day` pixels × steps since midnight UTC.
    """

    rate: float | None = None
    in_flight: int | None = None
    per_day: int | None = None

    @property
    def counts_jobs(self) -> bool:
        """Whether it is about the jobs of the key's owner."""
        return self.in_flight is not None or self.per_day is not None

    def checked(self) -> "Quota":
        """These limits, if they can be kept and counted. Raises InvalidRequest."""
        if self.rate is not None and not 0 < self.rate <= MOST_RATE:
            raise InvalidRequest(f"rate is {self.rate:g}; it must be over 0 and at most {MOST_RATE:g} a second.")
        for name, given, most in (
            ("in-flight", self.in_flight, MOST_IN_FLIGHT),
            ("per-day", self.per_day, MOST_PER_DAY),
        ):
            if given is not None and not 1 <= given <= most:
                raise InvalidRequest(f"{name} is {given}; it must be 1 to {most}.")
        return self


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: `digest` is the SHA-256 of its text in hex. Times are Unix seconds.

    `max_priority` is the most urgent that it may ask for; `weight` its jobs' share beside those of others, who have 1.
    """

    prefix: str
    digest: str
    owner: str
    scopes: frozenset[Scope]
    created_at: float
    max_priority: Priority = Priority.HIGH
    weight: float = 1.0
    quota: Quota = Quota()
    expires_at: float | None = None
    revoked_at: float | None = None

    def good(self, now: float) -> bool:
        """Whether it opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def matches(self, text: str) -> bool:
        """Whether `text` is this key; takes the same time for every wrong one."""
        return hmac.compare_digest(_digest(text), self.digest)

    def may(self, scope: Scope) -> bool:
        """Whether it is for this; `admin` is for everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @classmethod
    def of(cls, text: str, owner: str, scopes: Collection[Scope], created_at: float, **more: object) -> "ApiKey":
        """What is kept of a new key's `text`.

        Raises:
            InvalidRequest: the owner can't be one, there is no scope, or a limit can't be counted.
        """
        prefix = prefix_of(text)
        if prefix is None:
            raise InvalidRequest("this is no key of ours.")
        kept = cls(prefix, _digest(text), checked_owner(owner), frozenset(scopes), created_at, **more)  # type: ignore[arg-type]
        if not kept.scopes:
            raise InvalidRequest("a key needs at least one scope: submit, read or admin.")
        if not LIGHTEST <= kept.weight <= HEAVIEST:
            raise InvalidRequest(f"a weight must be {LIGHTEST:g} to {HEAVIEST:g}, not {kept.weight:g}.")
        kept.quota.checked()
        return kept


def key_text(entropy: bytes) -> str:
    """A new key from 37 random bytes; nobody can make it again."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key is made from {ENTROPY_BYTES} random bytes, not from {len(entropy)}.")
    prefix = base64.b32encode(entropy[:5]).decode().lower()
    secret = base64.urlsafe_b64encode(entropy[5:]).decode().rstrip("=")
    return f"sfu_{prefix}_{secret}"


def prefix_of(text: str) -> str | None:
    """The prefix of what has the form of a key, else None."""
    found = _TEXT.fullmatch(text)
    return found[1] if found else None


def looks_like_key(text: str) -> bool:
    """Whether a key stands somewhere in `text`."""
    return _TEXT.search(text) is not None


def checked_owner(name: str) -> str:
    """`name`, if an owner may have it. Raises InvalidRequest."""
    if not _OWNER.fullmatch(name):
        raise InvalidRequest(f"owner {name[:80]!r} must be 1 to 64 letters, digits, or . _ @ - between them.")
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the rows say of an owner: jobs that have not ended, the cost of those created since a moment, and which of
    the jobs that were asked about are counted in both."""

    in_flight: int
    cost: int
    counted: frozenset[str]


class KeyReader(Protocol):
    """For who lets requests in."""

    async def keys(self) -> Mapping[str, ApiKey]:
        """Every key by its prefix, those that are revoked or expired too."""
        ...


class UsageReader(Protocol):
    """For who counts what owners have."""

    async def usage(self, owner: str, since: float, job_ids: Sequence[str]) -> Usage:
        """What `owner` has in the rows; deleted jobs are counted for their cost. `since` is Unix seconds."""
        ...


class RateCounter(Protocol):
    """For who counts requests for all gateways together."""

    async def hit(self, prefix: str, most: int, window_s: int) -> float:
        """Count one request of the key with this prefix, which may have `most` within `window_s`.

        0 when it was counted, else the seconds until there is room for one.

        Raises:
            TransientError: nobody knows whether it was counted.
        """
        ...

    async def reach(self) -> None:
        """See that it counts. Raises TransientError."""
        ...


class KeyStore(KeyReader, UsageReader, Protocol):
    """Keys, for who makes and revokes them too."""

    async def add(self, key: ApiKey) -> None:
        """Keep a new key.

        Raises:
            AlreadyExists: another one has its prefix.
        """
        ...

    async def revoke(self, prefix: str, now: float) -> ApiKey | None:
        """End a key at `now`, unless it has been before; the key as it is then, None when there is none."""
        ...
